"""Money in two phases: set aside before an attempt, settled after it; and what budgets say to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tokenhub_core.admission import budgets
from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.admission.ledger import Count, Crossing, Ledger
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Charge, Outlay, Reservation
from tokenhub_core.types import ApiKey, Attempt, Caller, Outcome, Record, Snapshot, Usage

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


# --- with budgets -------------------------------------------------------------------------------------------

NOW = 1_000_000_000
"""Microseconds: when all budgets here were made."""
ALL = Budget("all", "all", Period.TOTAL, Unit.USD, 100, thresholds=(50, 80))
KEYED = Caller(key=ApiKey("k1", project="web"))


def ledger(*installed: Budget, awake: Callable[[], None] | None = None) -> Ledger:
    made = Ledger() if awake is None else Ledger(awake)
    for one in installed:
        made.install(one, UTC, at=NOW)
    return made


def call(name: str = "r1", caller: Caller = KEYED, at: float = NOW / 1e6) -> Snapshot:
    return structs.replace(CALL, id=name, caller=caller, received_at=at)


def outlay(
    most: int, tokens: int = 0, *, least: int | None = None, capped: bool = True
) -> Callable[[], Outlay]:
    likely = most if least is None else least
    return lambda: Outlay(likely, most, min(tokens, likely), tokens, capped=capped)


def record(
    name: str = "r1", cost: int = 0, tokens: int = 0, *, caller: Caller = KEYED, at: float = NOW / 1e6
) -> Record:
    attempt = Attempt(1, "m", "p", 0, 1, usage=Usage(tokens), cost_nanousd=cost)
    return Record(name, at, Outcome.OK, 200, caller, "POST", "/", cost_nanousd=cost, attempts=(attempt,))


def at(of: Ledger, budget: str = "all", when: int = NOW) -> tuple[int, int]:
    """Return what is spent and what is held."""
    standing = of.standings(when)[budget]
    return standing.spent, standing.held


def refusal(of: Ledger, snapshot: Snapshot, most: Callable[[], Outlay]) -> Fault:
    before = {name: (one.spent, one.held) for name, one in of.standings(NOW).items()}
    with pytest.raises(TokenHubError) as refused:
        of.reserve(snapshot, 1, most)
    assert {name: (one.spent, one.held) for name, one in of.standings(NOW).items()} == before
    return refused.value.fault


def test_a_budget_holds_the_most_and_counts_what_came() -> None:
    """Held from the reservation on, held as it is after the attempt, spent with the record."""
    it = ledger(ALL)
    first = it.reserve(call(), 10, outlay(60))
    assert at(it) == (0, 60)
    it.settle(first, 25, Usage())
    assert at(it) == (0, 25)
    again = it.reserve(call(), 10, outlay(75))
    it.settle(again, 5, Usage())
    assert at(it) == (0, 30)
    assert it.book(record(cost=30)) == [Charge("all", 0, 30)]
    assert at(it) == (30, 0)


def test_what_does_not_fit_is_refused_whole() -> None:
    """To the nano-dollar; what fits just so is let through, and nothing stays held of what was refused."""
    it = ledger(ALL)
    it.reserve(call("r1"), 1, outlay(40))
    fault = refusal(it, call("r2"), outlay(61))
    assert (fault.kind, fault.blame, fault.http_status, fault.cause) == (
        Kind.BUDGET,
        Blame.CLIENT,
        402,
        "budget_exhausted",
    )
    assert "$0.00000006 left" in fault.message
    assert "$0.000000061" in fault.message
    assert "not begin anew" in fault.message
    it.reserve(call("r2"), 1, outlay(60))
    refusal(it, call("r3"), outlay(1))


def test_all_budgets_of_a_caller_must_have_it() -> None:
    """One that refuses refuses for all, and nothing is held in the others."""
    key = structs.replace(ALL, id="key", owner="key:k1", limit=50)
    project = structs.replace(ALL, id="project", owner="project:web", limit=20)
    other = structs.replace(ALL, id="other", owner="key:k2", limit=0)
    it = ledger(ALL, key, project, other)
    assert "project web" in refusal(it, call(), outlay(21)).message
    it.reserve(call(), 1, outlay(20))
    assert [at(it, one) for one in ("all", "key", "project", "other")] == [(0, 20), (0, 20), (0, 20), (0, 0)]
    # Somebody anonymous has all's only.
    it.reserve(call("r2", Caller()), 1, outlay(80))
    assert at(it) == (0, 100)


def test_a_soft_budget_refuses_nothing() -> None:
    """It counts, and goes below nothing; one whose price nobody knows is held for by its estimate."""
    it = ledger(structs.replace(ALL, hard=False))
    it.reserve(call(), 1, outlay(500))
    assert it.standings(NOW)["all"].left == -400
    it.reserve(call("r2"), 1, lambda: Outlay(7, None, 0, 0))
    assert at(it) == (0, 507)


def test_a_price_that_nobody_knows_is_within_no_hard_budget() -> None:
    """Of money; tokens are known."""
    it = ledger(ALL)
    assert "nobody knows" in refusal(it, call(), lambda: Outlay(0, None, 5, 10)).message
    assert "nobody knows" in refusal(it, call(), lambda: Outlay(0, None, 5, 10, capped=False)).message
    it = ledger(structs.replace(ALL, unit=Unit.TOKENS))
    it.reserve(call(), 1, lambda: Outlay(0, None, 5, 10))
    assert at(it) == (0, 10)


def test_what_costs_nothing_fits_into_nothing() -> None:
    """A budget of nothing, and one that was overdrawn, are for what is free."""
    it = ledger(structs.replace(ALL, limit=0))
    it.reserve(call(), 0, outlay(0))
    refusal(it, call("r3"), outlay(1, least=0, capped=False))
    it.book(record(cost=5))
    it.reserve(call("r2"), 0, outlay(0))
    refusal(it, call("r3"), outlay(1))
    refusal(it, call("r3"), outlay(1, least=0, capped=False))


def test_without_a_cap_a_call_takes_what_is_left() -> None:
    """All that it can use where that is there, all that is left where what is likely is, and else nothing."""
    it = ledger(ALL)
    it.reserve(call("r1"), 1, outlay(60, least=5, capped=False))
    assert at(it) == (0, 60)
    it.reserve(call("r2"), 1, outlay(60, least=40, capped=False))
    assert at(it) == (0, 100)
    assert "$0.000000001" in refusal(it, call("r3"), outlay(60, least=1, capped=False)).message
    it.book(record("r2", cost=0))
    assert "$0.000000041" in refusal(it, call("r3"), outlay(60, least=41, capped=False)).message
    # With a cap what is likely does not help.
    refusal(it, call("r3"), outlay(60, least=1))


def test_tokens_are_held_and_counted() -> None:
    """Input and output of each attempt together."""
    it = ledger(structs.replace(ALL, unit=Unit.TOKENS))
    first = it.reserve(call(), 999, outlay(10, tokens=70))
    assert at(it) == (0, 70)
    it.settle(first, 999, Usage(20, 15))
    assert at(it) == (0, 35)
    assert "65 tokens left" in refusal(it, call("r2"), outlay(10, tokens=66)).message
    it.book(record(cost=9, tokens=35))
    assert at(it) == (35, 0)


def test_a_call_is_one_request_however_often_it_is_tried() -> None:
    """Retries and hedges are free; a call that nobody was asked for is none."""
    it = ledger(structs.replace(ALL, unit=Unit.REQUESTS, limit=2))
    first, hedge = it.reserve(call(), 1), it.reserve(call(), 1)
    assert at(it) == (0, 1)
    it.settle(first, 1, Usage())
    it.settle(hedge, 1, Usage())
    assert at(it) == (0, 1)
    it.reserve(call("r2"), 1)
    assert "0 requests left" in refusal(it, call("r3"), outlay(1)).message
    it.book(record())
    it.book(structs.replace(record("r2"), attempts=()))
    assert at(it) == (1, 0)


def test_a_record_is_booked_once_until_it_is_stored() -> None:
    """However often the store fails: the same charges each time. What is held is let go of the first time."""
    it = ledger(ALL)
    it.reserve(call(), 1, outlay(60))
    charges = it.book(record(cost=30))
    assert charges is it.book(record(cost=30))
    assert at(it) == (30, 0)
    it.booked(record())
    it.booked(record())
    it.book(record("r2", cost=1))
    assert at(it) == (31, 0)


def test_records_that_nobody_confirms_are_forgotten_at_last() -> None:
    """The oldest first, so that a store which is down does not fill the memory."""
    it = ledger(structs.replace(ALL, hard=False))
    for number in range(10_001):
        it.book(record(f"r{number}", cost=1))
    it.book(record("r1", cost=1))
    assert at(it) == (10_001, 0)
    it.book(record("r0", cost=1))
    assert at(it) == (10_002, 0)


def test_an_attempt_that_ends_after_its_record_changes_nothing() -> None:
    """The record has said what it cost."""
    it = ledger(ALL)
    late = it.reserve(call(), 1, outlay(60))
    it.book(record(cost=30))
    it.settle(late, 25, Usage())
    assert at(it) == (30, 0)
    assert it.spent_nanousd == 25


def test_a_call_without_a_reservation_is_booked_like_any_other() -> None:
    """What passes by, and what was under way when the budget was made."""
    it = ledger()
    open_ = it.reserve(call(), 1, outlay(60))
    it.install(ALL, UTC, at=NOW)
    it.settle(open_, 25, Usage())
    it.book(record(cost=30))
    assert at(it) == (30, 0)
    assert it.book(record("r2", caller=Caller())) == []


def test_what_came_before_a_budget_is_not_counted_in_it() -> None:
    """From the very moment on it is."""
    it = ledger(structs.replace(ALL, created_at=NOW, counted_from=NOW))
    assert it.book(record("r1", cost=5, at=NOW / 1e6 - 1e-6)) == []
    assert it.book(record("r2", cost=5)) == [Charge("all", NOW, 5)]
    assert at(it) == (5, 0)


def test_a_call_counts_where_it_arrived() -> None:
    """One that arrived before midnight and ends after it belongs to the day before; both days are limited."""
    day = 86_400
    it = ledger(structs.replace(ALL, period=Period.DAY))
    old = it.reserve(call("r1", at=day - 1), 1, outlay(90))
    it.reserve(call("r2", at=day), 1, outlay(90))
    with pytest.raises(TokenHubError, match=r"anew at 1970-01-02T00:00:00\+00:00 \(UTC\)"):
        it.reserve(call("r3", at=day - 1), 1, outlay(11))
    with pytest.raises(TokenHubError, match="1970-01-03"):
        it.reserve(call("r3", at=day), 1, outlay(11))
    it.settle(old, 70, Usage())
    it.book(record("r1", cost=70, at=day - 1))
    assert at(it, when=(day - 1) * 1_000_000) == (70, 0)
    assert at(it, when=day * 1_000_000) == (0, 90)


def test_paid_begins_a_new_count() -> None:
    """What arrived before belongs to the old one, and what is held there stays held."""
    it = ledger(ALL)
    it.reserve(call("r1"), 1, outlay(80))
    it.install(structs.replace(ALL, counted_from=NOW + 5), UTC, at=NOW + 5)
    assert at(it, when=NOW + 5) == (0, 0)
    it.book(record("r1", cost=70))
    assert (at(it, when=NOW + 5), at(it)) == ((0, 0), (70, 0))
    assert it.book(record("r2", cost=1, at=(NOW + 5) / 1e6)) == [Charge("all", NOW + 5, 1)]


def test_a_clock_that_is_put_back_finds_its_count_again() -> None:
    """Of the last four days; older ones are forgotten unless something is held in them."""
    it = ledger(structs.replace(ALL, period=Period.DAY))
    it.reserve(call("held", at=1.0), 1, outlay(3))
    for day in range(1, 7):
        it.book(record(f"r{day}", cost=day, at=day * 86_400.0))
    assert [at(it, when=day * 86_400_000_000)[0] for day in (6, 5, 4, 3, 6)] == [6, 5, 4, 3, 6]
    assert at(it, when=0) == (0, 3)
    assert at(it, when=2 * 86_400_000_000) == (0, 0)


def test_a_count_goes_on_where_it_was_left() -> None:
    """After a restart: what was spent, and what was told of."""
    it = ledger()
    it.install(ALL, UTC, [Count(0, 60, 50)], at=NOW)
    assert it.crossings() == []
    refusal(it, call(), outlay(41))
    it.reserve(call(), 1, outlay(40))
    it = ledger()
    it.install(ALL, UTC, [Count(0, 85, 50)], at=NOW)
    assert [one.percent for one in it.crossings()] == [80]


def test_a_threshold_is_told_once() -> None:
    """Each that a record takes the count over, in order; a limit that is lowered crosses them too."""
    woken: list[int] = []
    it = ledger(ALL, awake=lambda: woken.append(1))
    it.book(record("r1", cost=49))
    assert (it.crossings(), woken) == ([], [])
    it.book(record("r2", cost=1))
    it.book(record("r2b", cost=30))
    assert it.crossings() == [Crossing(ALL, 0, 50, 50), Crossing(ALL, 0, 80, 80)]
    assert (it.crossings(), woken) == ([], [1, 1])
    it.book(record("r3", cost=1))
    assert it.crossings() == []
    lower = structs.replace(ALL, limit=81)
    it.install(lower, UTC, at=NOW)
    assert it.crossings() == [Crossing(lower, 0, 100, 81)]
    early = structs.replace(ALL, thresholds=(1,))
    first = ledger(early)
    first.book(record("r4", cost=1))
    assert first.crossings() == [Crossing(early, 0, 1, 1)]


def test_a_budget_that_is_replaced_keeps_its_count() -> None:
    """And one that is removed lets go of its callers; its charges end."""
    key = structs.replace(ALL, id="key", owner="key:k1")
    it = ledger(ALL, key)
    it.reserve(call(), 1, outlay(60))
    it.install(structs.replace(key, limit=70), UTC, at=NOW)
    assert list(it.standings(NOW)) == ["all", "key"]
    assert "$0.00000001 left" in refusal(it, call("r2"), outlay(11)).message
    it.remove(key)
    it.reserve(call("r2"), 1, outlay(40))
    it.remove(ALL)
    assert it.standings(NOW) == {}
    it.reserve(call("r3"), 1, outlay(999))
    assert it.book(record(cost=5)) == ()


def test_a_budget_holds_for_keys_that_were_seen_before_it() -> None:
    """Of a key, and of its project: another project of the same key is another owner."""
    it = ledger(ALL)
    it.reserve(call("r1"), 1, outlay(1))
    it.install(structs.replace(ALL, id="key", owner="key:k1", limit=10), UTC, at=NOW)
    refusal(it, call("r2"), outlay(11))
    it.install(structs.replace(ALL, id="project", owner="project:web", limit=5), UTC, at=NOW)
    refusal(it, call("r2"), outlay(6))
    it.reserve(call("r2", Caller(key=ApiKey("k1", project="other"))), 1, outlay(6))


def test_of_several_budgets_of_an_owner_one_is_removed() -> None:
    """The others hold on."""
    tokens = structs.replace(ALL, id="tokens", unit=Unit.TOKENS)
    it = ledger(ALL, tokens)
    it.remove(ALL)
    assert list(it.standings(NOW)) == ["tokens"]
    refusal(it, call(), outlay(1, tokens=101))


def test_who_has_nothing_left_is_not_let_by() -> None:
    """What cannot be reserved for goes as long as anything is left in every hard budget."""
    it = ledger(ALL, structs.replace(ALL, id="soft", hard=False, limit=0))
    it.reserve(call(), 1, outlay(99))
    assert it.admit(KEYED, NOW / 1e6) is None
    it.book(record(cost=100))
    fault = it.admit(KEYED, NOW / 1e6)
    assert fault is not None
    assert (fault.kind, fault.cause) == (Kind.BUDGET, "budget_exhausted")
    assert "$0.00 left" in fault.message
    assert Ledger().admit(KEYED, 0) is None


def test_a_caller_is_told_of_the_budget_that_ends_first() -> None:
    """By the share that is left; of none that has not reached its first threshold."""
    key = structs.replace(ALL, id="key", owner="key:k1", limit=1_000)
    it = ledger(ALL, key, structs.replace(ALL, id="far", limit=10**9))
    it.book(record("r1", cost=49))
    assert it.told(KEYED, NOW / 1e6) == ""
    it.book(record("r2", cost=1))
    assert 'id="all"' in it.told(KEYED, NOW / 1e6)
    it.book(record("r3", cost=900, caller=Caller(key=ApiKey("k1"))))
    it.install(structs.replace(ALL, limit=10_000), UTC, at=NOW)
    assert 'id="key"' in it.told(KEYED, NOW / 1e6)
    it.install(structs.replace(ALL, limit=0), UTC, at=NOW)
    # Of nothing nothing is left; more is not told of the other, which has been overdrawn by less.
    assert 'id="all"' in it.told(KEYED, NOW / 1e6)
    assert Ledger().told(KEYED, 0) == ""
    daily = ledger(structs.replace(ALL, period=Period.DAY))
    daily.book(record(cost=60, at=86_400.0))
    assert 'id="all"' in daily.told(KEYED, 86_400.0)
    assert daily.told(KEYED, 86_399.0) == ""


def test_nothing_is_asked_where_no_budget_applies() -> None:
    """What an attempt could use at most is not worked out for nobody."""

    def never() -> Outlay:
        raise AssertionError

    it = ledger(structs.replace(ALL, owner="key:k2"))
    it.reserve(call(), 5, never)
    it.reserve(call("r2", Caller()), 5, never)
    assert it.reserved_nanousd == 10


# What happens to calls, in any order: (which call, what it does, how much).
steps = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["try", "settle", "record", "pass"]), st.integers(0, 40)),
    max_size=60,
)


@given(steps, st.integers(0, 200), st.sampled_from(Unit))
def test_the_ledger_is_the_sum_of_the_records(
    story: list[tuple[int, str, int]], limit: int, unit: Unit
) -> None:
    """Whatever becomes of attempts: spent is the sum over records, held that over open calls, and both within limits.

    Attempts use at most what was held for them; what passes by may use anything.
    """
    it = ledger(structs.replace(ALL, unit=unit, limit=limit))
    open_: dict[str, list[tuple[Any, int]]] = {}
    attempts: dict[str, list[Attempt]] = {}
    total, passed, rounds = 0, 0, 0
    for number, step, size in story:
        name = f"{number}-{rounds}"
        if step == "try":
            with suppress(TokenHubError):
                reservation = it.reserve(call(name), size, outlay(size, tokens=size))
                open_.setdefault(name, []).append((reservation, size))
        elif step == "settle" and open_.get(name):
            reservation, most = open_[name].pop()
            used = min(size, most)
            it.settle(reservation, used, Usage(used))
            attempts.setdefault(name, []).append(
                Attempt(1, "m", "p", 0, 1, usage=Usage(used), cost_nanousd=used)
            )
        elif step == "record":
            for reservation, _ in open_.pop(name, []):
                it.settle(reservation, 0, Usage())
                attempts.setdefault(name, []).append(Attempt(1, "m", "p", 0, 1))
            tried = attempts.pop(name, [])
            one = structs.replace(
                record(name), attempts=tuple(tried), cost_nanousd=sum(a.cost_nanousd for a in tried)
            )
            charges = it.book(one)
            it.booked(one)
            total += budgets.used(unit, one)
            assert sum(charge.amount for charge in charges) == budgets.used(unit, one)
            rounds += 1
        elif step == "pass":
            one = structs.replace(
                record(f"p{number}-{rounds}"), outcome=Outcome.PASSED, usage=Usage(size), attempts=()
            )
            one = structs.replace(one, cost_nanousd=size)
            it.book(one)
            passed += budgets.used(unit, one)
            rounds += 1
        spent, held = at(it)
        assert spent == total + passed
        assert held >= 0
        assert spent + held - passed <= limit
    if not open_ and not attempts:
        assert at(it)[1] == 0
