"""Decoding in pieces, and where it stops."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable
from functools import partial
from typing import Final

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.providers.decoding import (
    FREE,
    STEP,
    BombError,
    BrokenBodyError,
    Decoder,
    UnknownEncodingError,
    decoder,
)

PACKED: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": partial(brotli.compress, quality=4),
}


def decoding(kind: str) -> Decoder:
    engine = decoder(kind)
    assert engine is not None
    return engine


def decoded(kind: str, packed: bytes, size: int = 1000) -> bytes:
    engine = decoding(kind)
    out = b"".join(b"".join(engine.feed(packed[at : at + size])) for at in range(0, len(packed), size))
    engine.finish()
    return out


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=5000), st.integers(1, 700))
def test_what_was_packed_comes_out_however_it_arrives(data: bytes, size: int) -> None:
    """Cuts between reads mean nothing."""
    assert decoded("gzip", gzip.compress(data), size) == data
    assert decoded("gzip", gzip.compress(data) + gzip.compress(data), size) == data * 2
    assert decoded("deflate", zlib.compress(data), size) == data
    assert decoded("deflate", raw_deflate(data), size) == data
    assert decoded("br", brotli.compress(data, quality=4), size) == data


def test_pieces_are_small_and_none_is_lost() -> None:
    """A body that unpacks to many steps comes out in steps, also when its input is long gone."""
    data = b"".join(hashlib.sha256(b"%d" % at).digest() * 20 for at in range(5_000))
    for kind in ("gzip", "br"):
        engine = decoding(kind)
        pieces = list(engine.feed(PACKED[kind](data)))
        engine.finish()
        assert max(map(len, pieces)) <= STEP
        assert b"".join(pieces) == data
    # Bare deflate has no trailer: its last input is taken while most of its output is still to come.
    text = b"a" * (2 * STEP + 100)
    assert decoded("deflate", raw_deflate(text), len(text)) == text


@pytest.mark.parametrize("kind", PACKED)
def test_a_bomb_stops_soon_after_the_free_megabyte(kind: str) -> None:
    """What it would unpack to is never made."""
    engine = decoding(kind)
    packed = PACKED[kind](bytes(200 << 20))
    sizes: list[int] = []

    def unpack() -> None:
        for at in range(0, len(packed), 1000):
            sizes.extend(map(len, engine.feed(packed[at : at + 1000])))

    with pytest.raises(BombError):
        unpack()
    assert FREE - STEP <= sum(sizes) <= FREE + STEP


def test_many_empty_members_are_refused() -> None:
    """Each costs work and yields nothing."""
    with pytest.raises(BrokenBodyError):
        decoded("gzip", gzip.compress(b"") * 1000, 1 << 20)


@pytest.mark.parametrize("kind", PACKED)
def test_damage_and_early_ends_are_told_apart_from_whole_bodies(kind: str) -> None:
    """Damage raises while feeding, an early end when finishing; an empty body is whole."""
    packed = PACKED[kind](b"hello" * 100)
    with pytest.raises(BrokenBodyError):
        list(decoding(kind).feed(b"\x18not packed at all"))
    engine = decoding(kind)
    list(engine.feed(packed[:-5]))
    with pytest.raises(BrokenBodyError):
        engine.finish()
    decoding(kind).finish()


@pytest.mark.parametrize("kind", ["deflate", "br"])
@pytest.mark.parametrize("size", [1, 1000])
def test_nothing_may_follow_other_bodies(kind: str, size: int) -> None:
    """Only gzip has members."""
    with pytest.raises(BrokenBodyError):
        decoded(kind, PACKED[kind](b"a") + PACKED[kind](b"b"), size)


def test_encodings_are_known_by_name() -> None:
    """What was not asked for is refused instead of guessed."""
    assert decoder("") is None
    assert decoder("Identity") is None
    assert decoder(" X-GZIP ") is not None
    assert decoder("deflate") is not None
    assert decoder("BR") is not None
    for name in ("zstd", "br, gzip", "gzip, gzip", "compress"):
        with pytest.raises(UnknownEncodingError):
            decoder(name)
