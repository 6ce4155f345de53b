"""mitmproxy's servers, which let go of every socket that they had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mitmproxy.addons import proxyserver

if TYPE_CHECKING:
    from mitmproxy.proxy.mode_servers import ProxyConnectionHandler


class Servers(proxyserver.Proxyserver):
    """mitmproxy's own, known under its name.

    A handler that is cancelled while it waits for its turn at the layers ends without closing its socket (mitmproxy
    12.2.3, `ConnectionHandler.handle_connection`); a flood over HTTP/2 can bring that about. Nobody but the garbage
    collector would find it then.
    """

    name = "proxyserver"

    @contextmanager
    def register_connection(
        self, connection_id: tuple[object, ...] | str, handler: ProxyConnectionHandler
    ) -> Iterator[None]:
        """Keep the handler for as long as it has a client; close what it leaves open."""
        try:
            with super().register_connection(connection_id, handler):
                yield
        finally:
            for left in handler.transports.values():
                if left.writer is not None:
                    left.writer.close()
