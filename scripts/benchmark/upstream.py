"""The provider of the benchmark: a process that answers with fixed bytes, over TLS.

`python -m scripts.benchmark.upstream CERTIFICATE KEY` prints its port and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import sys
from typing import Final

from scripts.benchmark import http2
from scripts.benchmark.traffic import (
    FOREIGN_PATH,
    Traffic,
    asked,
    events,
    foreign_answer,
    foreign_events,
    stamped_event,
    usage_event,
    wants_usage,
    whole_answer,
)

_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"x-request-id: req-bench\r\ntransfer-encoding: chunked\r\n\r\n"
)


def main(certificate: str, key: str) -> None:
    """Serve with that certificate chain."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols([http2.ALPN, "http/1.1"])  # who speaks both chooses the newer one
    asyncio.run(_serve(context))


async def _serve(context: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, ssl=context, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class _Connection(asyncio.Protocol):
    """One connection: requests one after the other, as HTTP/1.1 clients send them."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._stream: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if transport.get_extra_info("ssl_object").selected_alpn_protocol() == http2.ALPN:
            newer = http2.Answerer(_whole_by_http2)
            transport.set_protocol(newer)
            newer.begin(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is not None:
            self._stream.cancel()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(buffer[:end])
            length = _length(head)
            if len(buffer) < end + 4 + length:
                return
            body = bytes(buffer[end + 4 : end + 4 + length])
            del buffer[: end + 4 + length]
            if head.startswith(b"POST "):
                self._answer(body, foreign=head.startswith(b"POST " + FOREIGN_PATH.encode()))
            else:  # whoever asks first whether somebody is there
                assert self._transport is not None
                self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def _answer(self, body: bytes, *, foreign: bool) -> None:
        transport = self._transport
        assert transport is not None
        traffic = asked(body)
        if not traffic.chunks:
            transport.write(_whole(foreign=foreign))
            return
        pieces = _chunked(traffic, usage=wants_usage(body), foreign=foreign)
        if traffic.gap_ms:
            self._stream = asyncio.create_task(_paced(transport, pieces, traffic))
            return
        transport.write(_STREAM_HEAD)
        for piece in pieces:
            transport.write(piece)


async def _paced(transport: asyncio.Transport, pieces: list[bytes], traffic: Traffic) -> None:
    """Write each piece at its own time, so that a late one does not delay those after it."""
    loop = asyncio.get_running_loop()
    began, gap = loop.time(), traffic.gap_ms / 1000
    content = range(1, traffic.chunks - 1) if traffic.stamped else ()
    transport.write(_STREAM_HEAD)
    for number, piece in enumerate(pieces):
        await asyncio.sleep(began + number * gap - loop.time())
        transport.write(_chunk(stamped_event()) if number in content else piece)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0


def _whole_by_http2(_: bytes) -> tuple[http2.Headers, bytes]:
    body = whole_answer()
    told = {"content-type": "application/json", "x-request-id": "req-bench", "content-length": str(len(body))}
    return [(":status", "200"), *told.items()], body


@functools.cache
def _whole(*, foreign: bool) -> bytes:
    body = foreign_answer() if foreign else whole_answer()
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req-bench\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@functools.cache
def _chunked(traffic: Traffic, *, usage: bool, foreign: bool) -> list[bytes]:
    """Return one HTTP chunk an event; the end of the body comes in one write with the last event."""
    told = foreign_events(traffic) if foreign else events(traffic)
    if usage and not foreign:
        told.insert(-1, usage_event())
    pieces = [_chunk(event) for event in told]
    return [*pieces[:-1], pieces[-1] + b"0\r\n\r\n"]


def _chunk(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


if __name__ == "__main__":
    main(*sys.argv[1:])
