"""Sees what clients do at the proxy: an addon that changes nothing and remembers what `tokenhub doctor` asks about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mitmproxy import http
from mitmproxy.connection import Client
from mitmproxy.tls import ClientHelloData, TlsData

from tokenhub_core.launch.diagnosis import Saw, Sighting

_MOST: Final = 2000
"""Sightings that are kept."""
_ENCODINGS: Final = ("gzip", "br", "zstd", "deflate")


class Witness:
    """Keeps sightings in their order. `own` are addresses of ours that nobody should ask the proxy for."""

    name = "tokenhub_witness"

    def __init__(self, is_listed: Callable[[str], bool], own: set[tuple[str, int]]) -> None:
        self._is_listed = is_listed
        self._own = own
        self.seen: list[Sighting] = []

    def client_connected(self, client: Client) -> None:
        """See a connection."""
        del client
        self._note(Sighting(Saw.CONNECTION))

    def http_connect(self, flow: http.HTTPFlow) -> None:
        """See a tunnel."""
        self._note(self._to(Saw.TUNNEL, flow.request.host, flow.request.port))

    def tls_clienthello(self, data: ClientHelloData) -> None:
        """See the beginning of TLS."""
        address = data.context.server.address or ("", 0)
        host = data.client_hello.sni or address[0]
        alpn = tuple(one.decode("ascii", "replace") for one in data.client_hello.alpn_protocols)
        self._note(Sighting(Saw.HELLO, host, listed=self._is_listed(host), alpn=alpn))

    def tls_failed_client(self, data: TlsData) -> None:
        """See a client that does not believe us."""
        host = data.context.client.sni or (data.context.server.address or ("",))[0]
        words = (data.context.client.error or "").partition("\n")[0][:200]
        self._note(Sighting(Saw.REFUSED, host, listed=self._is_listed(host), words=words))

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """See a request."""
        request = flow.request
        sent = f"{request.headers.get('accept-encoding', '')} {request.headers.get('content-encoding', '')}"
        sighting = self._to(Saw.REQUEST, request.pretty_host, request.port)
        if sighting.saw is Saw.LOOP:
            self._note(sighting)
            return
        self._note(
            Sighting(
                Saw.REQUEST,
                sighting.host,
                listed=sighting.listed,
                http=request.http_version,
                encodings=tuple(name for name in _ENCODINGS if name in sent),
                websocket=request.headers.get("upgrade", "").lower() == "websocket",
                plain=not flow.client_conn.tls_established,
            )
        )

    def _to(self, saw: Saw, host: str, port: int) -> Sighting:
        if (host, port) in self._own:
            return Sighting(Saw.LOOP, host)
        return Sighting(saw, host, listed=self._is_listed(host))

    def _note(self, sighting: Sighting) -> None:
        if len(self.seen) < _MOST:
            self.seen.append(sighting)
