"""Connections to providers: how they are made, what one exchange does on one, and where idle ones wait.

A connection carries one exchange at a time. Its one timer serves all limits in turn, the idle time included:
moving a deadline is an assignment, and the timer follows when it fires.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import math
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, cast

import msgspec

from tokenhub_core.addresses import Guard
from tokenhub_core.providers.http1 import CutOffError, Head, ResponseParser

_READ: Final = 64 * 1024
_HIGH: Final = 256 * 1024
_LOW: Final = 64 * 1024
_ENOUGH: Final = 16 * 1024
"""So much is handed over at once, however little time has passed."""
_PIECE: Final = 64
"""What a waiting piece costs beyond its bytes."""
_NAMES_TTL: Final = 10.0
_NEXT_ADDRESS: Final = 0.25
"""How long an address has to answer before the next one is tried as well (RFC 8305, section 5)."""

type _Address = tuple[int, int, int, tuple[Any, ...]]
"""Family, type, protocol and what `connect` takes."""


class Site(msgspec.Struct, frozen=True):
    """Where connections go: they are shared by whoever asks for the same."""

    tls: bool
    host: str
    port: int


class OverdueError(Exception):
    """A limit has passed."""


class UnresolvedError(OSError):
    """A name that does not resolve."""


class Wire(asyncio.BufferedProtocol):
    """One connection. `ask`, await `head`, then `take` and await `more` until `done`.

    `failure` says why nothing more will come, and stays: what came before it can still be taken.
    """

    __slots__ = (
        "_buffer",
        "_deadline",
        "_gather",
        "_gathering",
        "_gone",
        "_handed",
        "_loop",
        "_overdue",
        "_parser",
        "_paused",
        "_silent",
        "_timer",
        "_transport",
        "_unread",
        "_waiter",
        "closed",
        "failure",
        "site",
        "touched",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        site: Site,
        *,
        gone: Callable[[Wire], None],
        buffer: memoryview,
    ) -> None:
        """`gone` hears once that the connection is lost. All wires of one loop may read into one `buffer`."""
        self.site = site
        self.failure: Exception | None = None
        self.closed = loop.create_future()
        self.touched = False
        self._loop = loop
        self._gone = gone
        self._buffer = buffer
        self._transport: asyncio.Transport | None = None
        self._parser: ResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = math.inf
        self._overdue = math.inf
        self._unread = 0
        self._paused = False
        self._silent: float | None = None
        """Since when someone has waited for more, without a byte."""
        self._gather = 0.0
        self._handed = 0.0
        """When the last piece was handed over."""
        self._gathering: asyncio.TimerHandle | None = None

    # --- one exchange --------------------------------------------------------------------------------------

    def ask(self, method: str, message: bytes) -> None:
        """Write a request in one piece and expect its answer."""
        self._parser = ResponseParser(method)
        self._unread = 0
        self._gather = 0.0
        self._silent = None
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self.touched = False
        self._deadline = math.inf
        if self._transport is not None:
            self._transport.write(message)

    async def head(self, limit: float | None) -> Head:
        """Return the answer's head; raises `OverdueError`, and whatever `failure` tells."""
        parser = self._parser
        assert parser is not None
        while parser.head is None:
            if self.failure is not None:
                raise self.failure
            await self.more(limit)
        return parser.head

    @property
    def done(self) -> bool:
        """Tell whether the whole answer has come (not: been taken)."""
        return self._parser is None or self._parser.done

    @property
    def waiting(self) -> bool:
        """Tell whether there is something to take, or an end or a failure to learn of."""
        parser = self._parser
        return parser is None or bool(parser.body) or parser.done or self.failure is not None

    def take(self) -> bytes:
        """Return the next piece of the body that is here, empty where none is; while gathering, all that is here."""
        parser = self._parser
        if parser is None or not parser.body:
            return b""
        if self._gather and len(parser.body) > 1:
            piece = b"".join(parser.body)
            parser.body.clear()
            self._unread = 0
        else:
            piece = parser.body.popleft()
            self._unread -= len(piece) + _PIECE
        if self._paused and self._unread <= _LOW:
            self._paused = False
            if self._transport is not None:
                self._transport.resume_reading()
        return piece

    def gather(self, seconds: float) -> None:
        """From now on, wake whoever waits for more of this answer no sooner than `seconds` after the last time."""
        self._gather = seconds
        self._handed = self._loop.time()

    async def more(self, limit: float | None, tick: float | None = None) -> None:
        """Wait until there is something to take, or the end, or a failure: `OverdueError` after `limit` seconds.

        Returns with nothing to take after `tick` seconds; the limit goes on to count from the last byte.
        """
        waiter = self._waiter = self._loop.create_future()
        if limit is not None:
            now = self._loop.time()
            if self._silent is None:
                self._silent = now
            self._overdue = self._silent + limit
            self._until(self._overdue if tick is None else min(self._overdue, now + tick))
        try:
            await waiter
        finally:
            self._waiter = None
            self._deadline = math.inf

    def rest(self, seconds: float) -> bool:
        """Wait, idle, for another exchange and tell whether that can be: not after half an answer.

        An idle connection closes itself after `seconds`, or when anything comes.
        """
        parser, transport = self._parser, self._transport
        if parser is None or transport is None or self.failure is not None or not parser.reusable:
            return False
        # An answer that came before its request was all sent: the provider may not read the rest.
        if transport.is_closing() or transport.get_write_buffer_size():
            return False
        self._parser = None
        if self._paused:
            self._paused = False
            transport.resume_reading()
        self._until(self._loop.time() + seconds)
        return True

    @property
    def usable(self) -> bool:
        """Tell whether nothing is known that would keep an idle connection from being used."""
        return self.failure is None and self._transport is not None and not self._transport.is_closing()

    def abort(self) -> None:
        """Close at once, without waiting for what is unsent or for TLS's goodbye; any number of times."""
        self._fail(CutOffError("the connection was let go"))
        if self._transport is not None:
            self._transport.abort()

    # --- what asyncio calls --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (`asyncio.BaseProtocol`)."""
        self._transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to read to (`asyncio.BufferedProtocol`)."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what came and wake whoever waits for it (`asyncio.BufferedProtocol`)."""
        data = bytes(self._buffer[:nbytes])
        parser = self._parser
        if parser is None:
            self.abort()
            return
        self.touched = True
        body, headed = parser.body, parser.head is not None
        before = len(body)
        try:
            parser.feed(data)
        except ValueError as exc:
            self._fail(exc)
            self.abort()
            return
        if len(body) > before:
            self._unread += len(body[-1]) + _PIECE
            if self._unread > _HIGH and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
        elif not parser.done and (headed or parser.head is None):
            return  # a part of a head, or of what frames the body: nothing that could be taken
        self._silent = None
        if not self._gather or parser.done or self._unread > _ENOUGH:
            self._wake()
        # Whoever has been woken already takes this too, and must not be woken for it once more.
        elif self._gathering is None and self._waiter is not None and not self._waiter.done():
            now = self._loop.time()
            due = self._handed + self._gather
            if now < due:
                self._gathering = self._loop.call_at(due, self._gathered)
            else:
                self._handed = now
                self._wake()

    def _gathered(self) -> None:
        self._handed = self._loop.time()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Decide what the loss means for the exchange (`asyncio.BaseProtocol`)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        parser = self._parser
        if exc is None and self.failure is None and parser is not None:
            try:
                parser.end()
            except CutOffError as cut:
                exc = cut
        if parser is None or not parser.done:
            self._fail(exc or CutOffError("the connection was closed"))
        self._wake()
        self.closed.set_result(None)
        self._gone(self)

    def _fail(self, exc: Exception) -> None:
        if self.failure is None:
            self.failure = exc
        self._wake()

    def _wake(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _until(self, deadline: float) -> None:
        self._deadline = deadline
        timer = self._timer
        if timer is None:
            self._timer = self._loop.call_at(deadline, self._fire)
        elif timer.when() > deadline:
            timer.cancel()
            self._timer = self._loop.call_at(deadline, self._fire)

    def _fire(self) -> None:
        self._timer = None
        if self._loop.time() >= self._deadline:
            if self._parser is None:
                self.abort()
            # What came in this very turn of the loop has woken the waiter, which had no chance yet to say so.
            elif self._waiter is not None and not self._waiter.done():
                if self._loop.time() >= self._overdue:
                    self._fail(OverdueError())
                else:
                    self._wake()
        elif self._deadline < math.inf:
            self._timer = self._loop.call_at(self._deadline, self._fire)


class Pool:
    """Makes connections, and keeps idle ones for whoever asks for the same site next; the last used goes first."""

    def __init__(
        self, context: ssl.SSLContext, *, idle: int, keepalive: float, guard: Guard | None = None
    ) -> None:
        """At most `idle` connections wait, each for at most `keepalive` seconds; `guard` decides where they lead."""
        self._context = context
        self._guard = guard or Guard()
        self._most = idle
        self._keepalive = keepalive
        self._idle: dict[Site, list[Wire]] = {}
        self._waiting = 0
        self._wires: set[Wire] = set()
        self._names = _Names()
        # One for all: what was read is copied out before the next read. A fresh buffer for every read, as asyncio's
        # plain protocols have it, costs more than the rest of the read.
        self._buffer = memoryview(bytearray(_READ))
        self._open = True
        self._distrusted: set[Wire] = set()
        """Connections from before the authorities were changed: they serve to the end of their exchange."""
        self.opened = 0
        """Connections that were made,"""
        self.reused = 0
        """and how often one served another exchange."""

    @property
    def idle(self) -> int:
        """Return how many connections wait."""
        return self._waiting

    def take(self, site: Site) -> Wire | None:
        """Return an idle connection, None where there is none."""
        wires = self._idle.get(site)
        while wires:
            wire = wires.pop()
            self._waiting -= 1
            if wire.usable:
                self.reused += 1
                return wire
        return None

    def give(self, wire: Wire) -> None:
        """Take a connection back: kept where its exchange is over and it can serve another, else closed."""
        fit = self._open and self._waiting < self._most and wire not in self._distrusted
        if fit and wire.rest(self._keepalive):
            self._idle.setdefault(wire.site, []).append(wire)
            self._waiting += 1
        else:
            wire.abort()

    async def connect(self, site: Site) -> Wire:
        """Return a new connection, its TLS handshake done.

        Raises `UnresolvedError` for a name without addresses, `PermissionError` where all are forbidden, and else
        what the operating system or OpenSSL says, as `OSError`.
        """
        loop = asyncio.get_running_loop()
        addresses = await self._names.resolve(loop, site.host, site.port)
        permits = partial(self._guard.permits, site.host, port=site.port)
        sock = await _first(loop, [(one, permits(str(one[3][0]))) for one in addresses])
        _, wire = await loop.create_connection(
            lambda: Wire(loop, site, gone=self._lost, buffer=self._buffer),
            sock=sock,
            ssl=self._context if site.tls else None,
            server_hostname=site.host.removesuffix(".") if site.tls else None,
        )
        if not self._open:
            wire.abort()
            raise ConnectionAbortedError(errno.ECONNABORTED, "the pool is closed")
        if not wire.closed.done():
            self._wires.add(wire)
        self.opened += 1
        return wire

    def trust(self, context: ssl.SSLContext) -> None:
        """Hold those who are connected to from now on to other authorities; no connection of before is used again."""
        self._context = context
        self._distrusted = set(self._wires)
        for wire in [one for wires in self._idle.values() for one in wires]:
            wire.abort()
        self._idle, self._waiting = {}, 0

    async def close(self) -> None:
        """Close every connection, and return once they are closed."""
        self._open = False
        wires = tuple(self._wires)
        for wire in wires:
            wire.abort()
        if wires:
            await asyncio.wait([wire.closed for wire in wires], timeout=1.0)

    def _lost(self, wire: Wire) -> None:
        self._wires.discard(wire)
        self._distrusted.discard(wire)
        wires = self._idle.get(wire.site)
        if wires is not None:
            if wire in wires:
                wires.remove(wire)
                self._waiting -= 1
            if not wires:
                del self._idle[wire.site]


class _Names:
    """Resolves names, once for everyone who asks at the same time, and remembers the answer for a moment."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float, asyncio.Task[Sequence[_Address]]]] = {}

    async def resolve(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> Sequence[_Address]:
        """Return the addresses to try, in this order; raises `UnresolvedError`."""
        literal = _literal(host, port)
        if literal is not None:
            return (literal,)
        now, key = loop.time(), (host, port)
        for old in [name for name, (until, _) in self._known.items() if until <= now]:
            del self._known[old]
        if key not in self._known:
            task = loop.create_task(_look_up(loop, host, port))
            task.add_done_callback(partial(self._looked_up, key))
            self._known[key] = (now + _NAMES_TTL, task)
        # One who leaves does not take the answer from the others.
        return await asyncio.shield(self._known[key][1])

    def _looked_up(self, key: tuple[str, int], task: asyncio.Task[Sequence[_Address]]) -> None:
        # A failure is told to those who wait and not remembered.
        if (task.cancelled() or task.exception() is not None) and self._known.get(key, (0.0, None))[
            1
        ] is task:
            del self._known[key]


def _literal(host: str, port: int) -> _Address | None:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    if version == 4:
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, (host, port))
    return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, (host, port, 0, 0))


async def _look_up(loop: asyncio.AbstractEventLoop, host: str, port: int) -> Sequence[_Address]:
    """Ask the system; families take turns, so that a broken one costs one delay and not many."""
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    except OSError as exc:
        raise UnresolvedError(exc.errno, "the name cannot be resolved") from exc
    families: dict[int, deque[_Address]] = {}
    for family, kind, protocol, _, target in found:
        families.setdefault(family, deque()).append((family, kind, protocol, target))
    turns: list[_Address] = []
    while queues := [queue for queue in families.values() if queue]:
        turns.extend(queue.popleft() for queue in queues)
    if not turns:
        raise UnresolvedError(errno.ENOENT, "the name has no addresses")
    return turns


async def _first(
    loop: asyncio.AbstractEventLoop, addresses: Sequence[tuple[_Address, bool]]
) -> socket.socket:
    """Return a socket to whichever permitted address answers first; the next is tried after a moment or a failure.

    Raises the first address's `OSError` where none answers.
    """
    if len(addresses) == 1:
        return await _dial(loop, *addresses[0])
    left = deque(addresses)
    tasks: list[asyncio.Task[socket.socket]] = []
    winner: asyncio.Task[socket.socket] | None = None
    try:
        while winner is None:
            if left:
                tasks.append(loop.create_task(_dial(loop, *left.popleft())))
            trying = [task for task in tasks if not task.done()]
            if trying:
                await asyncio.wait(
                    trying, timeout=_NEXT_ADDRESS if left else None, return_when=asyncio.FIRST_COMPLETED
                )
            winner = next((task for task in tasks if task.done() and task.exception() is None), None)
            if winner is None and not left and all(task.done() for task in tasks):
                break
        return (winner or tasks[0]).result()
    finally:
        for task in tasks:
            if task is not winner:
                task.cancel()
                task.add_done_callback(_discard)


def _discard(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _dial(loop: asyncio.AbstractEventLoop, address: _Address, permitted: bool) -> socket.socket:
    """Connect to an address that a name resolved to, if it is one that this name may lead to."""
    family, kind, protocol, target = address
    if not permitted:
        raise PermissionError(errno.EACCES, "the address is not allowed")
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock
