"""The embedded proxy: how it starts, what it refuses to start with, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from mitmproxy import ctx
from mitmproxy.addonmanager import Loader

from tests.patience import PATIENCE
from tokenhub_addon.handoff import Handoff
from tokenhub_addon.serve import ProxyServer, ProxySettings
from tokenhub_core.ca import CertificateAuthority
from tokenhub_core.errors import ConfigError

HOST = "api.openai.com"

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Slow:
    """A server whose answers to `/slow` wait until they are let go."""

    entered: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: bool = False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/slow":
            self.entered.set()
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
        return web.Response(text=f"{request.path} {len(await request.read())}")


@dataclass
class Scene:
    """A proxy that is up."""

    proxy: ProxyServer
    handoff: Handoff
    slow: Slow
    trust: ssl.SSLContext

    async def dial(self) -> Streams:
        return await asyncio.open_connection(*self.proxy.listen_addrs()[0])

    async def secure(self) -> Streams:
        reader, writer = await self.dial()
        writer.write(f"CONNECT {HOST}:443 HTTP/1.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(self.trust, server_hostname=HOST)
        return reader, writer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.open(tmp_path_factory.mktemp("ca") / "ca", [HOST], now=time.time)


@pytest.fixture
async def scene(authority: CertificateAuthority) -> AsyncIterator[Scene]:
    slow = Slow()
    server = web.Server(slow.handle, handler_cancellation=True, access_log=None)
    handoff = Handoff(authority=authority, server=server, is_llm_host=lambda host: host == HOST)
    trust = ssl.create_default_context(cafile=authority.certificate_file)
    settings = ProxySettings(confdir=authority.mitmproxy_dir, listen_port=0)
    async with ProxyServer(settings, handoff=handoff) as proxy:
        yield Scene(proxy, handoff, slow, trust)


@pytest.fixture
def settings(authority: CertificateAuthority) -> Callable[..., ProxySettings]:
    def made(**changes: Any) -> ProxySettings:
        given: dict[str, Any] = {"confdir": authority.mitmproxy_dir, "listen_port": 0} | changes
        return ProxySettings(**given)

    return made


async def refusal(settings: ProxySettings, *addons: object) -> str:
    """Start a proxy that must not start; return what it says."""
    with pytest.raises(ConfigError) as caught:
        await ProxyServer(settings, addons=addons).start()
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def body(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return await reader.readexactly(length)


async def ended(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionResetError, ssl.SSLError):
            assert await reader.read() == b""


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


def leave(*connections: Streams) -> None:
    for _, writer in connections:
        writer.transport.abort()


# --- start -------------------------------------------------------------------------------------------------


async def test_every_mode_has_a_listener(settings: Callable[..., ProxySettings]) -> None:
    """The listeners' addresses come in the order of the modes; a port of 0 is a free one."""
    # On addresses of their own: mitmproxy takes two free ports for the same one.
    modes = ("regular", "socks5@127.0.0.2:0", f"reverse:https://{HOST}@127.0.0.3:0")
    async with ProxyServer(settings(modes=modes)) as proxy:
        addresses = proxy.listen_addrs()

        assert [host for host, _ in addresses] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
        assert all(port for _, port in addresses)


async def test_a_taken_port_is_one_line_and_nothing_is_printed(
    settings: Callable[..., ProxySettings],
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A port that somebody else listens on stops the start; what did start is stopped again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        free = socket.create_server(("127.0.0.1", 0))
        other = free.getsockname()[1]
        free.close()
        modes = (f"regular@127.0.0.1:{other}", f"socks5@127.0.0.1:{port}")
        said = await refusal(settings(modes=modes))

    assert said == f"cannot listen on 127.0.0.1:{port}: address already in use"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", other)
    assert capfd.readouterr() == ("", "")
    assert [record.name for record in caplog.records] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"modes": ("teleport",)}, "teleport is not a proxy mode"),
        ({"options": {"no_such_option": 1}}, "Unknown options: no_such_option"),
        ({"options": {"body_size_limit": "plenty"}}, "Invalid body_size_limit"),
        ({"modes": ("regular@1", "socks5@1")}, "Cannot spawn multiple servers on the same address"),
        ({"modes": ("tun:th0", "local:curl")}, "tun:th0,local:curl listens nowhere: name regular beside it"),
        ({"modes": ("regular", f"tun:{'x' * 40}")}, f"mode tun:{'x' * 40} cannot be started: "),
    ],
)
async def test_settings_that_cannot_work_are_one_line(
    settings: Callable[..., ProxySettings], changes: dict[str, Any], said: str
) -> None:
    """A mistake in modes or options is a configuration error."""
    assert said in await refusal(settings(**changes))


@pytest.mark.parametrize("changes", [{"listen_host": "0.0.0.0"}, {"modes": ("regular@:8080",)}])
async def test_an_open_proxy_is_refused(
    settings: Callable[..., ProxySettings], changes: dict[str, Any]
) -> None:
    """Beyond loopback the proxy wants credentials, or the word that the network may be trusted."""
    assert "can be reached from the network" in await refusal(settings(**changes))


async def test_the_compromised_ca_of_mitmproxy_12_3_is_refused(
    settings: Callable[..., ProxySettings],
) -> None:
    """Where mitmproxy offers to sign with the leaked intermediate, turning that on stops the start."""

    class Later:
        def load(self, loader: Loader) -> None:
            loader.add_option("emudhra", bool, False, "")

    assert "compromised CA" in await refusal(settings(options={"emudhra": True}), Later())


async def test_a_proxy_can_be_started_again(settings: Callable[..., ProxySettings]) -> None:
    """After a stop the same process can start another one."""
    for _ in range(2):
        async with ProxyServer(settings()) as proxy:
            assert proxy.listen_addrs()


async def test_the_defaults_contact_nobody_early(settings: Callable[..., ProxySettings]) -> None:
    """Connections are made when something is to be sent; clients from public addresses are turned away."""
    async with ProxyServer(settings()):
        assert ctx.options.connection_strategy == "lazy"
        assert ctx.options.upstream_cert is False
        assert ctx.options.block_global is True


async def test_the_proxy_says_nothing(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that comes and goes is not worth a log line."""
    with caplog.at_level(logging.DEBUG, logger="root"):
        streams = await scene.secure()
        streams[1].write(request("/"))
        await body(streams[0])
        leave(streams)

    assert [record for record in caplog.records if record.name.startswith("mitmproxy")] == []


async def test_the_loop_stays_ours(scene: Scene) -> None:
    """Neither the task factory nor the exception handler of the loop is replaced."""
    loop = asyncio.get_running_loop()

    assert scene.proxy.listen_addrs()
    assert loop.get_task_factory() is None
    assert loop.get_exception_handler() is None


# --- end ---------------------------------------------------------------------------------------------------


async def test_a_shutdown_lets_handed_off_requests_end(scene: Scene) -> None:
    """New connections are refused and idle ones closed at once; a request in progress gets its answer."""
    busy, idle = await scene.secure(), await scene.secure()
    idle[1].write(request("/"))
    await body(idle[0])
    busy[1].write(request("/slow"))
    await scene.slow.entered.wait()
    where = scene.proxy.listen_addrs()[0]

    stopping = asyncio.create_task(scene.proxy.shutdown(10 * PATIENCE))
    await ended(idle[0])
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*where)
    assert not stopping.done()

    scene.slow.go.set()
    assert await body(busy[0]) == b"/slow 0"
    await ended(busy[0])
    async with asyncio.timeout(PATIENCE):
        await stopping
    assert not scene.slow.cancelled
    leave(busy, idle)


async def test_a_half_uploaded_request_is_finished(scene: Scene) -> None:
    """A request whose body is still on its way when the shutdown begins is read to its end and answered."""
    reader, writer = await scene.secure()
    writer.write(f"POST /slow HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 6\r\n\r\nabc".encode())
    await scene.slow.entered.wait()
    stopping = asyncio.create_task(scene.proxy.shutdown(10 * PATIENCE))
    await asyncio.sleep(0.05)
    scene.slow.go.set()
    writer.write(b"def")

    assert await body(reader) == b"/slow 6"
    async with asyncio.timeout(PATIENCE):
        await stopping
    leave((reader, writer))


async def test_a_shutdown_does_not_wait_for_clients_that_do_not_say_goodbye(scene: Scene) -> None:
    """An idle client that never answers our close_notify does not hold the shutdown up."""
    reader, writer = await scene.secure()
    writer.write(request("/"))
    await body(reader)
    writer.transport.pause_reading()  # type: ignore[attr-defined] # WriteTransport in typeshed, a full one in fact

    async with asyncio.timeout(PATIENCE):
        await scene.proxy.shutdown(10 * PATIENCE)
    assert scene.handoff.open_connections == 0
    leave((reader, writer))


async def test_a_shutdown_ends_at_its_limit(scene: Scene) -> None:
    """A request that does not end is cut when the time is up, and its handler cancelled."""
    reader, writer = await scene.secure()
    writer.write(request("/slow"))
    await scene.slow.entered.wait()

    async with asyncio.timeout(PATIENCE):
        await scene.proxy.shutdown(0.1)
    assert scene.slow.cancelled
    assert scene.handoff.open_connections == 0
    await ended(reader)
    leave((reader, writer))


async def test_a_shutdown_lets_exchanges_inside_mitmproxy_end(scene: Scene) -> None:
    """A plain request that mitmproxy forwards is waited for as well; its idle connection is then closed."""
    entered, go = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        entered.set()
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as far:
        port = far.sockets[0].getsockname()[1]
        reader, writer = await scene.dial()
        writer.write(f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        await entered.wait()
        stopping = asyncio.create_task(scene.proxy.shutdown(10 * PATIENCE))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        go.set()

        assert await body(reader) == b"done"
        async with asyncio.timeout(PATIENCE):
            await stopping
        assert scene.proxy.connections == 0
        await ended(reader)
    leave((reader, writer))


async def test_a_shutdown_leaves_nothing_running(scene: Scene) -> None:
    """After it, no task but the test's own is left, whatever clients were doing."""
    before = asyncio.all_tasks()
    silent, tunnel = await scene.dial(), await scene.dial()
    tunnel[1].write(f"CONNECT {HOST}:443 HTTP/1.1\r\n\r\n".encode())
    await tunnel[0].readuntil(b"\r\n\r\n")
    greeted = await scene.secure()
    await scene.proxy.shutdown(0)
    await asyncio.sleep(0)

    assert asyncio.all_tasks() == before
    assert scene.proxy.connections == scene.handoff.open_connections == 0
    leave(silent, tunnel, greeted)


async def test_a_second_shutdown_does_nothing(scene: Scene) -> None:
    """Stopping twice is stopping once."""
    await scene.proxy.shutdown(0)
    await scene.proxy.shutdown(10 * PATIENCE)
