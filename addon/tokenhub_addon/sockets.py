"""The listening sockets of several workers: the supervisor binds them all and keeps them, workers inherit them.

Every slot has sockets of its own that share their ports by SO_REUSEPORT: the kernel spreads connections evenly, few
long ones too. No socket is ever closed while the server runs, so none loses the connections that wait in it: a
worker's successor accepts from the same ones, and where a slot has no worker all others accept from them.
See docs/decisions/0011-listening-sockets.md.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
from mitmproxy.proxy import mode_servers, mode_specs

from tokenhub_core.config import Settings
from tokenhub_core.errors import ConfigError

SIDE: Final = "side server"
BACKLOG: Final = 1024
"""Connections that wait in one socket; the kernel takes less where `net.core.somaxconn` says so."""
_TRIES: Final = 20
"""Free ports that are tried until one is free for every address."""
_TURNS: Final = 2
"""Turns of the loop after which everybody who was accepted has a transport."""


class Group(msgspec.Struct, frozen=True):
    """One listener: the side server, or a proxy mode by its spec."""

    name: str
    slots: tuple[tuple[int, ...], ...]
    """The file descriptors of each slot, one for each address."""


def opened(settings: Settings, workers: int) -> tuple[list[Group], list[socket.socket]]:
    """Bind everything that workers listen on; raises `ConfigError` with one line."""
    wanted: list[tuple[str, str, int]] = [(SIDE, settings.host, settings.admin_port)]
    for spec in settings.modes:
        try:
            mode = mode_specs.ProxyMode.parse(spec)
        except ValueError as error:
            raise ConfigError(f"{spec} is not a proxy mode: {error}") from error
        port = mode.listen_port(settings.port)
        if port is None or mode.transport_protocol != "tcp":
            raise ConfigError(
                f"mode {spec} has no listening socket that workers could share: use --workers 1"
            )
        wanted.append((mode.full_spec, mode.listen_host(settings.host), port))
    groups: list[Group] = []
    kept: list[socket.socket] = []
    for name, host, port in wanted:
        try:
            slots = _bound(host, port, workers)
        except OSError as error:
            for one in kept:
                one.close()
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            raise ConfigError(f"cannot listen on {host}:{port}: {reason}") from None
        groups.append(Group(name, tuple(tuple(one.fileno() for one in slot) for slot in slots)))
        kept += [one for slot in slots for one in slot]
    return groups, kept


def _bound(host: str, port: int, workers: int) -> list[list[socket.socket]]:
    """Return a socket for each address and slot, all on one port."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    for turn in range(_TRIES):
        slots: list[list[socket.socket]] = [[] for _ in range(workers)]
        try:
            # A probe without SO_REUSEPORT: another server of the same user must not be joined unseen.
            chosen = _free(addresses, port)
            for slot in slots:
                slot += [_listening(family, str(address[0]), chosen) for family, address in addresses]
        except OSError:
            for one in (one for slot in slots for one in slot):
                one.close()
            if port or turn == _TRIES - 1:
                raise
            continue
        return slots
    raise AssertionError


def _free(addresses: Sequence[tuple[Any, Any]], port: int) -> int:
    for family, address in addresses:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((address[0], port))
            # Bound alone it would not be seen that another one listens without SO_REUSEPORT.
            probe.listen(1)
            port = int(probe.getsockname()[1])
    return port


def _listening(family: int, host: str, port: int) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((host, port))
        one.listen(BACKLOG)
    except OSError:
        one.close()
        raise
    return one


class Handle(Protocol):
    """A socket as servers show theirs."""

    def fileno(self) -> int:
        """Return its file descriptor."""
        ...


class Server(Protocol):
    """What accepts from one socket."""

    @property
    def sockets(self) -> Sequence[Handle]:
        """What it accepts from; none once it is closed."""
        ...

    def close(self) -> object:
        """Accept no more; what was accepted goes on."""
        ...


type Opener[S: Server] = Callable[[socket.socket], Awaitable[S]]


class Tended:
    """From which sockets this worker accepts: those of its slot, and those of slots that have nobody."""

    def __init__(self, slot: int, groups: Sequence[Group]) -> None:
        self._slot = slot
        self._groups = {group.name: group for group in groups}
        self._openers: dict[str, Opener[Server]] = {}
        self._own: list[Server] = []
        self._more: dict[int, list[Server]] = {}
        self._turn = asyncio.Lock()
        self._over = False

    async def own[S: Server](self, name: str, opener: Opener[S]) -> list[S]:
        """Accept from this worker's sockets of a group, and with the same `opener` from those of others."""
        self._openers[name] = opener
        opened = [await opener(_again(one)) for one in self._groups[name].slots[self._slot]]
        self._own += opened
        return opened

    async def tend(self, slots: frozenset[int]) -> None:
        """Accept for these slots, and for no others than them and our own."""
        async with self._turn:
            for slot in [*self._more]:
                if slot not in slots:
                    await _close(self._more.pop(slot))
            for slot in slots - {self._slot, *self._more}:
                if not self._over:
                    self._more[slot] = [
                        await opener(_again(one))
                        for name, opener in self._openers.items()
                        for one in self._groups[name].slots[slot]
                    ]

    async def leave(self) -> None:
        """Accept no more, and let go of every socket; whoever else has it goes on."""
        async with self._turn:
            self._over = True
            await _close([*self._own, *(one for more in self._more.values() for one in more)])
            self._own.clear()
            self._more.clear()
            for one in (one for group in self._groups.values() for slot in group.slots for one in slot):
                os.close(one)
            self._groups.clear()


async def _close(servers: Sequence[Server]) -> None:
    """Close servers; whoever they have accepted stays.

    asyncio (3.13) drops a connection whose server is closed between its accepting and its transport's making.
    """
    loop = asyncio.get_running_loop()
    for one in (one for server in servers for one in server.sockets):
        loop.remove_reader(one.fileno())
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    for server in servers:
        server.close()


def _again(descriptor: int) -> socket.socket:
    """Return another handle of a socket, which a server may close."""
    return socket.socket(fileno=os.dup(descriptor))


def listen_by(tended: Tended) -> Callable[[], None]:
    """Let mitmproxy's listeners accept from these sockets instead of binding any; return the way back."""
    kept = mode_servers.AsyncioServerInstance.listen

    async def listen(self: Any, host: str, port: int) -> list[Any]:
        del host, port

        async def opener(one: socket.socket) -> asyncio.Server:
            return await asyncio.start_server(self.handle_stream, sock=one, backlog=BACKLOG)

        return [*await tended.own(self.mode.full_spec, opener)]

    def restore() -> None:
        mode_servers.AsyncioServerInstance.listen = kept  # type: ignore[method-assign] # that is the point

    mode_servers.AsyncioServerInstance.listen = listen  # type: ignore[method-assign] # as above
    return restore
