"""Who a connection belongs to, where a proxy took it in before our HTTP server saw it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tokenhub_core.ports import Secret

_NO_SECRET: Final = Secret("")

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
    """Who authenticated to the proxy; empty where nobody had to. Of a key of ours it is the name."""
    host: str
    """The host that the client meant, in lower case: its certificate is the one that we show."""
    port: int
    key: Secret = _NO_SECRET
    """The key of ours that it was opened with. Looked up anew for each request: it may be revoked meanwhile."""
    near: bool | None = None
    """Whether it comes from this machine; None: as the peer's address says."""
