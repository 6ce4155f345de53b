"""What becomes of requests, answers and streams where client and provider speak different dialects.

Golden files, in `tests/golden/pairs/CLIENT-to-PROVIDER`: `requests/x.json` is the client's body and
`x.rendered.json` the provider's, with the losses; `answers/x.json` is the provider's and `x.rendered.json` the
client's; `streams/x.sse` are the provider's bytes and `x.written.sse` the client's, `x.losses.json` what the
client does not get to see. `UPDATE_GOLDEN=1 pytest tests/dialects/test_pairs.py` writes them anew; read the diff.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from tokenhub_core.dialects import sse
from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.registry import dialect
from tokenhub_core.types import Delta, Dialect, Failed, Json, Request

HOME = Path(__file__).parents[1] / "golden" / "pairs"
OPENAI, ANTHROPIC = Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES
PAIRS = ((OPENAI, ANTHROPIC), (ANTHROPIC, OPENAI))
EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)

type Case = tuple[Dialect, Dialect, Path]


def cases(kind: str, suffix: str) -> list[Any]:
    """Return every input file of a kind, as parameters."""
    return [
        pytest.param((client, provider, path), id=f"{client}-to-{provider}-{path.stem}")
        for client, provider in PAIRS
        for path in sorted((HOME / f"{client}-to-{provider}" / kind).glob(f"*{suffix}"))
        if path.name.count(".") == 1
    ]


def check(source: Path, ending: str, seen: bytes) -> None:
    """Compare with the golden file beside `source`."""
    path = source.with_name(f"{source.stem}.{ending}")
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_bytes(seen)
    assert seen.decode() == path.read_bytes().decode()


def shown(rendered: Rendered) -> bytes:
    whole = {"losses": rendered.losses, "data": rendered.data}
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def asked(client: Dialect) -> Request:
    """Return a client's plainest request for a stream with its usage."""
    body: Json = {"model": "asked-for", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    extra: Json = {"stream_options": {"include_usage": True}} if client is OPENAI else {"max_tokens": 9}
    return dialect(client).open(orjson.dumps(body | extra))


def read(provider: Dialect, chunks: Iterable[bytes]) -> list[Delta]:
    parser, reader = sse.Parser(), dialect(provider).reader()
    events = itertools.chain.from_iterable(map(parser.feed, chunks))
    return [delta for event in events for delta in reader.read(event.name, event.data)]


def translated(client: Dialect, provider: Dialect, raw: bytes) -> tuple[bytes, tuple[str, ...]]:
    writer = dialect(client).writer(request=asked(client), created=1_700_000_001, fallback_id="fallback")
    written = b"".join(writer.write(delta) for delta in read(provider, [raw]))
    return written, writer.losses()


# --- the golden files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("requests", ".json"))
def test_a_request_becomes_the_providers(case: Case) -> None:
    """The provider's body and the losses are written down, and that dialect takes the body as its own."""
    client, provider, path = case
    call = dialect(client).parse(dialect(client).open(path.read_bytes()))
    rendered = dialect(provider).render(call, model="served-model", max_output_tokens=None)
    check(path, "rendered.json", shown(rendered))
    dialect(provider).open(orjson.dumps(rendered.data))


@pytest.mark.parametrize("case", cases("answers", ".json"))
def test_an_answer_becomes_the_clients(case: Case) -> None:
    """The client's body and the losses are written down, and the client's SDK takes the body strictly."""
    client, provider, path = case
    answer = dialect(provider).parse_answer(orjson.loads(path.read_bytes()))
    rendered = dialect(client).render_answer(answer, request=asked(client))
    check(path, "rendered.json", shown(rendered))
    model = ChatCompletion if client is OPENAI else Message
    model.model_validate(rendered.data, strict=True)


@pytest.mark.parametrize("case", cases("streams", ".sse"))
def test_a_stream_becomes_the_clients(case: Case) -> None:
    """The client's bytes and the losses are written down, and every event is one that the client's SDK knows."""
    client, provider, path = case
    written, losses = translated(client, provider, path.read_bytes())
    check(path, "written.sse", written)
    check(path, "losses.json", orjson.dumps(losses) + b"\n")
    for event in sse.Parser().feed(written):
        if client is ANTHROPIC:
            EVENT.validate_json(event.data, strict=True)
        elif event.data != b"[DONE]":
            ChatCompletionChunk.model_validate_json(event.data, strict=True)


# --- the official SDKs -------------------------------------------------------------------------------------


def ends(case: Case) -> bool:
    """Tell whether a stream comes to its end: only then is there an answer to compare with."""
    _, provider, path = case
    deltas = read(provider, [path.read_bytes()])
    return path.stem != "cut_short" and not any(isinstance(delta, Failed) for delta in deltas)


WHOLE = [case for case in cases("streams", ".sse") if ends(case.values[0])]


def to_openai(raw: bytes) -> Json:
    """Return what OpenAI's own SDK makes of a stream: text, calls, reason, tokens."""
    with (
        openai.DefaultHttpxClient(transport=httpx2.MockTransport(serving(raw))) as http,
        openai.OpenAI(api_key="x", base_url="http://x", max_retries=0, http_client=http) as client,
    ):
        stream = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )
        text, calls, reason, usage = "", dict[int, list[str]](), None, None
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                said = choice.delta.audio.transcript if choice.delta.audio else ""
                text += choice.delta.content or choice.delta.refusal or said or ""
                reason = choice.finish_reason or reason
                for call in choice.delta.tool_calls or ():
                    assert call.function is not None
                    found = calls.setdefault(call.index, ["", "", ""])
                    for place, piece in enumerate((call.id, call.function.name, call.function.arguments)):
                        found[place] += piece or ""
    return {
        "text": text,
        "calls": [[id_, name, orjson.loads(given)] for id_, name, given in calls.values()],
        "reason": reason,
        "tokens": (usage.prompt_tokens, usage.completion_tokens) if usage else None,
    }


def to_anthropic(raw: bytes) -> Json:
    """Return what Anthropic's own SDK makes of a stream: text, calls, reason, tokens."""
    with (
        anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(serving(raw))) as http,
        anthropic.Anthropic(api_key="x", base_url="http://x", max_retries=0, http_client=http) as client,
        client.messages.stream(
            model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}]
        ) as stream,
    ):
        message = stream.get_final_message()
    usage = message.usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    return {
        "text": "".join(block.text for block in message.content if block.type == "text"),
        "calls": [
            [block.id, block.name, block.input] for block in message.content if block.type == "tool_use"
        ],
        "reason": message.stop_reason,
        "tokens": (usage.input_tokens + cached, usage.output_tokens),
    }


def serving(raw: bytes) -> Any:
    headers = {"content-type": "text/event-stream"}
    return lambda _: httpx2.Response(200, headers=headers, content=raw)


REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


@pytest.mark.parametrize("case", WHOLE)
def test_both_official_sdks_read_the_same_answer(case: Case) -> None:
    """What one SDK makes of the provider's bytes is what the other makes of ours."""
    client, provider, path = case
    raw = path.read_bytes()
    written, _ = translated(client, provider, raw)
    ours, theirs = (
        (to_openai(written), to_anthropic(raw))
        if client is OPENAI
        else (to_openai(raw), to_anthropic(written))
    )
    assert ours["text"] == theirs["text"]
    assert ours["calls"] == theirs["calls"]
    if ours["tokens"]:
        assert ours["tokens"] == theirs["tokens"]
    # OpenAI ends refusals and named calls with "stop"; Anthropic's words for them say more.
    assert ours["reason"] == REASONS[theirs["reason"]] or (ours["reason"] == "stop" and client is ANTHROPIC)


# --- any split ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("streams", ".sse"))
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_way_a_stream_is_cut_changes_nothing(case: Case, data: st.DataObject) -> None:
    """Any split of the provider's bytes gives the same deltas."""
    _, provider, path = case
    raw = path.read_bytes()
    places = sorted({0, len(raw), *data.draw(st.lists(st.integers(0, len(raw)), max_size=8))})
    chunks = [raw[begin:end] for begin, end in itertools.pairwise(places)]
    assert read(provider, chunks) == read(provider, [raw])


# --- the next turn -----------------------------------------------------------------------------------------


def shown_and_returned(client: Dialect, provider: Dialect, answer: Json) -> Json:
    """Return what the provider is given of its own answer, which the client was shown and sends back."""
    whole = dialect(client).render_answer(dialect(provider).parse_answer(answer), request=asked(client)).data
    message = (
        whole["choices"][0]["message"]
        if client is OPENAI
        else {"role": "assistant", "content": whole["content"]}
    )
    user = {"role": "user", "content": "x"}
    body = {"model": "m", "max_tokens": 9, "messages": [user, message, user]}
    call = dialect(client).parse(dialect(client).open(orjson.dumps(body)))
    rendered = dialect(provider).render(call, model="gemini-x", max_output_tokens=None)
    assert rendered.losses == ()
    return next(each for each in rendered.data["messages"] if each["role"] == "assistant")


def test_an_anthropic_thought_comes_back_through_a_client_of_the_other_dialect() -> None:
    """Block by block, with the signature that Anthropic made."""
    content = [
        {"type": "thinking", "thinking": "One.", "signature": "c2ln"},
        {"type": "thinking", "thinking": "", "signature": "b21pdHRlZA=="},
        {"type": "redacted_thinking", "data": "eHg="},
        {"type": "text", "text": "Done."},
    ]
    answer = {"type": "message", "content": content, "stop_reason": "end_turn"}
    assert shown_and_returned(OPENAI, ANTHROPIC, answer)["content"] == content


def test_sealed_thoughts_and_calls_come_back_through_an_anthropic_client() -> None:
    """As the chat provider said them."""
    message = {
        "role": "assistant",
        "content": "Done.",
        "reasoning_details": [
            {"type": "reasoning.text", "text": "One.", "signature": "c2ln", "index": 0},
            {"type": "reasoning.encrypted", "data": "eHg=", "id": "r", "index": 1},
        ],
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "f", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "Z2Vt"}},
            }
        ],
    }
    answer = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    assert shown_and_returned(ANTHROPIC, OPENAI, answer) == message
