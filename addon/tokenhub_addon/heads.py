"""The heads of HTTP/1 messages, bounded: mitmproxy gathers one for as long as it does not come to its end.

Leans on `Http1Connection.buf`, one of h11's, and on the states of both ends.
"""

from __future__ import annotations

from typing import Final, override

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Server, make_error_response

MOST: Final = 1 << 18
"""Bytes of a head that has not come to its end. RFC 9110 (5.4) leaves the bound to us."""
_SAID: Final = "The head of the message is too long."


class BoundedServer(Http1Server):
    """Reads requests."""

    @override
    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        yield from super().read_headers(event)
        if self.state == self.read_headers and len(self.buf) > MOST:
            self.state = self.done
            self.buf.maybe_extract_at_most(len(self.buf))
            yield commands.SendData(self.conn, make_error_response(431, _SAID))
            yield commands.CloseConnection(self.conn)


class BoundedClient(Http1Client):
    """Reads answers."""

    @override
    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        yield from super().read_headers(event)
        if self.state == self.read_headers and self.stream_id is not None and len(self.buf) > MOST:
            self.state = self.done
            self.buf.maybe_extract_at_most(len(self.buf))
            yield commands.CloseConnection(self.conn)
            yield ReceiveHttp(ResponseProtocolError(self.stream_id, _SAID, ErrorCode.GENERIC_SERVER_ERROR))
