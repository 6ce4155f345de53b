"""Two guards: our hooks fail closed, and the proxy reaches no address that is none of its callers' business.

mitmproxy logs an exception of a hook and goes on as if the hook were not there: the request leaves, unmodified
and with the caller's key, for the host that it was meant for. So every hook of an addon that derives from
`Guarded` is wrapped: what fails is answered with an error or, where no answer is possible, closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

from mitmproxy import connection, ctx, exceptions, hooks, http
from mitmproxy.proxy import layer, mode_specs, server_hooks
from mitmproxy.tls import ClientHelloData

from tokenhub_core.addresses import Allowed, Ip, is_public, parsed
from tokenhub_core.recognise import bare_host

_logger: Final = logging.getLogger(__name__)

_LIFE_CYCLE: Final = frozenset({"load", "configure", "running", "done"})


class Guarded:
    """Base of addons whose hooks fail closed.

    Every hook that a subclass defines is wrapped when the class is made, so that none can be forgotten. An
    addon whose `load`, `configure` or `running` failed is broken: from then on each of its hooks refuses.
    """

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        """How often each hook failed."""
        self.broken = False

    def __init_subclass__(cls, *, guarded: bool = True, **kwargs: Any) -> None:
        """Wrap the hooks; `guarded=False` is for the test that shows what happens without."""
        super().__init_subclass__(**kwargs)
        for name in hooks.all_hooks.keys() & vars(cls).keys() if guarded else ():
            setattr(cls, name, _wrapped(name, vars(cls)[name]))

    def failure(self, flow: http.HTTPFlow) -> http.Response:
        """Return the answer to a flow that a hook failed at."""
        return http.Response.make(500, b"TokenHub failed; the request was not forwarded.")


class _BrokenError(Exception):
    """An earlier failure left the addon in a state in which nothing may pass."""


def _wrapped(name: str, hook: Callable[..., Any]) -> Callable[..., Any]:
    life_cycle = name in _LIFE_CYCLE

    if inspect.iscoroutinefunction(hook):

        @functools.wraps(hook)
        async def later(self: Guarded, *args: Any) -> Any:
            try:
                _check(self, life_cycle)
                return await hook(self, *args)
            except Exception as error:
                if _is_meant(name, error):
                    raise
                _note(name, error)
                return _failed(self, name, args)

        return later

    @functools.wraps(hook)
    def now(self: Guarded, *args: Any) -> Any:
        try:
            _check(self, life_cycle)
            return hook(self, *args)
        except Exception as error:
            if _is_meant(name, error):
                raise
            _note(name, error)
            return _failed(self, name, args)

    return now


def _check(addon: Guarded, life_cycle: bool) -> None:
    if addon.broken and not life_cycle:
        raise _BrokenError("an earlier failure left the addon unusable")


def _is_meant(name: str, error: Exception) -> bool:
    """Tell whether this is how `configure` says that an option cannot be used."""
    return name == "configure" and isinstance(error, exceptions.OptionsError)


def _note(name: str, error: Exception) -> None:
    # A broken addon refuses everything; why it is broken was told when it broke.
    if not isinstance(error, _BrokenError):
        _logger.error("hook %s failed; refusing", name, exc_info=error)


def _failed(addon: Guarded, name: str, args: Sequence[object]) -> None:
    addon.failures[name] += 1
    if name in _LIFE_CYCLE:
        addon.broken = True
        return
    try:
        _deny(addon, name, args[0])
    except Exception:  # a refusal that fails falls back to the last resort
        _logger.exception("hook %s could not refuse", name)
        _last_resort(args[0])


def _deny(addon: Guarded, name: str, subject: object) -> None:
    """Make sure that what the hook was asked about goes no further."""
    match subject:
        case http.HTTPFlow():
            _deny_flow(addon, name, subject)
        case ClientHelloData():
            subject.ignore_connection = False
            subject.establish_server_tls_first = False
            close_client(subject.context.client)
        case layer.NextLayer():
            subject.layer = None
            close_client(subject.context.client)
        case connection.Client():
            subject.error = subject.error or "TokenHub failed"
            close_client(subject)
        case server_hooks.ServerConnectionHookData():
            subject.server.error = subject.server.error or "TokenHub failed"
            cut(subject.client, subject.server)
        case _:
            pass  # `update`: a list of flows that somebody looked at; nothing depends on it


def _deny_flow(addon: Guarded, name: str, flow: http.HTTPFlow) -> None:
    flow.request.stream = False
    if flow.response is not None and (name == "responseheaders" or flow.response.stream):
        if flow.killable:
            flow.kill()  # type: ignore[no-untyped-call] # mitmproxy's
    elif flow.error is None:
        flow.response = addon.failure(flow)


def _last_resort(subject: object) -> None:
    """Refuse with nothing that could fail: the wish for a well-formed answer is given up."""
    match subject:
        case http.HTTPFlow():
            subject.response = http.Response.make(500, b"")
            subject.request.stream = False
        case ClientHelloData():
            subject.ignore_connection = False
        case server_hooks.ServerConnectionHookData():
            subject.server.error = "TokenHub failed"
        case _:
            pass


def addon(name: str) -> Any:
    """Return one of mitmproxy's own addons, None where it is not loaded."""
    return ctx.master.addons.get(name)  # type: ignore[no-untyped-call] # mitmproxy's


def close_client(client: connection.Client) -> None:
    """Close a client's connection, and with it everything that mitmproxy does for it."""
    handler = addon("proxyserver").connections.get(client.id)
    if handler is not None and (io := handler.transports.get(client)) is not None and io.handler is not None:
        handler.close_connection(client)


def cut(client: connection.Client, server: connection.Server) -> None:
    """Drop a connection to a server at once, if there is one: not another byte leaves."""
    handler = addon("proxyserver").connections.get(client.id)
    io = handler.transports.get(server) if handler is not None else None
    if io is not None and io.writer is not None:
        io.writer.close()


# --- where the proxy may go --------------------------------------------------------------------------------

type Address = tuple[str, int]
type Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the IP addresses of a host, best first; raises OSError where there are none."""


class Verdict(NamedTuple):
    """Why a destination may not be reached, empty where it may; and whether it has an address at all."""

    refused: str = ""
    resolved: bool = True
    addresses: tuple[str, ...] = ()
    """Of a destination that may be reached: the ones that were looked at. Connect to one of these."""


class Fence:
    """Keeps callers from reaching, through us, what they should not reach.

    Refused are our own listeners, and loopback, link-local (where clouds keep their metadata), private,
    multicast and reserved addresses, in whatever form they are written and by whatever name they go. `allowed`
    opens host names, addresses and networks; nothing opens our own listeners.
    """

    def __init__(
        self,
        allowed: Iterable[str] = (),
        *,
        own: Callable[[], Iterable[Address]] = tuple,
        resolve: Resolve | None = None,
    ) -> None:
        self._allowed = Allowed(allowed)
        self._own = own
        self._resolve = resolve or _resolve

    async def check(self, host: str, port: int, *, trusted: bool = False) -> Verdict:
        """Decide on a destination, by its addresses where it is a name.

        One that cannot be resolved is refused, unresolved. The operator's own destinations are `trusted`: they
        need only not be ourselves, and which of their addresses is used does not matter.
        """
        try:
            found = await self._resolve(bare_host(host), port)
        except (OSError, UnicodeError):
            return Verdict() if trusted else Verdict(f"{host} has no address", resolved=False)
        for address in found:
            if trusted and not self.is_own(address, port):
                continue
            if refused := self.refusal(host, address, port):
                return Verdict(refused)
        return Verdict(addresses=tuple(found))

    def refusal(self, host: str, address: str, port: int) -> str:
        """Return why `host` at this IP address may not be reached, empty where it may."""
        ip = parsed(address)
        if self._is_own(ip, port):
            return f"{host}:{port} is the proxy itself"
        if not is_public(ip) and not self._allowed.covers(bare_host(host), ip):
            return f"{host} leads to {ip}, which is no public address and not on the list of allowed ones"
        return ""

    def is_own(self, address: str, port: int) -> bool:
        """Tell whether one of our own listeners stands at this IP address."""
        return self._is_own(parsed(address), port)

    def _is_own(self, ip: Ip, port: int) -> bool:
        hosts = {host for host, own_port, *_ in self._own() if own_port == port}
        return bool(hosts) and (ip.is_loopback or ip.is_unspecified or str(ip) in hosts or _is_local(ip))


class Pins:
    """Connections that are being made to the address that was looked at: a second look may see another."""

    def __init__(self) -> None:
        self._meant: dict[str, connection.Address] = {}

    def __len__(self) -> int:
        return len(self._meant)

    def pin(self, server: connection.Server, address: str) -> None:
        """Let a connection that is not open yet be made to this address of what it is meant for."""
        assert server.address is not None
        self._meant[server.id] = server.address
        server.address = (address, server.address[1])

    def unpin(self, server: connection.Server) -> None:
        """Let it be known again by what it is meant for: so later requests find it, and TLS checks the name."""
        if (meant := self._meant.pop(server.id, None)) is not None:
            vars(server)["address"] = meant  # an open connection refuses to be given another one


def is_configured(client: connection.Client, address: Address) -> bool:
    """Tell whether the operator named this address in the proxy's mode."""
    mode = client.proxy_mode
    return isinstance(mode, mode_specs.ReverseMode | mode_specs.UpstreamMode) and mode.address == tuple(
        address[:2]
    )


def _is_local(ip: Ip) -> bool:
    """Tell whether this machine has the address: only then can a socket be bound to it."""
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((str(ip), 0))
        return True
    return False


async def _resolve(host: str, port: int) -> Sequence[str]:
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]
