"""Stands for every host that must or must not be reached."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence

from aiohttp import abc

_dial = asyncio.open_connection
"""Bound here: a test replaces the name by `Upstream.dial`."""


class Upstream:
    """Stands for the internet: every address that the proxy dials leads here, and is written down."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nupstream") -> None:
        self.answer = answer
        self.dials: list[tuple[str, int]] = []
        self.requests: list[bytes] = []
        self.at_second_look: dict[str, str] = {}
        """Addresses that names lead to when they are dialled, where it is not what they resolved to."""
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen on loopback."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop."""
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def dial(
        self, host: str, port: int, **how: object
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the stand-in in place of `host`."""
        self.dials.append((host, port))
        reader, writer = await _dial("127.0.0.1", self.port)
        # The connection claims to lead where it would lead in the world.
        found = self.at_second_look.get(host) or (await self.resolve(host, port))[0]
        writer.transport._extra["peername"] = (found, port)  # type: ignore[attr-defined] # the stand-in's lie
        return reader, writer

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return addresses like a resolver would, all of them public but those that say what they are."""
        if host == "nowhere.example":
            raise OSError("no such name")
        if host in {"localhost", "metadata.example"}:
            return ["127.0.0.1" if host == "localhost" else "169.254.169.254"]
        return [host if host[-1].isdigit() or ":" in host else "93.184.216.34"]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (
                        int(line[15:])
                        for line in head.lower().split(b"\r\n")
                        if line.startswith(b"content-length:")
                    ),
                    0,
                )
                self.requests.append(head + await reader.readexactly(length))
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
