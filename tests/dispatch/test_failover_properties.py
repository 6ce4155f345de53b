"""The failover machine under random plans and random outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.failover import Failover, GiveUp, Limits, Try, Wait
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import NANO, Candidate, Model, Plan, Policy, Provider, ProviderType, Terms

DOWN = Fault(Kind.TRANSIENT, Blame.PROVIDER, "boom")

CANDIDATES = st.builds(
    lambda provider, model, context, kind: Candidate(
        Model(model, provider, max_context_tokens=context), Provider(provider, kind, ()), 0.0, Terms(), 0
    ),
    st.sampled_from("abc"),
    st.sampled_from("xyz"),
    st.sampled_from([0, 500, 1000, 4000, 100_000]),
    st.sampled_from([ProviderType.OPENAI, ProviderType.ORIGIN]),
)
FAULTS = st.builds(
    Fault,
    st.sampled_from(Kind),
    st.sampled_from(Blame),
    st.just("it failed"),
    retry_after=st.none() | st.sampled_from([0.0, 0.5, 4.9, 5.0, 60.0]),
    upstream_status=st.sampled_from([0, 400, 429, 500]),
)
OUTCOMES = st.tuples(
    st.sampled_from(["failed"] * 6 + ["refused", "committed", "ok", "lost"]), FAULTS, st.floats(0, 3)
)


@settings(max_examples=200, deadline=None)
@given(
    candidates=st.lists(CANDIDATES, max_size=6),
    outcomes=st.lists(OUTCOMES, max_size=30),
    limits=st.builds(
        Limits,
        max_attempts=st.integers(1, 8),
        total_seconds=st.none() | st.floats(0.1, 20),
        retries_per_candidate=st.integers(0, 3),
    ),
    cap=st.none() | st.integers(1, 5000),
    credits=st.integers(0, 8),
    rand=st.floats(0, 1, exclude_max=True),
)
def test_the_rules_hold_for_any_plan_and_any_outcomes(
    candidates: Sequence[Candidate],
    outcomes: list[tuple[str, Fault, float]],
    limits: Limits,
    cap: int | None,
    credits: int,  # noqa: A002 - the builtin is the REPL's
    rand: float,
) -> None:
    """Whatever happens: it ends, within its caps, inside the plan, and never against the rules."""
    the_plan = Plan(Policy(), tuple(candidates), (), input_tokens=400, output_tokens=512, reason="test")
    # Ten slots long enough that the reserve is exactly `credits` for the whole call.
    budget = RetryBudget(ratio=0.0, per_second=credits / 10_000, ttl=10_000)
    start = now = 50.0
    machine = Failover(the_plan, limits=limits, retries=budget, started=start, max_output_tokens=cap)
    deadline = start + (limits.total_seconds or 1e9)
    sent: Counter[str] = Counter()
    issued = attempts = 0
    over: Fault | None = None
    answered = False
    for _ in range(200):
        step = machine.next(now, rand)
        if isinstance(step, GiveUp):
            break
        assert over is None, "a step after the end"
        if isinstance(step, Wait):
            assert 0 < step.seconds <= limits.longest_wait
            assert now + step.seconds < deadline
            now += step.seconds
            continue
        issued += 1
        assert step.n == issued
        assert step.candidate in the_plan.candidates
        assert now < deadline
        assert step.timeout is None or step.timeout <= deadline - now + 1e-6
        assert step.max_output_tokens is None or 64 <= step.max_output_tokens < (cap or 1e9)
        provider = step.candidate.provider.id
        outcome, fault, took = outcomes.pop(0) if outcomes else ("failed", DOWN, 0.0)
        now += took
        if outcome == "refused":
            machine.refused(fault)
            continue
        attempts += 1
        sent[provider] += 1
        match outcome:
            case "committed":
                machine.committed()
                machine.failed(fault, now)
                over = fault
            case "ok":
                machine.succeeded()
                over, answered = fault, True
            case "lost":
                pass
            case _:
                machine.failed(fault, now, spare=fault.retry_after == 4.9)
                if fault.blame is Blame.CLIENT and fault.kind is not Kind.OVERFLOW:
                    over = fault
    else:
        pytest.fail("the machine does not come to an end")
    assert attempts <= limits.max_attempts
    for provider, count in sent.items():
        assert count - 1 <= credits - budget.balance(provider, now)
    if over is not None and not answered:
        assert step == GiveUp(over)
    assert 400 <= step.fault.http_status < 600
    assert machine.next(now, rand) == step


RIVALS = st.builds(
    lambda one, cost, pinned: Candidate(one.model, one.provider, 0.0, Terms(), cost, pinned=pinned),
    CANDIDATES,
    st.sampled_from([10, 400, 600]),
    st.booleans(),
)
EVENTS = st.tuples(
    st.booleans(),  # of two open tries it is the second one's
    st.sampled_from(["failed"] * 6 + ["refused", "ok"]),
    FAULTS,
    st.floats(0, 3),
    st.booleans(),  # a hedge is asked for first
)
BUDGET = 1000
ITS_OWN = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.TRUNCATED, Kind.TIMEOUT})
"""Faults that say that the provider fails."""


@dataclass
class Race:
    """A machine in a shell's hands, and what must be true of it."""

    plan: Plan
    limits: Limits
    retries: RetryBudget
    hedges: RetryBudget
    now: float = 50.0
    open: dict[int, tuple[Try, bool]] = field(default_factory=dict)
    """Each with whether it is the hedge."""
    sent: int = 0
    hedged: int = 0
    failing: set[str] = field(default_factory=set)
    full: int = 0
    """The largest context that was too small, for whatever cap."""
    held: Fault | None = None
    over: Fault | None = None

    def __post_init__(self) -> None:
        self.deadline = self.now + (self.limits.total_seconds or 1e9)
        self.machine = Failover(
            self.plan,
            limits=self.limits,
            retries=self.retries,
            started=self.now,
            max_output_tokens=None,
            hedges=self.hedges,
        )

    def goes_on(self) -> bool:
        """Take the next step; False at the end."""
        self.open.clear()
        step = self.machine.next(self.now, 0.5)
        if isinstance(step, GiveUp):
            return False
        assert self.over is None, "a step after the end"
        if isinstance(step, Wait):
            self.now += step.seconds
        else:
            self.fits(step.candidate)
            self.open[step.n] = (step, False)
        return True

    def fits(self, to: Candidate) -> None:
        """What was too large for one is not sent to a smaller one, and nothing that is not planned is sent at all."""
        assert to in self.plan.candidates
        assert self.now < self.deadline
        assert not self.full or to.model.max_context_tokens not in range(1, self.full + 1)

    def hedge(self) -> None:
        """Ask for a second try, and see that it may be."""
        policy, everybody = self.plan.policy, self.plan.candidates
        first = next(iter(self.open.values()))[0].candidate
        balances = {one.provider.id: self.retries.balance(one.provider.id, self.now) for one in everybody}
        share = self.hedges.balance("", self.now)
        thinkable = self.machine.hedgeable()
        step = self.machine.hedge(self.now)
        if step is None:
            return
        to, provider = step.candidate, step.candidate.provider.id
        self.hedged += 1
        assert (self.hedged, len(self.open), thinkable) == (1, 1, True)
        self.fits(to)
        assert self.sent + 2 <= self.limits.max_attempts
        assert provider not in self.failing
        assert provider != first.provider.id or {one.provider.id for one in everybody} == {provider}
        assert to.pinned or not first.pinned
        assert not self.plan.lone
        assert policy.model is None or policy.fallback
        cost = first.estimated_nanousd + to.estimated_nanousd
        assert policy.max_budget_usd is None or cost <= BUDGET
        assert self.retries.balance(provider, self.now) == balances[provider] - 1
        assert self.hedges.balance("", self.now) == share - 1
        self.open[step.n] = (step, True)

    def ends(self, tried: Try, outcome: str, fault: Fault, *, hedge: bool) -> None:
        """Tell the machine how a try ended, and work out what that means for the call."""
        if outcome == "refused":
            self.machine.refused(fault, tried.n)
            self.over = None if self.open else self.held
            return
        self.sent += 1
        if outcome == "ok":
            self.machine.succeeded(tried.n)
            self.over = fault
            return
        self.machine.failed(fault, self.now, tried.n)
        if fault.kind in ITS_OWN:
            self.failing.add(tried.candidate.provider.id)
        if fault.blame is Blame.CLIENT and fault.kind is not Kind.OVERFLOW:
            if hedge and self.open:
                self.held = fault
            else:
                self.over = fault
        elif self.held is not None:
            self.over = self.held
        elif fault.kind is Kind.CANCELLED or (fault.kind is Kind.NOT_FOUND and self.machine.over):
            self.over = fault
        elif fault.kind is Kind.OVERFLOW and self.is_too_small(tried):
            self.full = max(self.full, tried.candidate.model.max_context_tokens)

    def is_too_small(self, tried: Try) -> bool:
        """Tell whether a smaller cap cannot help any more."""
        room = tried.candidate.model.max_context_tokens - self.plan.input_tokens - 256
        return tried.max_output_tokens is not None or room < 64


@settings(max_examples=150, deadline=None)
@given(
    candidates=st.lists(RIVALS, min_size=2, max_size=6),
    events=st.lists(EVENTS, max_size=30),
    limits=st.builds(Limits, max_attempts=st.integers(1, 6), total_seconds=st.none() | st.floats(0.1, 20)),
    policy=st.builds(
        Policy,
        model=st.none() | st.just("x"),
        fallback=st.booleans(),
        max_budget_usd=st.none() | st.just(BUDGET / NANO),
    ),
    lone=st.booleans(),
    credits=st.integers(0, 8),
    share=st.integers(0, 2),
)
def test_the_rules_hold_with_two_tries_open(
    candidates: Sequence[Candidate],
    events: list[tuple[bool, str, Fault, float, bool]],
    limits: Limits,
    policy: Policy,
    lone: bool,
    credits: int,  # noqa: A002 - the builtin is the REPL's
    share: int,
) -> None:
    """Whatever fails, and whenever: one hedge at most, within every cap, and no call fails because of it."""
    race = Race(
        Plan(policy, tuple(candidates), (), input_tokens=400, output_tokens=512, reason="", lone=lone),
        limits,
        RetryBudget(ratio=0.0, per_second=credits / 10_000, ttl=10_000),
        RetryBudget(ratio=0.0, per_second=share / 10_000, ttl=10_000),
    )
    for _ in range(300):
        if not race.open or race.over is not None:
            if not race.goes_on():
                break
            continue
        later, outcome, fault, took, hedge = events.pop(0) if events else (False, "failed", DOWN, 0.0, False)
        race.now += took
        if hedge:
            race.hedge()
        tried, second = race.open.pop(sorted(race.open)[-1 if later else 0])
        race.ends(tried, outcome, fault, hedge=second)
        assert race.machine.over == (race.over is not None)
    else:
        pytest.fail("the machine does not come to an end")
    assert race.sent <= limits.max_attempts
