"""HTTP/1 trailers, let fall: mitmproxy stops dead at them, where RFC 9110 (6.5.1) lets anybody drop them.

Leans on `Http1Connection.read_body` and its `body_reader`, one of h11's.
"""

from __future__ import annotations

from typing import Any, override

import h11
from mitmproxy.proxy import events, layer
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Connection, Http1Server

from tokenhub_addon.heads import BoundedClient, BoundedServer


def tolerate(last: layer.Layer) -> None:
    """Make an HTTP/1 connection of mitmproxy's one of ours: it minds no trailers, and long heads; others stay."""
    if type(last) is Http1Server:
        last.__class__ = _Server
    elif type(last) is Http1Client:
        last.__class__ = _Client
    else:
        return
    assert isinstance(last, Http1Connection)
    if getattr(last.state, "__name__", "") == "read_headers":
        # It was bound when the class was another one.
        last.state = last.read_headers


class _Bare:
    """A body reader that tells of no trailers."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __call__(self, buffer: Any) -> Any:
        return _bare(self._reader(buffer))

    def read_eof(self) -> Any:
        return _bare(self._reader.read_eof())


def _bare(event: Any) -> Any:
    return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else event


class _Tolerant(Http1Connection):
    @override
    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        if not isinstance(self.body_reader, _Bare):
            self.body_reader = _Bare(self.body_reader)  # type: ignore[assignment] # has all that is called
        yield from super().read_body(event)


class _Server(_Tolerant, BoundedServer):
    pass


class _Client(_Tolerant, BoundedClient):
    pass
