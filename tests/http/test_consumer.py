"""Requests in, snapshots to the engine, replies out: over real connections, with clients that misbehave."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import orjson
import pytest
from aiohttp import web

from tests.fakes.engine import Bench, chat, message
from tests.patience import PATIENCE
from tokenhub_core.admission.doorkeeper import Entry
from tokenhub_core.clock import SystemClock
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.http import consumer
from tokenhub_core.http.connection import Connection
from tokenhub_core.http.consumer import Consumer, Door, HandedOff
from tokenhub_core.ports import Clock, Engine, Reply
from tokenhub_core.recognise import Recognised, Recogniser
from tokenhub_core.types import Dialect, Lane, Origin, Record, Scope, Snapshot, header

LIMIT: Final = 10_000
CHAT: Final = "/v1/chat/completions"


EMPTY: Final = Reply(200, (("content-type", "application/json"), ("x-request-id", "r")), b"{}")


@dataclass
class Listening:
    """An engine that remembers what it was asked, and can be told how to answer."""

    reply: Reply = EMPTY
    asked: list[Snapshot] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    hang: bool = False

    async def exchange(self, snapshot: Snapshot) -> Reply:
        self.asked.append(snapshot)
        self.entered.set()
        if self.hang:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return self.reply


class Watched(SystemClock):
    """A clock that tells when it is looked at first: the head of a request has arrived then."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    def now(self) -> float:
        self.began.set()
        return super().now()


class Signalling(list[Record]):
    """A list that tells when something is in it."""

    def __init__(self, told: asyncio.Event) -> None:
        super().__init__()
        self._told = told

    def append(self, record: Record) -> None:
        super().append(record)
        self._told.set()


@dataclass
class Line:
    """One connection of a client that writes its own bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one whole answer with a length."""
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            body = await self.reader.readexactly(int(fields.get("content-length", "0")))
        return int(first.split()[1]), fields, body

    async def ended(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True

    def cut(self) -> None:
        """Leave with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


type Dial = Callable[[], Awaitable[Line]]
"""Opens a connection."""


@asynccontextmanager
async def served(
    engine: Engine, dialect: Dialect = Dialect.OPENAI_CHAT, clock: Clock | None = None
) -> AsyncIterator[Dial]:
    """Serve every request of a port as a routed one; yield what opens a connection to it."""
    door = Consumer(Door(engine, DIALECTS, clock or SystemClock(), lambda: bytes(10), LIMIT))

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return await door.handle(request, dialect, door.admit(request, dialect, Scope.CHAT))

    server = web.Server(handle, handler_cancellation=True, access_log=None, auto_decompress=False)
    runner = web.ServerRunner(server, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    lines: list[Line] = []

    async def dial() -> Line:
        lines.append(Line(*await asyncio.open_connection("127.0.0.1", port)))
        return lines[-1]

    try:
        yield dial
    finally:
        for line in lines:
            line.writer.transport.abort()
        await runner.cleanup()


def post(body: bytes, *fields: str, path: str = CHAT) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


# --- what arrives -------------------------------------------------------------------------------------------


async def test_a_request_becomes_a_snapshot() -> None:
    """The bytes as they came, fields in order and in lower case, repeats kept, the query with the path."""
    engine = Listening()
    async with served(engine) as dial:
        line = await dial()
        await line.send(
            post(b"{}", "X-B: 1", "x-a: 2", "X-B: 3", "User-Agent: prog/1.0 (more)", path=CHAT + "?a=%2F")
        )
        assert (await line.answer())[0] == 200
    (snapshot,) = engine.asked
    assert (snapshot.method, snapshot.path, snapshot.body) == ("POST", CHAT + "?a=%2F", b"{}")
    assert [f for f in snapshot.headers if f[0].startswith("x-")] == [
        ("x-b", "1"),
        ("x-a", "2"),
        ("x-b", "3"),
    ]
    assert snapshot.id.startswith("req_")
    assert snapshot.origin is None
    caller = snapshot.caller
    assert (caller.peer, caller.lane, caller.program) == ("127.0.0.1", Lane.DIRECT, "prog/1.0")


async def test_a_clients_own_id_is_not_ours() -> None:
    """It stays in its headers; ours is new each time."""
    engine = Listening()
    async with served(engine) as dial:
        line = await dial()
        for _ in range(2):
            await line.send(post(b"{}", "X-Request-Id: <script>"))
            await line.answer()
    assert header(engine.asked[0].headers, "x-request-id") == "<script>"
    assert all(one.id.startswith("req_") for one in engine.asked)


async def test_a_body_in_pieces_is_one_body() -> None:
    """However it is cut, with a length or without."""
    engine = Listening()
    async with served(engine) as dial:
        line = await dial()
        await line.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b"1\r\n{\r\n", b"1;ext=1\r\n}\r\n", b"0\r\n\r\n"):
            await line.send(piece)
            await asyncio.sleep(0)
        assert (await line.answer())[0] == 200
        await line.send(post(b"[1]")[:-2])
        await line.send(b"1]")
        assert (await line.answer())[0] == 200
    assert [one.body for one in engine.asked] == [b"{}", b"[1]"]


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_an_announced_body_that_is_too_large_is_refused_unread(dialect: Dialect) -> None:
    """413 in the caller's dialect at once, the engine hears nothing, and the connection is not used again."""
    engine = Listening()
    async with served(engine, dialect) as dial:
        line = await dial()
        await line.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (LIMIT + 1))
        status, fields, body = await line.answer()
        assert (status, fields["x-request-id"][:4], fields["connection"]) == (413, "req_", "close")
        told = orjson.loads(body)
        plain = dialect in {Dialect.OLLAMA_CHAT, Dialect.OLLAMA_GENERATE}
        assert str(LIMIT) in (told["error"] if plain else told["error"]["message"])
        assert (told.get("type") == "error") is dialect.startswith("anthropic")
        line.writer.write_eof()
        assert await line.ended()
    assert engine.asked == []


async def test_a_streamed_body_that_grows_too_large_is_refused() -> None:
    """Without a length it is counted; what fits exactly is served."""
    engine = Listening()
    async with served(engine) as dial:
        for size, expected in ((LIMIT, 200), (LIMIT + 1, 413)):
            line = await dial()
            await line.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            await line.send(b"%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size))
            assert (await line.answer())[0] == expected
    assert [len(one.body) for one in engine.asked] == [LIMIT]


async def test_a_client_that_sends_everything_first_reads_its_413() -> None:
    """Most do: the answer must not be lost in a reset while they still write."""
    async with served(Listening()) as dial:
        line = await dial()
        await line.send(post(b"x" * 500_000))
        assert (await line.answer())[0] == 413


@pytest.mark.parametrize("rest", [b"", b"2", b"2\r\n{}", b"zz\r\n{}\r\n", b"2\r\n{}xx", b"-1\r\n"])
async def test_a_body_that_does_not_go_on_is_given_up(rest: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, slow or broken in the middle: told in the dialect after a while, and the connection ends."""
    monkeypatch.setattr(consumer, "SILENCE", 0.05)
    engine, clock = Listening(), Watched()
    async with served(engine, clock=clock) as dial:
        line = await dial()
        await line.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        await clock.began.wait()
        await line.send(rest)
        status, _, body = await line.answer()
        assert (status, orjson.loads(body)["error"]["code"]) == (408, "body_timeout")
        line.writer.write_eof()
        assert await line.ended()
    assert engine.asked == []


async def test_a_slow_body_is_not_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is the pause, not the whole."""
    monkeypatch.setattr(consumer, "SILENCE", 2.0)
    async with served(Listening()) as dial:
        line = await dial()
        await line.send(post(b"x" * 8)[:-8])
        for _ in range(8):
            await asyncio.sleep(0.3)
            await line.send(b"x")
        assert (await line.answer())[0] == 200


async def test_a_program_name_that_is_no_text_is_made_one() -> None:
    """It goes to logs, events and the page."""
    engine = Listening()
    async with served(engine) as dial:
        line = await dial()
        await line.send(post(b"{}", "User-Agent: @").replace(b"@", b"\xff\xfe" + b"a" * 100))
        await line.answer()
    program = engine.asked[0].caller.program
    assert program == "??" + "a" * 78


# --- connections --------------------------------------------------------------------------------------------


async def test_a_connection_goes_on_after_an_error() -> None:
    """A refused call costs no new handshake: three on one connection, the second one bad."""
    bench = Bench()
    async with served(bench.engine) as dial:
        line = await dial()
        for body, status in ((chat(), 200), (b"{", 400), (chat(), 200)):
            await line.send(post(body if isinstance(body, bytes) else orjson.dumps(body)))
            assert (await line.answer())[0] == status


async def test_requests_in_a_row_are_answered_in_a_row() -> None:
    """Pipelined ones keep their order."""
    bench = Bench()
    async with served(bench.engine) as dial:
        line = await dial()
        bodies = [orjson.dumps(chat(f"call {number}")) for number in range(3)]
        await line.send(b"".join(post(body) for body in bodies))
        answers = [(await line.answer())[2] for _ in bodies]
    assert [f"call {number}".encode() in answer for number, answer in enumerate(answers)] == [True] * 3


async def test_a_client_that_leaves_before_the_answer_cancels_the_call() -> None:
    """At once, whether it says goodbye or not."""
    for polite in (True, False):
        engine = Listening(hang=True)
        async with served(engine) as dial:
            line = await dial()
            await line.send(post(b"{}"))
            await engine.entered.wait()
            line.writer.close() if polite else line.cut()
            async with asyncio.timeout(PATIENCE):
                await engine.cancelled.wait()


@pytest.mark.parametrize("polite", [True, False])
async def test_a_client_that_leaves_in_a_stream_ends_it(polite: bool) -> None:
    """The frames are closed, which is how the engine learns of it, also where it was not the one who waited."""
    closed = asyncio.Event()

    async def frames() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"data: x\n\n" * 100_000
        finally:
            closed.set()

    held = frames()  # so that it is not closed by nobody having it any more
    engine = Listening(Reply(200, (("content-type", "text/event-stream"),), frames=held))
    async with served(engine) as dial:
        line = await dial()
        await line.send(post(b"{}"))
        await line.reader.readuntil(b"data: x\n\n")
        line.writer.close() if polite else line.cut()
        async with asyncio.timeout(PATIENCE):
            await closed.wait()


async def test_a_client_that_leaves_is_recorded_as_such() -> None:
    """One record, cancelled, its money settled."""
    bench, told = Bench(), asyncio.Event()
    bench.recorder.records = Signalling(told)
    async with served(bench.engine, Dialect.ANTHROPIC_MESSAGES) as dial:
        line = await dial()
        await line.send(post(orjson.dumps(message("x" * 3000, stream=True, max_tokens=4000))))
        await line.reader.readuntil(b"event: content_block_delta")
        line.cut()
        async with asyncio.timeout(PATIENCE):
            await told.wait()
    assert bench.recorder.one.outcome in {"cancelled", "ok"}
    assert bench.ledger.reserved_nanousd == 0


async def test_a_stream_leaves_as_it_is_made() -> None:
    """Each frame is on its way before the next one exists, and no cache may keep it."""
    gate = asyncio.Event()

    async def frames() -> AsyncIterator[bytes]:
        yield b"data: first\n\n"
        await gate.wait()
        yield b"data: last\n\n"

    engine = Listening(Reply(200, (("content-type", "text/event-stream"),), frames=frames()))
    async with served(engine) as dial:
        line = await dial()
        await line.send(post(b"{}"))
        async with asyncio.timeout(PATIENCE):
            head = await line.reader.readuntil(b"data: first\n\n")
            assert b"cache-control: no-cache" in head
            assert b"x-accel-buffering: no" in head
            gate.set()
            await line.reader.readuntil(b"data: last\n\n\r\n0\r\n\r\n")


# --- connections that were handed over ----------------------------------------------------------------------


async def test_a_handed_over_connection_is_served_by_its_host() -> None:
    """Whatever its Host says; the rest of that host goes to the one who passes it on."""
    engine = Listening()
    passed: list[Recognised] = []

    async def passthrough(
        request: web.BaseRequest,
        connection: Connection,
        found: Recognised,
        entry: Entry,
        *,
        shadow: bool = False,
        begun: bytes = b"",
    ) -> web.StreamResponse:
        passed.append(found)
        return web.Response(text="passed")

    door = Consumer(Door(engine, DIALECTS, SystemClock(), lambda: bytes(10), LIMIT))
    handed_off = HandedOff(door, Recogniser(), passthrough)
    connection: Connection | None = Connection(
        "10.0.0.7", "regular", "ann", "api.anthropic.com", 8443, near=True
    )

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        transport._extra["tokenhub.connection"] = connection  # type: ignore[attr-defined] # asyncio's own store
        return await handed_off(request)

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        line = Line(*await asyncio.open_connection("127.0.0.1", runner.addresses[0][1]))
        await line.send(post(b"{}", path="/v1/messages"))
        assert (await line.answer())[0] == 200
        await line.send(b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert (await line.answer())[2] == b"passed"
        connection = Connection("10.0.0.7", "regular", "", "unlisted.example", 443, near=True)
        await line.send(post(b"{}"))
        assert (await line.answer())[0] == 421
        connection = None
        await line.send(post(b"{}"))
        assert (await line.answer())[0] == 421
        line.writer.close()
    finally:
        await runner.cleanup()
    (snapshot,) = engine.asked
    assert snapshot.dialect is Dialect.ANTHROPIC_MESSAGES
    assert snapshot.origin == Origin("https", "api.anthropic.com", 8443)
    caller = snapshot.caller
    assert (caller.peer, caller.lane, caller.mode, caller.proxy_user) == (
        "10.0.0.7",
        Lane.HANDOFF,
        "regular",
        "ann",
    )
    assert [one.operation for one in passed] == ["passthrough"]
