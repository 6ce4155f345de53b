"""Sketches: within their error, and the same however they are put together."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.telemetry import sketches
from tokenhub_core.telemetry.sketches import (
    LEAST,
    MOST,
    RELATIVE,
    packed,
    percentiles,
    slot,
    unpacked,
)

SHARES = (0.0, 0.5, 0.95, 0.99, 1.0)
TIMES = st.floats(LEAST * 1.001, MOST)
COUNTS = st.dictionaries(st.integers(0, 1383), st.integers(1, 200_000), max_size=20)


def sketch(times: list[float]) -> bytes:
    counts: dict[int, int] = {}
    for time in times:
        sketches.added(counts, {slot(time): 1})
    return packed(counts)


def merged(packs: list[bytes]) -> bytes:
    """What is stored of several: each slot once."""
    return packed(unpacked(b"".join(packs)))


@given(st.lists(TIMES, min_size=1, max_size=200))
def test_a_percentile_is_within_the_error_that_is_stated(times: list[float]) -> None:
    """Against the value of that rank itself, for values of any size."""
    told = percentiles([sketch(times)], SHARES)
    assert told is not None
    for share, found in zip(SHARES, told, strict=True):
        exact = sorted(times)[math.floor(share * (len(times) - 1))]
        assert abs(found - exact) <= exact * RELATIVE * (1 + 1e-9)


@given(st.lists(st.lists(TIMES, max_size=30), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_percentiles_of_parts_are_those_of_the_whole(parts: list[list[float]], chance: object) -> None:
    """However calls are parted and put together again: to the last bit."""
    packs = [sketch(part) for part in parts]
    whole = percentiles([sketch([time for part in parts for time in part])], SHARES)
    chance.shuffle(packs)  # type: ignore[attr-defined]
    assert percentiles(packs, SHARES) == whole
    assert percentiles([merged(packs)], SHARES) == whole


@given(COUNTS, COUNTS, COUNTS)
def test_merging_knows_no_order_and_no_brackets(
    a: dict[int, int], b: dict[int, int], c: dict[int, int]
) -> None:
    """Commutative and associative, in the bytes that are stored; nothing added is nothing."""
    one, two, three = packed(a), packed(b), packed(c)
    assert merged([one, two]) == merged([two, one])
    assert merged([merged([one, two]), three]) == merged([one, merged([two, three])])
    assert merged([one, b""]) == one


@given(COUNTS)
def test_what_is_packed_is_unpacked(counts: dict[int, int]) -> None:
    """Counts beyond 16 bits too."""
    assert unpacked(packed(counts)) == counts


def test_a_count_beyond_one_pair_takes_more_of_them() -> None:
    """Nothing is cut off at 65,535; other counts take four bytes."""
    assert len(packed({7: 65_535, 9: 1})) == 8
    assert len(packed({7: 65_536})) == 8
    assert percentiles([packed({0: 1, 7: 200_000})], (0.00001,)) == [sketches.value(7)]


@pytest.mark.parametrize("time", [0.0, -5.0, LEAST, math.nan])
def test_what_is_no_time_counts_as_nothing(time: float) -> None:
    """A clock that went back is no error."""
    assert slot(time) == 0
    assert percentiles([sketch([time])], (0.5,)) == [0.0]


def test_slots_are_bounded() -> None:
    """Whatever is counted, there are at most 1,384 of them."""
    assert slot(math.inf) == slot(MOST) == 1383
    assert slot(LEAST * 1.0001) >= 1
    assert all(low < high for low, high in pairwise(map(sketches.value, range(1384))))


def test_no_times_have_no_percentile() -> None:
    """None is not zero."""
    assert percentiles([b"", b""], (0.5,)) is None
