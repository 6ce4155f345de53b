"""TLS alerts of hosts: mitmproxy loses them, and with them the end of the connection.

After a fatal alert OpenSSL counts the other side as gone, and mitmproxy (12.2.3, `TLSLayer.receive_close`) takes that
for a goodbye that it has passed on. It has not, and whoever waits for the host's answer waits for ever. Hosts that want
a certificate of their client refuse like that in TLS 1.3: after the handshake.
"""

from __future__ import annotations

from typing import Any, override

from OpenSSL import SSL


def heed(connection: SSL.Connection | None) -> None:
    """Let the end of a connection that an alert has ended be an end."""
    if type(connection) is SSL.Connection:
        connection.__class__ = _Heeding


class _Heeding(SSL.Connection):
    _refused = False

    @override
    def recv(self, *how: Any) -> bytes:
        try:
            return super().recv(*how)
        except SSL.Error as error:
            # Its subclasses say to wait, or that there was a goodbye.
            self._refused = self._refused or type(error) is SSL.Error
            raise

    @override
    def get_shutdown(self) -> int:
        return super().get_shutdown() & ~(SSL.RECEIVED_SHUTDOWN if self._refused else 0)
