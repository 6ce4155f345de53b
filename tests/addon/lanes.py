"""Every way to the engine, started the way the product starts it, with a scripted engine at its end.

`inspect` is the addon in a mitmproxy master; `handoff` is what `tokenhub serve` opens, all of it but the engine;
`direct` is the side server of the latter.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from unittest import mock
from urllib.parse import urlsplit

import aiohttp
from mitmproxy import ctx
from mitmproxy.addons.proxyauth import ProxyAuth

from tests.addon.clients import H1, OPENAI, Modern, Proxy, tunnel
from tests.addon.inspection import inspecting
from tests.addon.scripted import ScriptedEngine
from tests.addon.upstream import Upstream, Way
from tests.fakes.engine import Kept
from tests.fakes.register import bare_register
from tests.fakes.watching import watcher
from tokenhub_addon.addon import TokenHub
from tokenhub_addon.handoff import Handoff
from tokenhub_addon.host import AddonOptions, Running
from tokenhub_addon.listening import Served, serving
from tokenhub_core.admission.doorkeeper import KEYLESS, Doorkeeper, NoKeys
from tokenhub_core.admission.foreign import KEPT, Foreign
from tokenhub_core.admission.keyring import Keyring
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.app import App
from tokenhub_core.clock import SystemClock
from tokenhub_core.config import Settings
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.envfile import Given
from tokenhub_core.http.consumer import Consumer, Door, HandedOff
from tokenhub_core.http.passthrough import Passthrough
from tokenhub_core.http.sessions import Sessions
from tokenhub_core.http.side import Probes, SideServer
from tokenhub_core.ports import Engine, KeyBook, Overhearing, Secret
from tokenhub_core.recognise import Recogniser, extra_hosts
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.types import Fleet, Lane
from tokenhub_core.watching import Watcher

NO_KEYS = NoKeys()


@dataclass(slots=True)
class Front:
    """A lane that runs, and clients for it."""

    lane: Lane
    proxy: Proxy
    upstream: Upstream
    own_ports: tuple[int, ...] = ()
    """Ports of ours that nobody may reach through the proxy."""
    recorder: Kept = field(default_factory=Kept)
    """What was recorded of requests that passed through; the records of calls are the engine's."""
    keyring: Keyring = field(default_factory=Keyring)
    """What was learned from answers that passed through."""
    flows: Iterable[Any] = ()
    """Every flow, where the lane makes some."""
    keeper: Doorkeeper = KEYLESS
    """Who says who comes in."""
    engine: ScriptedEngine | None = None
    """Who answers calls, where the scene did not bring its own."""

    @property
    def protocol(self) -> str:
        """Return what a client that offers HTTP/2 and HTTP/1.1 gets.

        Only mitmproxy speaks HTTP/2: the hand-off lane steers its clients to HTTP/1.1, and the side server has
        no TLS, by which they would agree.
        """
        return "h2" if self.lane is Lane.INSPECT else "http/1.1"

    async def client(self, host: str = OPENAI, *, source: str = "", auth: str = "") -> H1:
        """Connect for calls to `host`, over HTTP/1.1."""
        if self.lane is Lane.DIRECT:
            return await H1.direct(self.proxy, source=source)
        return await H1.tls(self.proxy, host, source=source, auth=auth)

    def modern(self, host: str = OPENAI) -> Modern:
        """Return a client that offers HTTP/2 as well."""

        async def dial() -> H1:
            if self.lane is Lane.DIRECT:
                return await H1.direct(self.proxy)
            reader, writer = await tunnel(self.proxy, host)
            await writer.start_tls(self.proxy.trust("h2", "http/1.1"), server_hostname=host)
            return H1(reader, writer, host)

        return Modern(dial)


type Lanes = Callable[..., AbstractAsyncContextManager[Front]]
"""Starts a lane: `lane(engine, mode="regular", upstream=None, **options)`, options being the addon's or mitmproxy's."""


# --- inspect -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def inspected(
    confdir: Path, engine: Engine, *, book: KeyBook = NO_KEYS, foreign: Foreign = KEPT, **how: Any
) -> AsyncIterator[Front]:
    """Run the addon in a mitmproxy master."""
    own_port = 9
    recorder = Kept()
    keeper = Doorkeeper(book, anonymous=how.get("tokenhub_anonymous", True))

    @asynccontextmanager
    async def make(_: AddonOptions) -> AsyncIterator[Running]:
        yield Running(engine, recorder, keeper=keeper, foreign=foreign)

    async with inspecting(confdir, engine, make=make, own_ports=(own_port,), **how) as running:
        ports = (running.proxy.port, own_port)
        yield Front(
            Lane.INSPECT, running.proxy, running.upstream, ports, recorder, flows=running.view, keeper=keeper
        )


# --- hand-off and direct -----------------------------------------------------------------------------------


@dataclass(slots=True)
class Serve:
    """All that `tokenhub serve` has open."""

    served: Served
    upstream: Upstream
    recorder: Kept

    @property
    def proxy(self) -> Proxy:
        """Return the proxy."""
        return self._at(self.served.proxy_url)

    @property
    def side(self) -> Proxy:
        """Return the side server, as a client of its own would see it."""
        return self._at(self.served.side_url)

    @property
    def links(self) -> int:
        """Return how many client connections were handed off and are open."""
        found = ctx.master.addons.get("handoff")  # type: ignore[no-untyped-call] # mitmproxy's
        return found.open_connections if isinstance(found, Handoff) else 0

    @property
    def connections(self) -> int:
        """Return how many client connections mitmproxy holds."""
        return len(ctx.master.addons.get("proxyserver").connections)  # type: ignore[no-untyped-call] # mitmproxy's

    @property
    def addon(self) -> TokenHub:
        """Return the addon of the inspect lane."""
        found = ctx.master.addons.get("tokenhub")  # type: ignore[no-untyped-call] # mitmproxy's
        assert isinstance(found, TokenHub)
        return found

    def _at(self, url: str) -> Proxy:
        where = urlsplit(url)
        assert where.hostname
        assert where.port
        return Proxy(where.hostname, where.port, str(self.served.ca_file), self.served.app.settings.modes[0])


_SETTINGS = {
    "tokenhub_max_body": "max_body_bytes",
    "tokenhub_allow_private": "allow_private",
    "tokenhub_extra_hosts": "extra_hosts",
    "tokenhub_simulate": "simulate",
    "tokenhub_origin": "origin",
    "tokenhub_anonymous": "anonymous",
}
"""The addon's options by the settings that `serve` has in their place."""


@asynccontextmanager
async def served(
    data_dir: Path,
    engine: Engine,
    *,
    mode: str = "regular",
    lane: str = "auto",
    drain: float = 0.1,
    upstream: Upstream | None = None,
    keyring: Keyring | None = None,
    watching: Watcher | None = None,
    throttle: Throttle | None = None,
    book: KeyBook = NO_KEYS,
    foreign: Foreign = KEPT,
    host: str = "127.0.0.1",
    **options: Any,
) -> AsyncIterator[Serve]:
    """Open what `tokenhub serve` opens; whatever it dials leads to `upstream`, and `book` knows clients' keys.

    Options that `serve` has no setting for are mitmproxy's, and set once it runs.
    """
    settings = Settings(
        data_dir=data_dir,
        host=host,
        port=0,
        admin_port=0,
        modes=(mode,),
        lane=lane,
        shutdown_drain_secs=drain,
        **{_SETTINGS[name]: _frozen(options.pop(name)) for name in tuple(options) if name in _SETTINGS},
    )
    async with contextlib.AsyncExitStack() as stack:
        if upstream is None:
            upstream = Upstream()
            await upstream.start()
            stack.push_async_callback(upstream.close)
        recorder = Kept()
        stack.enter_context(mock.patch("asyncio.open_connection", upstream.dial))
        loop = asyncio.get_running_loop()
        stack.enter_context(mock.patch.object(loop, "getaddrinfo", upstream.look_up))
        overheard = (keyring or Keyring()).overheard
        built = functools.partial(
            _running,
            engine=engine,
            upstream=upstream,
            recorder=recorder,
            overheard=overheard,
            watching=watching or watcher(),
            throttle=throttle or Throttle(),
            book=book,
            foreign=foreign,
        )
        stack.enter_context(mock.patch("tokenhub_core.app.running", built))
        opened = await stack.enter_async_context(serving(settings, {}))
        if "proxyauth" in options:
            _ask_for_credentials()
        if options:
            ctx.options.update(**options)  # type: ignore[no-untyped-call] # mitmproxy's
        yield Serve(opened, upstream, recorder)


def _ask_for_credentials() -> None:
    """Let mitmproxy's own addon ask callers, before ours see them; `serve` asks for keys instead."""
    addons: Any = ctx.master.addons
    addons.add(ProxyAuth())
    addons.chain.insert(0, addons.chain.pop())


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@asynccontextmanager
async def _running(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    given: Given | None,
    engine: Engine,
    upstream: Upstream,
    recorder: Kept,
    overheard: Overhearing,
    watching: Watcher,
    throttle: Throttle,
    book: KeyBook,
    foreign: Foreign,
) -> AsyncIterator[App]:
    """Be `app.running`, with the scripted engine in the place of the pipeline and nothing on disk."""
    del environ, given
    ids = itertools.count(1)
    clock = SystemClock()
    door = Door(
        engine=engine,
        dialects=DIALECTS,
        clock=clock,
        entropy=lambda: next(ids).to_bytes(10),
        max_body_bytes=settings.max_body_bytes,
        overheard=overheard,
        throttle=throttle,
        keeper=Doorkeeper(book, anonymous=settings.anonymous),
        foreign=foreign,
        refused=recorder.post,
    )
    consumer = Consumer(door)
    recogniser = Recogniser(extra_hosts(settings.extra_hosts))
    origin = settings.origin and not settings.simulate
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=Way(upstream), ssl=False),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        side = SideServer(
            consumer=consumer,
            sessions=Sessions(bare_register("token", clock)),
            metrics=Metrics(),
            fleet=Fleet,
            probes=Probes(store=_well, draining=lambda: False),
            origin=origin,
        )
        absent: Any = None
        yield App(
            settings=settings,
            engine=cast("Any", engine),
            recogniser=recogniser,
            catalog=absent,
            vault=absent,
            requests=absent,
            recorder=recorder,
            admin_token=Secret("token"),
            side=side.application(),
            watcher=watching,
            handed_off=HandedOff(
                consumer,
                recogniser,
                Passthrough(
                    door,
                    recorder,
                    session,
                    allowed=origin,
                    recogniser=recogniser,
                    watcher=watching,
                ),
                watching,
            ),
            warnings=(),
            drain=lambda: None,
            keys=absent,
            login_ticket=str,
            overheard=overheard,
            keeper=door.keeper,
            foreign=foreign,
        )


async def _well() -> bool:
    return True


@asynccontextmanager
async def handed_off(data_dir: Path, engine: Engine, **how: Any) -> AsyncIterator[Front]:
    """Run `serve`, and be a client of its proxy."""
    async with served(data_dir, engine, **how) as serve:
        ports = (serve.proxy.port, serve.side.port)
        keeper = serve.served.app.keeper
        yield Front(Lane.HANDOFF, serve.proxy, serve.upstream, ports, serve.recorder, keeper=keeper)


@asynccontextmanager
async def direct(data_dir: Path, engine: Engine, **how: Any) -> AsyncIterator[Front]:
    """Run `serve`, and be a client of its side server."""
    async with served(data_dir, engine, **how) as serve:
        yield Front(Lane.DIRECT, serve.side, serve.upstream)
