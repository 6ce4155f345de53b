"""The addon: options, hooks and commands of the inspect lane.

It works as a script (`mitmproxy -s addon/tokenhub.py`), in our own launchers, and beside the hand-off lane, where
it answers what is not TLS. What it does to a connection is decided by its host: a listed one is opened, and its
routed calls are answered by the engine; every other one stays a raw tunnel. A listed host is contacted only for
requests that pass through on purpose.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mitmproxy import ctx, exceptions, http
from mitmproxy import flow as base
from mitmproxy.addonmanager import Loader
from mitmproxy.connection import Client
from mitmproxy.proxy import layer, mode_specs, server_hooks
from mitmproxy.proxy.layers.modes import Socks5AuthData
from mitmproxy.tls import ClientHelloData, TlsData

from tokenhub_addon import dumps
from tokenhub_addon.alerts import heed
from tokenhub_addon.callers import Callers
from tokenhub_addon.flows import (
    NOBODY,
    Errors,
    caller,
    declared_size,
    established,
    go_on,
    lower,
    redact,
    settle,
)
from tokenhub_addon.guard import Address, Fence, Guarded, Pins, Resolve, addon, cut, is_configured
from tokenhub_addon.host import AddonOptions, EngineFactory, EngineHost
from tokenhub_addon.inspect import InspectLane
from tokenhub_addon.passing import Ticket, let_go
from tokenhub_addon.replaying import Replays
from tokenhub_core.addresses import is_written
from tokenhub_core.admission.doorkeeper import Entry, allow, scope_of
from tokenhub_core.admission.headers import mentioned
from tokenhub_core.errors import Blame, ConfigError, Fault, Kind, TokenHubError
from tokenhub_core.hops import readable
from tokenhub_core.http.passthrough import WANTED, is_handshake
from tokenhub_core.later import Later
from tokenhub_core.modes import HostMode
from tokenhub_core.ports import Clock
from tokenhub_core.recognise import CHAT, Recognised, Recogniser, bare_host, extra_hosts
from tokenhub_core.types import Dialect, Origin, Scope
from tokenhub_core.watching import Watcher

if TYPE_CHECKING:
    from tokenhub_addon import desk
else:
    desk = Later("tokenhub_addon.desk")

_logger: Final = logging.getLogger(__name__)

__all__ = ["AddonOptions", "TokenHub"]

_DEFAULTS: Final = AddonOptions()

_KNOWN: Final = 1024
_LONGEST_KNOWN: Final = 512
"""Bytes of a path: clients choose them."""
_NOT_HTTP3: Final = b"tokenhub/tcp-only"
"""A protocol that no client offers by ALPN."""

_CHATTY: Final = ("mitmproxy.proxy.server", "aiohttp", "alembic", "h2", "hpack", "asyncio")
"""mitmproxy turns every log record of any library into an event for all addons, shown or not."""


@dataclass(frozen=True, slots=True)
class _Rules:
    """The options, read. Swapped whole when one of them changes."""

    options: AddonOptions
    recogniser: Recogniser
    fence: Fence
    known: dict[tuple[object, ...], tuple[Recognised, Origin] | None] = field(default_factory=dict)
    """What requests to the same place asked for: programs ask few things, over and over."""


class TokenHub(Guarded):
    """The addon. `engine_factory` starts the engine; `errors` tells faults in a caller's dialect.

    `defaults` are those of the options. `own_ports` are ports of this process that nobody may reach through the
    proxy, beside its own listeners.
    """

    name = "tokenhub"

    def __init__(
        self,
        engine_factory: EngineFactory,
        *,
        errors: Errors,
        clock: Clock,
        new_id: Callable[[], str],
        resolve: Resolve | None = None,
        defaults: AddonOptions = _DEFAULTS,
        own_ports: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self._resolve = resolve
        self._defaults = defaults
        self._own_ports = tuple(own_ports)
        self._errors = errors
        self._new_id = new_id
        self._rules = self._read(defaults)
        self._host = EngineHost(engine_factory)
        self._lane = InspectLane(
            self._host,
            errors=errors,
            clock=clock,
            new_id=new_id,
            max_body=lambda: self._rules.options.max_body,
            would_route=self._asks_chat,
        )
        self._replays = Replays(self._host, self._lane, new_id, secret=secrets.token_bytes(32))
        self._desk: desk.Desk | None = None
        """What a user interface asks for; None where there is none."""
        self.callers = Callers(self._host, clock, anonymous=lambda: self._rules.options.anonymous)
        """Who opens connections; the hand-off lane asks it, too."""
        self._tail = _Tail(self._opens, self._lane)
        self._quieted: list[logging.Logger] = []
        self._pins = Pins()

    # --- life cycle

    def load(self, loader: Loader) -> None:
        """Register the options, and keep private what mitmproxy writes of flows."""
        dumps.keep_private()
        defaults = self._defaults
        for name, kind, default, text in (
            (
                "data_dir",
                str,
                defaults.data_dir,
                "TokenHub's data directory; empty for the platform's default.",
            ),
            ("simulate", bool, defaults.simulate, "Answer from TokenHub's built-in simulator."),
            ("origin", bool, defaults.origin, "Let the host that a request was meant for be reached."),
            ("max_body", int, defaults.max_body, "Largest request body of a routed call, in bytes."),
            (
                "extra_hosts",
                Sequence[str],
                list(defaults.extra_hosts),
                "More hosts to route, as host=dialect.",
            ),
            ("anonymous", bool, defaults.anonymous, "Serve callers on this machine that show no key."),
            (
                "allow_private",
                Sequence[str],
                list(defaults.allow_private),
                "Names, addresses and networks that are not public and that the proxy may reach all the same.",
            ),
        ):
            loader.add_option(f"tokenhub_{name}", kind, default, text)

    def configure(self, updated: set[str]) -> None:
        """Read the options; raises OptionsError that says what is wrong."""
        if not any(name.startswith("tokenhub_") for name in updated):
            return
        options = ctx.options
        try:
            self._rules = self._read(
                AddonOptions(
                    data_dir=options.tokenhub_data_dir,
                    simulate=options.tokenhub_simulate,
                    origin=options.tokenhub_origin,
                    max_body=options.tokenhub_max_body,
                    extra_hosts=tuple(options.tokenhub_extra_hosts),
                    anonymous=options.tokenhub_anonymous,
                    allow_private=tuple(options.tokenhub_allow_private),
                )
            )
        except (ConfigError, ValueError) as error:
            raise exceptions.OptionsError(str(error)) from error  # type: ignore[no-untyped-call] # mitmproxy's

    def running(self) -> None:
        """Start the engine, and take the last word on TLS."""
        for name in ("emudhra", "emudhra_old"):
            if name in ctx.options and getattr(ctx.options, name):
                raise ConfigError(f"mitmproxy's option {name} is refused: it uses a compromised CA")
        if ctx.options.connection_strategy != "lazy":
            _logger.warning("connection_strategy is now lazy: TokenHub answers instead of the host")
            ctx.options.update(connection_strategy="lazy")  # type: ignore[no-untyped-call] # mitmproxy's
        if addon(self._tail.name) is None:
            ctx.master.addons.add(self._tail)  # type: ignore[no-untyped-call] # mitmproxy's
        if (view := addon("view")) is not None:
            # mitmweb kills a flow without a hook.
            view.sig_view_update.connect(self._viewed)
            view.sig_view_remove.connect(self._viewed)
            if self._desk is None:
                self._desk = desk.Desk(self._host, self._replays.notes, self._target, self._lane.clock)
                ctx.master.addons.add(self._desk)  # type: ignore[no-untyped-call] # mitmproxy's
        dumps.keep_private()
        self._quiet()
        self._host.start(self._rules.options)

    def done(self) -> Awaitable[None]:
        """Stop the engine. May be called without waiting for the result, as when a script is reloaded."""
        for logger in self._quieted:
            logger.setLevel(logging.NOTSET)
        for ours in (self._tail, self._desk):
            if ours is not None and addon(ours.name) is ours:
                ctx.master.addons.remove(ours)  # type: ignore[no-untyped-call] # mitmproxy's
        return asyncio.ensure_future(self._close())

    # --- connections

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """Put our HTTP layer in the place of mitmproxy's."""
        self._lane.route_layers(nextlayer)

    def client_connected(self, client: Client) -> None:
        """Ask who it is, in modes that have a way to."""
        self.callers.connected(client)

    async def socks5_auth(self, data: Socks5AuthData) -> None:
        """Look at a client's user name and password."""
        await self.callers.socks(data)

    def client_disconnected(self, client: Client) -> None:
        """Forget the client."""
        self._lane.forget(client)
        self.callers.forget(client)

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """Answer CONNECT for listed hosts; refuse it to the unknown, and where the caller may not go."""
        await self.callers.connect(flow)
        if flow.response is not None or flow.error is not None:
            return
        await self._known([flow.request.host])
        listed = self._opens(flow.request.host)
        if not listed or self._is_said(flow.request.host):
            await self._check(flow)
        if listed and flow.response is None:
            flow.response = established()

    async def tls_clienthello(self, data: ClientHelloData) -> None:
        """Open connections to listed hosts only, and of those no QUIC: neither lane speaks HTTP/3."""
        address = data.context.server.address
        if address is None:
            return  # TLS with the proxy itself: nobody has said yet where this leads
        names = (address[0], data.client_hello.sni or "")
        await self._known(names)
        if any(map(self._opens, names)):
            data.establish_server_tls_first = False
            if data.context.client.transport_protocol == "udp":
                # Not to be found among a client's offers: the handshake fails, and it comes back over TCP.
                data.context.client.alpn = _NOT_HTTP3
        else:
            data.ignore_connection = True
            self._count(names)

    async def server_connect(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Let nothing reach a listed host, an address of ours or a private one that has no leave to."""
        if data.server.error is not None or data.server.address is None:
            return
        host, port = data.server.address[:2]
        listed = any(map(self._opens, (host, data.client.sni or "")))
        if listed and not self._lane.permits(data.server):
            data.server.error = "TokenHub answers for this host itself"
            return
        if not listed and self.callers.unknown(data.client):
            data.server.error = "TokenHub does not know who asks"
            return
        trusted = is_configured(data.client, data.server.address) or self._is_said(host)
        verdict = await self._rules.fence.check(host, port, trusted=trusted)
        if not listed:
            # Nobody will ask again who uses it.
            await self.callers.hold(data.client)
        if verdict.refused:
            data.server.error = f"TokenHub refuses: {verdict.refused}"
        elif not trusted and data.server.via is None:
            self._pins.pin(data.server, verdict.addresses[0])

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Look again, before the first byte: a name may lead elsewhere at a second look."""
        self._pins.unpin(data.server)
        if data.server.address is None or data.server.peername is None:
            return
        host, port = data.server.address[:2]
        trusted = is_configured(data.client, data.server.address) or self._is_said(host)
        if trusted:
            return
        if refused := self._rules.fence.refusal(host, data.server.peername[0], port):
            _logger.warning("TokenHub refuses: %s", refused)
            cut(data.client, data.server)

    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Forget the connection."""
        self._pins.unpin(data.server)
        self._lane.closed(data.server)

    def server_disconnected(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Forget the connection."""
        self._lane.closed(data.server)

    # --- requests

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Decide who answers, and take the credentials out of the flow."""
        settle(flow)
        found = self._target(flow)
        if flow.response is not None or flow.error is not None:
            flow.request.headers.pop("proxy-authorization", None)
            if found is not None:
                redact(flow.request)
        elif flow.is_replay == "request" and found is not None:
            flow.response = await self._replays.answer(flow, *found)
        elif (entry := await self._admitted(flow, found)) is None:
            flow.request.stream = False
        elif found is None:
            await self._check(flow)
            if switching := is_handshake(lower(flow.request.headers.fields)):
                await self.callers.hold(flow.client_conn, entry.shown)
            go_on(flow.request, switching=switching)
        else:
            called = found[0].operation == CHAT
            watcher = await self._host.settled() if called else None
            mode = self._mode(flow, found[1], watcher, entry)
            ticket = self._lane.accept(flow, *found, mode, entry=entry)
            if self._desk is not None:
                self._desk.accepted(flow, ticket)
            if not ticket.routed:
                self._pass(flow, ticket, call=called)
                if ticket.passage.fault is None and is_handshake(lower(flow.request.headers.fields)):
                    await self.callers.hold(flow.client_conn, entry.shown, ticket.passage.ended)

    async def _admitted(self, flow: http.HTTPFlow, found: tuple[Recognised, Origin] | None) -> Entry | None:
        """Return a request as it comes in, None where it was answered because it may not."""
        try:
            readable(flow.request.headers.fields)
            entry = await self.callers.admit(
                flow, gemini=found is not None and found[0].dialect is Dialect.GEMINI
            )
            if found is not None:
                what, origin = found
                scope = scope_of(what.dialect) if what.operation == CHAT else Scope.PASSTHROUGH
                allow(entry.key, scope, host=origin.host)
                entry = await self.callers.settled(flow, entry, origin.host)
        except TokenHubError as error:
            flow.marked, flow.comment = ":warning:", error.fault.label
            refused = self.callers.refusal(flow, error.fault)
            if found is not None:
                told = self._lane.refuse(flow, error.fault, *found)
                flow.response = refused or told
            else:
                flow.response = refused or self._lane.error(flow, error.fault)
            return None
        return entry

    def request(self, flow: http.HTTPFlow) -> None:
        """Let a call go on to its host where the mode of its alias says so: here its body is complete."""
        ticket, watcher = self._lane.ticket(flow), self._host.watcher
        if ticket is None or not ticket.routed or watcher is None or flow.response is not None:
            return
        modes = watcher.modes()
        if not modes.by_alias:
            return
        request, body = flow.request, flow.request.data.content or b""
        name = watcher.engine.alias_of(ticket.what.dialect, request.path, lower(request.headers.fields), body)
        mode = modes.of(ticket.origin.host, caller(flow, ticket.entry).proxy_user, name)
        if mode is not HostMode.ROUTE:
            ticket.leave(shadow=mode is HostMode.SHADOW)
            ticket.passage.up(body)
            ticket.passage.up(b"")
            self._pass(flow, ticket, call=True)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Do not hold up what passes through."""
        assert flow.response is not None
        ticket = self._lane.ticket(flow)
        if ticket is None or ticket.routed:
            return
        if flow.response.status_code == 101:
            ticket.passage.switched()
        else:
            self._overhear(flow, flow.response, ticket)
            ticket.passage.begin(flow.response)
            flow.response.stream = ticket.passage.down
            go_on(flow.response, switching=flow.response.status_code == 426)

    def _overhear(self, flow: http.HTTPFlow, response: http.Response, ticket: Ticket) -> None:
        """Let the engine learn what an answer that passes through tells of rate limits."""
        answer = lower(response.headers.fields)
        if mentioned(answer):
            self._host.overheard(
                ticket.origin.host,
                ticket.what.dialect,
                ticket.sent(flow.request),
                answer,
                model=ticket.passage.asked,
                now=self._lane.clock.monotonic(),
                at=self._lane.clock.now(),
            )

    def response(self, flow: http.HTTPFlow) -> None:
        """Forget the flow, unless a conversation follows."""
        if flow.websocket is None:
            self._lane.end(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """Forget the flow."""
        self._lane.end(flow)

    def update(self, flows: Sequence[base.Flow]) -> None:
        """Cut exchanges that the user has killed."""
        for flow in flows:
            self._viewed(flow)

    # --- guarded

    def failure(self, flow: http.HTTPFlow) -> http.Response:
        """Return the answer to a flow that a hook failed at, in its caller's dialect."""
        found = self._target(flow)
        fault = Fault(
            Kind.INTERNAL, Blame.US, "TokenHub failed; the request was not forwarded", cause="hook_failed"
        )
        if found is not None and flow.response is None and self._lane.ticket(flow) is None:
            return self._lane.refuse(flow, fault, *found)
        return self._lane.error(flow, fault, found[0].dialect if found else None)

    # --- ours

    def remembered(self) -> int:
        """Return how many calls, tasks and connections are not over yet."""
        return len(self._lane) + len(self._replays) + len(self.callers) + len(self._pins)

    def _read(self, options: AddonOptions) -> _Rules:
        def own() -> Iterable[Address]:
            yield from addon("proxyserver").listen_addrs()
            yield from (("127.0.0.1", port) for port in self._own_ports)

        if options.max_body < 1:
            raise ConfigError("tokenhub_max_body must be at least 1")
        recogniser = Recogniser(extra_hosts(options.extra_hosts))
        return _Rules(options, recogniser, Fence(options.allow_private, own=own, resolve=self._resolve))

    def _target(self, flow: http.HTTPFlow) -> tuple[Recognised, Origin] | None:
        """Return what a request to a listed host asks for and where it was going, None for other hosts.

        A client that has resolved the name itself leaves it in the Host header and the SNI only.
        """
        request, sni, known = flow.request, flow.client_conn.sni or "", self._rules.known
        data = request.data
        place = (data.scheme, data.host, data.port, data.authority, data.headers.get("host"), sni)
        key = (*place, data.method, data.path)
        if key in known:
            return known[key]
        recogniser, found = self._rules.recogniser, None
        for host in (request.pretty_host, request.host, sni):
            if (what := recogniser.recognise(host, request.method, request.path)) is not None:
                found = what, recogniser.origin(request.scheme, host, request.port)
                break
        if len(known) >= _KNOWN:
            known.clear()
        if len(data.path) <= _LONGEST_KNOWN:
            known[key] = found
        return found

    async def _known(self, hosts: Iterable[str]) -> None:
        """Return once it is known what is to be done with calls to these hosts."""
        if any(map(self._rules.recogniser.is_llm_host, hosts)):
            await self._host.settled()

    def _is_said(self, host: str) -> bool:
        """Tell whether the operator listed this very address as a host of LLM calls."""
        return is_written(bare_host(host)) and self._opens(host)

    def _closed(self, host: str) -> str:
        """Return the host of the rule by which connections to `host` are not opened, empty where there is none."""
        watcher = self._host.watcher
        return watcher.modes().closed(host) if watcher else ""

    def _opens(self, host: str) -> bool:
        """Tell whether `host` is listed, and not switched off."""
        return self._rules.recogniser.is_llm_host(host) and not self._closed(host)

    def _count(self, names: Iterable[str]) -> None:
        """Count a connection that stays unopened because its host is switched off."""
        listed = filter(self._rules.recogniser.is_llm_host, names)
        rule = next(filter(None, map(self._closed, listed)), "")
        if rule and (watcher := self._host.watcher) is not None:
            watcher.tunnelled(rule)

    def _mode(
        self, flow: http.HTTPFlow, origin: Origin, watcher: Watcher | None, entry: Entry = NOBODY
    ) -> HostMode:
        """Return what is to be done with a flow as far as its head tells; `request` will tell of aliases."""
        if watcher is None or not (modes := watcher.modes()).rules:
            return HostMode.ROUTE
        if modes.by_alias and declared_size(flow.request) <= watcher.max_body_bytes:
            return HostMode.ROUTE
        return modes.of(origin.host, caller(flow, entry).proxy_user)

    def _asks_chat(self, flow: http.HTTPFlow) -> bool:
        found = self._target(flow)
        called = found if found is not None and found[0].operation == CHAT else None
        return called is not None and self._mode(flow, called[1], self._host.watcher) is HostMode.ROUTE

    async def _check(self, flow: http.HTTPFlow) -> None:
        """Refuse a request for a destination that the caller may not reach."""
        mode, target = flow.client_conn.proxy_mode, (flow.request.host, flow.request.port)
        if isinstance(mode, mode_specs.UpstreamMode) or is_configured(flow.client_conn, target):
            return  # it is the next proxy that connects, or the operator who chose
        verdict = await self._rules.fence.check(*target, trusted=self._is_said(target[0]))
        if verdict.refused and verdict.resolved:
            flow.response = http.Response.make(403, f"TokenHub refuses: {verdict.refused}\n")

    def _pass(self, flow: http.HTTPFlow, ticket: Ticket, *, call: bool) -> None:
        """Let a request that is not routed go on to its host, if that may be reached."""
        options = self._rules.options
        fault = let_go(
            flow,
            ticket,
            host=self._host,
            recogniser=self._rules.recogniser,
            reachable=options.origin and not options.simulate,
            call=call,
            clock=self._lane.clock,
        )
        if fault is None:
            return
        flow.marked, flow.comment = ":warning:", fault.label
        flow.response = self._lane.error(flow, fault)
        if flow.response.status_code == 426:
            flow.response.headers[WANTED[0]] = WANTED[1]
        flow.request.stream = False

    def _viewed(self, flow: base.Flow, index: int = 0) -> None:
        if flow.error is not None and flow.error.msg == base.Error.KILLED_MESSAGE:
            self._lane.kill(flow)
            self._replays.kill(flow)

    def _quiet(self) -> None:
        for name in _CHATTY:
            logger = logging.getLogger(name)
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.WARNING)
                self._quieted.append(logger)

    async def _close(self) -> None:
        await self._lane.close()
        await self._host.stop()


class _Tail(Guarded):
    """Stands last: mitmproxy's own TLS addon decides after ours to greet the host first.

    And what a flow keeps of a conversation is bounded after everybody has seen it.
    """

    name = "tokenhub_tail"

    def __init__(self, opens: Callable[[str], bool], lane: InspectLane) -> None:
        super().__init__()
        self._opens = opens
        self._lane = lane

    def tls_clienthello(self, data: ClientHelloData) -> None:
        """Never greet a listed host first."""
        address = data.context.server.address or ("", 0)
        if any(map(self._opens, (address[0], data.client_hello.sni or ""))):
            data.establish_server_tls_first = False

    def tls_established_server(self, data: TlsData) -> None:
        """Hear what a host says to end its connection."""
        heed(data.ssl_conn)

    def websocket_message(self, flow: http.HTTPFlow) -> None:
        """Count a message."""
        ticket = self._lane.ticket(flow)
        if ticket is not None:
            ticket.passage.message()

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        """Forget the flow."""
        self._lane.end(flow)
