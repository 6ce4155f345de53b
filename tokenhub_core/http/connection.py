"""Who a connection belongs to, where a proxy took it in before our HTTP server saw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from tokenhub_core.ports import Secret

_NO_SECRET: Final = Secret("")

EXTRA_INFO: Final = "tokenhub.connection"
"""Under this name a handed-over transport's `get_extra_info` returns its `Connection`, where it can be told so."""
_TLS_OF_UVLOOP: Final = "uvloop.sslproto"
"""Under this name transports of uvloop return their TLS protocol, which then has it as `connection`."""


@dataclass(frozen=True, slots=True)
class Connection:
    """The identity of an intercepted connection. It travels beside the transport, never in headers."""

    peer: str
    """The client's address, without its port."""
    mode: str
    """The mitmproxy mode that took the connection in: `regular`, `socks5`, `reverse`, `transparent`, `upstream`."""
    proxy_user: str
    """Who authenticated to the proxy; empty where nobody had to. Of a key of ours it is the name."""
    host: str
    """The host that the client meant, in lower case: its certificate is the one that we show."""
    port: int
    key: Secret = _NO_SECRET
    """The key of ours that it was opened with. Looked up anew for each request: it may be revoked meanwhile."""
    near: bool | None = None
    """Whether it comes from this machine; None: as the peer's address says."""


class _Transport(Protocol):
    def get_extra_info(self, name: str, default: object = None) -> object: ...


def connection_of(transport: _Transport | None) -> Connection | None:
    """Return whose connection a transport is, None where nobody handed it over."""
    if transport is None:
        return None
    tls = transport.get_extra_info(_TLS_OF_UVLOOP)
    found = transport.get_extra_info(EXTRA_INFO) if tls is None else getattr(tls, "connection", None)
    return found if isinstance(found, Connection) else None
