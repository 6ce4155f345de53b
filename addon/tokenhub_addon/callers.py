"""Who opens connections through the proxy: by the credentials of a CONNECT, of an absolute-form request, of SOCKS.

A key of ours is all that counts as one, and none is kept where a flow, a dump or a log could show it: it leaves its
request at once, and waits beside the connection, unprintable, for the requests that come over it. mitmproxy's own
`proxyauth` is not used for it: that one compares with `==` and writes the password into each flow.

Where a caller has to show who it is, a CONNECT without a key is answered with 407, for listed hosts as for others. A
request inside the tunnel could still bring a key; but many clients show the credentials of their proxy's URL only to
a 407 (RFC 9110, 11.7.1), so that letting them through would take away their only chance, and whoever is unknown would
be served a TLS handshake and told which hosts are listed. What has no CONNECT (reverse, transparent) brings its key in
the request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, override

import msgspec
from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.proxy import commands, events, layer, mode_specs
from mitmproxy.proxy.layers import modes

from tokenhub_addon.flows import REDACTED, lower, raw
from tokenhub_addon.guard import addon, close_client
from tokenhub_addon.host import EngineHost
from tokenhub_core.admission import identity
from tokenhub_core.admission.doorkeeper import CHALLENGE, Entry, called, loopback
from tokenhub_core.errors import Fault, TokenHubError
from tokenhub_core.ports import Clock, Secret

_PROXY: Final = "proxy-authorization"
_VERSION: Final = modes.SOCKS5_VERSION
_USER_PASSWORD: Final = modes.SOCKS5_METHOD_USER_PASSWORD_AUTHENTICATION


_NO_SECRET: Final = Secret("")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a connection was opened with."""

    key: Secret = _NO_SECRET
    user: str = ""
    """What the key is called."""


_NOTHING: Final = Shown()


def _nobody_is_told() -> None:
    pass


class Callers:
    """Knows of each connection whose it is."""

    def __init__(self, host: EngineHost, clock: Clock, *, anonymous: Callable[[], bool]) -> None:
        self._host = host
        self._clock = clock
        self._anonymous = anonymous
        self._shown: dict[str, Shown] = {}
        self._tunnels: set[str] = set()
        """Connections that CONNECT or SOCKS has opened: what comes over them is not for the proxy."""
        self._entered: set[str] = set()
        """Connections of somebody who has shown a key, to the proxy or in a request."""
        self._held: dict[str, Callable[[], None]] = {}
        """Connections that end with their key, and what lets go of each."""

    def __len__(self) -> int:
        """Return how many connections something is known of."""
        return len(self._shown.keys() | self._tunnels | self._entered | self._held.keys())

    def shown(self, client: Client) -> Shown:
        """Return what a connection was opened with."""
        return self._shown.get(client.id, _NOTHING)

    def forget(self, client: Client) -> None:
        """Forget a connection."""
        self._shown.pop(client.id, None)
        self._tunnels.discard(client.id)
        self._entered.discard(client.id)
        if (release := self._held.pop(client.id, None)) is not None:
            release()

    async def hold(
        self, client: Client, key: Secret = _NO_SECRET, told: Callable[[], None] = _nobody_is_told
    ) -> None:
        """Close a connection, and say so, once a key that it is open by is good no more.

        That is the one that it was opened with, and `key`, of the request that it is now used for alone.
        """
        keys = [one for one in (self.shown(client).key, key) if one]
        if not keys or client.id in self._held:
            return

        def end() -> None:
            told()
            close_client(client)

        tenures = (await self._host.keeper()).tenures
        if client.id in addon("proxyserver").connections:
            self._held[client.id] = tenures.hold(end, *keys)

    def unknown(self, client: Client) -> bool:
        """Tell whether a client would have to show who it is, and has not."""
        if client.id in self._entered or client.id not in addon("proxyserver").connections:
            return False  # the latter are calls that the user's own interface makes
        return not self._is_free(client)

    def connected(self, client: Client) -> None:
        """Ask for user and password where a SOCKS client offers them, and insist where it has to."""
        handler = addon("proxyserver").connections.get(client.id)
        if handler is not None and type(handler.layer) is modes.Socks5Proxy:
            # In place: it was made before anybody was asked.
            handler.layer.__class__ = KeyedSocks5
            assert isinstance(handler.layer, KeyedSocks5)
            handler.layer.required = not self._is_free(client)
            handler.layer.state = handler.layer.state_greet

    async def socks(self, data: modes.Socks5AuthData) -> None:
        """Say whether a SOCKS client's user and password will do."""
        if data.valid:
            self._tunnels.add(data.client_conn.id)
            return
        try:
            await self._open(data.client_conn, identity.pair(data.username, data.password))
        except TokenHubError:
            return
        data.valid = True

    async def connect(self, flow: http.HTTPFlow) -> None:
        """Take the credentials out of a CONNECT, and answer it where they will not do."""
        value = flow.request.headers.pop(_PROXY, "")
        if flow.response is not None or flow.error is not None:
            return
        try:
            await self._open(flow.client_conn, identity.from_credentials(value))
        except TokenHubError as error:
            flow.response = challenge(error.fault)

    async def admit(self, flow: http.HTTPFlow, *, gemini: bool = False) -> Entry:
        """Return a flow's request as it comes in, and take its key out of the flow; raises `TokenHubError`."""
        client, request = flow.client_conn, flow.request
        try:
            found = identity.find(
                lower(request.headers.fields),
                request.path,
                gemini=gemini,
                proxy=self.shown(client).key.reveal(),
            )
            if not found.secret and self._is_free(client):
                # Whoever it is for: it is for this hop.
                request.headers.pop(_PROXY, None)
                return Entry(found.headers, found.path)
            keeper = await self._host.keeper()
            entry = keeper.admit(found, near=near(client), now=self._clock.now())
        except TokenHubError:
            _scrub(request)
            raise
        if found.path != request.path or found.headers != lower(request.headers.fields):
            _rewrite(request, entry)
        self._entered.add(client.id)
        return entry

    async def settled(self, flow: http.HTTPFlow, entry: Entry, host: str) -> Entry:
        """Return a request as its host may get it, and the flow with it; raises `TokenHubError`."""
        found = (await self._host.foreign()).settled(entry, host, peer=flow.client_conn.peername[0])
        if found is not entry:
            _rewrite(flow.request, found)
        return found

    def refusal(self, flow: http.HTTPFlow, fault: Fault) -> http.Response | None:
        """Return how the proxy answers a request that may not come in, None where it is for the request's own host."""
        explicit = isinstance(flow.client_conn.proxy_mode, mode_specs.RegularMode | mode_specs.UpstreamMode)
        if explicit and flow.client_conn.id not in self._tunnels and fault.http_status == 401:
            return challenge(fault)
        return None

    async def _open(self, client: Client, secret: str) -> None:
        if secret or not self._is_free(client):
            keeper = await self._host.keeper()
            key = keeper.enter(secret, near=near(client), now=self._clock.now())
            if key is not None:
                self._shown[client.id] = Shown(Secret(secret), called(key))
                self._entered.add(client.id)
        self._tunnels.add(client.id)

    def _is_free(self, client: Client) -> bool:
        """Tell whether a client may come in without a key; nobody needs to wait for the engine to know."""
        return self._anonymous() and near(client)


def near(client: Client) -> bool:
    """Tell whether a client is on this machine; whoever is captured there is, whatever its address."""
    return isinstance(client.proxy_mode, mode_specs.LocalMode) or loopback(client.peername[0])


def challenge(fault: Fault) -> http.Response:
    """Return the proxy's own answer to somebody who may not come in: 407, or 503 where that cannot be told."""
    told = {"message": fault.message, "type": fault.kind.value, "code": fault.label}
    status = 407 if fault.http_status == 401 else fault.http_status
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    if status == 407:
        headers[CHALLENGE[0]] = CHALLENGE[1]
    return http.Response.make(status, msgspec.json.encode({"error": told}), headers)


def _rewrite(request: http.Request, entry: Entry) -> None:
    request.headers.fields = raw(entry.headers)
    request.path = entry.path


def _scrub(request: http.Request) -> None:
    """Take every key of ours out of a request that is refused, wherever it stands."""
    request.headers.fields = tuple(
        (name, REDACTED.encode() if _tells(name, value) else value) for name, value in request.headers.fields
    )
    request.headers.pop(_PROXY, None)
    request.path = identity.masked(request.path)


def _tells(name: bytes, value: bytes) -> bool:
    """Tell whether a field may hold a key of ours: as it is, or in the base64 of `Basic`."""
    return name.lower() == b"authorization" or identity.mentions(value.decode("utf-8", "replace"))


class KeyedSocks5(modes.Socks5Proxy):
    """mitmproxy's SOCKS layer, which asks for user and password (RFC 1929) whom it should, and logs no bytes."""

    required: bool

    @override
    def state_greet(self) -> layer.CommandGenerator[None]:
        buf = self.buf
        whole = len(buf) >= 2 and len(buf) >= 2 + buf[1] and buf[0] == _VERSION
        offered = buf[2 : 2 + buf[1]] if whole else b""
        if _USER_PASSWORD in offered:
            # Clients offer it only where they have something to say.
            yield commands.SendData(self.context.client, bytes([_VERSION, _USER_PASSWORD]))
            self.buf = buf[2 + buf[1] :]
            self.state = self.state_auth
            yield from self.state()
        elif whole and self.required:
            yield from self.socks_err("no credentials", modes.SOCKS5_METHOD_NO_ACCEPTABLE_METHODS)
        else:
            yield from super().state_greet()

    @override
    def socks_err(self, message: str, reply_code: int | None = None) -> layer.CommandGenerator[None]:
        # It may quote what the client sent: its password.
        yield from super().socks_err(f"SOCKS client refused ({message.partition(':')[0]})", reply_code)

    @override
    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.ConnectionClosed):
            self.buf = b""
        yield from super()._handle_event(event)
