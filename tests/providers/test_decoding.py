"""Decoding in pieces, and where it stops."""

from __future__ import annotations

import gzip
import hashlib
import zlib

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


def decoded(kind: str, packed: bytes, size: int = 1000) -> bytes:
    engine = Decoder(kind)
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


def test_pieces_are_small_and_none_is_lost() -> None:
    """A body that unpacks to many steps comes out in steps, also when its input is long gone."""
    data = b"".join(hashlib.sha256(b"%d" % at).digest() * 20 for at in range(5_000))
    pieces = list(Decoder("gzip").feed(gzip.compress(data)))
    assert max(map(len, pieces)) <= STEP
    assert b"".join(pieces) == data
    # Bare deflate has no trailer: its last input is taken while most of its output is still to come.
    text = b"a" * (2 * STEP + 100)
    assert decoded("deflate", raw_deflate(text), len(text)) == text


def test_a_bomb_stops_soon_after_the_free_megabyte() -> None:
    """What it would unpack to is never made."""
    engine = Decoder("gzip")
    packed = gzip.compress(bytes(200 << 20))
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


@pytest.mark.parametrize("kind", ["gzip", "deflate"])
def test_damage_and_early_ends_are_told_apart_from_whole_bodies(kind: str) -> None:
    """Damage raises while feeding, an early end when finishing; an empty body is whole."""
    packed = gzip.compress(b"hello" * 100) if kind == "gzip" else zlib.compress(b"hello" * 100)
    with pytest.raises(BrokenBodyError):
        list(Decoder(kind).feed(b"\x18not packed at all"))
    engine = Decoder(kind)
    list(engine.feed(packed[:-5]))
    with pytest.raises(BrokenBodyError):
        engine.finish()
    Decoder(kind).finish()


def test_nothing_may_follow_a_deflate_body() -> None:
    """Only gzip has members."""
    with pytest.raises(BrokenBodyError):
        decoded("deflate", zlib.compress(b"a") + zlib.compress(b"b"))


def test_encodings_are_known_by_name() -> None:
    """What was not asked for is refused instead of guessed."""
    assert decoder("") is None
    assert decoder("Identity") is None
    assert decoder(" X-GZIP ") is not None
    assert decoder("deflate") is not None
    for name in ("br", "zstd", "gzip, gzip", "compress"):
        with pytest.raises(UnknownEncodingError):
            decoder(name)
