"""The load: keep-alive connections that send one request after the other and check every byte that comes back.

A wrong answer ends the whole run: what costs little because it did not work is no result.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from scripts.benchmark.traffic import HOST, PATH, Traffic, expected, first_content, request_body

_PATIENCE: Final = 30.0
"""Seconds that one answer, or opening a connection, may take."""
_GOODBYE: Final = 1.0
"""Seconds that the other side has to end a connection that we have ended."""
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


@dataclass(frozen=True, slots=True)
class Answer:
    """When an answer came, in seconds after its request was written."""

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


async def measure(
    route: Route, traffic: Traffic, pace: Pace, *, clock: Callable[[], float] = lambda: 0.0
) -> Tally:
    """Load the subject for `pace.seconds`. Raises `LoadError` on the first answer that is not as expected."""
    tally = Tally()
    async with asyncio.timeout(_PATIENCE):
        clients = [await _connect(route) for _ in range(pace.connections)]
    for client in clients:
        client.prepare(_request(route, traffic), expected(traffic), first_content(traffic))
    try:
        await _all(_times(client, pace.warm) for client in clients)
        tally.warmed = pace.warm * len(clients)
        before, began = clock(), time.perf_counter()
        await _all(_until(client, began + pace.seconds, tally.answers) for client in clients)
        tally.seconds, tally.cpu = time.perf_counter() - began, clock() - before
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


async def _times(client: _Client, number: int) -> None:
    for _ in range(number):
        await client.ask()


async def _until(client: _Client, deadline: float, answers: list[Answer]) -> None:
    while time.perf_counter() < deadline:
        answers.append(await client.ask())


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
    reader, writer = await asyncio.open_connection("127.0.0.1", route.port)
    if route.connect:
        writer.write(f"CONNECT {route.connect} HTTP/1.1\r\nHost: {route.connect}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise LoadError(f"CONNECT was refused: {head!r}")
    if route.trust:
        context = ssl.create_default_context(cafile=route.trust)
        context.set_alpn_protocols(["http/1.1"])
        await writer.start_tls(context, server_hostname=HOST)
    client = _Client(writer)
    writer.transport.set_protocol(client)
    return client


class _Client(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        # Kept though only its transport is used: a writer that nobody holds closes its transport.
        self._writer = writer
        self._transport = writer.transport
        self._request = b""
        self._expected = b""
        self._content = b""
        self._pieces = bytearray()
        self._body = 0
        """Where the body begins; 0 while the head is not complete."""
        self._end: int | None = None
        """Where the answer ends, None where chunks tell."""
        self._first = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._lost: Exception | None = None
        self._gone = asyncio.Event()

    def prepare(self, request: bytes, answer: bytes, content: bytes) -> None:
        """Say what to send, what must come back, and by what the first content is known."""
        self._request, self._expected, self._content = request, answer, content

    async def ask(self) -> Answer:
        """Send the request and return when its answer came; raises `LoadError` where it is a wrong one."""
        if self._lost is not None:
            raise self._lost
        self._pieces.clear()
        self._body, self._end, self._first = 0, None, 0.0
        self._waiter = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self._transport.write(self._request)
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
        got = _joined(body) if self._end is None else body
        if got != self._expected:
            raise LoadError(
                f"{len(got)} bytes of answer are not the {len(self._expected)} that were sent: {got[-300:]!r}"
            )


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
