"""WebSockets that pass through: once both sides have agreed to switch, raw bytes go both ways until one side ends.

Nothing is decoded: frames, masks, extensions and the closing handshake are the two ends' own (RFC 6455). A side that
reads slowly slows the other one down; about 64 KiB wait in either direction. Whoever ends its side has ended the
connection, as everywhere where TLS is closed by asyncio, but what it had sent before that is still delivered.

This leans on aiohttp's way to hand its own WebSocket parsers the bytes of a switched connection: `set_parser`
of both its protocols, with `feed_data` and `feed_eof` of what is set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import aiohttp
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import StreamWriter

_WAITING: Final = 64 << 10
"""Bytes of one side that may wait for the other one."""

type Counted = Callable[[int], None]
"""Hears how many bytes went by."""


class _Ear:
    """Stands in the place of aiohttp's parser, and keeps what one side sends until it is taken."""

    def __init__(self, protocol: BaseProtocol) -> None:
        self._protocol = protocol
        self._pieces: list[bytes] = []
        self._size = 0
        self._full = False
        self._ended = asyncio.Event()
        self._changed = asyncio.Event()

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Hear bytes; return that more may come, and that none are left over."""
        self._pieces.append(bytes(data))
        self._size += len(data)
        if self._size >= _WAITING and not self._full:
            self._full = True
            self._protocol.pause_reading()
        self._changed.set()
        return False, b""

    def feed_eof(self) -> None:
        """Hear that nothing more will come."""
        self._ended.set()
        self._changed.set()

    def rest(self) -> bytes:
        """Return what waits."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return data

    async def take(self) -> bytes:
        """Return what waits as soon as there is some; nothing at the end."""
        while not self._pieces and not self._ended.is_set():
            self._changed.clear()
            await self._changed.wait()
        data = self.rest()
        if self._full:
            self._full = False
            self._protocol.resume_reading()
        return data

    async def ended(self) -> None:
        """Return once nothing more will come."""
        await self._ended.wait()


async def splice(
    request: web.BaseRequest, upstream: aiohttp.ClientResponse, *, up: Counted, down: Counted
) -> None:
    """Pass bytes both ways until one side ends; the caller closes the other one then.

    Both sides have switched protocols: the client has its 101. Cancelled when the client leaves.
    """
    connection = upstream.connection
    if connection is None or connection.protocol is None:
        return  # the host has left again
    far, near = connection.protocol, request.protocol
    far.read_timeout = None
    from_far, from_near = _Ear(far), _Ear(near)
    loop = asyncio.get_running_loop()
    to_far, to_near = StreamWriter(far, loop), StreamWriter(near, loop)
    _listen(near, from_near)
    _listen(far, from_far, upstream.content)
    if far.transport is None:
        from_far.feed_eof()  # it was quick
    pumps = [
        asyncio.create_task(_pump(from_near, to_far, up), name="websocket up"),
        asyncio.create_task(_pump(from_far, to_near, down), name="websocket down"),
    ]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for pump in pumps:
            pump.cancel()
        if (last := from_near.rest()) and far.transport is not None and not far.transport.is_closing():
            up(len(last))
            far.transport.write(last)
        await asyncio.gather(*pumps, return_exceptions=True)


def _listen(protocol: Any, ear: _Ear, *payload: object) -> None:
    """Make an ear the parser of a protocol; it hears at once what has come already."""
    protocol.set_parser(ear, *payload)


async def _pump(source: _Ear, sink: StreamWriter, counted: Counted) -> None:
    """Pass on what comes until its source ends. A sink that is gone is told by its own ear, not by this one."""
    try:
        while data := await source.take():
            counted(len(data))
            await sink.write(data)
    except ConnectionError:
        await source.ended()
