"""The failover machine under random plans and random outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.failover import Failover, GiveUp, Limits, Wait
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Candidate, Model, Plan, Policy, Provider, ProviderType, Terms

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
