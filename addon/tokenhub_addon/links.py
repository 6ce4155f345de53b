"""TLS between a transport that mitmproxy opened and our request handler.

uvloop's own TLS where the loop is uvloop's: asyncio's is written in Python, and a call then costs a twelfth more.

This file leans on internals of asyncio (`sslproto.SSLProtocol`), of uvloop (`loop.SSLProtocol`, which has the same
methods) and of aiohttp (`RequestHandler._request_in_progress`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
from asyncio import sslproto
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, override

from aiohttp import web

from tokenhub_core.http.connection import EXTRA_INFO, Connection

if TYPE_CHECKING or not importlib.util.find_spec("uvloop"):
    _Transport: Any = ()
    _Native = sslproto.SSLProtocol
else:
    from uvloop.loop import SSLProtocol as _Native
    from uvloop.loop import TCPTransport as _Transport

_HANDSHAKE_SECONDS: Final = 15
_PIECE: Final = 32 * 1024


class Link:
    """One connection that was taken: `app` answers it, and `ended` hears once when it is lost."""

    def __init__(
        self,
        app: web.RequestHandler,
        context: ssl.SSLContext,
        *,
        connection: Connection,
        ended: Callable[[Link], None],
    ) -> None:
        self.app = app
        self.connection = connection
        self.greeted = False
        """Whether the TLS handshake is over, and well."""
        self._context = context
        self._ended = ended
        self._parting = False
        self._raw: asyncio.Transport | None = None
        self._tls: _Asyncio | _Uvloop
        self._streams: tuple[object, ...] = ()

    def adopt(self, transport: asyncio.Transport, data: bytes, *, keep: tuple[object, ...]) -> None:
        """Read from `transport` from now on, `data` first. `keep` is what must live as long as it."""
        loop = asyncio.get_running_loop()
        greeting: asyncio.Future[None] = loop.create_future()
        greeting.add_done_callback(self._greet)
        kind = _Uvloop if isinstance(transport, _Transport) else _Asyncio
        tls = kind(loop, self.app, self._context, greeting, True, ssl_handshake_timeout=_HANDSHAKE_SECONDS)
        tls.serve(self)
        self._tls = tls
        self._raw = transport
        self._streams = keep  # a StreamWriter that nobody holds closes its transport
        transport.pause_reading()
        transport.set_protocol(tls)
        tls.connection_made(transport)
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            tls.get_buffer(len(piece))[: len(piece)] = piece
            tls.buffer_updated(len(piece))
        transport.resume_reading()

    def close_if_idle(self) -> None:
        """Close unless a request is in progress; call again until the connection is lost.

        The client need not answer our close_notify: many clients do not read while they are idle.
        """
        if self._raw is None:
            return
        if not self.greeted:
            self._raw.abort()
        elif self._parting:
            waiting = self._tls._get_app_transport().get_write_buffer_size()  # type: ignore[union-attr] # asyncio's
            if not waiting and not self._raw.get_write_buffer_size():
                self._raw.close()
        elif not self.app._request_in_progress:
            self._parting = True
            self.app.close()
            self.app.force_close()

    def cut(self) -> None:
        """Drop the connection now, whatever is in progress."""
        if self._raw is not None:
            self._raw.abort()

    def lost(self) -> None:
        """Hear that the connection is no more."""
        self._raw = None
        self._streams = ()
        # Each holds the other, and what OpenSSL keeps for the connection; the collector may come late.
        del self._tls
        self._ended(self)

    def _greet(self, greeting: asyncio.Future[None]) -> None:
        self.greeted = greeting.exception() is None


class _Asyncio(sslproto.SSLProtocol):
    # What a connection keeps as its read buffer for its whole life; asyncio's own size is 256 KiB.
    max_size = _PIECE

    def serve(self, link: Link) -> None:
        self._link = link
        self._extra[EXTRA_INFO] = link.connection

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._link.lost()
        del self._link


class _Uvloop(_Native):
    # `connection_of` finds it here: uvloop lets nobody add to what its transports tell.
    connection: Connection

    def serve(self, link: Link) -> None:
        self._link = link
        self.connection = link.connection

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._link.lost()
        del self._link
