"""The inspect lane with everything real around it: a mitmproxy master, its addons, sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from mitmproxy import http, options
from mitmproxy.addons import (
    clientplayback,
    core,
    intercept,
    next_layer,
    proxyauth,
    save,
    tlsconfig,
    view,
)
from mitmproxy.master import Master

from tests.addon.clients import Proxy
from tests.addon.scripted import errors
from tests.addon.upstream import Upstream
from tests.patience import PATIENCE
from tokenhub_addon.addon import TokenHub
from tokenhub_addon.host import AddonOptions, EngineFactory
from tokenhub_addon.servers import Servers
from tokenhub_core import ports
from tokenhub_core.ports import Engine


class Clock:
    """A clock that stands still."""

    def now(self) -> float:
        return 1_700_000_000.0

    def monotonic(self) -> float:
        return 100.0


@dataclass(slots=True)
class Inspection:
    """A running lane."""

    proxy: Proxy
    master: Master
    addon: TokenHub
    view: view.View
    upstream: Upstream

    @property
    def flow(self) -> http.HTTPFlow:
        """Return the newest flow."""
        flow = list(self.view)[-1]
        assert isinstance(flow, http.HTTPFlow)
        return flow

    def call(self, command: str, *args: object) -> Any:
        """Run a command of mitmproxy's."""
        return self.master.commands.call(command, *args)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true that no event tells of."""
        await _until(condition)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        for delay in itertools.repeat(0.005):
            if condition():
                return
            await asyncio.sleep(delay)


def factory(engine: Engine) -> EngineFactory:
    """Return a factory that hands out an engine that runs already."""

    @asynccontextmanager
    async def make(_: AddonOptions) -> AsyncIterator[Engine]:
        yield engine

    return make


def make_addon(
    engine: Engine,
    upstream: Upstream,
    *,
    kind: type[TokenHub] = TokenHub,
    make: EngineFactory | None = None,
    own_ports: Sequence[int] = (),
    clock: ports.Clock | None = None,
) -> TokenHub:
    """Return an addon whose ids count from 1 and whose resolver is the upstream's."""
    ids = itertools.count(1)
    return kind(
        make or factory(engine),
        errors=errors,
        clock=clock or Clock(),
        new_id=lambda: f"req_{next(ids)}",
        resolve=upstream.resolve,
        own_ports=own_ports,
    )


@asynccontextmanager
async def inspecting(
    confdir: Path,
    engine: Engine,
    *,
    mode: str = "regular",
    addon: TokenHub | None = None,
    make: EngineFactory | None = None,
    upstream: Upstream | None = None,
    own_ports: Sequence[int] = (),
    clock: ports.Clock | None = None,
    before: Sequence[object] = (),
    after: Sequence[object] = (),
    **settings: object,
) -> AsyncIterator[Inspection]:
    """Run the lane behind a listener of `mode`. Whatever it dials leads to `upstream`."""
    async with contextlib.AsyncExitStack() as stack:
        if upstream is None:
            upstream = Upstream()
            await upstream.start()
            stack.push_async_callback(upstream.close)
        stack.enter_context(mock.patch("asyncio.open_connection", upstream.dial))
        ours = addon or make_addon(engine, upstream, make=make, own_ports=own_ports, clock=clock)
        master = Master(options.Options())
        servers, flows = Servers(), view.View()  # type: ignore[no-untyped-call] # mitmproxy's
        chain: list[Any] = [
            core.Core(),
            clientplayback.ClientPlayback(),  # type: ignore[no-untyped-call] # mitmproxy's
            proxyauth.ProxyAuth(),
            servers,
            *before,
            ours,
            *after,
            next_layer.NextLayer(),
            save.Save(),
            tlsconfig.TlsConfig(),
            intercept.Intercept(),
            flows,
        ]
        master.addons.add(*chain)  # type: ignore[no-untyped-call] # mitmproxy's
        master.options.update(  # type: ignore[no-untyped-call] # mitmproxy's
            confdir=str(confdir), listen_host="127.0.0.1", listen_port=0, mode=[mode], **settings
        )
        run = asyncio.create_task(master.run(), name="master")
        stack.push_async_callback(_shut, master, run, servers)
        await _until(lambda: servers.is_running and bool(servers.listen_addrs()))
        host, port = servers.listen_addrs()[0][:2]
        cafile = str(confdir / "mitmproxy-ca-cert.pem")
        yield Inspection(Proxy(host, port, cafile, mode), master, ours, flows, upstream)


async def _shut(master: Master, run: asyncio.Task[None], servers: Servers) -> None:
    await servers.servers.update([])
    for handler in tuple(servers.connections.values()):
        if handler.client in handler.transports:
            handler.close_connection(handler.client)
    await _until(lambda: not servers.connections)
    master.shutdown()  # type: ignore[no-untyped-call] # mitmproxy's
    await run
