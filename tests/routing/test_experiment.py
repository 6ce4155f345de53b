"""What variants came to, and how sure one can be of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.routing.experiment import Call, Figure, mean, percentile, rate, report, student


def call(variant: str, outcome: str = "ok", cost: int = 1_000_000_000, ms: float | None = 100.0) -> Call:
    return Call(variant, outcome, cost, ms, None, 10, 20)


def test_a_rate_has_wilsons_interval() -> None:
    """Against values from the literature; at the ends it is not empty."""
    middle = rate(81, 263)
    assert middle is not None
    assert (middle.low, middle.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, method 3
    none, every = rate(0, 10), rate(10, 10)
    assert none is not None
    assert every is not None
    assert (none.value, none.low, none.high) == pytest.approx((0.0, 0.0, 0.2775), abs=1e-4)
    assert (every.low, every.high) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert rate(0, 0) is None


@pytest.mark.parametrize(
    ("freedom", "point"),
    [(1, 12.7062), (10, 2.2281), (11, 2.2010), (30, 2.0423), (120, 1.9799), (10**6, 1.9600)],
)
def test_the_points_of_students_t(freedom: int, point: float) -> None:
    """As every table has them."""
    assert student(freedom) == pytest.approx(point, abs=1e-4)


def test_a_mean_of_one_has_no_interval() -> None:
    """And of nothing there is none; of two it is wide."""
    assert mean(np.array([])) is None
    assert mean(np.array([3.0])) == Figure(3.0)
    two = mean(np.array([1.0, 3.0]))
    assert two is not None
    assert (two.value, two.low, two.high) == pytest.approx((2.0, 2 - 12.7062, 2 + 12.7062), abs=1e-3)


def test_a_percentile_says_where_it_cannot_be_sure() -> None:
    """The 95th of a few calls has no upper bound, of many it has."""
    few = percentile(np.arange(20.0), 0.95)
    assert few is not None
    assert (few.value, few.high) == (18.0, None)
    many = percentile(np.arange(1000.0), 0.5)
    assert many is not None
    assert (many.value, many.low, many.high) == (499.0, 468.0, 531.0)


@pytest.mark.parametrize("what", ["rate", "mean", "percentile"])
def test_the_truth_lies_in_the_interval_as_often_as_promised(what: str) -> None:
    """95 times of a hundred, over repeated samples of known distributions."""
    draw = np.random.default_rng(7)
    rounds = 800
    hits = 0
    for _ in range(rounds):
        match what:
            case "rate":
                found, truth = rate(int(draw.binomial(60, 0.9)), 60), 0.9
            case "mean":
                found, truth = mean(draw.normal(5.0, 2.0, 8)), 5.0
            case _:
                found, truth = percentile(draw.exponential(1.0, 200), 0.5), float(np.log(2))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / rounds <= 0.98


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 50), st.integers(0, 50))
def test_an_interval_holds_its_figure(hits: int, misses: int) -> None:
    """Within the bounds that a rate has."""
    found = rate(hits, hits + misses)
    if found is not None:
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_variant_is_told_by_its_own_calls() -> None:
    """Who left is no failure; failures cost, and their time is nobody's latency."""
    calls = [
        call("a"),
        call("a", ms=300.0),
        call("a", "error", 4_000_000_000, 9_000.0),
        call("a", "cancelled", 0),
        call("b"),
    ]
    a, b, c = report(calls, ["a", "b", "c"])
    assert (a.requests, a.succeeded, a.failed, a.cancelled) == (4, 2, 1, 1)
    assert (a.share.value, c.share.value) == (0.8, 0.0)
    assert a.success_rate is not None
    assert a.success_rate.value == pytest.approx(2 / 3)
    assert a.cost_usd is not None
    assert a.cost_usd.value == pytest.approx(1.5)
    assert a.latency_ms is not None
    assert a.latency_ms.value == 200.0
    assert (a.ttft_ms, b.latency_ms, b.output_tokens) == (None, Figure(100.0), Figure(20.0))
    assert (c.requests, c.success_rate, c.cost_usd) == (0, None, None)


def test_what_was_seen_is_told_without_being_listed() -> None:
    """Targets that were removed since, and the models of a pool."""
    assert [one.variant for one in report([call("new"), call("a")], ["a"])] == ["a", "new"]
    assert report([]) == []
