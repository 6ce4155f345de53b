"""How long streams take to begin, as quantiles: what is counted, what fades, and what a lost race does not teach."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tokenhub_core.dispatch.job import OUTRUN
from tokenhub_core.routing.spread import ENOUGH, KEEP, LOST, Kept, Spreads
from tokenhub_core.types import Attempt, Caller, Outcome, Plan, Policy, Record

DONE = Attempt(1, "m", "p", 100.0, 1_100.0, 300.0)


def record(*attempts: Attempt, **changes: object) -> Record:
    made = Record(
        id="r",
        at=0.0,
        outcome=Outcome.OK,
        status=200,
        caller=Caller(),
        method="POST",
        path="/",
        stream=True,
        attempts=attempts,
        plan=Plan(Policy(), (), (), 0, 0, ""),
    )
    return structs.replace(made, **changes)


def begun(milliseconds: float) -> Attempt:
    return structs.replace(DONE, first_byte_ms=100.0 + milliseconds)


def lost(milliseconds: float, provider: str = "p") -> Attempt:
    end = 100.0 + milliseconds
    return structs.replace(DONE, provider=provider, first_byte_ms=None, ended_ms=end, cause=LOST)


def taught(*attempts: Attempt) -> Spreads:
    spreads = Spreads()
    for attempt in attempts:
        spreads.learn(record(attempt))
    return spreads


def known(spreads: Spreads, share: float = 0.95) -> float:
    found = spreads.after("m", "p", share)
    assert found is not None
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1, 3e6), min_size=ENOUGH, max_size=60), st.sampled_from([0.5, 0.9, 0.95]))
def test_a_quantile_is_a_time_that_was_seen_and_at_most_a_tenth_more(
    times: list[float], share: float
) -> None:
    """Never too small: nobody is called slow who is not. Older times weigh a little less."""
    found = known(taught(*map(begun, times)), share)
    ranked = sorted(times)
    weights = [0.995 ** (len(times) - 1 - n) for n in range(len(times))]
    by_time = sorted(zip(times, weights, strict=True))
    slower, exact = (1 - share) * math.fsum(weights), ranked[0]
    for time, weight in reversed(by_time):
        slower -= weight
        exact = time
        if slower < 0:
            break
    assert exact * (1 - 1e-9) <= found <= exact * 1.1 * (1 + 1e-9)


def test_too_few_times_tell_nothing() -> None:
    """Nobody is hedged on a guess; races that were lost are no times that were seen."""
    spreads = taught(*[begun(200.0)] * (ENOUGH - 1), *[lost(900.0)] * 50)
    assert spreads.after("m", "p", 0.95) is None
    spreads.learn(record(begun(200.0)))
    assert spreads.after("m", "p", 0.95) is not None
    assert spreads.after("m", "q", 0.95) is None


def test_what_changes_is_followed() -> None:
    """A provider that has become slow is not hedged for ever: some hundred calls later that is its usual pace."""
    spreads = taught(*[begun(100.0)] * 2_000, *[begun(3_000.0)] * 100)
    assert known(spreads, 0.5) < 120
    for _ in range(300):
        spreads.learn(record(begun(3_000.0)))
    assert known(spreads, 0.5) > 2_900


def _raced(teach: Callable[[Spreads, float, float], None]) -> float:
    """Return the share of calls that are hedged in the end where three in ten are slow, and slow ones lose."""
    dice, spreads, late = random.Random(7), Spreads(), 0
    for n in range(3_000):
        time = dice.uniform(2_000, 6_000) if dice.random() < 0.3 else dice.uniform(100, 200)
        limit = spreads.after("m", "p", 0.9)
        rival = math.inf if limit is None else limit + 150
        late += n >= 2_000 and limit is not None and time > limit
        if time <= rival:
            spreads.learn(record(begun(time)))
        else:
            teach(spreads, time, rival)
    return late / 1_000


def test_a_lost_race_does_not_make_a_provider_look_quick() -> None:
    """It teaches that the time was no shorter. Left out, the slow ones would vanish, and all would be hedged."""
    counted = _raced(lambda spreads, _, rival: spreads.learn(record(lost(rival))))
    ignored = _raced(lambda *_: None)
    truth = _raced(lambda spreads, time, _: spreads.learn(record(begun(time))))
    assert ignored > 0.25
    assert counted < 0.15
    assert truth < 0.15


def test_a_lost_race_is_no_time() -> None:
    """Three lost at once among fast ones: the quantile is at least that late, and no earlier one moves."""
    spreads = taught(*[begun(100.0)] * 40)
    before = known(spreads, 0.5)
    for _ in range(4):
        spreads.learn(record(lost(700.0)))
    assert known(spreads) >= 700
    assert known(spreads, 0.5) == before


def test_the_loser_of_a_race_is_taught_beside_its_winner() -> None:
    """Each by its own provider."""
    spreads = taught(*[begun(100.0)] * 40)
    winner = structs.replace(DONE, n=2, provider="q")
    for _ in range(ENOUGH):
        spreads.learn(record(lost(700.0), winner))
    assert known(spreads) >= 700
    assert (spreads.after("m", "q", 0.95) or 0) >= 200


@pytest.mark.parametrize(
    "useless",
    [
        record(DONE, stream=False),
        record(DONE, plan=None),
        record(),
        record(structs.replace(DONE, first_byte_ms=None, cause="ttft_timeout")),
        record(structs.replace(DONE, first_byte_ms=math.nan)),
    ],
    ids=["whole", "unplanned", "untried", "failed", "no-number"],
)
def test_what_does_not_show_when_it_began_is_not_counted(useless: Record) -> None:
    """A failure is no time."""
    spreads = Spreads()
    spreads.learn(useless)
    assert spreads.kept() == []


def test_a_stream_that_broke_later_began_all_the_same() -> None:
    """Whatever became of the call."""
    broken = record(structs.replace(DONE, cause="truncated"), outcome=Outcome.ERROR)
    spreads = Spreads()
    spreads.learn(broken)
    assert [one.seen for one in spreads.kept()] == [1]


def test_the_cause_is_the_one_that_attempts_end_with() -> None:
    """What the executor writes is what is learned from."""
    assert OUTRUN.label == LOST


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 4e6), st.booleans()), min_size=1, max_size=60))
def test_a_restart_goes_on_from_exactly_where_it_was(times: list[tuple[float, bool]]) -> None:
    """What is kept is all there is, to the last bit, and every weight is a number."""
    attempts = [lost(time) if censored else begun(time) for time, censored in times]
    before = taught(*attempts)
    after = Spreads(before.kept())
    for spreads in (before, after):
        spreads.learn(record(*attempts))
    assert after.kept() == before.kept()
    assert all(0 < weight < math.inf for one in after.kept() for _, weight in one.weights)


def test_weights_stay_within_bounds_however_long_it_goes_on() -> None:
    """They are made smaller together; what has faded to nothing goes, and no quantile moves by that."""
    spreads = taught(begun(9_000.0), *[begun(100.0)] * 3_000, *[begun(200.0)] * 300)
    (kept,) = spreads.kept()
    assert kept.next <= 2**20
    assert len(kept.weights) == 2
    assert 180 < known(spreads, 0.5) < 230


def test_only_what_changed_is_saved_again() -> None:
    """Asking for the changes ends them."""
    spreads = taught(DONE)
    assert spreads.changes() == spreads.kept()
    assert spreads.changes() == []


def test_spreads_do_not_grow_without_end() -> None:
    """At the host that a call was meant for, callers name the models; the one longest without a time makes room."""
    spreads = Spreads(Kept(f"m{n}", "p", ((1, 1.0),), 1.0, 1) for n in range(KEEP))
    spreads.learn(record(DONE))
    names = {one.model for one in spreads.kept()}
    assert (len(names), "m0" in names, "m" in names) == (KEEP, False, True)


@pytest.mark.parametrize(
    "bad",
    [
        Kept("m", "p", (), 1.0, 30),
        Kept("m", "p", ((1, math.nan),), 1.0, 30),
        Kept("m", "p", ((1, -1.0),), 1.0, 30),
        Kept("m", "p", ((1, 1.0),), math.inf, 30),
        Kept("m", "p", ((-1, 1.0),), 1.0, 30),
        Kept("m", "p", ((1, 1.0),), 1.0, -1),
    ],
)
def test_a_stored_spread_that_cannot_be_true_is_forgotten(bad: Kept) -> None:
    """Nothing that is no number reaches a timer."""
    assert Spreads([bad]).kept() == []
