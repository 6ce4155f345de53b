"""Request bodies without their content encoding, within limits."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.encoding import decoded
from tokenhub_core.errors import Kind, TokenHubError

LIMIT = 100_000


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd}


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=5000), st.sampled_from(sorted(PACKERS)))
def test_what_was_packed_comes_out_again(data: bytes, name: str) -> None:
    """Byte for byte, in any case of the encoding's name."""
    assert decoded(PACKERS[name](data), f" {name.upper()} ", limit=LIMIT) == data


@pytest.mark.parametrize("name", ["", "identity", " Identity "])
def test_what_is_not_packed_stays(name: str) -> None:
    """The very bytes."""
    body = b"\x1f\x8b not gzip"
    assert decoded(body, name, limit=0) is body


@pytest.mark.parametrize("name", PACKERS)
def test_several_members_are_one_body(name: str) -> None:
    """As concatenated files are, where the format has them."""
    body = PACKERS[name](b"one ") + PACKERS[name](b"two")
    if name == "deflate":
        with pytest.raises(TokenHubError, match="not valid deflate"):
            decoded(body, name, limit=LIMIT)
        return
    assert decoded(body, name, limit=LIMIT) == b"one two"


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("harm", ["short", "shorter", "longer", "other", "flipped"])
def test_a_damaged_body_is_the_callers_fault(name: str, harm: str) -> None:
    """Cut, continued, or something else: 400, never half a body taken for a whole one."""
    packed = PACKERS[name](bytes(range(256)) * 20)
    harmed = {
        "short": packed[:-1],
        "shorter": packed[:8],
        "longer": packed + b"more",
        "other": b'{"model":"x"}',
        "flipped": b"\x00" + packed[1:],
    }[harm]
    with pytest.raises(TokenHubError, match=f"not valid {name}") as refused:
        decoded(harmed, name, limit=LIMIT)
    assert (refused.value.fault.kind, refused.value.fault.cause) == (Kind.INVALID, "bad_encoding")


def test_a_frame_that_was_never_finished_is_damaged() -> None:
    """Everything may have come out of it already; that it ended is what nobody said."""
    packer = zstandard.ZstdCompressor().compressobj()
    body = packer.compress(b"{}") + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    with pytest.raises(TokenHubError, match="not valid zstd"):
        decoded(body, "zstd", limit=LIMIT)


@pytest.mark.parametrize("name", PACKERS)
def test_a_body_that_unpacks_to_too_much_is_refused_on_the_way(name: str) -> None:
    """413, and what fits exactly is taken."""
    assert len(decoded(PACKERS[name](b"x" * LIMIT), name, limit=LIMIT)) == LIMIT
    with pytest.raises(TokenHubError) as refused:
        decoded(PACKERS[name](b"x" * (LIMIT + 1)), name, limit=LIMIT)
    assert (refused.value.fault.kind, refused.value.fault.http_status) == (Kind.TOO_LARGE, 413)


@pytest.mark.parametrize("name", PACKERS)
def test_a_bomb_does_not_go_off(name: str) -> None:
    """A few kilobytes that stand for gigabytes cost no more than the limit."""
    bomb = PACKERS[name](bytes(64 << 20))
    with pytest.raises(TokenHubError) as refused:
        decoded(bomb, name, limit=8 << 20)
    assert refused.value.fault.kind is Kind.TOO_LARGE


def test_a_zstd_window_is_bounded() -> None:
    """RFC 9659: eight megabytes and no more, whatever the frame asks for."""

    def packed(window_log: int) -> bytes:
        wanted = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log)
        packer = zstandard.ZstdCompressor(compression_params=wanted).compressobj()
        return packer.compress(b"{}") + packer.flush()

    assert decoded(packed(23), "zstd", limit=LIMIT) == b"{}"
    with pytest.raises(TokenHubError, match="not valid zstd"):
        decoded(packed(24), "zstd", limit=LIMIT)


def test_a_body_of_endless_frames_is_refused() -> None:
    """Each one costs something; honest bodies have one."""
    with pytest.raises(TokenHubError, match="not valid zstd"):
        decoded(zstd(b"") * 65, "zstd", limit=LIMIT)


@pytest.mark.parametrize("name", ["gzip, gzip", "br, gzip", "compress", "x" * 1000])
def test_an_encoding_that_nobody_asked_for_is_named(name: str) -> None:
    """400 with what would be taken instead."""
    with pytest.raises(TokenHubError, match="use gzip, deflate, br, zstd or none") as refused:
        decoded(b"{}", name, limit=LIMIT)
    assert len(refused.value.fault.message) < 200
