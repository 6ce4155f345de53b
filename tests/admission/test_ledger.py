"""Money in two phases: set aside before an attempt, settled after it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.admission.ledger import Ledger
from tokenhub_core.ports import Reservation
from tokenhub_core.types import Snapshot, Usage

CALL = Snapshot("r", "POST", "/", (), b"", 0.0, 0.0)


def test_what_is_set_aside_is_not_spent_yet() -> None:
    """Until it is settled, for whatever the attempt came to."""
    ledger = Ledger()
    one, two = ledger.reserve(CALL, 100), ledger.reserve(CALL, 50)
    assert (one.id != two.id, ledger.reserved_nanousd, ledger.spent_nanousd) == (True, 150, 0)
    ledger.settle(one, 130, Usage(1, 2))
    assert (ledger.reserved_nanousd, ledger.spent_nanousd) == (50, 130)
    ledger.settle(two, 0, Usage())
    assert (ledger.reserved_nanousd, ledger.spent_nanousd) == (0, 130)


def test_settling_twice_is_a_bug() -> None:
    """It would count money twice, so it is told at once; so is what was never reserved."""
    ledger = Ledger()
    reservation = ledger.reserve(CALL, 100)
    ledger.settle(reservation, 10, Usage())
    for other in (reservation, Reservation(99, 1)):
        with pytest.raises(KeyError):
            ledger.settle(other, 10, Usage())
    assert ledger.spent_nanousd == 10


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**12)), max_size=30), st.randoms())
def test_in_the_end_everything_is_spent_once(calls: list[tuple[int, int]], random: object) -> None:
    """In whatever order attempts end, nothing stays reserved and the sum is exact."""
    ledger = Ledger()
    open_ = [(ledger.reserve(CALL, estimate), cost) for estimate, cost in calls]
    assert ledger.reserved_nanousd == sum(estimate for estimate, _ in calls)
    random.shuffle(open_)  # type: ignore[attr-defined] # hypothesis hands out a random.Random
    for reservation, cost in open_:
        ledger.settle(reservation, cost, Usage())
    assert (ledger.reserved_nanousd, ledger.spent_nanousd) == (0, sum(cost for _, cost in calls))
