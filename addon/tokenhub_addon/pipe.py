"""Bytes between the task that produces a stream and the one that waits for its reader."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.proxy import server

_TRANSCRIPT: Final = 1024 * 1024
"""A streamed answer up to this size is kept in its flow; of a longer one nothing is."""


class Pipe[End]:
    """Frames on their way from one task to another: joined, and bounded to about `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: list[bytes] = []
        self._size = 0
        self._end: End | None = None
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._burst = False

    async def put(self, frame: bytes) -> None:
        """Add a frame; wait while too much is waiting."""
        self._frames.append(frame)
        self._size += len(frame)
        self._filled.set()
        while self._size >= self._limit and not self._burst:
            self._emptied.clear()
            await self._emptied.wait()

    def finish(self, end: End) -> None:
        """Say how the stream ends, after everything that was put."""
        self._end = end
        self._filled.set()

    def burst(self) -> None:
        """Hear that nobody takes any more."""
        self._burst = True
        self._emptied.set()

    async def take(self) -> tuple[bytes, End | None]:
        """Return all bytes that are ready, at least one frame, and the end if it was reached."""
        await self._filled.wait()
        data = b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        self._filled.clear()
        self._emptied.set()
        return data, self._end


class Transcript:
    """What was streamed, unless it was too much."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        """Remember a piece."""
        self._size += len(data)
        if self._size > _TRANSCRIPT:
            self._pieces.clear()
        else:
            self._pieces.append(data)

    def keep(self, flow: http.HTTPFlow) -> None:
        """Put what was remembered into the flow that it was streamed for."""
        response = flow.response
        if response is not None and response.stream and response.raw_content is None and self._pieces:
            response.data.content = b"".join(self._pieces)


def reset_at_close(handler: server.ConnectionHandler, client: Client) -> None:
    """Let the connection end with a TCP reset: in HTTP/1.0 a normal close would say that all is well."""
    io = handler.transports.get(client)
    if io is not None and isinstance(io.writer, asyncio.StreamWriter):
        sock: socket.socket = io.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
