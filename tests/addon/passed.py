"""The lanes of the proxy in front of a listed host that speaks TLS and does what a scene says."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.addon.clients import KEY
from tests.addon.inspection import inspecting, make_addon
from tests.addon.lanes import NO_KEYS, Front, served
from tests.addon.scripted import ScriptedEngine
from tests.addon.upstream import Upstream
from tests.fakes.certificates import authority, server_context
from tests.fakes.engine import Kept
from tests.fakes.watching import watcher
from tests.patience import PATIENCE
from tokenhub_addon.host import AddonOptions, Running
from tokenhub_core.admission.doorkeeper import KEYLESS, Doorkeeper
from tokenhub_core.admission.foreign import KEPT, Foreign
from tokenhub_core.admission.keyring import Keyring
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.ports import KeyBook
from tokenhub_core.types import Lane, Outcome, Record
from tokenhub_core.watching import Watcher

type Raw = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
type Site = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
type Passing = Callable[..., contextlib.AbstractAsyncContextManager[Front]]
"""Starts a lane in front of a host: `passing(raw=…)` or `passing(site=…)`, with a `watching` and options."""

KEYED = {"Authorization": f"Bearer {KEY}", "User-Agent": "program/2 (x)"}
"""A client that shows a key of its own."""


def ends(record: Record) -> tuple[Outcome, int, str]:
    return record.outcome, record.status, record.fault


class Host(Upstream):
    """A listed host with a mind of its own: it does what a test says, byte by byte or as a site."""

    def __init__(self, raw: Raw | None = None, site: Site | None = None) -> None:
        super().__init__()
        self._raw, self._site = raw, site
        self._runner: web.ServerRunner | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        if self._site is None:
            await super().start(tls)
            return
        server = web.Server(self._site, handler_cancellation=True, access_log=None, auto_decompress=False)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls).start()

    def port(self, wanted: int) -> int:
        return int(self._runner.addresses[0][1]) if self._runner else super().port(wanted)

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        await super().close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._raw is None:
            await super()._serve(reader, writer)
            return
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._raw(reader, writer)
        writer.close()


async def records(running: Front, count: int = 1) -> list[Record]:
    async with asyncio.timeout(PATIENCE):
        while len(running.recorder.records) < count:  # noqa: ASYNC110 - a recorder tells nobody
            await asyncio.sleep(0.005)
    return running.recorder.records


def in_front_of_a_host(lane: Lane, confdir: Path, data_dir: Path, folder: Path) -> Passing:
    """Return what starts one lane. Its scripted engine stands in `Front.engine`."""

    @contextlib.asynccontextmanager
    async def start(
        raw: Raw | None = None,
        site: Site | None = None,
        watching: Watcher | None = None,
        throttle: Throttle | None = None,
        book: KeyBook = NO_KEYS,
        foreign: Foreign = KEPT,
        **options: Any,
    ) -> AsyncIterator[Front]:
        keeper = Doorkeeper(book)
        host, engine, recorder, keyring = Host(raw, site), ScriptedEngine(), Kept(), Keyring(b"salt")
        await host.start(server_context(folder, authority(folder), address="127.0.0.1"))
        how = {"upstream": host, **options}
        try:
            if lane is Lane.INSPECT:
                ours = make_addon(
                    engine,
                    host,
                    make=running_with(
                        engine, recorder, keyring, watching or watcher(), keeper, throttle, foreign=foreign
                    ),
                )
                async with inspecting(confdir, engine, addon=ours, ssl_insecure=True, **how) as running:
                    yield Front(
                        Lane.INSPECT,
                        running.proxy,
                        host,
                        recorder=recorder,
                        keyring=keyring,
                        keeper=keeper,
                        flows=running.view,
                        engine=engine,
                    )
                    await running.until(lambda: not running.call("proxyserver.active_connections"))
                    assert ours.remembered() == 0
            else:
                async with served(
                    data_dir,
                    engine,
                    ssl_insecure=True,
                    keyring=keyring,
                    watching=watching,
                    throttle=throttle,
                    book=book,
                    foreign=foreign,
                    **how,
                ) as serve:
                    yield Front(
                        Lane.HANDOFF,
                        serve.proxy,
                        host,
                        recorder=serve.recorder,
                        keyring=keyring,
                        keeper=serve.served.app.keeper,
                        engine=engine,
                    )
        finally:
            await host.close()

    return start


def running_with(
    engine: ScriptedEngine,
    recorder: Kept,
    keyring: Keyring | None = None,
    watching: Watcher | None = None,
    keeper: Doorkeeper = KEYLESS,
    throttle: Throttle | None = None,
    *,
    foreign: Foreign = KEPT,
) -> Any:
    """Return an engine factory for the addon."""

    @contextlib.asynccontextmanager
    async def make(_: AddonOptions) -> AsyncIterator[Running]:
        yield Running(
            engine,
            recorder,
            (keyring or Keyring()).overheard,
            watching,
            keeper,
            foreign,
            throttle=throttle or Throttle(),
        )

    return make
