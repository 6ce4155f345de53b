"""Connections that come out of no socket of ours: WireGuard, local capture, tun.

mitmproxy reads those from a stream of its own (`mitmproxy_rs.Stream`), and a read that is given up loses what it
would have returned. So such a connection cannot be taken away from mitmproxy's handler: the handler goes on reading
and writing, `Spliced` is a layer that parses nothing, and `Splice` the transport that our TLS and our server see.

This file leans on internals of mitmproxy (`ConnectionHandler.transports`, `drain_writers` and `timeout_watchdog`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, override

from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.server import ConnectionHandler

_HIGH: Final = 64 * 1024
"""Bytes that are written before the next ones wait for the stream."""
_PIECE: Final = 32 * 1024
_FOR_EVER: Final = 365 * 86_400
"""Seconds."""


class _Stream(Protocol):
    """What mitmproxy holds as the writer of such a connection."""

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def is_closing(self) -> bool: ...
    async def drain(self) -> None: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


class Splice(asyncio.Transport):
    """One connection as a transport; its protocol is an `asyncio.BufferedProtocol`."""

    def __init__(self, handler: ConnectionHandler, client: Client) -> None:
        super().__init__({"peername": client.peername, "sockname": client.sockname})
        io = handler.transports[client]
        self._io = io
        self._stream: _Stream = io.writer  # type: ignore[assignment] # typed by mitmproxy as one of two classes
        self._valve = _Valve(self._stream)
        io.writer = self._valve  # type: ignore[assignment] # has what mitmproxy calls of a writer
        # Our server knows when a connection is idle: an answer may take longer than mitmproxy lets one be silent.
        handler.timeout_watchdog.timeout = _FOR_EVER
        self._protocol: Any = None
        self._unsent = 0
        self._flushing: asyncio.Task[None] | None = None
        self._closing = False
        self._lost = False

    # --- what comes

    def received(self, data: bytes) -> None:
        """Hear what the client has sent."""
        for start in range(0, len(data), _PIECE):
            if self._lost:
                return
            piece = data[start : start + _PIECE]
            self._protocol.get_buffer(len(piece))[: len(piece)] = piece
            self._protocol.buffer_updated(len(piece))

    def ended(self) -> None:
        """Hear that the client sends no more."""
        if not self._lost and not self._protocol.eof_received():
            self.close()

    def gone(self) -> None:
        """Hear that the connection is no more."""
        self._lose(None)

    # --- asyncio.Transport

    @override
    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    @override
    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol  # type: ignore[no-any-return] # asyncio's and uvloop's have no common type

    @override
    def is_reading(self) -> bool:
        return self._valve.opened.is_set()

    @override
    def pause_reading(self) -> None:
        self._valve.opened.clear()

    @override
    def resume_reading(self) -> None:
        self._valve.opened.set()

    @override
    def get_write_buffer_size(self) -> int:
        return self._unsent if self._flushing is not None else 0

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self._lost:
            return
        self._stream.write(bytes(data))
        self._unsent += len(data)
        if self._unsent >= _HIGH and self._flushing is None:
            self._protocol.pause_writing()
            self._flush(self._go_on)

    @override
    def is_closing(self) -> bool:
        return self._closing

    @override
    def close(self) -> None:
        """End the connection once what was written has left."""
        if self._closing:
            return
        self._closing = True
        if self._flushing is not None:
            self._flushing.cancel()
        self._flush(self.abort)

    @override
    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, exc: BaseException | None) -> None:
        """End the connection now; asyncio's TLS calls it."""
        self._lose(exc)
        # The handler closes the stream, and tells its layers unless it has told them of the client's end before.
        if self._io.handler is not None:
            self._io.handler.cancel("closed by our server")

    # ---

    def _flush(self, then: Callable[[], None]) -> None:
        async def flush() -> None:
            try:
                await self._stream.drain()
            except OSError as error:
                self._force_close(error)
            else:
                then()

        task = asyncio.get_running_loop().create_task(flush(), name="splice")
        self._flushing = None if task.done() else task  # it may begin at once, and have nothing to wait for

    def _go_on(self) -> None:
        self._flushing, self._unsent = None, 0
        if not self._lost:
            self._protocol.resume_writing()

    def _lose(self, exc: BaseException | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        if self._flushing is not None:
            self._flushing.cancel()
        self._valve.opened.set()
        if self._protocol is not None:
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, exc)


class Spliced(layer.Layer):
    """The layer: what it is told of the client goes to the transport."""

    def __init__(self, context: Context, splice: Splice) -> None:
        super().__init__(context)
        self._splice = splice

    @override
    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived):
            self._splice.received(event.data)
        elif isinstance(event, events.ConnectionClosed):
            if self.context.client.state is ConnectionState.CLOSED:
                self._splice.gone()
            else:
                self._splice.ended()
        yield from _NOTHING


_NOTHING: Final[tuple[commands.Command, ...]] = ()


class _Valve:
    """The stream's writer in mitmproxy's hands: while it is shut, the handler does not read on."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self.opened = asyncio.Event()
        self.opened.set()

    def is_closing(self) -> bool:
        return self._stream.is_closing()

    def write(self, data: bytes) -> None:
        self._stream.write(data)

    def write_eof(self) -> None:
        self._stream.write_eof()

    def close(self) -> None:
        self._stream.close()

    async def drain(self) -> None:
        await self._stream.drain()
        await self.opened.wait()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._stream.get_extra_info(name, default)
