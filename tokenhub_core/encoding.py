"""Decoding request bodies: bounded in size, so that a small body cannot become a large one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import zstandard

from tokenhub_core.errors import Kind, TokenHubError, client_fault
from tokenhub_core.providers.decoding import BombError, BrokenBodyError, UnknownEncodingError, decoder

_WINDOW: Final = 8 << 20
"""What RFC 9659 lets a content encoding ask for."""
_STEP: Final = 256
"""Bytes that are unpacked at a time: four of them can become 128 KiB."""
_MAX_FRAMES: Final = 64


def decoded(body: bytes, encoding: str, *, limit: int) -> bytes:
    """Return the body without its content encoding (RFC 9110, 8.4).

    Raises `TokenHubError`: `TOO_LARGE` where more than `limit` bytes would come out, `INVALID` where the body
    is not what its header says or the encoding is none of gzip, deflate, brotli and zstd.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    out = bytearray()
    try:
        for piece in _pieces(body, name):
            out += piece
            if len(out) > limit:
                raise _too_large(f"the body is larger than {limit} bytes once decoded")
    except UnknownEncodingError:
        raise client_fault(
            f"content-encoding {name[:40]!r} is not supported; use gzip, deflate, br, zstd or none",
            cause="bad_encoding",
        ) from None
    except BombError as error:
        raise _too_large(str(error)) from None
    except (BrokenBodyError, zstandard.ZstdError):
        raise client_fault(f"the body is not valid {name}", cause="bad_encoding") from None
    return bytes(out)


def _pieces(body: bytes, name: str) -> Iterator[bytes]:
    if name == "zstd":
        yield from _unpacked(body)
        return
    unpacking = decoder(name)
    if unpacking is not None:
        yield from unpacking.feed(body)
        unpacking.finish()


def _unpacked(body: bytes) -> Iterator[bytes]:
    """Yield what the frames of a zstd body hold (RFC 8878); a body may be several."""
    for _ in range(_MAX_FRAMES):
        if not body:
            return
        engine = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
        at = 0
        while at < len(body) and not engine.eof:
            yield engine.decompress(body[at : at + _STEP])
            at += _STEP
        if not engine.eof:
            raise BrokenBodyError("the zstd body ends too early")
        body = engine.unused_data + body[at:]
    raise BrokenBodyError("the zstd body has too many frames")


def _too_large(message: str) -> TokenHubError:
    return client_fault(message, kind=Kind.TOO_LARGE, cause="body_too_large")
