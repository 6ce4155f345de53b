"""The provider of the benchmark: a process that answers with fixed bytes, over TLS.

`python -m scripts.benchmark.upstream CERTIFICATE KEY` prints its port and serves until it is ended.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import sys
from typing import Final

from scripts.benchmark.traffic import Traffic, asked, events, usage_event, wants_usage, whole_answer

_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"x-request-id: req-bench\r\ntransfer-encoding: chunked\r\n\r\n"
)


def main(certificate: str, key: str) -> None:
    """Serve with that certificate chain."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["http/1.1"])
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

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is not None:
            self._stream.cancel()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            length = _length(bytes(buffer[:end]))
            if len(buffer) < end + 4 + length:
                return
            body = bytes(buffer[end + 4 : end + 4 + length])
            del buffer[: end + 4 + length]
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        transport = self._transport
        assert transport is not None
        traffic = asked(body)
        if not traffic.chunks:
            transport.write(_whole())
            return
        pieces = _chunked(traffic, usage=wants_usage(body))
        if traffic.gap_ms:
            self._stream = asyncio.create_task(_paced(transport, pieces, traffic.gap_ms / 1000))
            return
        transport.write(_STREAM_HEAD)
        for piece in pieces:
            transport.write(piece)


async def _paced(transport: asyncio.Transport, pieces: list[bytes], gap: float) -> None:
    """Write each piece at its own time, so that a late one does not delay those after it."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    transport.write(_STREAM_HEAD)
    for number, piece in enumerate(pieces):
        await asyncio.sleep(began + number * gap - loop.time())
        transport.write(piece)


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    raise ValueError("a request without content-length")


@functools.cache
def _whole() -> bytes:
    body = whole_answer()
    head = (
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req-bench\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@functools.cache
def _chunked(traffic: Traffic, *, usage: bool) -> list[bytes]:
    """Return one HTTP chunk an event; the end of the body comes in one write with the last event."""
    told = events(traffic)
    if usage:
        told.insert(-1, usage_event())
    pieces = [b"%x\r\n%b\r\n" % (len(event), event) for event in told]
    return [*pieces[:-1], pieces[-1] + b"0\r\n\r\n"]


if __name__ == "__main__":
    main(*sys.argv[1:])
