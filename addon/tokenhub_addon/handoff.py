"""The hand-off lane: TLS connections to recognised hosts leave mitmproxy for our own HTTP server.

mitmproxy reads CONNECT, SOCKS or the original destination, checks proxy credentials, and asks in `next_layer`
what follows. Where that is a ClientHello for a recognised host, the client's transport, ClientHello included,
gets a TLS protocol of ours with an aiohttp request handler on top, in the same event loop. mitmproxy's handler
for that client then ends in its usual way, except that the writer that it closes is not connected to anything.
So an intercepted request costs what a direct HTTPS request costs. A connection that comes out of no socket of ours
stays with mitmproxy's handler, whose bytes are spliced to the same server (`splicing`).

Four verdicts: the ClientHello is not complete yet (wait for more), the connection is ours (take it), it contradicts
itself (refuse it), or it is somebody else's business (leave it to the next addon). An exception refuses too: from
`next_layer` on, nothing that we fail at may reach the host.

This file, `links` and `splicing` are the ones of this lane that lean on internals: this one of mitmproxy
(`Proxyserver.connections`, `ConnectionHandler.transports`, `NextLayer._paused_event_queue`,
`ProxyAuth.authenticated`) and of asyncio (`StreamReader._buffer`).
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, assert_never, cast, override

from aiohttp import web
from mitmproxy import ctx, exceptions
from mitmproxy.connection import Client
from mitmproxy.proxy import commands, events, layer, mode_specs, tunnel
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.server import ConnectionHandler

from tokenhub_addon import hellos
from tokenhub_addon.callers import Shown, near
from tokenhub_addon.links import Link
from tokenhub_addon.splicing import Splice, Spliced
from tokenhub_core.ca import CertificateAuthority
from tokenhub_core.certificates import normal
from tokenhub_core.http.connection import Connection

_logger = logging.getLogger(__name__)

_MAX_HELLO: Final = 64 * 1024
"""A ClientHello is about half a kilobyte, two with post-quantum key shares."""

_CLEAN_UP_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.02

# RFC 8446, 6: a fatal alert, sent in the clear.
_UNRECOGNIZED_NAME: Final = bytes((21, 3, 3, 0, 2, 2, 112))
_INTERNAL_ERROR: Final = bytes((21, 3, 3, 0, 2, 2, 80))


class _Undecided(enum.Enum):
    WAIT = enum.auto()
    """The ClientHello is not complete."""
    LEAVE = enum.auto()
    """Not ours."""
    REFUSE = enum.auto()
    """The name that the client asked for and the one that it connects to contradict each other."""


@dataclass(frozen=True, slots=True)
class _Take:
    host: str
    port: int


type _Verdict = _Take | _Undecided


class Handoff:
    """The addon. It must stand before mitmproxy's `NextLayer`; `server` answers what it takes.

    `is_llm_host` gets names in lower case; `shown` says what a connection was opened with. Give `server`
    `handler_cancellation=True`, so that a handler ends when its client leaves. Its requests find their `Connection` in
    `connection_of(request.transport)`.
    """

    def __init__(
        self,
        *,
        authority: CertificateAuthority,
        server: web.Server,
        is_llm_host: Callable[[str], bool],
        shown: Callable[[Client], Shown] = lambda _: Shown(),
    ) -> None:
        self._authority = authority
        self._server = server
        self._is_llm_host = is_llm_host
        self._shown = shown
        self._links: set[Link] = set()
        self.handed_off = 0
        """Connections taken so far."""
        self.refused = 0
        """Connections closed because their names contradict each other."""
        self.failed = 0
        """Connections closed because of an error of ours."""
        self.untrusted = 0
        """TLS handshakes that failed after the hand-off, as they do when a client does not trust our CA."""

    @property
    def open_connections(self) -> int:
        """Return how many connections are with our server now."""
        return len(self._links)

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """Take, refuse or leave a connection at its ClientHello."""
        if nextlayer.layer is not None:
            return
        try:
            waiting = self._decide(nextlayer)
        except Exception:  # fails closed: the connection ends
            self.failed += 1
            _logger.exception("hand-off failed; the connection is closed")
            nextlayer.layer = _Ended(nextlayer.context, _INTERNAL_ERROR)
            return
        if waiting:
            # With one or two bytes mitmproxy would settle for a raw tunnel to the host.
            raise exceptions.AddonHalt

    async def drain(self, seconds: float) -> None:
        """Let requests in progress end for at most `seconds`, then cut what is left.

        Idle connections are closed at once. The caller has stopped accepting new ones.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._links and loop.time() < deadline:
            for link in tuple(self._links):
                link.close_if_idle()
            await asyncio.sleep(_POLL_SECONDS)
        cut = {link.app for link in self._links}
        for link in tuple(self._links):
            link.cut()
        # A handler that was cancelled leaves the server's list once it has cleaned up.
        for _ in range(int(_CLEAN_UP_SECONDS / _POLL_SECONDS)):
            if not self._links and cut.isdisjoint(self._server.connections):
                break
            await asyncio.sleep(_POLL_SECONDS)

    def _decide(self, nextlayer: layer.NextLayer) -> bool:
        """Return whether the ClientHello is still incomplete; everything else is done here."""
        context = nextlayer.context
        verdict = self._verdict(context, _seen(nextlayer))
        match verdict:
            case _Take():
                handler = _handler(context.client)
                if handler is not None and _may_pass(context.client):
                    self._take(nextlayer, handler, verdict)
            case _Undecided.REFUSE:
                self.refused += 1
                nextlayer.layer = _Ended(context, _UNRECOGNIZED_NAME)
            case _Undecided.WAIT:
                return True
            case _Undecided.LEAVE:
                pass
            case _:
                assert_never(verdict)
        return False

    def _verdict(self, context: Context, data: bytes) -> _Verdict:
        address = context.server.address
        if address is None or not _could_be_hello(data) or not _is_plain(context):
            return _Undecided.LEAVE
        try:
            hello = hellos.read(data)
        except ValueError:
            hello = hellos.Hello()
        if hello is None:
            return _Undecided.WAIT if len(data) <= _MAX_HELLO else _Undecided.REFUSE
        if hello.protocols and b"http/1.1" not in hello.protocols:
            return _Undecided.LEAVE  # gRPC: HTTP/2 or nothing; the inspect lane speaks it
        target, port = normal(address[0]), address[1]
        return self._match(target, normal(hello.name), port, chosen_by_us=_chosen_by_us(context.client))

    def _match(self, target: str, asked: str, port: int, *, chosen_by_us: bool) -> _Verdict:
        """Decide by where the connection goes (`target`) and which name it asks for (`asked`, may be empty)."""
        if not asked or asked == target:
            return _Take(target, port) if self._is_llm_host(target) else _Undecided.LEAVE
        asks_llm, goes_llm = self._is_llm_host(asked), self._is_llm_host(target)
        if asks_llm and _is_address(target):
            return _Take(asked, port)  # the client or the network has resolved the name already
        if goes_llm and chosen_by_us and not asks_llm:
            return _Take(target, port)  # a reverse proxy's own name says nothing of where it leads
        return _Undecided.REFUSE if asks_llm or goes_llm else _Undecided.LEAVE

    def _take(self, nextlayer: layer.NextLayer, handler: ConnectionHandler, take: _Take) -> None:
        client = nextlayer.context.client
        io = handler.transports[client]
        reader, writer = io.reader, io.writer
        if not isinstance(reader, asyncio.StreamReader) or not isinstance(writer, asyncio.StreamWriter):
            splice = Splice(handler, client)
            nextlayer.layer = Spliced(nextlayer.context, splice)
            self._adopt(self._link(client, take), splice, b"", keep=())
            return
        transport = cast(asyncio.Transport, writer.transport)
        if transport.is_closing() or transport.get_write_buffer_size():
            return  # the client has gone, or does not read what mitmproxy still has for it
        link = self._link(client, take)
        data = _unread(nextlayer, reader)
        io.writer = _Nowhere()  # type: ignore[assignment] # has what mitmproxy calls of a StreamWriter
        nextlayer.layer = _Ended(nextlayer.context)
        self._adopt(link, transport, data, keep=(reader, writer))

    def _link(self, client: Client, take: _Take) -> Link:
        shown = self._shown(client)
        return Link(
            self._server(),
            self._authority.server_context(take.host),
            connection=Connection(
                peer=client.peername[0],
                mode=client.proxy_mode.type_name,
                proxy_user=shown.user or _proxy_user(client),
                host=take.host,
                port=take.port,
                key=shown.key,
                near=near(client),
            ),
            ended=self._ended,
        )

    def _adopt(
        self, link: Link, transport: asyncio.Transport, data: bytes, *, keep: tuple[object, ...]
    ) -> None:
        self._links.add(link)
        try:
            link.adopt(transport, data, keep=keep)
        except BaseException:
            self._links.discard(link)
            transport.abort()
            raise
        self.handed_off += 1

    def _ended(self, link: Link) -> None:
        self._links.discard(link)
        if not link.greeted:
            self.untrusted += 1


class _Ended(layer.Layer):
    """The end of a connection in mitmproxy: whatever happened so far and happens next, it is closed.

    A connection that was taken closes `_Nowhere`; a refused one its socket, after a TLS alert that says why.
    """

    def __init__(self, context: Context, farewell: bytes = b"") -> None:
        super().__init__(context)
        self._farewell = farewell

    @override
    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            if self._farewell:
                yield commands.SendData(self.context.client, self._farewell)
            yield commands.CloseConnection(self.context.client)


class _Nowhere:
    """What mitmproxy holds in place of the writer of a connection that was taken."""

    def is_closing(self) -> bool:
        return True

    def write(self, data: bytes) -> None:
        """Drop it: the client talks TLS with our server."""

    def write_eof(self) -> None:
        """Leave the socket open."""

    def close(self) -> None:
        """Leave the socket open."""

    async def drain(self) -> None:
        """Wait for nothing."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default


def _addon(name: str) -> Any:
    """Return one of mitmproxy's own addons, None where it is not loaded."""
    return ctx.master.addons.get(name)  # type: ignore[no-untyped-call] # mitmproxy's


def _handler(client: Client) -> ConnectionHandler | None:
    handler: ConnectionHandler | None = _addon("proxyserver").connections.get(client.id)
    return handler


def _may_pass(client: Client) -> bool:
    """Tell whether nobody asks for proxy credentials, or this client has shown them.

    In modes that have no CONNECT they come with each request: those stay with mitmproxy, which checks them.
    """
    proxyauth = _addon("proxyauth")
    return proxyauth is None or proxyauth.validator is None or client in proxyauth.authenticated


def _proxy_user(client: Client) -> str:
    proxyauth = _addon("proxyauth")
    credentials = proxyauth.authenticated.get(client) if proxyauth is not None else None
    return str(credentials[0]) if credentials else ""


def _could_be_hello(data: bytes) -> bool:
    """Tell whether this is the beginning of a TLS handshake record, however short."""
    return bool(data) and b"\x16\x03".startswith(data[:2]) and (len(data) < 3 or data[2] <= 3)


def _is_plain(context: Context) -> bool:
    """Tell whether the client's bytes are its TCP bytes, and not the inside of TLS with the proxy itself."""
    return context.client.transport_protocol == "tcp" and not any(
        isinstance(outer, tunnel.TunnelLayer) and outer.tunnel_connection is context.client
        for outer in context.layers
    )


def _chosen_by_us(client: Client) -> bool:
    """Tell whether the destination comes from our settings and not from the client."""
    return isinstance(client.proxy_mode, mode_specs.ReverseMode)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _seen(nextlayer: layer.NextLayer) -> bytes:
    data: bytes = nextlayer.data_client()  # type: ignore[no-untyped-call] # mitmproxy's
    return data


def _unread(nextlayer: layer.NextLayer, reader: asyncio.StreamReader) -> bytes:
    """Return all that the client has sent in this layer: seen, waiting for the hook's end, still in the reader."""
    client = nextlayer.context.client
    waiting = (
        event.data
        for event in nextlayer._paused_event_queue
        if isinstance(event, events.DataReceived) and event.connection is client
    )
    buffer: bytearray = reader._buffer  # type: ignore[attr-defined] # read() would have to wait
    data = b"".join((_seen(nextlayer), *waiting, buffer))
    buffer.clear()
    return data
