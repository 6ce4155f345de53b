"""Same dialect and nothing asked: what the provider gets is what the caller sent, and the other way round.

Compared by hash, with every field that each dialect's official types know and some that nobody knows.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from typing import Final

import orjson
import pytest
import zstandard
from msgspec import structs

from tests.fakes.engine import Bench
from tests.fakes.transport import Scripted, ScriptedTransport
from tokenhub_core.types import Caller, Dialect, Json, Model, Origin, Prices, Provider, ProviderType, Snapshot

NEW: Final = {"x_not_invented_yet": {"deep": [1, 2.50, None, "\u00e9", 1e3]}}
"""A field of the future, with numbers whose spelling a decoder would change."""

ENCODINGS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
}
SSE, NDJSON, JSON = "text/event-stream", "application/x-ndjson", "application/json"


class Wire:
    """One dialect's call as bytes, and the answers to it."""

    def __init__(
        self, dialect: Dialect, path: str, body: Json, answer: Json, stream: tuple[str, bytes] | None = None
    ) -> None:
        self.dialect = dialect
        self.path = path
        self.body = body
        self.answer = answer
        self.stream = stream

    def __repr__(self) -> str:
        return str(self.dialect)


def sse(*events: Json | str, named: bool = False) -> bytes:
    out = b": a comment\r\n\r\n"
    for event in events:
        data = event if isinstance(event, str) else orjson.dumps({**event, **NEW}).decode()
        name = f"event: {event['type']}\n" if named and isinstance(event, dict) else ""
        out += f"{name}data:  {data}\n\n".encode()
    return out


_CHOICE = {"index": 0, "finish_reason": None}
_CHUNK = {"id": "c", "object": "chat.completion.chunk", "model": "m"}
_OUTPUT = [
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
    }
]
_RESPONSE = {"id": "resp_1", "object": "response", "model": "m", "status": "completed", "output": _OUTPUT}
_CANDIDATE = {"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP", "index": 0}
_SAID = {"role": "user", "content": "Hello"}

WIRES: Final = (
    Wire(
        Dialect.OPENAI_CHAT,
        "/v1/chat/completions",
        {"model": "m", "messages": [_SAID], "stream_options": {"include_usage": True}},
        {**_CHUNK, "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}]},
        (
            SSE,
            sse(
                {**_CHUNK, "choices": [{**_CHOICE, "delta": {"content": "Hi"}}]},
                {**_CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
                "[DONE]",
            ),
        ),
    ),
    Wire(
        Dialect.ANTHROPIC_MESSAGES,
        "/v1/messages?beta=true",
        {"model": "m", "max_tokens": 9, "messages": [_SAID]},
        {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
        (
            SSE,
            sse(
                {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 1}}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
                {"type": "message_stop"},
                named=True,
            ),
        ),
    ),
    Wire(
        Dialect.OPENAI_RESPONSES,
        "/v1/responses",
        {"model": "m", "input": "Hello", "previous_response_id": "resp_0"},
        _RESPONSE,
        (
            SSE,
            sse(
                {"type": "response.created", "response": {**_RESPONSE, "status": "in_progress"}},
                {
                    "type": "response.output_text.delta",
                    "item_id": "msg_1",
                    "output_index": 0,
                    "content_index": 0,
                    "delta": "Hi",
                },
                {"type": "response.completed", "response": _RESPONSE},
                named=True,
            ),
        ),
    ),
    Wire(
        Dialect.OPENAI_COMPLETIONS,
        "/v1/completions",
        {"model": "m", "prompt": ["a", "b"], "stream_options": {"include_usage": True}},
        {"id": "c", "object": "text_completion", "model": "m", "choices": [{"index": 0, "text": "Hi"}]},
        (
            SSE,
            sse(
                {"id": "c", "choices": [{"index": 0, "text": "Hi", "finish_reason": None}]},
                {"id": "c", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]},
                "[DONE]",
            ),
        ),
    ),
    Wire(
        Dialect.OPENAI_EMBEDDINGS,
        "/v1/embeddings",
        {"model": "m", "input": ["a", "b"]},
        {"object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.10]}]},
    ),
    Wire(
        Dialect.ANTHROPIC_COUNT_TOKENS,
        "/v1/messages/count_tokens",
        {"model": "m", "messages": [_SAID]},
        {"input_tokens": 3},
    ),
    Wire(
        Dialect.GEMINI,
        "/v1beta/models/m:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]},
        {"candidates": [_CANDIDATE]},
        (SSE, sse({"candidates": [{**_CANDIDATE, "finishReason": None}]}, {"candidates": [_CANDIDATE]})),
    ),
    Wire(
        Dialect.OLLAMA_CHAT,
        "/api/chat",
        {"model": "m", "messages": [_SAID], "stream": False},
        {"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": True},
        (
            NDJSON,
            (
                b'{"model":"m", "message":{"role":"assistant","content":"Hi"},"done":false}\r\n'
                b'{"model":"m","message":{"role":"assistant","content":""},"done":true,"new":1.0}\n'
            ),
        ),
    ),
    Wire(
        Dialect.OLLAMA_GENERATE,
        "/api/generate",
        {"model": "m", "prompt": "Hello", "context": [1, 2], "stream": False},
        {"model": "m", "response": "Hi", "done": True},
        (NDJSON, b'{"model":"m","response":"Hi","done":false}\n{"model":"m","response":"","done":true}\n'),
    ),
)


AZURE: Final = "/openai/deployments/my-model/chat/completions?api-version=2024-10-21"


def pretty(data: Json) -> bytes:
    """Return JSON as no encoder of ours would write it."""
    return orjson.dumps({**data, **NEW}, option=orjson.OPT_INDENT_2).replace(b'": ', b'" :  ') + b"\n"


def bench(wire: Wire, answer: Scripted) -> tuple[Bench, ScriptedTransport]:
    """Return an engine whose one provider speaks nothing but this dialect."""
    transport = ScriptedTransport(answer)
    provider = Provider(
        "p", ProviderType.OPENAI_COMPATIBLE, ("https://p.example",), wire.dialect, also=(wire.dialect,)
    )
    model = Model("m", "p", prices=Prices(1000, 2000))
    return Bench(models=[model], providers=[provider], transport=transport), transport


def snapshot(one: Bench, wire: Wire, path: str, body: bytes, encoding: str) -> Snapshot:
    headers = (("content-encoding", encoding),) if encoding else ()
    return Snapshot(
        id="req_1",
        method="POST",
        path=path,
        headers=headers,
        body=ENCODINGS[encoding](body),
        received_at=one.clock.now(),
        started=one.clock.monotonic(),
        dialect=wire.dialect,
        caller=Caller(peer="127.0.0.1"),
    )


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("wire", WIRES, ids=repr)
async def test_a_whole_exchange_passes_byte_for_byte(wire: Wire, encoding: str) -> None:
    """The provider gets the very body, unpacked where it was packed; the caller gets the very answer."""
    body, answer = pretty(wire.body), pretty(wire.answer)
    one, transport = bench(wire, Scripted(answer))
    reply = await one.engine.exchange(snapshot(one, wire, wire.path, body, encoding))
    assert reply.status == 200, reply.body
    assert sha(transport.sent[0].body) == sha(body)
    assert sha(reply.body) == sha(answer)
    assert one.recorder.one.identical
    assert one.recorder.one.losses == ()


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire.stream], ids=repr)
async def test_a_stream_passes_byte_for_byte(wire: Wire) -> None:
    """Comments, odd spaces, unknown fields and the end's own bytes included, wherever the pieces are cut."""
    assert wire.stream is not None
    kind, sent = wire.stream
    path = wire.path.replace(":generateContent", ":streamGenerateContent?alt=sse")
    wanted = {} if path != wire.path else {"stream": True}
    body = pretty({**wire.body, **wanted})
    for size in (1, 7, len(sent)):
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
        one, transport = bench(wire, Scripted(pieces, kind=kind))
        reply = await one.engine.exchange(snapshot(one, wire, path, body, ""))
        assert reply.frames is not None, reply.body
        got = b"".join([frame async for frame in reply.frames])
        assert sha(transport.sent[0].body) == sha(body)
        assert got == sent
        assert sha(got) == sha(sent)
        assert one.recorder.one.identical


async def test_a_streamed_array_passes_byte_for_byte() -> None:
    """Gemini's other way to stream, whose last bytes come after its last answer."""
    wire = next(wire for wire in WIRES if wire.dialect is Dialect.GEMINI)
    sent = b"[" + b"\r\n,\r\n".join(pretty({"candidates": [_CANDIDATE]}) for _ in range(1)) + b"]\r\n"
    body = pretty(wire.body)
    one, transport = bench(wire, Scripted([sent[at : at + 5] for at in range(0, len(sent), 5)], kind=JSON))
    reply = await one.engine.exchange(snapshot(one, wire, "/v1beta/models/m:streamGenerateContent", body, ""))
    assert reply.frames is not None, reply.body
    assert b"".join([frame async for frame in reply.frames]) == sent
    assert "alt=sse" not in transport.sent[0].url
    assert one.recorder.one.identical


async def test_a_deployment_in_the_path_is_the_model_and_the_body_stays_as_it_is() -> None:
    """Azure's callers name no model in the body; their own host gets no other body for it."""
    wire = WIRES[0]
    body = pretty({"messages": [_SAID]})
    origin = Origin("https", "me.openai.azure.com", 443)
    one, transport = bench(wire, Scripted(pretty(wire.answer)))
    call = structs.replace(snapshot(one, wire, AZURE, body, ""), origin=origin)
    reply = await one.engine.exchange(call)
    assert reply.status == 200, reply.body
    assert transport.sent[0].body == body
    assert transport.sent[0].url == origin.url + AZURE
    assert one.recorder.one.requested_model == "my-model"
