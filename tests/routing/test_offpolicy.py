"""Off-policy estimates: small ones by hand, properties, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.routing import offpolicy
from tokenhub_core.routing.experiment import Figure, mean
from tokenhub_core.routing.offpolicy import FEWEST, FLOOR, Evaluation, Gathering, Sample

A, B = ("a", "p"), ("b", "p")
ENOUGH = 2 * FEWEST


def gathered(
    calls: list[tuple[str, tuple[str, str]]],
    propensities: dict[tuple[str, str], float],
    target: dict[tuple[str, str], float],
) -> Sample:
    """Return a sample in which both policies are the same in every call."""
    gathering = Gathering()
    for context, chosen in calls:
        gathering.add(context, chosen, propensities=propensities, target=target)
    return gathering.sample()


def split(count: int = ENOUGH) -> tuple[Sample, np.ndarray]:
    """Half the calls went to A, which is worth 1, and half to B, which is worth 0; the target takes A always."""
    sample = gathered([("small", (A, B)[n % 2]) for n in range(count)], {A: 0.5, B: 0.5}, {A: 1.0})
    return sample, np.array([1.0, 0.0] * (count // 2))


@pytest.fixture
def anything_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let examples be as small as a hand can work them."""
    monkeypatch.setattr(offpolicy, "FEWEST", 0)


@pytest.mark.usefixtures("anything_goes")
def test_the_estimators_are_worked_by_hand() -> None:
    """Three calls, weights 2, 2 and 0, outcomes 1, 0.5 and 0.25."""
    sample = gathered([("small", A), ("small", A), ("small", B)], {A: 0.5, B: 0.5}, {A: 1.0})
    evaluation = Evaluation(sample)
    found = evaluation.of(np.array([1.0, 0.5, 0.25]))
    assert found is not None
    assert found.ips.value == pytest.approx((2 * 1 + 2 * 0.5) / 3)
    assert found.snips.value == pytest.approx((2 * 1 + 2 * 0.5) / 4)
    # The model before each call: nothing; then A once, 1, thrice drawn towards nothing by five observations.
    first = (1 + 5 * ((1 + 5 * (1 / 6)) / 6)) / 6
    after = 1.5 / 7
    second = (1.5 + 5 * ((1.5 + 5 * after) / 7)) / 7
    robust = [0 + 2 * (1 - 0), first + 2 * (0.5 - first), second]
    assert found.dr.value == pytest.approx(sum(robust) / 3)
    assert found.logged.value == pytest.approx(1.75 / 3)
    assert found.difference.value == pytest.approx(sum(robust) / 3 - 1.75 / 3)
    assert evaluation.support.effective == pytest.approx(16 / 8)
    assert (evaluation.support.largest_weight, evaluation.support.overlap) == (2.0, 1.0)


def test_a_fair_coin_between_two_tells_of_each() -> None:
    """All three say that the one is worth 1, and that it is better than what was done."""
    sample, outcomes = split(400)
    found = Evaluation(sample).of(outcomes)
    assert found is not None
    for one in (found.ips, found.snips, found.dr):
        assert one.value == pytest.approx(1.0, abs=0.03)
    assert found.logged.value == 0.5
    assert found.difference.low is not None
    assert found.difference.low > 0.3


outcomes = st.lists(st.floats(0, 1), min_size=ENOUGH, max_size=ENOUGH).map(np.array)
contexts = st.lists(st.sampled_from(["small", "large"]), min_size=ENOUGH, max_size=ENOUGH)
chosen = st.lists(st.sampled_from([A, B]), min_size=ENOUGH, max_size=ENOUGH)


@settings(max_examples=25, deadline=None)
@given(contexts, chosen, outcomes)
def test_the_policy_that_was_followed_is_worth_what_it_was(
    kinds: list[str], arms: list[tuple[str, str]], values: np.ndarray
) -> None:
    """With propensity 1 and the same choices every estimate is the plain mean, and nothing differs."""
    gathering = Gathering()
    for kind, arm in zip(kinds, arms, strict=True):
        gathering.add(kind, arm, propensities={arm: 1.0}, target={arm: 1.0})
    found = Evaluation(gathering.sample()).of(values)
    assert found is not None
    for one in (found.logged, found.ips, found.snips, found.dr):
        assert one.value == pytest.approx(values.mean(), abs=1e-12)
    assert found.difference.value == pytest.approx(0, abs=1e-12)
    assert (found.difference.high or 0) - (found.difference.low or 0) < 1e-9


drawn = st.tuples(contexts, chosen, outcomes, st.floats(0.1, 0.9), st.floats(0.1, 0.9))


def evaluated(kinds: list[str], arms: list[tuple[str, str]], share: float, wish: float) -> Evaluation:
    calls = list(zip(kinds, arms, strict=True))
    return Evaluation(gathered(calls, {A: share, B: 1 - share}, {A: wish, B: 1 - wish}))


@settings(max_examples=25, deadline=None)
@given(drawn, st.floats(1e-3, 1e6))
def test_another_unit_gives_the_same_figures_in_that_unit(
    case: tuple[list[str], list[tuple[str, str]], np.ndarray, float, float], unit: float
) -> None:
    """Dollars or nano-dollars: points and intervals scale."""
    kinds, arms, values, share, wish = case
    evaluation = evaluated(kinds, arms, share, wish)
    plain, scaled = evaluation.of(values), evaluation.of(values * unit)
    assert (plain is None) == (scaled is None)
    for name in ("logged", "ips", "snips", "dr", "difference"):
        if plain is not None and scaled is not None:
            one, other = getattr(plain, name), getattr(scaled, name)
            wanted = [(bound or 0) * unit for bound in (one.value, one.low, one.high)]
            assert [other.value, other.low, other.high] == pytest.approx(wanted, rel=1e-6, abs=1e-6 * unit)


@settings(max_examples=25, deadline=None)
@given(drawn, st.randoms(use_true_random=False))
def test_the_order_of_calls_does_not_matter_to_what_learns_nothing(
    case: tuple[list[str], list[tuple[str, str]], np.ndarray, float, float], random: object
) -> None:
    """IPS and SNIPS are sums; the doubly robust estimate learns from what came before, and keeps its support."""
    kinds, arms, values, share, wish = case
    order = list(range(ENOUGH))
    random.shuffle(order)  # type: ignore[attr-defined] # Hypothesis types it as object
    first = evaluated(kinds, arms, share, wish)
    second = evaluated([kinds[n] for n in order], [arms[n] for n in order], share, wish)
    one, other = first.of(values), second.of(values[order])
    assert first.support.effective == pytest.approx(second.support.effective)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        for name in ("logged", "ips", "snips"):
            left, right = getattr(one, name), getattr(other, name)
            assert [left.value, left.low, left.high] == pytest.approx([right.value, right.low, right.high])


@settings(max_examples=30, deadline=None)
@given(drawn)
def test_names_do_not_matter(
    case: tuple[list[str], list[tuple[str, str]], np.ndarray, float, float],
) -> None:
    """Contexts under other names give the same figures."""
    kinds, arms, values, share, wish = case
    other = {"small": "z", "large": "a"}
    one = evaluated(kinds, arms, share, wish).of(values)
    assert one == evaluated([other[kind] for kind in kinds], arms, share, wish).of(values)


def test_a_model_of_the_outcome_narrows_the_interval() -> None:
    """Where contexts differ and outcomes follow them, the doubly robust interval is the narrowest."""
    random = np.random.default_rng(3)
    kinds = random.integers(0, 2, 600)
    arms = random.random(600) < 0.3
    values = np.where(kinds == 1, 0.9, 0.2) + 0.05 * random.standard_normal(600)
    calls = [("ab"[kind], A if arm else B) for kind, arm in zip(kinds, arms, strict=True)]
    found = Evaluation(gathered(calls, {A: 0.3, B: 0.7}, {A: 1.0})).of(values)
    assert found is not None
    assert width(found.dr) < 0.7 * width(found.snips) < 0.7 * width(found.ips)


def width(figure: Figure) -> float:
    assert figure.low is not None
    assert figure.high is not None
    return figure.high - figure.low


def test_no_overlap_is_refused() -> None:
    """A policy whose choices were never possible gets no number, however many calls there are."""
    sample = gathered([("small", A)] * 1_000, {A: 1.0}, {B: 1.0})
    evaluation = Evaluation(sample)
    assert evaluation.of(np.ones(1_000)) is None
    assert "none of its choices" in evaluation.refusal
    assert (evaluation.support.unsupported, evaluation.support.overlap) == (1_000, 0.0)


def test_estimates_are_of_the_calls_with_overlap_only() -> None:
    """Calls whose choice could not have been made are counted and left out, and do not pull the others."""
    gathering = Gathering()
    for n in range(ENOUGH):
        gathering.add("small", A, propensities={A: 1.0}, target={A if n % 2 else B: 1.0})
    evaluation = Evaluation(gathering.sample())
    found = evaluation.of(np.array([0.0, 1.0] * (ENOUGH // 2)))
    assert found is not None
    assert found.dr.value == pytest.approx(1.0)
    assert found.logged.value == 1.0
    assert (evaluation.support.unsupported, evaluation.support.overlap) == (ENOUGH // 2, 0.5)


def test_a_corner_of_the_traffic_is_refused() -> None:
    """A supported share below a twentieth says nothing of a policy, even where it is many calls."""
    gathering = Gathering()
    for n in range(4_000):
        gathering.add("small", A, propensities={A: 1.0}, target={A if n % 25 == 0 else B: 1.0})
    evaluation = Evaluation(gathering.sample())
    assert evaluation.support.effective > FEWEST
    assert "4.0%" in evaluation.refusal
    assert evaluation.of(np.ones(4_000)) is None


def test_a_small_sample_is_refused() -> None:
    """One call less than is needed: no number, and the reason says how many there are in effect."""

    def asked(count: int) -> Evaluation:
        return Evaluation(gathered([("small", A)] * count, {A: 1.0}, {A: 1.0}))

    assert asked(FEWEST).refusal == ""
    assert f"as much as {FEWEST - 1} calls" in asked(FEWEST - 1).refusal
    assert Evaluation(Gathering().sample()).refusal == "no call was observed"


def test_a_choice_that_could_hardly_be_made_does_not_count_as_overlap() -> None:
    """Below the floor a propensity is not trusted: so no weight is larger than its inverse."""
    just, below = FLOOR, FLOOR * 0.99
    for share, supported in ((just, 1.0), (below, 0.0)):
        sample = gathered([("small", A)] * 200, {A: share, B: 1 - share}, {A: 1.0})
        support = Evaluation(sample).support
        assert support.overlap == supported
        assert support.largest_weight == (1 / FLOOR if supported else 0)


def test_weights_are_clipped_only_where_that_is_asked_for() -> None:
    """And then it is told how many; the estimate leans towards nothing."""
    sample, values = split()
    plain, clipped = Evaluation(sample), Evaluation(sample, clip=1.5)
    assert (plain.support.clipped, clipped.support.clipped) == (0, ENOUGH // 2)
    assert (plain.support.largest_weight, clipped.support.largest_weight) == (2.0, 1.5)
    one, other = plain.of(values), clipped.of(values)
    assert one is not None
    assert other is not None
    assert other.ips.value == pytest.approx(0.75 * one.ips.value)


def test_forty_answers_without_a_failure_do_not_prove_that_there_are_none() -> None:
    """The interval of a sample that does not vary is not a point, where others' outcomes do."""
    calls = [("small", A if n % 4 == 0 else B) for n in range(4 * FEWEST)]
    values = np.array([1.0 if n % 4 == 0 else n % 2 for n in range(4 * FEWEST)])
    found = Evaluation(gathered(calls, {A: 0.25, B: 0.75}, {A: 1.0})).of(values)
    assert found is not None
    assert found.snips.value == 1.0
    assert width(found.snips) > 0.05


def test_a_plain_mean_has_nearly_the_interval_of_students_t() -> None:
    """Outcomes without skewness, weights of 1: what is left is a slightly wider spread."""
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    found = Evaluation(gathered([("small", A)] * 400, {A: 1.0}, {A: 1.0})).of(values)
    usual = mean(values)
    assert found is not None
    assert usual is not None
    assert width(found.logged) == pytest.approx(width(usual), rel=0.02)


def test_the_transformation_is_undone_exactly() -> None:
    """What Hall's cube makes of a point, `_straightened` takes back; without skewness nothing moves."""
    for point in (-2.0, 0.0, 1.96):
        for skewness in (-3.0, 0.5, 4.0):
            slant = skewness / math.sqrt(100)
            bent = offpolicy._straightened(point, skewness, 100)
            assert bent + slant * bent**2 / 3 + slant**2 * bent**3 / 27 + slant / 6 == pytest.approx(point)
    assert offpolicy._straightened(1.96, 0.0, 100) == 1.96
