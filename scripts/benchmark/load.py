"""The load: keep-alive connections that send one request after the other and check every byte that comes back.

A wrong answer ends the whole run: what costs little because it did not work is no result.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from scripts.benchmark import http2
from scripts.benchmark.traffic import HOST, PATH, Traffic, expected, first_content, request_body, said, text

_PATIENCE: Final = 30.0
"""Seconds that one answer, or opening a connection, may take."""
_GOODBYE: Final = 1.0
"""Seconds that the other side has to end a connection that we have ended."""
_OPENING: Final = 32
"""Connections that are opened at a time, where there are many."""
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"


class LoadError(Exception):
    """An answer that is not the one that was expected, or none."""


@dataclass(frozen=True, slots=True)
class Route:
    """How a subject is reached on loopback."""

    port: int
    connect: str = ""
    """`host:port` for CONNECT; empty for a connection straight to the subject."""
    trust: str = ""
    """The PEM file of the authority behind the certificates that are shown; empty for plain http."""
    alike: bool = True
    """Whether the upstream's own bytes come out; otherwise what they say is compared."""
    translates: bool = True
    """Whether an upstream of another dialect can be asked this way."""

    @property
    def host(self) -> str:
        """Return the Host header: the intercepted host's, or for plain http the subject's own."""
        return HOST if self.trust else f"127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Pace:
    """How one measurement loads its subject."""

    connections: int
    seconds: float
    warm: int = 2
    """Requests on each connection before any counts."""
    fresh: bool = False
    """Whether each request has a connection of its own."""
    rate: float = 0.0
    """Requests a second, begun whether those before them have ended or not; 0 for one after the other."""
    multiplexed: bool = False
    """Whether the connections are streams of one, by HTTP/2."""


@dataclass(frozen=True, slots=True)
class Answer:
    """When an answer came, in seconds after its request was written, or at a rate was due."""

    first: float
    """Its first content."""
    whole: float
    """Its last byte."""


@dataclass(slots=True)
class Tally:
    """What one measurement saw."""

    answers: list[Answer] = field(default_factory=list)
    warmed: int = 0
    """Answers before any counted."""
    seconds: float = 0.0
    cpu: float = 0.0
    """Seconds by which the subject's clock went forward while the answers came."""
    together: tuple[float, float] = (0.0, 0.0)
    """Of streams that are held: from when the last was asked for until the first ended, by `time.perf_counter`."""


async def measure(
    route: Route, traffic: Traffic, pace: Pace, *, clock: Callable[[], float] = lambda: 0.0
) -> Tally:
    """Load the subject for `pace.seconds`. Raises `LoadError` on the first answer that is not as expected.

    Who cannot translate is asked for the same answer in its own dialect.
    """
    tally = Tally()
    if traffic.foreign and not route.translates:
        traffic = replace(traffic, foreign=False)
    clients: list[_Client] | list[_Stream]
    async with asyncio.timeout(_PATIENCE):
        if pace.multiplexed:
            clients = await _streams(route, pace.connections)
        else:
            clients = [await _connect(route) for _ in range(pace.connections)]
    asked = _Asked(_request(route, traffic), traffic, alike=route.alike and not traffic.foreign)
    for client in clients:
        client.asked = asked
    try:
        await _all(_times(client, pace.warm) for client in clients)
        tally.warmed = pace.warm * len(clients)
        before, began = clock(), time.perf_counter()
        until = began + pace.seconds
        if pace.rate:
            await _at_rate(clients, pace, tally.answers)
        elif pace.fresh:
            await _all(_anew(route, asked, until, tally.answers) for _ in clients)
        else:
            await _all(_until(client, until, tally.answers) for client in clients)
        tally.seconds, tally.cpu = time.perf_counter() - began, clock() - before
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    return tally


async def hold(
    route: Route,
    traffic: Traffic,
    streams: int,
    saw: Callable[[bytes], None],
    *,
    spread: float,
    clock: Callable[[], float] = lambda: 0.0,
) -> Tally:
    """Ask once on each of so many connections, begun evenly over `spread` seconds; `saw` gets what comes."""
    tally = Tally()
    gate = asyncio.Semaphore(_OPENING)

    async def opened() -> _Client:
        async with gate:
            return await _connect(route)

    clients = await asyncio.gather(*(opened() for _ in range(streams)))
    for client in clients:
        client.asked, client.saw = _Asked(_request(route, traffic), traffic, alike=False), saw
    before, began = clock(), time.perf_counter()

    begun: list[float] = []
    ended: list[float] = []

    async def one(number: int, client: _Client) -> None:
        await asyncio.sleep(number * spread / streams)
        asked = time.perf_counter()
        answer = await client.ask()
        tally.answers.append(answer)
        begun.append(asked)
        ended.append(asked + answer.whole)

    try:
        await _all(one(number, client) for number, client in enumerate(clients))
        tally.seconds, tally.cpu = time.perf_counter() - began, clock() - before
        tally.together = max(begun), min(ended)
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    return tally


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for item in work:
                group.create_task(item)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _times(client: _Asking, number: int) -> None:
    for _ in range(number):
        await client.ask()


async def _until(client: _Asking, deadline: float, answers: list[Answer]) -> None:
    while time.perf_counter() < deadline:
        answers.append(await client.ask())


async def _anew(route: Route, asked: _Asked, deadline: float, answers: list[Answer]) -> None:
    while time.perf_counter() < deadline:
        async with asyncio.timeout(_PATIENCE):
            client = await _connect(route)
        client.asked = asked
        try:
            answers.append(await client.ask())
        finally:
            await client.close()


async def _at_rate(clients: Iterable[_Asking], pace: Pace, answers: list[Answer]) -> None:
    """Begin each request when it is due. One that waits for a free connection is late, and its answer with it."""
    free: asyncio.Queue[_Asking] = asyncio.Queue()
    for client in clients:
        free.put_nowait(client)

    async def one(due: float) -> None:
        await asyncio.sleep(due - time.perf_counter())
        client = await free.get()
        answers.append(await client.ask(due))
        free.put_nowait(client)

    began = time.perf_counter()
    number = max(1, round(pace.rate * pace.seconds))
    await _all(one(began + each / pace.rate) for each in range(number))


def _request(route: Route, traffic: Traffic) -> bytes:
    body = request_body(traffic)
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {route.host}\r\nAuthorization: Bearer sk-caller\r\n"
        "Accept: application/json\r\nUser-Agent: bench/1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _connect(route: Route) -> _Client:
    """Open a connection through whatever stands between us and the answer."""
    writer = await _opened(route, "http/1.1")
    client = _Client(writer)
    writer.transport.set_protocol(client)
    return client


async def _streams(route: Route, number: int) -> list[_Stream]:
    """Open one connection by HTTP/2, on which so many calls are asked at a time."""
    writer = await _opened(route, http2.ALPN)
    chosen = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    if chosen != http2.ALPN:
        raise LoadError(f"no HTTP/2 here, but {chosen}")
    caller = http2.Caller()
    writer.transport.set_protocol(caller)
    caller.begin(writer.transport)
    return [_Stream(writer, caller) for _ in range(number)]


async def _opened(route: Route, protocol: str) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", route.port)
    if route.connect:
        writer.write(f"CONNECT {route.connect} HTTP/1.1\r\nHost: {route.connect}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise LoadError(f"CONNECT was refused: {head!r}")
    if route.trust:
        context = ssl.create_default_context(cafile=route.trust)
        context.set_alpn_protocols([protocol])
        await writer.start_tls(context, server_hostname=HOST)
    return writer


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is sent, and what must come back."""

    request: bytes
    traffic: Traffic
    alike: bool
    """Whether byte by byte."""

    def check(self, body: bytes) -> None:
        """Raise `LoadError` where this is not the answer."""
        if self.traffic.stamped:
            return
        if self.alike:
            wanted = expected(self.traffic)
            if body != wanted:
                raise LoadError(
                    f"{len(body)} bytes of answer are not the {len(wanted)} that were sent: {body[-300:]!r}"
                )
            return
        try:
            found = said(body, streamed=self.traffic.chunks > 0)
        except ValueError as error:
            raise LoadError(f"{error}: {body[-300:]!r}") from None
        if found != text(self.traffic):
            raise LoadError(f"the answer does not say what was sent: {found[-300:]!r}")


_NOTHING: Final = _Asked(b"", Traffic(), alike=True)


class _Asking(Protocol):
    """Whoever asks one thing at a time."""

    async def ask(self, due: float = 0.0) -> Answer:
        """Send the request and return when its answer came; raises `LoadError` where it is a wrong one."""
        ...


class _Stream:
    """A place for one call at a time on a connection that others share."""

    def __init__(self, writer: asyncio.StreamWriter, caller: http2.Caller) -> None:
        self._writer, self._caller = writer, caller
        self.asked = _NOTHING

    async def ask(self, due: float = 0.0) -> Answer:
        began = due or time.perf_counter()
        head, _, body = self.asked.request.partition(b"\r\n\r\n")
        fields = [line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:]]
        named = {name.lower(): value for name, value in fields}
        pseudo = {":method": "POST", ":path": PATH, ":scheme": "https", ":authority": named.pop("host")}
        try:
            async with asyncio.timeout(_PATIENCE):
                status, answer = await self._caller.ask([*pseudo.items(), *named.items()], body)
        except ConnectionError as error:
            raise LoadError(str(error)) from None
        whole = time.perf_counter() - began
        if status != "200":
            raise LoadError(f"not a good answer: {status} {answer[:500]!r}")
        self.asked.check(answer)
        return Answer(whole, whole)

    async def close(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._caller.gone.wait()
        except TimeoutError:
            self._writer.transport.abort()


class _Client(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        # Kept though only its transport is used: a writer that nobody holds closes its transport.
        self._writer = writer
        self._transport = writer.transport
        self.asked = _NOTHING
        self.saw: Callable[[bytes], None] | None = None
        """Hears of every piece."""
        self._pieces = bytearray()
        self._body = 0
        """Where the body begins; 0 while the head is not complete."""
        self._end: int | None = None
        """Where the answer ends, None where chunks tell."""
        self._content = b""
        """By what the first content is known."""
        self._first = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._lost: Exception | None = None
        self._gone = asyncio.Event()

    async def ask(self, due: float = 0.0) -> Answer:
        """Send the request and return when its answer came; raises `LoadError` where it is a wrong one."""
        if self._lost is not None:
            raise self._lost
        self._pieces.clear()
        self._content = first_content(self.asked.traffic)
        self._body, self._end, self._first = 0, None, 0.0
        self._waiter = asyncio.get_running_loop().create_future()
        began = due or time.perf_counter()
        self._transport.write(self.asked.request)
        async with asyncio.timeout(_PATIENCE):
            await self._waiter
        whole = time.perf_counter() - began
        self._check()
        return Answer(self._first - began, whole)

    async def close(self) -> None:
        """End the connection, politely where the other side is."""
        self._writer.close()
        try:
            async with asyncio.timeout(_GOODBYE):
                await self._gone.wait()
        except TimeoutError:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.saw is not None:
            self.saw(data)
        pieces = self._pieces
        pieces += data
        if not self._body:
            head = pieces.find(b"\r\n\r\n")
            if head < 0:
                return
            self._body = head + 4
            self._end = _end(bytes(pieces[:head]).lower(), self._body)
        if not self._first and pieces.find(self._content, self._body) >= 0:
            self._first = time.perf_counter()
        ended = pieces.endswith(_LAST_CHUNK) if self._end is None else len(pieces) >= self._end
        if ended and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        self._lost = LoadError(f"the connection was lost: {exc or 'closed'}")
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._lost)

    def _check(self) -> None:
        answer = bytes(self._pieces)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise LoadError(f"not a good answer: {answer[:500]!r}")
        body = answer[self._body :]
        self.asked.check(_joined(body) if self._end is None else body)


def _end(head: bytes, body: int) -> int | None:
    """Return where an answer ends, None where it comes in chunks."""
    fields = dict(line.partition(b":")[::2] for line in head.split(b"\r\n")[1:])
    if b"content-length" in fields:
        return body + int(fields[b"content-length"])
    if fields.get(b"transfer-encoding", b"").strip() == b"chunked":
        return None
    raise LoadError(f"the answer's head says nothing of its length: {head!r}")


def _joined(body: bytes) -> bytes:
    """Return the content of a body in chunks."""
    content, at = bytearray(), 0
    while True:
        line = body.index(b"\r\n", at)
        size = int(body[at:line], 16)
        if not size:
            return bytes(content)
        content += body[line + 2 : line + 2 + size]
        at = line + 4 + size
