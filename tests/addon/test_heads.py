"""Heads of HTTP/1 messages that do not come to their end: cut at a bound, whoever sends them."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders, ResponseHeaders, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Client, Http1Connection, Http1Server

from tokenhub_addon.heads import MOST
from tokenhub_addon.trailers import tolerate

_PIECE = b"x" * (1 << 14)


def _end(kind: type[Any]) -> Http1Connection:
    """Return one end of a connection, as it is when its first bytes have come."""
    client = Client(
        peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), timestamp_start=0, state=ConnectionState.OPEN
    )
    context = Context(client, Options())
    context.server = Server(address=("api.example", 80))
    context.server.state = ConnectionState.OPEN
    end = kind(context)
    assert isinstance(end, Http1Connection)
    assert [*end.handle_event(events.Start())] == []
    tolerate(end)
    return end


def _fed(end: Http1Connection, data: bytes) -> list[Any]:
    return [*end.handle_event(events.DataReceived(end.conn, data))]


def _until_it_speaks(end: Http1Connection, beginning: bytes) -> tuple[int, list[Any]]:
    """Feed a head without an end; return how many bytes were taken until something came of it, and what."""
    said, taken = _fed(end, beginning), len(beginning)
    while not said and taken < 10 * MOST:
        said, taken = _fed(end, _PIECE), taken + len(_PIECE)
    return taken, said


def test_a_request_whose_head_has_no_end_is_refused_and_forgotten() -> None:
    """431 and the end of the connection, a piece behind the bound; nothing of it is kept."""
    end = _end(Http1Server)
    taken, said = _until_it_speaks(end, b"GET http://api.example/ HTTP/1.1\r\nX-Long: ")

    assert MOST < taken <= MOST + len(_PIECE)
    answer, closing = said
    assert isinstance(answer, commands.SendData)
    assert answer.data.startswith(b"HTTP/1.1 431 ")
    assert isinstance(closing, commands.CloseConnection)
    assert len(end.buf) == 0
    assert _fed(end, b"\r\n\r\n") == []


def test_an_answer_whose_head_has_no_end_is_an_error_of_its_server() -> None:
    """As one that cannot be read."""
    end = _end(Http1Client)
    end.request, end.stream_id = http.Request.make("GET", "http://api.example/"), 1
    taken, said = _until_it_speaks(end, b"HTTP/1.1 200 OK\r\nX-Long: ")

    assert MOST < taken <= MOST + len(_PIECE)
    closing, told = said
    assert isinstance(closing, commands.CloseConnection)
    assert isinstance(told, ReceiveHttp)
    assert isinstance(told.event, ResponseProtocolError)
    assert len(end.buf) == 0


@pytest.mark.parametrize("kind", [Http1Server, Http1Client], ids=["request", "answer"])
def test_a_head_that_comes_in_pieces_is_read_as_ever(kind: type[Any]) -> None:
    """Also where it is nearly as long as it may be."""
    end = _end(kind)
    first = b"GET http://api.example/ HTTP/1.1"
    meant: type[RequestHeaders | ResponseHeaders] = RequestHeaders
    if kind is Http1Client:
        end.request, end.stream_id = http.Request.make("GET", "http://api.example/"), 1
        first, meant = b"HTTP/1.1 200 OK\r\nContent-Length: 0", ResponseHeaders
    head = first + b"\r\nX-Long: " + b"x" * (MOST - 1000) + b"\r\n\r\n"
    said = [one for at in range(0, len(head), 4096) for one in _fed(end, head[at : at + 4096])]

    assert isinstance(said[0], ReceiveHttp)
    assert isinstance(said[0].event, meant)
