"""Content decoding with limits: gzip, deflate and brotli, piece by piece, never more than a fixed step at a time.

A kilobyte can unpack to a megabyte, so the size of what came in says nothing about what comes out. A decoder
therefore hands out pieces of at most 64 KiB and stops for good once the output is more than a hundred times the
input (a first megabyte is free: short, repetitive bodies are honest). Other encodings are refused: we ask for
none (`adapters`), and a decoder that cannot bound its output is no decoder.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

import brotli

STEP: Final = 65_536
"""The most bytes that one piece holds."""

MAX_RATIO: Final = 100
FREE: Final = 1 << 20

# Each further member costs a copy of what is left, so their number is bounded; honest bodies have one.
_MAX_MEMBERS: Final = 64

_GZIP: Final = zlib.MAX_WBITS | 16
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS

_BLOCK: Final = 16_384
"""The library stops at its first block that fills this: its blocks grow from 32 KiB."""


class UnknownEncodingError(ValueError):
    """The body's encoding is none that is decoded here."""


class BombError(ValueError):
    """The body unpacks to far more than it is."""


class BrokenBodyError(ValueError):
    """The body is not what its encoding says, or ends too early."""


class Decoder(Protocol):
    """Decodes one body. Feed it what arrives, then `finish` it."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` decodes to, in pieces; raises `BombError` or `BrokenBodyError`."""
        ...

    def finish(self) -> None:
        """Check that the body was whole; raises `BrokenBodyError`. An empty body is whole."""
        ...


class _Zlib:
    """Gzip (RFC 1952) and deflate (RFC 1950, or bare RFC 1951)."""

    __slots__ = ("_engine", "_fresh", "_kind", "_members", "_received", "_sent")

    def __init__(self, kind: str) -> None:
        """`kind` is `gzip` or `deflate`."""
        self._kind = kind
        self._engine = zlib.decompressobj(_GZIP if kind == "gzip" else _ZLIB)
        self._fresh = True
        self._received = 0
        self._sent = 0
        self._members = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._received += len(data)
        if self._fresh and self._kind == "deflate" and data:
            self._fresh = False
            # RFC 9110 means zlib's format by `deflate`; some servers send the bare stream. The low four bits of
            # zlib's first byte are always 8, and a bare stream practically never begins so.
            if data[0] & 0x0F != 8:
                self._engine = zlib.decompressobj(_RAW)
        more = bool(data)
        while more:
            if self._engine.eof:
                self._next_member()
            try:
                piece = self._engine.decompress(data, STEP)
            except zlib.error as exc:
                raise BrokenBodyError(f"the {self._kind} body is damaged") from exc
            self._sent += len(piece)
            _check(self._kind, self._received, self._sent)
            if piece:
                yield piece
            data = self._engine.unused_data if self._engine.eof else self._engine.unconsumed_tail
            # A full piece may leave more behind even where all input is taken.
            more = bool(data) or (len(piece) == STEP and not self._engine.eof)

    def finish(self) -> None:
        if self._received and not self._engine.eof:
            raise BrokenBodyError(f"the {self._kind} body ends too early")

    def _next_member(self) -> None:
        """Go on after the end: a gzip body may be several members (RFC 1952), nothing else may follow itself."""
        self._members += 1
        if self._kind != "gzip" or self._members > _MAX_MEMBERS:
            raise BrokenBodyError(f"the {self._kind} body goes on after its end")
        self._engine = zlib.decompressobj(_GZIP)


class _Brotli:
    """Brotli (RFC 7932); its window is at most 16 MiB."""

    __slots__ = ("_engine", "_received", "_sent")

    def __init__(self) -> None:
        self._engine = brotli.Decompressor()
        self._received = 0
        self._sent = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._received += len(data)
        more = bool(data)
        while more:
            try:
                piece = self._engine.process(data, output_buffer_limit=_BLOCK)
            except brotli.error as exc:
                raise BrokenBodyError("the brotli body is damaged") from exc
            self._sent += len(piece)
            _check("brotli", self._received, self._sent)
            if piece:
                yield piece
            data = b""
            # Where all input is taken, output may still be kept back.
            more = bool(piece) or not self._engine.can_accept_more_data()

    def finish(self) -> None:
        if self._received and not self._engine.is_finished():
            raise BrokenBodyError("the brotli body ends too early")


def _check(kind: str, received: int, sent: int) -> None:
    if sent > FREE and sent > MAX_RATIO * received:
        raise BombError(f"the {kind} body unpacks to more than {MAX_RATIO} times its size")


def decoder(encoding: str) -> Decoder | None:
    """Return a decoder for a Content-Encoding, None where there is nothing to decode; raises `UnknownEncodingError`."""
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip":
            return _Zlib("gzip")
        case "deflate":
            return _Zlib("deflate")
        case "br":
            return _Brotli()
        case _:
            raise UnknownEncodingError("the body has a content encoding that was not asked for")
