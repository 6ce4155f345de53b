"""What becomes of requests, answers and streams where client and provider speak different dialects.

The golden files of a pair stand in `tests/golden/pairs/CLIENT-to-PROVIDER`: `request-x.json` and `answer-x.json` with
their losses, `stream-x.*` as the client reads it, and what it does not get to see of each stream in `losses.json`.
`UPDATE_GOLDEN=1 pytest tests/dialects/test_pairs.py` writes them anew; read the diff.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from google.genai.types import GenerateContentResponse
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.dialects import pairs
from tests.dialects.pairs import HOME, PAIRS
from tokenhub_core.types import Dialect

SDK: Final[dict[Dialect, tuple[TypeAdapter[Any], TypeAdapter[Any]]]] = {
    Dialect.OPENAI_CHAT: (TypeAdapter(ChatCompletion), TypeAdapter(ChatCompletionChunk)),
    Dialect.ANTHROPIC_MESSAGES: (TypeAdapter(Message), TypeAdapter(RawMessageStreamEvent)),
    Dialect.OPENAI_RESPONSES: (TypeAdapter(Response), TypeAdapter(ResponseStreamEvent)),
    Dialect.OPENAI_COMPLETIONS: (TypeAdapter(Completion), TypeAdapter(Completion)),
    Dialect.GEMINI: (TypeAdapter(GenerateContentResponse), TypeAdapter(GenerateContentResponse)),
}
"""The official types of a whole answer and of a stream's event. Ollama's are not among what tests install."""

both = pytest.mark.parametrize(
    ("client", "provider"), [pytest.param(*pair, id="-to-".join(pair)) for pair in PAIRS]
)


@both
def test_a_request_becomes_the_providers(client: Dialect, provider: Dialect) -> None:
    """The provider's body and the losses are written down, and that dialect takes the body as its own."""
    for path in pairs.inputs(client, "requests"):
        found = pairs.rendered(client, provider, path.read_bytes())
        pairs.golden(client, provider, f"request-{path.stem}.json", pairs.shown(found))
        pairs.opened(provider, orjson.dumps(found.data))


@both
def test_an_answer_becomes_the_clients(client: Dialect, provider: Dialect) -> None:
    """The client's body and the losses are written down, and the client's SDK takes the body strictly."""
    for path in pairs.inputs(provider, "answers"):
        found = pairs.answered(client, provider, path.read_bytes())
        pairs.golden(client, provider, f"answer-{path.stem}.json", pairs.shown(found))
        if client in SDK:
            SDK[client][0].validate_json(orjson.dumps(found.data), strict=True)


@both
def test_a_stream_becomes_the_clients(client: Dialect, provider: Dialect) -> None:
    """The client's bytes and the losses are written down, and every event is one that the client's SDK knows."""
    unseen: dict[str, tuple[str, ...]] = {}
    for path in pairs.inputs(provider, "streams"):
        written, unseen[path.stem] = pairs.streamed(client, provider, path.read_bytes())
        pairs.golden(client, provider, f"stream-{path.stem}{pairs.ending(client)}", written)
        for data in pairs.frames(client, written):
            if client in SDK:
                SDK[client][1].validate_json(_typed(client, data), strict=True)
    told = orjson.dumps(unseen, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    pairs.golden(client, provider, "losses.json", told)


def _typed(client: Dialect, data: bytes) -> bytes:
    """Return an event as its SDK's types have it: the one of completions forgot that a stream goes on."""
    if client is not Dialect.OPENAI_COMPLETIONS:
        return data
    event = orjson.loads(data)
    for choice in event["choices"]:
        choice["finish_reason"] = choice["finish_reason"] or "stop"
    return orjson.dumps(event)


def test_every_golden_file_has_an_input() -> None:
    """What no pair makes any more does not lie about, and there is a full input of each kind."""
    made = set()
    for client, provider in PAIRS:
        home = HOME / "pairs" / f"{client}-to-{provider}"
        made.add(home / "losses.json")
        made |= {home / f"request-{path.stem}.json" for path in pairs.inputs(client, "requests")}
        made |= {home / f"answer-{path.stem}.json" for path in pairs.inputs(provider, "answers")}
        streams = pairs.inputs(provider, "streams")
        made |= {home / f"stream-{path.stem}{pairs.ending(client)}" for path in streams}
    assert {path for path in (HOME / "pairs").rglob("*") if path.is_file()} == made
    for name in pairs.CHATS:
        for kind in ("requests", "answers", "streams"):
            assert "full" in {path.stem for path in pairs.inputs(name, kind)}
