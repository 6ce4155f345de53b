"""The addon: options, hooks and commands of the inspect lane.

It works as a script (`mitmproxy -s addon/tokenhub.py`), in our own launchers, and beside the hand-off lane, where
it answers what is not TLS. What it does to a connection is decided by its host: a listed one is opened, and its
routed calls are answered by the engine; every other one stays a raw tunnel. A listed host is contacted only for
requests that pass through on purpose.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from mitmproxy import command, ctx, exceptions, http
from mitmproxy import flow as base
from mitmproxy.addonmanager import Loader
from mitmproxy.connection import Client, Server
from mitmproxy.proxy import layer, mode_specs, server_hooks
from mitmproxy.tls import ClientHelloData

from tokenhub_addon import dumps
from tokenhub_addon.flows import (
    REDACTED,
    Errors,
    caller,
    declared_size,
    drop_masks,
    explained,
    lower,
    redact,
    unredacted,
)
from tokenhub_addon.guard import Address, Fence, Guarded, Resolve, addon, cut
from tokenhub_addon.host import AddonOptions, EngineFactory, EngineHost
from tokenhub_addon.inspect import InspectLane
from tokenhub_addon.passing import Ticket
from tokenhub_core.admission.headers import mentioned
from tokenhub_core.errors import Blame, ConfigError, Fault, Kind
from tokenhub_core.http.passthrough import WANTED, is_handshake, refusal
from tokenhub_core.modes import ROUTED, HostMode
from tokenhub_core.ports import Clock
from tokenhub_core.recognise import CHAT, Recognised, Recogniser, extra_hosts
from tokenhub_core.types import Origin
from tokenhub_core.watching import Watcher

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
class _Side:
    """Where replayed calls go."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class _Rules:
    """The options, read. Swapped whole when one of them changes."""

    options: AddonOptions
    recogniser: Recogniser
    fence: Fence
    side: _Side | None
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
        self._rules = self._read(defaults, "")
        self._host = EngineHost(engine_factory)
        self._replays: dict[str, http.Request] = {}
        """By flow id, requests as they were before they were sent to the side server."""
        self._lane = InspectLane(
            self._host,
            errors=errors,
            clock=clock,
            new_id=new_id,
            max_body=lambda: self._rules.options.max_body,
            would_route=self._asks_chat,
        )
        self._tail = _Tail(self._opens, self._lane)
        self._quieted: list[logging.Logger] = []

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
            (
                "allow_private",
                Sequence[str],
                list(defaults.allow_private),
                "Names, addresses and networks that are not public and that the proxy may reach all the same.",
            ),
            ("side_url", str, "", "URL of the side server; replayed calls are sent there."),
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
                    allow_private=tuple(options.tokenhub_allow_private),
                ),
                options.tokenhub_side_url,
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
            view.sig_view_remove.connect(self._removed)
        dumps.keep_private()
        self._quiet()
        self._host.start(self._rules.options)

    def done(self) -> Awaitable[None]:
        """Stop the engine. May be called without waiting for the result, as when a script is reloaded."""
        for logger in self._quieted:
            logger.setLevel(logging.NOTSET)
        if addon(self._tail.name) is self._tail:
            ctx.master.addons.remove(self._tail)  # type: ignore[no-untyped-call] # mitmproxy's
        return asyncio.ensure_future(self._close())

    # --- connections

    def next_layer(self, nextlayer: layer.NextLayer) -> None:
        """Put our HTTP layer in the place of mitmproxy's."""
        self._lane.route_layers(nextlayer)

    def client_disconnected(self, client: Client) -> None:
        """Forget the client."""
        self._lane.forget(client)

    async def http_connect(self, flow: http.HTTPFlow) -> None:
        """Answer CONNECT for listed hosts; refuse it where the caller may not go."""
        if flow.response is not None or flow.error is not None:
            return
        await self._known([flow.request.host])
        if self._opens(flow.request.host):
            flow.response = http.Response(
                b"HTTP/1.1", 200, b"Connection established", http.Headers(), b"", None, 0.0, 0.0
            )
        else:
            await self._check(flow)

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
        if self._is_replay(data.client, host, port):
            return
        listed = any(map(self._opens, (host, data.client.sni or "")))
        if listed and not self._lane.permits(data.server):
            data.server.error = "TokenHub answers for this host itself"
            return
        trusted = listed or _is_configured(data.client, data.server.address)
        refused, _ = await self._rules.fence.check(host, port, trusted=trusted)
        if refused:
            data.server.error = f"TokenHub refuses: {refused}"

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Look again, before the first byte: a name may lead elsewhere at a second look."""
        if data.server.address is None or data.server.peername is None:
            return
        host, port = data.server.address[:2]
        trusted = self._lane.permits(data.server) or _is_configured(data.client, data.server.address)
        if trusted or self._is_replay(data.client, host, port):
            return
        if refused := self._rules.fence.refusal(host, data.server.peername[0], port):
            _logger.warning("TokenHub refuses: %s", refused)
            cut(data.client, data.server)

    def server_connect_error(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Forget the connection."""
        self._lane.closed(data.server)

    def server_disconnected(self, data: server_hooks.ServerConnectionHookData) -> None:
        """Forget the connection."""
        self._lane.closed(data.server)

    # --- requests

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Decide who answers, and take the credentials out of the flow."""
        if "proxyauth" in flow.metadata:
            flow.metadata["proxyauth"] = (flow.metadata["proxyauth"][0], REDACTED)
        found = self._target(flow)
        if flow.response is not None or flow.error is not None:
            if found is not None:
                redact(flow.request)
        elif found is None:
            await self._check(flow)
        elif flow.is_replay == "request":
            self._replay(flow, *found)
        else:
            called = found[0].operation == CHAT
            watcher = await self._host.settled() if called else None
            self._lane.accept(flow, *found, self._mode(flow, found[1], watcher))
            if not self._routed(flow):
                self._pass(flow, found[1])

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
        mode = modes.of(ticket.origin.host, caller(flow).proxy_user, name)
        if mode is not HostMode.ROUTE:
            ticket.leave(shadow=mode is HostMode.SHADOW)
            ticket.passage.up(body)
            ticket.passage.up(b"")
            self._pass(flow, ticket.origin)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Do not hold up what passes through."""
        assert flow.response is not None
        ticket = self._lane.ticket(flow)
        streamed = flow.response.headers.get("content-type", "").startswith("text/event-stream")
        if self._restore(flow):
            flow.response.stream = streamed
        elif ticket is not None and not ticket.routed and flow.response.status_code != 101:
            self._overhear(flow, flow.response, ticket)
            ticket.passage.begin(flow.response)
            flow.response.stream = ticket.passage.down
            # It would lead the client past us.
            flow.response.headers.pop("alt-svc", None)

    def _overhear(self, flow: http.HTTPFlow, response: http.Response, ticket: Ticket) -> None:
        """Let the engine learn what an answer that passes through tells of rate limits."""
        answer = lower(response.headers.fields)
        if mentioned(answer):
            self._host.overheard(
                ticket.origin.host,
                ticket.what.dialect,
                lower(unredacted(flow.request.headers.fields, ticket.secrets)),
                answer,
                model=ticket.passage.asked,
                now=self._lane.clock.monotonic(),
                at=self._lane.clock.now(),
            )

    def response(self, flow: http.HTTPFlow) -> None:
        """Forget the flow, unless a conversation follows."""
        self._restore(flow)
        if flow.websocket is None:
            self._lane.end(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """Forget the flow."""
        self._restore(flow)
        self._lane.end(flow)

    def update(self, flows: Sequence[base.Flow]) -> None:
        """Cut exchanges that the user has killed."""
        for flow in flows:
            self._viewed(flow)

    @command.command("tokenhub.explain")  # type: ignore[untyped-decorator] # mitmproxy's
    def explain(self, flows: Sequence[base.Flow]) -> str:
        """Say in one line each what was decided for these flows."""
        return "\n".join(explained(flow) for flow in flows)

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
        return len(self._lane) + len(self._replays)

    def _read(self, options: AddonOptions, side_url: str) -> _Rules:
        side = _side(side_url)

        def own() -> Iterable[Address]:
            yield from addon("proxyserver").listen_addrs()
            yield from (("127.0.0.1", port) for port in self._own_ports)
            if side is not None:
                yield side.host, side.port

        if options.max_body < 1:
            raise ConfigError("tokenhub_max_body must be at least 1")
        recogniser = Recogniser(extra_hosts(options.extra_hosts))
        return _Rules(options, recogniser, Fence(options.allow_private, own=own, resolve=self._resolve), side)

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

    def _mode(self, flow: http.HTTPFlow, origin: Origin, watcher: Watcher | None) -> HostMode:
        """Return what is to be done with a flow as far as its head tells; `request` will tell of aliases."""
        if watcher is None or not (modes := watcher.modes()).rules:
            return HostMode.ROUTE
        if modes.by_alias and declared_size(flow.request) <= watcher.max_body_bytes:
            return HostMode.ROUTE
        return modes.of(origin.host, caller(flow).proxy_user)

    def _routed(self, flow: http.HTTPFlow) -> bool:
        ticket = self._lane.ticket(flow)
        return ticket is not None and ticket.routed

    def _asks_chat(self, flow: http.HTTPFlow) -> bool:
        found = self._target(flow)
        if found is None or found[0].operation != CHAT:
            return False
        return self._mode(flow, found[1], self._host.watcher) is HostMode.ROUTE

    async def _check(self, flow: http.HTTPFlow) -> None:
        """Refuse a request for a destination that the caller may not reach."""
        mode, target = flow.client_conn.proxy_mode, (flow.request.host, flow.request.port)
        if isinstance(mode, mode_specs.UpstreamMode) or _is_configured(flow.client_conn, target):
            return  # it is the next proxy that connects, or the operator who chose
        refused, resolved = await self._rules.fence.check(*target)
        if refused and resolved:
            flow.response = http.Response.make(403, f"TokenHub refuses: {refused}\n")

    def _pass(self, flow: http.HTTPFlow, origin: Origin) -> None:
        """Let a request that is not routed go on to its host, if that may be reached."""
        request, options = flow.request, self._rules.options
        handshake, watcher = is_handshake(lower(request.headers.fields)), self._host.watcher
        modes = watcher.modes() if watcher else ROUTED
        routed = modes.of(origin.host, caller(flow).proxy_user) is HostMode.ROUTE
        fault = refusal(self._rules.recogniser, origin.host, request.path) if handshake and routed else None
        if fault is None and options.origin and not options.simulate:
            # Encrypted, also where the caller spoke plain http with the proxy: it shows its credential.
            request.data.scheme, request.data.port = origin.scheme.encode(), origin.port
            return
        what = f"{request.method} {request.path.partition('?')[0]}"
        fault = fault or Fault(
            Kind.FORBIDDEN,
            Blame.US,
            f"{what} is not routed, and {origin.host} may not be reached",
            cause="origin_off",
            status=426 if handshake else 403,
        )
        flow.marked, flow.comment = ":warning:", fault.label
        flow.response = self._lane.error(flow, fault)
        if handshake:
            flow.response.headers[WANTED[0]] = WANTED[1]
        request.stream = False

    def _viewed(self, flow: base.Flow) -> None:
        if flow.error is not None and flow.error.msg == base.Error.KILLED_MESSAGE:
            self._lane.kill(flow)

    def _removed(self, flow: base.Flow, index: int) -> None:
        self._viewed(flow)

    def _quiet(self) -> None:
        for name in _CHATTY:
            logger = logging.getLogger(name)
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.WARNING)
                self._quieted.append(logger)

    async def _close(self) -> None:
        await self._lane.close()
        await self._host.stop()

    # --- replay: the user interface builds the layers itself, so the call goes round by the side server

    def _replay(self, flow: http.HTTPFlow, what: Recognised, origin: Origin) -> None:
        side = self._rules.side
        redact(flow.request)
        flow.metadata.pop("tokenhub", None)
        flow.comment = flow.marked = ""
        if side is None or what.operation != CHAT:
            fault = Fault(
                Kind.INVALID,
                Blame.CLIENT,
                "only routed calls can be replayed, and only with tokenhub_side_url set to the side server",
                cause="replay_refused",
            )
            flow.response = self._lane.refuse(flow, fault, what, origin)
            return
        self._replays[flow.id] = flow.request.copy()
        request = flow.request
        drop_masks(request)
        request.data.scheme, request.data.host, request.data.port = side.scheme.encode(), side.host, side.port
        request.data.authority = b""
        request.headers["host"] = f"{side.host}:{side.port}"
        flow.server_conn = Server(address=(side.host, side.port))

    def _is_replay(self, client: Client, host: str, port: int) -> bool:
        """Tell whether this is a replayed call on its way to the side server: its client is none of ours."""
        side = self._rules.side
        return (
            side is not None
            and (side.host, side.port) == (host, port)
            and bool(self._replays)
            and client.id not in addon("proxyserver").connections
        )

    def _restore(self, flow: http.HTTPFlow) -> bool:
        """Give a replayed flow the request back that the user knows."""
        request = self._replays.pop(flow.id, None)
        if request is None:
            return False
        flow.request = request
        flow.comment = "replayed through the side server"
        return True


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

    def websocket_message(self, flow: http.HTTPFlow) -> None:
        """Count a message."""
        ticket = self._lane.ticket(flow)
        if ticket is not None:
            ticket.passage.message()

    def websocket_end(self, flow: http.HTTPFlow) -> None:
        """Forget the flow."""
        self._lane.end(flow)


def _is_configured(client: Client, address: tuple[str, int]) -> bool:
    """Tell whether the operator named this address in the proxy's mode."""
    mode = client.proxy_mode
    return isinstance(mode, mode_specs.ReverseMode | mode_specs.UpstreamMode) and mode.address == tuple(
        address[:2]
    )


def _side(url: str) -> _Side | None:
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"tokenhub_side_url {url!r}: must be an http or https URL")
    return _Side(parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
