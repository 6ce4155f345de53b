"""Programs and providers of every dialect: a provider says what it is told to, a program what it has read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tests.dialects import pairs
from tests.fakes.engine import Bench
from tests.fakes.transport import Scripted
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.ports import Reply, Timeouts, UpstreamRequest
from tokenhub_core.types import (
    Answer,
    Delta,
    Dialect,
    Failed,
    Finished,
    Json,
    Model,
    Part,
    Prices,
    Provider,
    ProviderType,
    Record,
    Snapshot,
    Started,
    Stopped,
    StopReason,
    Text,
    TextDelta,
    ToolArguments,
    ToolStarted,
    ToolUse,
    Usage,
    UsageSeen,
)

PRICES: Final = Prices(1000, 10_000)
USED: Final = Usage(100, 10)
COST: Final = 100 * 1000 + 10 * 10_000
"""Nano-dollars of one answer."""
SCHEMA: Final[Json] = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
GOOD, BAD = '{"n":1}', '{"n":"one"}'

_STREAMS: Final = {
    Dialect.GEMINI: "text/event-stream",
    Dialect.OLLAMA_CHAT: "application/x-ndjson",
    Dialect.OLLAMA_GENERATE: "application/x-ndjson",
}


@dataclass
class Speaking:
    """A provider: one text after the other, the last one again and again, in pieces of `size` characters."""

    dialect: Dialect
    texts: Sequence[str]
    size: int = 3
    stop: StopReason = StopReason.END
    call: ToolUse | None = None

    def __post_init__(self) -> None:
        self.sent: list[UpstreamRequest] = []

    @property
    def asked(self) -> list[Json]:
        return [orjson.loads(one.body or b"") for one in self.sent]

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> Scripted:
        del timeouts
        self.sent.append(request)
        text = self.texts[min(len(self.sent), len(self.texts)) - 1]
        body = orjson.loads(request.body or b"")
        streams = "streamGenerateContent" in request.url or bool(body.get("stream"))
        return self._stream(text) if streams else self._whole(text)

    def _whole(self, text: str) -> Scripted:
        parts: tuple[Part, ...] = (Text(text), self.call) if self.call else (Text(text),)
        answer = Answer("id", "m", parts, Stopped(self.stop), USED, created=1)
        asked = pairs.asked(self.dialect)
        return Scripted(orjson.dumps(DIALECTS[self.dialect].render_answer(answer, request=asked).data))

    def _stream(self, text: str) -> Scripted:
        pieces = [text[at : at + self.size] for at in range(0, len(text), self.size)]
        deltas: list[Delta] = [Started("id", "m", 1), *map(TextDelta, pieces)]
        if self.call:
            deltas += [ToolStarted(0, self.call.id, self.call.name), ToolArguments(0, self.call.arguments)]
        deltas += [UsageSeen(USED), Stopped(self.stop), Finished()]
        writer = DIALECTS[self.dialect].writer(request=pairs.asked(self.dialect), created=1, fallback_id="id")
        kind = _STREAMS.get(self.dialect, "text/event-stream")
        return Scripted([raw for raw in map(writer.write, deltas) if raw], kind=kind)


@dataclass(frozen=True)
class Heard:
    """What a program has read of an answer."""

    reply: Reply
    raw: bytes
    text: str
    stop: StopReason | None
    usage: Usage
    calls: tuple[str, ...]
    finished: bool
    failed: Failed | None


def bench(provider: Speaking, **more: Any) -> Bench:
    """Return an engine with this provider alone, and its model `m`."""
    one = Provider("p", ProviderType.SIMULATOR, ("sim://p",), provider.dialect)
    model = Model("m", "p", max_context_tokens=100_000, max_output_tokens=1000, prices=PRICES)
    return Bench(transport=provider, providers=(one,), models=(model,), **more)


def body_of(client: Dialect, *, stream: bool, text: str = "x", **more: Any) -> Json:
    """Return a program's body."""
    plain = orjson.loads(orjson.dumps(pairs.PLAIN[client]).replace(b'"x"', orjson.dumps(text)))
    if client is Dialect.GEMINI:
        return {**plain, **more}
    if not stream:
        plain.pop("stream_options", None)
    return {**plain, "model": "m", "stream": stream, **more}


async def ask(one: Bench, client: Dialect, *, stream: bool, text: str = "x", **more: Any) -> Heard:
    """Send a program's call and read its answer."""
    verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
    path = f"/v1beta/models/m:{verb}" if client is Dialect.GEMINI else f"/{client.value}"
    body = orjson.dumps(body_of(client, stream=stream, text=text, **more))
    snapshot = Snapshot(
        id="req_1",
        method="POST",
        path=path,
        headers=(),
        body=body,
        received_at=one.clock.now(),
        started=one.clock.monotonic(),
        dialect=client,
    )
    reply = await one.engine.exchange(snapshot)
    if reply.frames is None:
        return whole(client, reply)
    raw = b"".join([frame async for frame in reply.frames])
    return streamed(client, reply, raw)


def whole(client: Dialect, reply: Reply) -> Heard:
    """Return what is read of a whole answer."""
    if reply.status != 200:
        return Heard(reply, reply.body, "", None, Usage(), (), False, None)
    answer = DIALECTS[client].parse_answer(orjson.loads(reply.body))
    text = "".join(part.text for part in answer.parts if isinstance(part, Text))
    calls = tuple(part.name for part in answer.parts if isinstance(part, ToolUse))
    return Heard(reply, reply.body, text, answer.stop.reason, answer.usage, calls, True, None)


def streamed(client: Dialect, reply: Reply, raw: bytes) -> Heard:
    """Return what is read of a stream."""
    kind = dict(reply.headers)["content-type"]
    module = DIALECTS[client]
    parser, reader = module.parser(kind), module.reader()
    assert parser is not None
    deltas = [
        delta
        for event in [*parser.feed(raw), *parser.flush()]
        for delta in reader.read(event.name, event.data)
    ]
    deltas += reader.end()
    usage = Usage()
    for delta in deltas:
        usage = usage.merge(delta.usage) if isinstance(delta, UsageSeen) else usage
    return Heard(
        reply,
        raw,
        "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)),
        next((delta.reason for delta in deltas if isinstance(delta, Stopped)), None),
        usage,
        tuple(delta.name for delta in deltas if isinstance(delta, ToolStarted)),
        any(isinstance(delta, Finished) for delta in deltas),
        next((delta for delta in deltas if isinstance(delta, Failed)), None),
    )


def lines(record: Record) -> list[tuple[int, str, str, int]]:
    """Return number, cause, change and cost of each attempt."""
    return [(one.n, one.cause, one.change, one.cost_nanousd) for one in record.attempts]
