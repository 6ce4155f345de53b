"""Whether work grows in proportion to its input: measured against itself, so that no machine is too slow for it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

import pytest

type Work = Callable[[], object]

GROWTH: Final = 8
_MOST: Final = 24
"""Between 8 for linear and 64 for quadratic, with room for caches that are too small for the larger input."""
_TRIES: Final = 8


def spent(work: Work) -> float:
    """Return the least CPU time of three, of this thread alone: others of this process may serve a file's scenes.

    And without the collector: it would walk all other tests' objects.
    """
    times = []
    gc.disable()
    try:
        for _ in range(3):
            begin = time.thread_time()
            work()
            times.append(time.thread_time() - begin)
    finally:
        gc.enable()
    return min(times)


def in_proportion(make: Callable[[int], Work], size: int) -> None:
    """Compare the time of an input of `size` with that of one eight times as large; a busy machine gets eight tries.

    `make` returns the work for an input of a size; what it does itself is not measured.
    """
    shares = []
    for _ in range(_TRIES):
        small, large = make(size), make(GROWTH * size)
        shares.append(spent(large) / max(spent(small), 1e-4))
        if shares[-1] <= _MOST:
            return
    pytest.fail(f"{GROWTH} times the input took {min(shares):.0f} times as long")
