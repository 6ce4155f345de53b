"""Everything that `tokenhub serve` has open: the proxy, the side server, and the file that says where they are."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import certifi
from aiohttp import web
from mitmproxy import certs

from tokenhub_addon.engines import beside, of
from tokenhub_addon.handoff import Handoff
from tokenhub_addon.serve import ProxyServer, ProxySettings
from tokenhub_addon.sockets import BACKLOG, SIDE, Tended, listen_by
from tokenhub_addon.workers import Orders
from tokenhub_core import app
from tokenhub_core.admission.doorkeeper import loopback
from tokenhub_core.app import App
from tokenhub_core.ca import CertificateAuthority
from tokenhub_core.clock import SystemClock
from tokenhub_core.config import Settings
from tokenhub_core.datadir import private_directory
from tokenhub_core.envfile import Given
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.files import write_atomic
from tokenhub_core.launch.paths import run_dir
from tokenhub_core.launch.serveinfo import ServeInfo, clear_serve_info, write_serve_info
from tokenhub_core.siblings import Siblings
from tokenhub_core.telemetry.logs import discreet
from tokenhub_core.underway import Underway

KEEPALIVE: Final = 75.0
"""Seconds that an idle connection of a client stays open: longer than SDKs keep theirs."""

_AT_ONCE: Final = 0.1
"""Seconds; to aiohttp zero would mean no limit."""
_LOOK: Final = 0.02
_ACCEPTED: Final = 3.0
"""Seconds that a connection which a leaving worker has accepted has to begin its first request."""
_LAST_WORDS: Final = 2.0
"""Seconds; for calls that were not let come to their end to say so."""


@dataclass(frozen=True, slots=True)
class Served:
    """What is open, and what to tell of it."""

    app: App
    proxy_url: str
    side_url: str
    ca_file: Path
    hurry: Callable[[], None]
    """Cuts short the time that calls are given to end, when everything closes."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one of several workers has in place of ports and a directory of its own."""

    orders: Orders
    siblings: Siblings


@asynccontextmanager
async def serving(
    settings: Settings, environ: Mapping[str, str], work: Work | None = None, given: Given | None = None
) -> AsyncIterator[Served]:
    """Open everything, and on the way out let calls end before anything closes.

    `given` is where the settings come from, and where a reload reads them.

    Raises `ConfigError` with one line where a port is taken or a setting cannot be used.
    """
    if settings.anonymous and not loopback(settings.host):
        raise ConfigError(
            f"--host {settings.host} can be reached from the network: set TOKENHUB_ANONYMOUS=off, so that callers"
            " have to show a key"
        )
    async with AsyncExitStack() as stack:
        tended: Tended | None = None
        if work is None:
            stack.enter_context(only_one(settings.data_dir))
            running = await stack.enter_async_context(app.running(settings, environ, given=given))
        else:
            tended = Tended(work.orders.slot, work.orders.groups)
            stack.callback(listen_by(tended))
            running = await stack.enter_async_context(app.running(settings, environ, work.siblings, given))
        clock = SystemClock()
        authority = CertificateAuthority.open(
            settings.data_dir / "ca", running.recogniser.hosts, now=clock.now
        )
        # Before the inspect lane: it reads what this one may have to re-issue.
        running.follow(lambda _: authority.follow(running.recogniser.hosts))
        _write_parameters(authority.mitmproxy_dir)
        server = web.Server(
            running.handed_off,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE,
            logger=discreet(),
        )
        # The proxy has drained its connections by then.
        stack.push_async_callback(server.shutdown, _AT_ONCE)
        side, side_port = await _open_side(stack, running, settings, tended)
        ours = beside(
            of(running),
            settings,
            side_port=side_port,
        )
        handoff = Handoff(
            authority=authority,
            server=server,
            is_llm_host=lambda host: (
                running.recogniser.is_llm_host(host) and not running.watcher.modes().closed(host)
            ),
            shown=ours.callers.shown,
        )
        proxy = ProxyServer(
            ProxySettings(
                confdir=authority.mitmproxy_dir,
                listen_host=settings.host,
                listen_port=settings.port,
                modes=settings.modes,
                guarded=not settings.anonymous,
                options={"tokenhub_data_dir": str(settings.data_dir), **_upstream_trust(settings)},
            ),
            handoff=None if settings.lane == "inspect" else handoff,
            addons=[ours],
        )
        await proxy.start()
        hurry = asyncio.Event()
        stack.push_async_callback(
            _leave, proxy, side, _Drain(running.underway, settings.shutdown_drain_secs, hurry)
        )
        if work is not None and tended is not None:
            work.siblings.tending(tended.tend)
            # Before the drain: what waits in a socket is then for whoever else has it.
            stack.push_async_callback(_linger, tended)
        proxy_port = proxy.listen_addrs()[0][1]
        told = ServeInfo(
            pid=os.getpid() if work is None else work.orders.parent,
            proxy_url=_url(settings.host, proxy_port),
            side_url=_url(settings.host, side_port),
            ca_file=str(authority.certificate_file),
            hosts=running.recogniser.hosts,
            started_at=clock.now(),
        )
        write_serve_info(settings.data_dir, told)
        running.follow(
            lambda _: write_serve_info(settings.data_dir, replace(told, hosts=running.recogniser.hosts))
        )
        if work is None:
            stack.callback(clear_serve_info, settings.data_dir, told.pid)
        stack.callback(running.drain)
        yield Served(running, told.proxy_url, told.side_url, authority.certificate_file, hurry.set)


def _write_parameters(confdir: Path) -> None:
    """Write mitmproxy's file of Diffie-Hellman parameters: it would do so itself, for everybody to read."""
    path = confdir / "mitmproxy-dhparam.pem"
    if not path.exists():
        write_atomic(path, certs.DEFAULT_DHPARAM)


def _upstream_trust(settings: Settings) -> dict[str, object]:
    """Return mitmproxy's option for `ca_file`: its file replaces the public authorities, so it gets both."""
    if not settings.ca_file:
        return {}
    both = [Path(name).expanduser().read_bytes() for name in (certifi.where(), settings.ca_file)]
    path = run_dir(settings.data_dir) / "upstream-ca.pem"
    write_atomic(path, b"\n".join(both))
    return {"ssl_verify_upstream_trusted_ca": str(path)}


async def _open_side(
    stack: AsyncExitStack, running: App, settings: Settings, tended: Tended | None
) -> tuple[web.AppRunner, int]:
    """Open the side server; return it with its port."""
    runner = web.AppRunner(
        running.side,
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=KEEPALIVE,
        logger=discreet(),
        shutdown_timeout=settings.shutdown_drain_secs + _LAST_WORDS,
    )
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    if tended is not None:

        async def opener(one: socket.socket) -> asyncio.Server:
            assert runner.server is not None
            return await asyncio.get_running_loop().create_server(runner.server, sock=one, backlog=BACKLOG)

        return runner, int((await tended.own(SIDE, opener))[0].sockets[0].getsockname()[1])
    site = web.TCPSite(runner, settings.host, settings.admin_port)
    try:
        await site.start()
    except OSError as error:
        # The message of asyncio's error names the address a second time.
        reason = os.strerror(error.errno).lower() if error.errno else error
        raise ConfigError(f"cannot listen on {settings.host}:{settings.admin_port}: {reason}") from None
    return runner, int(runner.addresses[0][1])


@dataclass(frozen=True, slots=True)
class _Drain:
    """How long calls are given to end, and what ends them then."""

    underway: Underway
    seconds: float
    hurry: asyncio.Event
    """Set: they are given no more time."""

    async def over(self) -> None:
        """Return when there is no more time, and every call that was left has said so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.seconds):
                await self.hurry.wait()
        self.underway.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS / 2):
                while self.underway:  # noqa: ASYNC110 -- the hot path tells nobody that a call has ended
                    await asyncio.sleep(_LOOK)


async def _linger(tended: Tended) -> None:
    """Accept no more, and wait for whoever was accepted in the last moment: silent, they look like the idle ones."""
    await tended.leave()
    await asyncio.sleep(_ACCEPTED)


async def _leave(proxy: ProxyServer, side: web.AppRunner, drain: _Drain) -> None:
    """Stop accepting everywhere, let calls end, tell those that did not that it is over, close."""
    for site in list(side.sites):
        await site.stop()
    side_ends = asyncio.create_task(side.cleanup(), name="leave the side server")
    proxy_ends = asyncio.create_task(proxy.shutdown(drain.seconds + _LAST_WORDS), name="leave the proxy")
    called = asyncio.create_task(_cut_when(drain, proxy, side, side_ends), name="end of the drain")
    await asyncio.wait({side_ends, proxy_ends})
    called.cancel()
    if side_ends.cancelled():
        await side.cleanup()
    await proxy_ends


async def _cut_when(
    drain: _Drain, proxy: ProxyServer, side: web.AppRunner, side_ends: asyncio.Task[None]
) -> None:
    await drain.over()
    if not drain.hurry.is_set():
        # Their last bytes are on their way; whoever does not read them is cut a little later.
        await asyncio.sleep(_LAST_WORDS / 4)
    await proxy.cut()
    if side.server is not None:
        await side.server.shutdown(_AT_ONCE)
    # aiohttp's own wait does not notice that somebody else has closed its connections.
    side_ends.cancel()


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the data directory: two servers would each have its own view of one database and one serve.json.

    Raises `ConfigError` where another one holds it. The lock goes with the process, however that ends.
    """
    private_directory(directory)
    handle = os.open(directory / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"another TokenHub is serving from {directory}") from None
        yield


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
