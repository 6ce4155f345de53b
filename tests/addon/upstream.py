"""Stands for every host that must or must not be reached."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import abc

from tests.fakes.certificates import authority, server_context

ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nupstream"

_dial = asyncio.open_connection
"""Bound here: a test replaces the name by `Upstream.dial`."""


class Upstream:
    """Stands for the internet: every address that the proxy dials leads here, and is written down."""

    def __init__(self, answer: bytes = ANSWER) -> None:
        self.answer = answer
        self.dials: list[tuple[str, int]] = []
        self.requests: list[bytes] = []
        self.by_name: list[str] = []
        """Names that were dialled as they are, and not at an address that somebody had looked at."""
        self._names: dict[str, str] = {}
        self.at_second_look: dict[str, str] = {}
        """Addresses that names lead to when they are dialled, where it is not what they resolved to."""
        self.uploaded = 0
        """Bytes of request bodies that have arrived, of those still coming too."""
        self._servers: list[asyncio.Server] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._closed = False

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen on loopback; with `tls`, what is dialled at port 443 speaks it."""
        for context in (None, tls) if tls is not None else (None,):
            self._servers.append(await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context))

    def port(self, wanted: int) -> int:
        """Return the port of the stand-in for what listens at port `wanted`."""
        server = self._servers[-1] if wanted == 443 else self._servers[0]
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Stop, and drop what is open, what has only just come in too."""
        self._closed = True
        for server in self._servers:
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        for server in self._servers:
            await server.wait_closed()

    async def dial(
        self, host: str, port: int, **how: object
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the stand-in in place of `host`."""
        (resolved,) = await self.resolve(host, port)
        if resolved != host:
            self.by_name.append(host)
        self.dials.append((self._names.get(host, host), port))
        reader, writer = await _dial("127.0.0.1", self.port(port))
        # The connection claims to lead where it would lead in the world.
        found = self.at_second_look.get(host) or resolved
        writer.transport._extra["peername"] = (found, port)  # type: ignore[attr-defined] # the stand-in's lie
        return reader, writer

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return addresses like a resolver would, all of them public but those that say what they are."""
        if host == "nowhere.example":
            raise OSError("no such name")
        if host in {"localhost", "metadata.example"}:
            return ["127.0.0.1" if host == "localhost" else "169.254.169.254"]
        if host[-1].isdigit() or ":" in host:
            return [host]
        known = {name: address for address, name in self._names.items()}
        address = known.get(host) or f"93.184.216.{34 + len(known)}"
        self._names[address] = host
        return [address]

    async def look_up(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        """Answer in the place of `loop.getaddrinfo`."""
        found = await self.resolve(str(host), int(port or 0))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        self._writers.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head + await self._body(reader, head.lower()))
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _body(self, reader: asyncio.StreamReader, head: bytes) -> bytes:
        """Read a request's body, and count it as it comes."""
        body = b""
        if b"\r\ntransfer-encoding: chunked" in head:
            while size := int(await reader.readuntil(b"\r\n"), 16):
                body += (await reader.readexactly(size + 2))[:-2]
                self.uploaded += size
            await reader.readexactly(2)
            return body
        _, _, rest = head.partition(b"\r\ncontent-length:")
        left = int(rest.partition(b"\r\n")[0] or 0)
        while left and (piece := await reader.read(left)):
            body += piece
            left -= len(piece)
            self.uploaded += len(piece)
        return body


@asynccontextmanager
async def standing_in(
    folder: Path, *, address: str = "127.0.0.1", answer: bytes = ANSWER
) -> AsyncIterator[Upstream]:
    """Run an upstream that speaks TLS too, with a certificate for `address` of the authority in `folder`."""
    upstream = Upstream(answer)
    await upstream.start(server_context(folder, authority(folder), address=address))
    try:
        yield upstream
    finally:
        await upstream.close()


class Way(abc.AbstractResolver):
    """Leads aiohttp's connections to an upstream, and writes them down."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[abc.ResolveResult]:
        """Return where the stand-in listens."""
        await self._upstream.resolve(host, port)
        self._upstream.dials.append((host, port))
        return [
            abc.ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=self._upstream.port(port),
                family=family,
                proto=0,
                flags=0,
            )
        ]

    async def close(self) -> None:
        """Do nothing."""
