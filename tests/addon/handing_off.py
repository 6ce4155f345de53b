"""A proxy with the hand-off lane, the server behind it, and clients that talk to both by hand.

The shared clients of `scenes` do whole requests; here single bytes matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, override

from aiohttp import web
from mitmproxy.addons.proxyauth import ProxyAuth
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import ClientHelloData

from tests.patience import PATIENCE
from tokenhub_addon.handoff import Handoff
from tokenhub_addon.serve import ProxyServer, ProxySettings
from tokenhub_core.ca import CertificateAuthority
from tokenhub_core.http.connection import connection_of

HOST: Final = "api.openai.com"
HOSTS: Final = (HOST, "api.anthropic.com")
CONNECT: Final = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode()

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Watched(Handoff):
    """The addon, with a record of how much data it was asked about each time."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.asked: list[int] = []

    @override
    def next_layer(self, nextlayer: NextLayer) -> None:
        self.asked.append(len(nextlayer.data_client()))  # type: ignore[no-untyped-call] # mitmproxy's
        super().next_layer(nextlayer)


class Rest:
    """In the place of the inspect lane: tunnels what it is left with, and tells where mitmproxy connects to."""

    def __init__(self) -> None:
        self.connects: list[str] = []

    def tls_clienthello(self, data: ClientHelloData) -> None:
        data.ignore_connection = data.context.server.address is not None

    def server_connect(self, data: ServerConnectionHookData) -> None:
        assert data.server.address
        host = data.server.address[0]
        self.connects.append(host)
        if host != "127.0.0.1":
            data.server.error = "this test has no network"


@dataclass
class Answers:
    """The HTTP server behind the hand-off."""

    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = connection_of(request.transport)
        assert connection is not None
        match request.path:
            case "/stream":
                return await self.stream(request)
            case "/flood":
                return await self.flood(request)
            case "/hang":
                return await self.hang()
            case _:
                said = (await request.read()).decode()
                who = [connection.mode, connection.proxy_user, connection.host, connection.port]
                return web.json_response({"who": who, "peer": connection.peer, "said": said})

    async def stream(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for n in range(3):
            await response.write(b"data: %d\n\n" % n)
        return response

    async def flood(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(256):
            await response.write(bytes(64 * 1024))
            self.sent += 64 * 1024
        return response

    async def hang(self) -> web.StreamResponse:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError


@dataclass
class Scene:
    """A proxy that is up, everything behind it, and what a client needs."""

    proxy: ProxyServer
    handoff: Watched
    server: web.Server
    answers: Answers
    rest: Rest
    authority: CertificateAuthority
    names: list[str]
    """What was looked up."""
    spliced: bool
    """Whether mitmproxy keeps the connections that were taken, because they come out of no socket."""

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority.certificate_file)

    async def dial(self) -> Streams:
        return await asyncio.open_connection(*self.proxy.listen_addrs()[0])

    async def tunnel(self, request: bytes = CONNECT) -> Streams:
        reader, writer = await self.dial()
        writer.write(request)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        return reader, writer

    async def secure(self, request: bytes = CONNECT, name: str = HOST) -> Streams:
        reader, writer = await self.tunnel(request)
        await writer.start_tls(self.trust, server_hostname=name)
        return reader, writer

    def untouched(self) -> bool:
        """Tell whether no recognised host was looked up or connected to."""
        return not any(host in HOSTS for host in (*self.names, *self.rest.connects))


type Stage = Callable[..., AbstractAsyncContextManager[Scene]]
"""Opens a scene: `stage(*modes, proxy_auth="", is_llm_host=…, vouched=authority)`."""


@contextlib.asynccontextmanager
async def opened(
    *modes: str,
    names: list[str],
    vouched: CertificateAuthority,
    proxy_auth: str = "",
    is_llm_host: Callable[[str], bool] = HOSTS.__contains__,
    spliced: bool = False,
    **options: object,
) -> AsyncIterator[Scene]:
    """Start a proxy in these modes, with `Answers` behind the hand-off and `Rest` beside it."""
    answers, rest = Answers(), Rest()
    server = web.Server(answers.handle, handler_cancellation=True, access_log=None)
    handoff = Watched(authority=vouched, server=server, is_llm_host=is_llm_host)
    settings = ProxySettings(
        confdir=vouched.mitmproxy_dir,
        listen_port=0,
        modes=modes or ("regular",),
        options={**options, **({"proxyauth": proxy_auth} if proxy_auth else {})},
    )
    asking = [ProxyAuth()] if proxy_auth else []
    async with ProxyServer(settings, handoff=handoff, addons=[*asking, rest]) as proxy:
        yield Scene(proxy, handoff, server, answers, rest, vouched, names, spliced)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.002)


async def post(streams: Streams, path: str = "/v1/chat/completions", body: str = "hello") -> dict[str, Any]:
    reader, writer = streams
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body.encode())
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert answer.startswith(b"http/1.1 200")
    length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    answered: dict[str, Any] = json.loads(await reader.readexactly(length))
    return answered


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Return what is left to read before the other side closes, however it does that."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    except (ConnectionResetError, ssl.SSLError):
        return b""


def hello(name: str) -> bytes:
    """Return a ClientHello for `name`."""
    outgoing = ssl.MemoryBIO()
    near = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        near.do_handshake()
    return outgoing.read()


def leave(*connections: Streams) -> None:
    for _, writer in connections:
        writer.transport.abort()


async def shake(streams: Streams, trust: ssl.SSLContext, cuts: Sequence[int], pause: Awaitable[None]) -> None:
    """Do a TLS handshake by hand; the ClientHello goes out in pieces, with `pause` after the first."""
    reader, writer = streams
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = trust.wrap_bio(incoming, outgoing, server_hostname=HOST)
    first = True
    while True:
        try:
            near.do_handshake()
        except ssl.SSLWantReadError:
            data = outgoing.read()
            if first:
                first = False
                start = 0
                for cut in cuts:
                    writer.write(data[start:cut])
                    start = cut
                    if start == cuts[0]:
                        await pause
                data = data[start:]
            writer.write(data)
            incoming.write(await reader.read(65536))
        else:
            break
    near.write(f"GET /v1/models HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    writer.write(outgoing.read())
    incoming.write(await reader.read(65536))
    answer = b""
    while b"\r\n\r\n" not in answer:
        try:
            answer += near.read()
        except ssl.SSLWantReadError:
            incoming.write(await reader.read(65536))
    assert answer.startswith(b"HTTP/1.1 200")


def socks(address: str) -> bytes:
    name = address.encode()
    kind = bytes((3, len(name))) + name if address in HOSTS else b"\x01" + socket.inet_aton(address)
    return b"\x05\x01\x00" + kind + struct.pack("!H", 443)
