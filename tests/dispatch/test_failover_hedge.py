"""Two tries open: when the machine gives a hedge, where it sends it, and what the end of each means. As transcripts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from tests.dispatch.test_failover import DOWN, FULL, LIMITED, USUAL, WRONG, candidate, empty_budget, plan
from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.failover import ESCALATED, Failover, GiveUp, Limits, Try, Wait
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Candidate, Plan, Policy

NOW = 1000.0
REFUSED = Fault(Kind.REFUSED, Blame.CLIENT, "not that", cause="content_filter")


def machine(
    steps: Plan,
    *,
    limits: Limits = USUAL,
    retries: RetryBudget | None = None,
    hedges: RetryBudget | None = None,
) -> Failover:
    """Return a machine whose first try is open."""
    made = Failover(
        steps,
        limits=limits,
        retries=retries or RetryBudget(),
        started=NOW,
        max_output_tokens=None,
        hedges=hedges or RetryBudget(),
    )
    assert isinstance(made.next(NOW, 0.5), Try)
    return made


def given(made: Failover, now: float = NOW) -> str:
    """Return who gets the hedge, as `provider.model`; empty where nobody does."""
    step = made.hedge(now)
    return f"{step.candidate.provider.id}.{step.candidate.model.id}" if step else ""


def priced(name: str, cost: int, *, pinned: bool = False) -> Candidate:
    return structs.replace(candidate(name), estimated_nanousd=cost, pinned=pinned)


def wishing(steps: Plan, policy: Policy) -> Plan:
    return structs.replace(steps, policy=policy)


# --- who gets it


def test_a_hedge_goes_to_the_next_candidate_at_another_provider() -> None:
    """The slow provider's other models would be as slow."""
    assert given(machine(plan("a.1", "a.2", "b.1", "c.1"))) == "b.1"


def test_where_there_is_only_one_provider_it_goes_to_its_next_model() -> None:
    """Better than nothing; never to the very candidate that is slow."""
    assert given(machine(plan("a.1", "a.2"))) == "a.2"
    assert given(machine(plan("a.1"))) == ""


def test_a_named_model_is_hedged_with_itself() -> None:
    """Being slow is no failure: nobody else stands in for what was asked for by name."""
    asked = Policy(model="m")
    elsewhere = plan(priced("a.m", 0, pinned=True), "b.x", priced("c.m", 0, pinned=True))
    assert given(machine(wishing(elsewhere, asked))) == "c.m"
    assert given(machine(wishing(plan(priced("a.m", 0, pinned=True), "b.x"), asked))) == ""


def test_once_the_named_model_has_failed_its_stand_ins_may_be_hedged() -> None:
    """The failure let others in."""
    steps = wishing(plan(priced("a.m", 0, pinned=True), "b.x", "c.y"), Policy(model="m"))
    made = machine(steps)
    made.failed(DOWN, NOW)
    assert isinstance(made.next(NOW, 0.5), Try)
    assert given(made) == "c.y"


def test_nobody_is_hedged_where_no_other_may_stand_in() -> None:
    """Neither a lone candidate nor a model that was named for good."""
    assert given(machine(structs.replace(plan("a", "b"), lone=True))) == ""
    both = plan(priced("a.m", 0, pinned=True), priced("b.m", 0, pinned=True))
    assert given(machine(wishing(both, Policy(model="m", fallback=False)))) == ""


def test_a_provider_that_has_failed_this_call_is_not_hedged_to() -> None:
    """It is the last that would be quick."""
    made = machine(plan("a.1", "b.1", "a.2", "c.1"))
    made.failed(DOWN, NOW)
    assert isinstance(made.next(NOW, 0.5), Try)
    assert given(made) == "c.1"


def test_after_an_overflow_a_hedge_goes_to_larger_contexts_only() -> None:
    """What did not fit does not fit a smaller one because somebody is slow."""
    made = machine(
        plan(
            candidate("a", context=1000),
            candidate("b", context=4000),
            candidate("c", context=1000),
            candidate("d", context=9000),
            tokens=900,
        )
    )
    made.failed(FULL, NOW)
    assert isinstance(made.next(NOW, 0.5), Try)
    step = made.hedge(NOW)
    assert step is not None
    assert (step.candidate.model.id, step.change) == ("d", ESCALATED)


# --- when there is none


def test_there_is_one_hedge_in_a_call() -> None:
    """Also when it has failed."""
    made = machine(plan("a", "b", "c", "d"))
    assert given(made) == "b.b"
    assert given(made) == ""
    made.failed(DOWN, NOW, 2)
    assert given(made) == ""
    made.failed(DOWN, NOW, 1)
    assert isinstance(made.next(NOW, 0.5), Try)
    assert given(made) == ""


def test_both_reserves_together_stay_within_the_budget() -> None:
    """One that is too dear beside the first is passed over for one that is not."""
    limit = Policy(max_budget_usd=1e-6)
    assert given(machine(wishing(plan(priced("a", 600), priced("b", 401), priced("c", 400)), limit))) == "c.c"
    assert given(machine(wishing(plan(priced("a", 600), priced("b", 401)), limit))) == ""


def test_a_hedge_counts_against_the_attempts_and_the_time() -> None:
    """It is one more try of the call."""
    assert given(machine(plan("a", "b"), limits=Limits(max_attempts=1))) == ""
    assert given(machine(plan("a", "b"), limits=Limits(max_attempts=2))) == "b.b"
    timed = Limits(total_seconds=5)
    assert given(machine(plan("a", "b"), limits=timed), NOW + 5) == ""
    step = machine(plan("a", "b"), limits=timed).hedge(NOW + 2)
    assert step is not None
    assert (step.n, step.timeout) == (2, 3.0)


def test_a_hedge_spends_the_retry_budget_of_the_provider_that_it_goes_to() -> None:
    """It is load that nobody asked for; where there is no budget left the next provider gets it, or nobody."""
    retries = RetryBudget()
    made = machine(plan("a", "b"), retries=retries)
    given(made)
    made.succeeded(2)
    assert [retries.balance(name, NOW) for name in "ab"] == [100, 99]
    assert given(machine(plan("a", "b", "c"), retries=empty_budget("b"))) == "c.c"
    assert given(machine(plan("a", "b", "c"), retries=empty_budget("b", "c"))) == ""


def test_a_slow_fleet_is_not_asked_twice() -> None:
    """Of all calls only a share is hedged, whoever is slow."""
    share = RetryBudget(ratio=0.1, per_second=0)
    found = [given(machine(plan("a", "b"), hedges=share)) for _ in range(100)]
    assert found.count("b.b") == 10


def test_nothing_is_hedged_after_the_commit_or_without_a_try() -> None:
    """The caller has an answer, or nobody has been asked."""
    made = machine(plan("a", "b"))
    made.committed()
    assert given(made) == ""
    made = machine(plan("a", "b", "c"))
    made.failed(DOWN, NOW)
    assert given(made) == ""


def test_a_machine_without_a_share_hedges_nothing() -> None:
    """Hedging is off."""
    made = Failover(plan("a", "b"), limits=USUAL, retries=RetryBudget(), started=NOW, max_output_tokens=None)
    made.next(NOW, 0.5)
    assert (made.hedgeable(), made.hedge(NOW)) == (False, None)


# --- how it ends


@pytest.mark.parametrize("first", [1, 2])
def test_the_first_answer_ends_the_call(first: int) -> None:
    """Whichever it is; the other one has lost, and what becomes of it changes nothing."""
    made = machine(plan("a", "b"))
    given(made)
    made.succeeded(first)
    assert made.over
    made.failed(WRONG, NOW, 3 - first)
    step = made.next(NOW, 0.5)
    assert isinstance(step, GiveUp)
    assert step.fault.cause == "answered"


@pytest.mark.parametrize("first", [1, 2])
def test_one_that_fails_leaves_the_other_running(first: int) -> None:
    """When both have failed the third is tried, and the count goes on."""
    made = machine(plan("a", "b", "c"))
    given(made)
    made.failed(DOWN, NOW, first)
    assert not made.over
    made.failed(DOWN, NOW, 3 - first)
    step = made.next(NOW, 0.5)
    assert isinstance(step, Try)
    assert (step.candidate.provider.id, step.n) == ("c", 3)


def test_what_the_caller_got_wrong_ends_the_call_at_once_where_the_first_says_so() -> None:
    """A refusal is not shopped around, not even to a hedge that is under way."""
    made = machine(plan("a", "b", "c"))
    given(made)
    made.failed(REFUSED, NOW, 1)
    assert made.over
    assert made.next(NOW, 0.5) == GiveUp(REFUSED)


def test_a_hedge_cannot_fail_a_call_that_would_have_been_answered() -> None:
    """Its 400 counts only when the first try fails too; then nobody else is asked."""
    made = machine(plan("a", "b", "c"))
    given(made)
    made.failed(WRONG, NOW, 2)
    assert not made.over
    made.failed(DOWN, NOW, 1)
    assert made.next(NOW, 0.5) == GiveUp(WRONG)
    answered = machine(plan("a", "b", "c"))
    given(answered)
    answered.failed(WRONG, NOW, 2)
    answered.succeeded(1)
    step = answered.next(NOW, 0.5)
    assert isinstance(step, GiveUp)
    assert step.fault.cause == "answered"


def test_a_hedge_that_was_not_sent_is_no_attempt() -> None:
    """There was no money for it, or no permission: the first try goes on alone, and the attempts are left."""
    made = machine(plan("a", "b", "c"), limits=Limits(max_attempts=2))
    given(made)
    made.refused(Fault(Kind.BUDGET, Blame.CLIENT, "no money"), 2)
    made.failed(DOWN, NOW, 1)
    step = made.next(NOW, 0.5)
    assert isinstance(step, Try)
    assert step.candidate.provider.id == "c"


def test_what_one_failure_ruled_out_the_other_does_not_bring_back() -> None:
    """A rate limit closes the provider, also for its other model that fails later in a way that may pass."""
    made = machine(plan("a.1", "a.2"))
    assert given(made) == "a.2"
    made.failed(replace(LIMITED, retry_after=60.0), NOW, 1)
    made.failed(DOWN, NOW, 2)
    assert isinstance(made.next(NOW, 0.5), GiveUp)


def test_two_overflows_are_both_met_with_a_smaller_cap() -> None:
    """Each candidate keeps its own; nobody is forgotten."""
    made = machine(plan(candidate("a", context=1000), candidate("b", context=2000), tokens=500))
    given(made)
    made.failed(FULL, NOW, 1)
    made.failed(FULL, NOW, 2)
    first = made.next(NOW, 0.5)
    assert isinstance(first, Try)
    made.failed(DOWN, NOW)
    second = made.next(NOW, 0.5)
    assert isinstance(second, Try)
    assert [(one.candidate.provider.id, one.max_output_tokens) for one in (first, second)] == [
        ("a", 244),
        ("b", 1244),
    ]


def test_a_retry_after_a_hedge_waits_as_ever() -> None:
    """Both have failed and nobody is new: the machine comes back to them after a pause."""
    made = machine(plan("a", "b"))
    given(made)
    made.failed(DOWN, NOW, 1)
    made.failed(DOWN, NOW, 2)
    assert made.next(NOW, 0.5) == Wait(0.1)
