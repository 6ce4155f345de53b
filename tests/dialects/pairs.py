"""Every ordered pair of dialects that translate, and the inputs that all of them share.

An input is what its dialect says: `tests/golden/inputs/DIALECT/requests/x.json` is a client's body,
`answers/x.json` and `streams/x.*` are a provider's. What a pair makes of it stands in
`tests/golden/pairs/CLIENT-to-PROVIDER`: a request in the provider's dialect, an answer and a stream in the client's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import orjson

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.registry import dialect
from tokenhub_core.types import Delta, Dialect, Json, Request

HOME: Final = Path(__file__).parents[1] / "golden"

CHATS: Final = tuple(name for name in Dialect if name.translates)
PAIRS: Final = tuple((client, provider) for client in CHATS for provider in CHATS if client is not provider)

PATHS: Final = {Dialect.GEMINI: "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse"}
"""The request target, where it says something."""

MODELS: Final = {
    Dialect.OPENAI_CHAT: "gpt-5.6",
    Dialect.ANTHROPIC_MESSAGES: "claude-sonnet-4-6",
    Dialect.OPENAI_RESPONSES: "gpt-5.6",
    Dialect.OPENAI_COMPLETIONS: "davinci-002",
    Dialect.GEMINI: "gemini-3-pro",
    Dialect.OLLAMA_CHAT: "qwen3",
    Dialect.OLLAMA_GENERATE: "llava",
}
"""A model of each provider: what can be said to it may depend on its name."""

_USER: Final = [{"role": "user", "content": "x"}]

PLAIN: Final[dict[Dialect, Json]] = {
    Dialect.OPENAI_CHAT: {"messages": _USER, "stream_options": {"include_usage": True}},
    Dialect.ANTHROPIC_MESSAGES: {"messages": _USER, "max_tokens": 9},
    Dialect.OPENAI_RESPONSES: {"input": "x"},
    Dialect.OPENAI_COMPLETIONS: {"prompt": "x", "stream_options": {"include_usage": True}},
    Dialect.GEMINI: {"contents": [{"role": "user", "parts": [{"text": "x"}]}]},
    Dialect.OLLAMA_CHAT: {"messages": _USER},
    Dialect.OLLAMA_GENERATE: {"prompt": "x"},
}
"""Each client's plainest request."""

ENDINGS: Final = {Dialect.OLLAMA_CHAT: ".ndjson", Dialect.OLLAMA_GENERATE: ".ndjson"}
TYPES: Final = {".sse": "text/event-stream", ".ndjson": "application/x-ndjson"}


# --- inputs ------------------------------------------------------------------------------------------------


def inputs(name: Dialect, kind: str) -> list[Path]:
    """Return the inputs of a dialect: `requests`, `answers` or `streams`."""
    return sorted((HOME / "inputs" / name / kind).iterdir())


def ending(name: Dialect) -> str:
    """Return how the name of a stream's file ends."""
    return ENDINGS.get(name, ".sse")


def opened(name: Dialect, body: bytes) -> Request:
    """Return the request of a client."""
    return dialect(name).open(body, PATHS.get(name, ""))


def asked(name: Dialect) -> Request:
    """Return a client's plainest request for a stream, with its usage."""
    streamed = {} if name is Dialect.GEMINI else {"model": "asked-for", "stream": True}
    return opened(name, orjson.dumps(PLAIN[name] | streamed))


# --- translations ------------------------------------------------------------------------------------------


def rendered(client: Dialect, provider: Dialect, body: bytes) -> Rendered:
    """Return what a provider is sent for a client's body."""
    call = dialect(client).parse(opened(client, body))
    return dialect(provider).render(call, model=MODELS[provider], max_output_tokens=None)


def answered(client: Dialect, provider: Dialect, body: bytes) -> Rendered:
    """Return what a client is sent for a provider's answer."""
    answer = dialect(provider).parse_answer(orjson.loads(body))
    return dialect(client).render_answer(answer, request=asked(client))


def read(provider: Dialect, chunks: Iterable[bytes]) -> list[Delta]:
    """Return the deltas of a provider's stream, its end included."""
    parser = dialect(provider).parser(TYPES[ending(provider)])
    assert parser is not None
    reader = dialect(provider).reader()
    events = [event for chunk in chunks for event in parser.feed(chunk)] + parser.flush()
    return [delta for event in events for delta in reader.read(event.name, event.data)] + list(reader.end())


def written(client: Dialect, deltas: Iterable[Delta]) -> tuple[bytes, tuple[str, ...]]:
    """Return the bytes that a client reads for these deltas, and what it does not get to see."""
    writer = dialect(client).writer(request=asked(client), created=1_700_000_001, fallback_id="fallback")
    return b"".join(map(writer.write, deltas)), writer.losses()


def streamed(client: Dialect, provider: Dialect, *chunks: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return what a client reads for a provider's bytes, and what it does not get to see."""
    return written(client, read(provider, chunks))


def frames(name: Dialect, raw: bytes) -> Iterator[bytes]:
    """Yield the data of each event that a client reads, the word for the end left out."""
    parser = dialect(name).parser(TYPES[ending(name)])
    assert parser is not None
    yield from (event.data for event in [*parser.feed(raw), *parser.flush()] if event.data != b"[DONE]")


# --- golden files ------------------------------------------------------------------------------------------


def golden(client: Dialect, provider: Dialect, name: str, seen: bytes) -> None:
    """Compare with the file of this name of a pair; with `UPDATE_GOLDEN` in the environment, write it."""
    path = HOME / "pairs" / f"{client}-to-{provider}" / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(seen)
    assert seen.decode() == path.read_bytes().decode()


def shown(given: Rendered) -> bytes:
    """Return a body and its losses as a golden file shows them."""
    whole = {"losses": given.losses, "data": given.data}
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
