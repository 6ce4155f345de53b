"""mitmproxy inside our own event loop, with only the addons that a proxy without a user interface needs.

`Master.run` would own the loop: its exception handler, its life, its signals. So the steps of it that a server
needs are taken one by one, which also shows at once why a listener did not start; mitmproxy only logs that.
One `ProxyServer` may run in a process at a time: mitmproxy keeps its master in a module.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from mitmproxy import exceptions, http, options
from mitmproxy.addons import (
    block,
    core,
    disable_h2c,
    next_layer,
    tlsconfig,
    upstream_auth,
)
from mitmproxy.proxy import mode_specs

from tokenhub_addon.dispatch import CachedMaster, quiet, unchecked
from tokenhub_addon.handoff import Handoff
from tokenhub_addon.servers import Servers
from tokenhub_core.admission.doorkeeper import loopback
from tokenhub_core.errors import ConfigError
from tokenhub_core.ports import Secret

_NO_SECRET: Final = Secret("")
_POLL_SECONDS: Final = 0.02
_CLEAN_UP_SECONDS: Final = 2.0

_REFUSED_OPTIONS: Final = ("emudhra", "emudhra_old")
"""mitmproxy 12.3 wheels carry the private key of a compromised public CA; these options make it sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """What the proxy listens on and asks for."""

    confdir: Path
    """Where mitmproxy finds the CA (`CertificateAuthority.mitmproxy_dir`)."""
    listen_host: str = "127.0.0.1"
    listen_port: int = 8080
    """For modes that name no port of their own; 0 picks a free one."""
    modes: tuple[str, ...] = ("regular",)
    """mitmproxy mode specs."""
    upstream_auth: Secret = _NO_SECRET
    """`user:password` for the proxy of `upstream:` modes."""
    guarded: bool = False
    """One of the addons asks every caller for a key: then a listener may stand beyond loopback."""
    options: Mapping[str, object] = field(default_factory=dict)
    """More mitmproxy options by name."""


class ProxyServer:
    """An embedded mitmproxy. `async with` starts it, and stops it without a drain."""

    def __init__(
        self, settings: ProxySettings, *, handoff: Handoff | None = None, addons: Sequence[object] = ()
    ) -> None:
        self._settings = settings
        self._handoff = handoff
        self._addons = tuple(addons)
        self._servers = Servers()  # type: ignore[no-untyped-call] # mitmproxy's
        self._exchanges = _Exchanges()
        self._master: CachedMaster | None = None
        self._check_again: Callable[[], None] = _as_it_is

    async def start(self) -> None:
        """Listen; raises `ConfigError` with one line where a mode, an option or an address cannot be used."""
        modes = _checked(self._settings)
        quiet()
        self._check_again = unchecked()
        self._master = CachedMaster(options.Options())
        try:
            self._configure(self._master, modes)
            await self._listen()
            await self._master.running()
        except BaseException:
            await self.shutdown(0)
            raise

    async def shutdown(self, drain_seconds: float) -> None:
        """Stop accepting, let exchanges end for at most `drain_seconds`, then close every connection.

        Tunnels to hosts that are not ours do not hold the drain up; they are cut at its end.
        """
        master, self._master = self._master, None
        if master is None:
            return
        for server in self._servers.servers:
            if server.is_running:
                await server.stop()
        handed_off = self._handoff.drain(drain_seconds) if self._handoff else asyncio.sleep(0)
        await asyncio.gather(handed_off, self._exchanges.drain(drain_seconds))
        await self._close_clients()
        await master.done()
        self._check_again()

    async def cut(self) -> None:
        """Close every connection now; a drain that is under way then ends."""
        if self._handoff is not None:
            await self._handoff.drain(0)
        await self._close_clients()

    def listen_addrs(self) -> list[tuple[str, int]]:
        """Return host and port of every listener, in the order of the modes; TCP and UDP count as one."""
        return list(dict.fromkeys((address[0], address[1]) for address in self._servers.listen_addrs()))

    @property
    def connections(self) -> int:
        """Return how many client connections mitmproxy holds; handed-off ones are the hand-off's."""
        return len(self._servers.connections)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shutdown(0)

    def _configure(self, master: CachedMaster, modes: Sequence[str]) -> None:
        settings = self._settings
        chain: list[Any] = [
            core.Core(),
            block.Block(),
            disable_h2c.DisableH2C(),
            self._servers,
            # Ours see every hook before the addons that mitmproxy decides with.
            *((self._handoff,) if self._handoff else ()),
            *self._addons,
            next_layer.NextLayer(),
            tlsconfig.TlsConfig(),
            upstream_auth.UpstreamAuth(),
            self._exchanges,
        ]
        try:
            master.addons.add(*chain)  # type: ignore[no-untyped-call] # mitmproxy's
            master.options.update(  # type: ignore[no-untyped-call] # mitmproxy's
                **{
                    # Whom mitmproxy takes for a stranger, by address alone, may have a key.
                    "block_global": not settings.guarded,
                    # Nothing may reach a host before it is clear who answers: not to mirror ALPN, not to
                    # copy its certificate.
                    "connection_strategy": "lazy",
                    "upstream_cert": False,
                    **settings.options,
                    "confdir": str(settings.confdir),
                    "listen_host": settings.listen_host,
                    "listen_port": settings.listen_port,
                    "mode": list(modes),
                    "upstream_auth": settings.upstream_auth.reveal() or None,
                }
            )
        except (exceptions.OptionsError, KeyError, ValueError) as error:
            raise ConfigError(_first_line(error)) from error
        for name in _REFUSED_OPTIONS:
            if name in master.options and getattr(master.options, name):
                raise ConfigError(f"mitmproxy's option {name} is refused: it uses a compromised CA")

    async def _listen(self) -> None:
        with _silent("mitmproxy.addons.proxyserver"):
            if await self._servers.setup_servers():
                return
        for server in self._servers.servers:
            if server.last_exception is not None:
                why = _reason(server.last_exception)
                if not _listens(server.mode):
                    spec = server.mode.full_spec.rpartition("@")[0]
                    raise ConfigError(f"mode {spec} cannot be started: {why}")
                host = server.mode.listen_host(self._settings.listen_host)
                port = server.mode.listen_port(self._settings.listen_port)
                raise ConfigError(f"cannot listen on {host}:{port}: {why}")
        raise ConfigError("the proxy could not be started")

    async def _close_clients(self) -> None:
        for handler in tuple(self._servers.connections.values()):
            io = handler.transports.get(handler.client)
            if io is not None and io.handler is not None:
                io.handler.cancel("shutdown")
        for _ in range(int(_CLEAN_UP_SECONDS / _POLL_SECONDS)):
            if not self._servers.connections:
                break
            await asyncio.sleep(_POLL_SECONDS)


def _as_it_is() -> None:
    """Change nothing."""


class _Exchanges:
    """Counts the HTTP exchanges in progress inside mitmproxy."""

    def __init__(self) -> None:
        # Weak: a flow whose end no hook tells must not hold up a shutdown.
        self._flows: weakref.WeakValueDictionary[str, http.HTTPFlow] = weakref.WeakValueDictionary()

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        self._flows[flow.id] = flow

    def response(self, flow: http.HTTPFlow) -> None:
        self._flows.pop(flow.id, None)

    def error(self, flow: http.HTTPFlow) -> None:
        self._flows.pop(flow.id, None)

    async def drain(self, seconds: float) -> None:
        for _ in range(int(seconds / _POLL_SECONDS)):
            if not self._flows:
                break
            await asyncio.sleep(_POLL_SECONDS)


def _checked(settings: ProxySettings) -> list[str]:
    """Return the modes as mitmproxy takes them; refuse what is none, and a proxy that the whole network could use."""
    parsed = [(spec, _mode(spec)) for spec in settings.modes]
    listening = [mode for _, mode in parsed if _listens(mode)]
    if not listening:
        raise ConfigError(f"{','.join(settings.modes)} listens nowhere: name regular beside it")
    for mode in () if settings.guarded else listening:
        host = mode.listen_host(settings.listen_host)
        if not loopback(host):
            raise ConfigError(
                f"{host or 'every address'} can be reached from the network: set TOKENHUB_ANONYMOUS=off, so that"
                " callers have to show a key"
            )
    # One that listens nowhere gets a port that nobody opens: mitmproxy takes it for a rival of the first one.
    return [
        spec if _listens(mode) else f"{mode.full_spec.partition('@')[0]}@{number}"
        for number, (spec, mode) in enumerate(parsed, 1)
    ]


def _listens(mode: mode_specs.ProxyMode) -> bool:
    """Tell whether there is a port at all: tun and local capture have none, whatever one may write behind them."""
    return mode.default_port is not None


def _mode(spec: str) -> mode_specs.ProxyMode:
    try:
        return mode_specs.ProxyMode.parse(spec)
    except ValueError as error:
        raise ConfigError(f"{spec} is not a proxy mode: {error}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return _first_line(error)


def _first_line(error: Exception) -> str:
    # str() of a KeyError is the repr of its argument.
    return str(error.args[0] if error.args else error).partition("\n")[0]


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep a logger from telling what our own error tells."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
