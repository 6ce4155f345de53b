"""The savings report: what is compared, how sure it is, and what it refuses to say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tokenhub_core.routing.savings import LEAST, Report, Seen, report
from tokenhub_core.types import Shadow


def seen(paid: int | None = 3_000_000, would: int | None = 1_000_000, **more: Any) -> Seen:
    shadow = {
        "model": "mini",
        "provider": "p",
        "nanousd": would,
        "price": "manual" if would is not None else "unknown",
        "paid": paid,
        "paid_price": "models-dev" if paid is not None else "unknown",
        "took_ms": 900.0,
        **more.pop("shadow", {}),
    }
    values = {
        "outcome": "passed",
        "status": 200,
        "model": "gpt-4o",
        "host": "api.openai.com",
        "estimated": False,
    }
    return Seen(**{**values, **more}, shadow=Shadow(**shadow))


def test_the_difference_is_that_of_each_call_with_itself() -> None:
    """Totals, share and mean add up, and the interval is Student's over the differences."""
    rng = np.random.default_rng(7)
    pairs = [(int(a), int(b)) for a, b in rng.integers(1_000_000, 9_000_000, (50, 2))]
    found = report([seen(*pair) for pair in pairs])
    saved = np.array([a - b for a, b in pairs]) / 1e9
    assert found.cost is not None
    assert found.cost.saved == pytest.approx(saved.sum())
    assert found.cost.saved == pytest.approx(found.cost.paid - found.cost.would)
    each = found.cost.saved_each
    half = 2.009575 * saved.std(ddof=1) / math.sqrt(50)  # t of 49 degrees of freedom
    assert each.low is not None
    assert each.high is not None
    assert each.value == pytest.approx(saved.mean())
    assert each.high - each.value == pytest.approx(half, rel=1e-5)
    assert each.value - each.low == pytest.approx(half, rel=1e-5)


def test_the_interval_is_that_of_pairs_and_not_of_two_samples() -> None:
    """Calls that differ a thousandfold but each save half have a narrow interval."""
    calls = [seen(10**6 * (1 + n % 7), 10**6 * (1 + n % 7) - 1000) for n in range(60)]
    each = report(calls).cost.saved_each  # type: ignore[union-attr] # it is there
    assert each.low == pytest.approx(each.high)


@pytest.mark.parametrize(("count", "given"), [(LEAST - 1, False), (LEAST, True)])
def test_of_few_calls_there_is_no_interval(count: int, given: bool) -> None:
    """And it says how many it would take."""
    shadow = {"expected_ms": 400.0}
    found = report([seen(shadow=shadow) for _ in range(count)])
    assert found.cost is not None
    assert found.latency.saved_each is not None
    for figure in (found.cost.saved_each, found.latency.saved_each):
        assert (figure.low is not None, figure.high is not None) == (given, given)
    assert (f"takes {LEAST}" in found.interval) is not given


def test_what_is_not_known_is_counted_and_not_made_up() -> None:
    """Unknown prices and tokens are named; an unknown time is no time."""
    unknown_tokens = seen(None, None, shadow={"paid_price": "models-dev", "price": "manual"})
    found = report(
        [seen(), seen(None), seen(would=None), unknown_tokens, seen(shadow={"expected_ms": 100.0})]
    )
    assert found.compared == 2
    assert found.unpriced == {
        "price of the model that answered unknown": 1,
        "price of the candidate unknown": 1,
        "tokens unknown": 1,
    }
    assert (found.latency.known, found.latency.unknown) == (1, 1)
    assert found.latency.saved_each is not None
    assert found.latency.saved_each.value == 800.0
    assert report([seen()]).latency.saved_each is None
    assert (found.paid_prices, found.would_prices) == ({"models-dev": 2}, {"manual": 2})


def test_failures_and_refusals_are_counted_and_not_compared() -> None:
    """They would bring a price of nothing into the mean."""
    refused = {"model": "", "fault": "budget", "status": 402, "message": "The budget is $1."}
    found = report(
        [
            seen(),
            seen(status=500),
            seen(outcome="error", status=502),
            seen(outcome="cancelled", status=499),
            seen(shadow=refused),
            seen(shadow={**refused, "message": "older"}),
        ]
    )
    assert (found.calls, found.answered, found.failed, found.cancelled, found.compared) == (6, 3, 2, 1, 1)
    (refusal,) = found.refusals
    assert (refusal.fault, refusal.status, refusal.message, refusal.calls) == (
        "budget",
        402,
        "The budget is $1.",
        2,
    )


def test_the_mix_says_where_calls_would_have_gone() -> None:
    """The most frequent move first, what would have stayed counted, and every loss by its name."""
    stay = {"model": "gpt-4o", "provider": "origin:api.openai.com", "same": True}
    lost = {"losses": ("seed", "logprobs")}
    found = report([seen(shadow=stay), seen(shadow=lost), seen(shadow={"losses": ("seed",)})])
    assert [(move.model, move.provider, move.calls) for move in found.models] == [
        ("mini", "p", 2),
        ("gpt-4o", "origin:api.openai.com", 1),
    ]
    assert (found.models[0].paid, found.models[0].would) == pytest.approx((0.006, 0.002))
    assert (found.unchanged, found.losses) == (1, {"seed": 2, "logprobs": 1})


def test_estimated_tokens_are_told() -> None:
    """They are compared: both sides have the same tokens."""
    found = report([seen(estimated=True), seen()])
    assert (found.compared, found.estimated) == (2, 1)


def test_of_no_calls_there_is_a_report() -> None:
    """Everything nought, nothing made up, and what it takes for granted."""
    found = report([])
    assert isinstance(found, Report)
    assert (found.calls, found.cost, found.latency.saved_each) == (0, None, None)
    assert found.assumptions
