"""Percentiles that can be added up: a sketch of how often each length of time was seen. Pure.

The sketch is DDSketch (Masson, Rim and Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error
Guarantees", PVLDB 12(12), 2019). A value x is counted in slot ceil(log(x) / log(g)), g = (1 + a) / (1 - a), and told
as 2·g^i / (g + 1): whatever stood in slot i is within the share `RELATIVE` of that. Two sketches become one by adding
their counts, in any order, and the result is the sketch of all values together; so a percentile of a day that was made
of hours is as good as one of the calls themselves.

Values are milliseconds. What is at most a microsecond counts as nothing, and what is more than eleven days as that
much, so a sketch has at most 1,384 slots and nothing has to be collapsed.

A packed sketch is a row of pairs, slot and count, each 16 bits, the least byte first. A count that needs more is
several pairs of one slot. So packed sketches that stand one behind the other are one of them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from struct import Struct, pack
from typing import Final

from tokenhub_core.numeric import np

RELATIVE: Final = 0.01
"""The most by which a percentile is wrong, as a share of it."""
LEAST: Final = 1e-3
MOST: Final = 1e9
"""Milliseconds between which that holds."""

_GAMMA: Final = (1 + RELATIVE) / (1 - RELATIVE)
_SCALE: Final = 1 / math.log(_GAMMA)
_BELOW: Final = math.floor(math.log(LEAST) * _SCALE)
"""The slot under all others, which holds what counts as nothing."""
_COUNT_MAX: Final = 0xFFFF
_PAIR: Final = Struct("<HH")


def slot(value: float) -> int:
    """Return where a value is counted: 0 for what counts as nothing, else from 1 on."""
    if not value > LEAST:
        return 0
    return math.ceil(math.log(min(value, MOST)) * _SCALE) - _BELOW


def value(where: int) -> float:
    """Return the value that stands for all in a slot, in milliseconds."""
    return 2 * _GAMMA ** (where + _BELOW) / (_GAMMA + 1) if where else 0.0


def packed(counts: Mapping[int, int]) -> bytes:
    """Return counts by slot as bytes, the lowest slot first; none for no counts."""
    pairs: list[int] = []
    for where in sorted(counts):
        left = counts[where]
        while left > _COUNT_MAX:
            pairs += (where, _COUNT_MAX)
            left -= _COUNT_MAX
        pairs += (where, left)
    return pack(f"<{len(pairs)}H", *pairs)


def unpacked(sketch: bytes) -> dict[int, int]:
    """Return the counts by slot."""
    counts: dict[int, int] = {}
    for where, count in _PAIR.iter_unpack(sketch):
        counts[where] = counts.get(where, 0) + count
    return counts


def percentiles(sketches: Iterable[bytes], shares: Sequence[float]) -> list[float] | None:
    """Return the values below which these shares of all values lie, None where there are no values.

    Of n values in order, counted from 0, the one for a share q is number floor(q·(n - 1)), as in the paper.
    """
    pairs = np.frombuffer(b"".join(sketches), "<u2")
    if not len(pairs):
        return None
    # Doubles hold every count up to 2^53.
    sums = np.cumsum(np.bincount(pairs[::2], weights=pairs[1::2]))
    ranks = [share * (sums[-1] - 1) for share in shares]
    return [value(int(where)) for where in np.searchsorted(sums, ranks, side="right")]


def added(into: dict[int, int], counts: Mapping[int, int]) -> None:
    """Add counts to others."""
    for where, count in counts.items():
        into[where] = into.get(where, 0) + count
