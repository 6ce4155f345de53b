"""Who a connection belongs to, where a proxy took it in before our HTTP server saw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EXTRA_INFO: Final = "tokenhub.connection"
"""Under this name a handed-over transport's `get_extra_info` returns its `Connection`."""


@dataclass(frozen=True, slots=True)
class Connection:
    """The identity of an intercepted connection. It travels beside the transport, never in headers."""

    peer: str
    """The client's address, without its port."""
    mode: str
    """The mitmproxy mode that took the connection in: `regular`, `socks5`, `reverse`, `transparent`, `upstream`."""
    proxy_user: str
    """Who authenticated to the proxy; empty where nobody had to."""
    host: str
    """The host that the client meant, in lower case: its certificate is the one that we show."""
    port: int
