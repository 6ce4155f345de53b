"""A provider on a loopback socket that speaks both dialects and breaks on command.

    async with FakeProvider() as provider:
        provider.script("gpt-4o", ["status:500", "ok"])
        ... send to provider.url ...
        assert [r.model for r in provider.requests] == ["gpt-4o", "gpt-4o"]

Raw sockets, because frameworks refuse to send broken HTTP. Good answers and the faults of
`tokenhub_core.providers.simulator` come from `play`; these are about HTTP itself and live here:

    drip               one byte per chunk, with a short pause after each
    bytes:N            the body in chunks of N bytes
    gzip, deflate, raw-deflate, brotli, double-gzip, unknown-encoding, bad-gzip, bad-brotli, short-gzip
    bomb:MB            a gzip body that unpacks to so many megabytes of zeros
    big:N              a JSON body of N bytes, length announced; big-chunked:N without a length
    long-header, many-headers, big-head, bad-http
    bad-chunk          a stream that stops being chunked in the middle
    redirect:URL       a 307
    until-eof          no length: the end of the connection is the end of the body
    until-eof-reset    the same, with a reset in the middle

A script's last entry stands for all further calls; without a script every call is answered well.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import brotli
import orjson

from tests.fakes.listener import reset
from tests.patience import PATIENCE
from tokenhub_core.providers.simulator import MARK, Ending, Profile, Script, dialect_at, play
from tokenhub_core.types import Dialect, Headers, Json, header


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived."""

    method: str
    path: str
    headers: Headers
    body: bytes
    connection: int
    """The index in `FakeProvider.connections`."""
    at: float

    @property
    def json(self) -> Json:
        data: Json = orjson.loads(self.body)
        return data

    @property
    def model(self) -> str:
        return str(self.json.get("model", ""))

    def header(self, name: str) -> str:
        return header(self.headers, name)


@dataclass(slots=True)
class Peer:
    """One connection: when it was opened, last written to and gone (monotonic), and what was sent on it."""

    opened: float
    closed: float | None = None
    wrote: float | None = None
    sent: int = 0
    requests: int = 0


@dataclass(slots=True)
class Line:
    """The provider's end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    peer: Peer
    number: int

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        self.peer.wrote = time.monotonic()
        self.peer.sent += len(data)
        await self.writer.drain()

    async def pause(self, seconds: float | None) -> None:
        """Wait, for ever with None; raises `ConnectionResetError` as soon as the client is gone."""
        try:
            async with asyncio.timeout(seconds):
                if await self.reader.read(1) == b"":
                    raise ConnectionResetError("the client left")
        except TimeoutError:
            return


@dataclass(slots=True)
class FakeProvider:
    """See the module. `profile` sets the pace of good answers; `tls` makes it an https server.

    `listen` is the port to bind; 0 picks a free one.
    """

    tls: ssl.SSLContext | None = None
    profile: Profile = field(default_factory=Profile)
    host: str = "127.0.0.1"
    listen: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: list[Peer] = field(default_factory=list)
    _scripts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _calls: dict[str, int] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _closing: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, self.host, self.listen, ssl=self.tls, limit=1 << 20
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._closing = True
        self._server.close()
        for _turn in range(3):
            # What was accepted with the end becomes a connection only after it.
            await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """The base URL, without `/v1`."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def script(self, model: str, faults: Sequence[str]) -> None:
        """Say what the next calls of a model meet, from now on; `*` is every model without a script."""
        for name in faults:
            if not self.knows(name.partition(":")[0]):
                Profile(faults=(name,))  # raises ValueError for a name that nobody knows
        self._scripts[model] = tuple(faults)
        self._calls.pop(model, None)

    def calls(self, model: str) -> int:
        """How many calls of a model have arrived."""
        return sum(1 for received in self.requests if received.model == model)

    async def until(self, *, requests: int = 0, closed: int = 0, within: float = PATIENCE) -> None:
        """Wait until so many requests have arrived and so many connections are gone; `TimeoutError` otherwise."""
        async with asyncio.timeout(within):
            while len(self.requests) < requests or sum(1 for c in self.connections if c.closed) < closed:
                self._changed.clear()
                await self._changed.wait()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._closing:
            writer.transport.abort()
            return
        self._tasks.add(task)
        peer = Peer(time.monotonic())
        self.connections.append(peer)
        line = Line(reader, writer, peer, len(self.connections) - 1)
        try:
            while await self._exchange(line):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            peer.closed = time.monotonic()
            self._changed.set()
            self._tasks.discard(task)
            writer.transport.abort() if self.tls else writer.close()

    async def _exchange(self, line: Line) -> bool:
        received = await _receive(line)
        self.requests.append(received)
        line.peer.requests += 1
        self._changed.set()
        if received.method == "GET":
            return await _perform(line, _whole(b'{"object":"list","data":[]}'))
        try:
            model = received.model
        except (orjson.JSONDecodeError, AttributeError):
            model = ""
        key = model if model in self._scripts else "*"
        number = self._calls.get(key, 0)
        self._calls[key] = number + 1
        faults = self._scripts.get(key, ("ok",))
        name, _, argument = faults[min(number, len(faults) - 1)].partition(":")
        raw = self.knows(name)
        fault = "ok" if raw else f"{name}:{argument}" if argument else name
        dialect = dialect_at(received.path) or Dialect.OPENAI_CHAT
        script = play(
            dialect,
            received.body,
            target=received.path,
            profile=replace(self.profile, faults=(fault,)),
            call_number=number,
            created=1_767_225_600,
        )
        # This plays a real provider, so the simulator's mark goes.
        script = replace(script, headers=tuple(item for item in script.headers if item != MARK))
        self.meant(dialect, script)
        if raw:
            return await self.misbehave(line, script, name, argument)
        return await _perform(line, script)

    def meant(self, dialect: Dialect, script: Script) -> None:
        """Hear what is to be answered, before HTTP's own faults."""

    def knows(self, name: str) -> bool:
        """Tell whether a fault is one of HTTP itself, and not one that a script plays."""
        return name in _RAW

    async def misbehave(self, line: Line, script: Script, name: str, argument: str) -> bool:
        """Answer with such a fault, where `script` is the good answer; True where the connection may serve again."""
        return await _raw(line, script, name, argument)


_RAW = frozenset(
    {
        "drip", "bytes", "gzip", "deflate", "raw-deflate", "brotli", "double-gzip", "unknown-encoding", "bad-gzip",
        "bad-brotli",
        "short-gzip", "bomb", "big", "big-chunked", "long-header", "many-headers", "big-head", "bad-http",
        "bad-chunk", "redirect", "until-eof", "until-eof-reset",
    }
)  # fmt: skip


def closed_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def _receive(line: Line) -> Received:
    head = await line.reader.readuntil(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")[:-2]
    method, path, _ = first.split(" ")
    headers = tuple(
        (name.lower(), value.strip()) for name, _, value in (item.partition(":") for item in fields)
    )
    body = await line.reader.readexactly(int(header(headers, "content-length", "0")))
    return Received(method, path, headers, body, line.number, time.monotonic())


def _head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _whole(body: bytes, headers: Headers = ()) -> Script:
    length = (("content-type", "application/json"), ("content-length", str(len(body))))
    return Script(200, (*length, *headers), ((0.0, body),))


async def _perform(line: Line, script: Script, *, piece: int = 0, gap: float = 0.0) -> bool:
    """Play a script; True where the connection may serve another request."""
    if not script.status:
        if script.ending is Ending.HANG:
            await line.pause(None)
        return False
    chunked = not header(script.headers, "content-length")
    headers = (*script.headers, ("transfer-encoding", "chunked")) if chunked else script.headers
    head = _head(script.status, headers)
    if not script.frames:
        await line.write(head)
    for delay, data in script.frames:
        if delay:
            await line.pause(delay)
        for part in _cut(data, piece):
            await line.write(head + (b"%x\r\n%b\r\n" % (len(part), part) if chunked else part))
            head = b""
            if gap:
                await line.pause(gap)
    match script.ending:
        case Ending.CLEAN:
            if chunked:
                await line.write(b"0\r\n\r\n")
            return True
        case Ending.HANG:
            await line.pause(None)
        case Ending.RESET:
            await line.pause(0.05)  # or the reset overtakes what was sent
            reset(line.writer)
        case Ending.CLOSED:
            pass
    return False


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [data]


async def _raw(line: Line, script: Script, name: str, argument: str) -> bool:
    body = b"".join(data for _, data in script.frames)
    kind = header(script.headers, "content-type")
    match name:
        case "drip":
            return await _perform(line, script, piece=1, gap=0.002)
        case "bytes":
            streamed = tuple(item for item in script.headers if item[0] != "content-length")
            return await _perform(line, replace(script, headers=streamed), piece=int(argument))
        case "big":
            return await _perform(line, _whole(b'"' + b"x" * (int(argument) - 2) + b'"'))
        case "big-chunked":
            return await _flood(line, int(argument))
        case "redirect":
            moved = Script(307, (("location", argument), ("content-length", "0")), ())
            return await _perform(line, moved)
        case "long-header" | "many-headers" | "big-head" | "bad-http":
            return await _bad_head(line, name)
        case "bad-chunk":
            head = _head(200, (("content-type", kind), ("transfer-encoding", "chunked")))
            await line.write(head + b"5\r\nhello\r\nnot a size\r\n")
            return False
        case "until-eof" | "until-eof-reset":
            await line.write(_head(200, (("content-type", kind), ("connection", "close"))) + body)
            if name == "until-eof-reset":
                await line.pause(0.05)
                reset(line.writer)
            return False
        case _:
            encoding, packed = _packed(name, argument, body)
            return await _perform(line, _whole(packed, (("content-encoding", encoding),)))


async def _bad_head(line: Line, name: str) -> bool:
    if name == "bad-http":
        await line.write(b"This is not HTTP\r\n\r\n")
        return False
    await line.write(b"HTTP/1.1 200 Said\r\n")
    number, size = {"long-header": (1, 1 << 20), "many-headers": (10_000, 1_000), "big-head": (100, 8_000)}[
        name
    ]
    for at in range(number):
        await line.write(b"x-%d: " % at + b"z" * size + b"\r\n")
    await line.write(b"content-length: 0\r\n\r\n")
    return True


async def _flood(line: Line, size: int) -> bool:
    await line.write(_head(200, (("content-type", "application/json"), ("transfer-encoding", "chunked"))))
    block = b"%x\r\n%b\r\n" % (65_536, b"x" * 65_536)
    for _ in range(-(-size // 65_536)):
        await line.write(block)
    await line.write(b"0\r\n\r\n")
    return True


def _packed(name: str, argument: str, body: bytes) -> tuple[str, bytes]:
    match name:
        case "gzip":
            return "gzip", gzip.compress(body)
        case "deflate":
            return "deflate", zlib.compress(body)
        case "raw-deflate":
            packer: Any = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            return "deflate", packer.compress(body) + packer.flush()
        case "double-gzip":
            return "gzip, gzip", gzip.compress(gzip.compress(body))
        case "unknown-encoding":
            return "compress", body
        case "brotli":
            return "br", brotli.compress(body)
        case "bad-brotli":
            return "br", body
        case "bad-gzip":
            return "gzip", body
        case "short-gzip":
            return "gzip", gzip.compress(body)[:-12]
        case _:  # bomb
            packer = zlib.compressobj(9, wbits=zlib.MAX_WBITS | 16)
            block = bytes(1 << 20)
            return "gzip", b"".join(packer.compress(block) for _ in range(int(argument))) + packer.flush()
