"""Thompson sampling: what is drawn, what is remembered, and that no state can break it."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.routing.bandit import (
    DEFAULT,
    EVERYWHERE,
    Bandit,
    Forgetting,
    Kept,
    context,
    propensities,
    sampled,
)
from tokenhub_core.types import Draw, Features, Need

NOW = 1.8e9
A, B, C = ("a", "p"), ("b", "p"), ("c", "q")
NO_PENALTY = (0.0, 0.0, 0.0)


def drawn(bandit: Bandit, seed: str = "s", now: float = NOW) -> list[Draw]:
    return list(bandit.draw([A, B, C], "small", penalties=NO_PENALTY, seed=seed, now=now))


def taught(rewards: dict[tuple[str, str], list[float]], forgetting: Forgetting = DEFAULT) -> Bandit:
    bandit = Bandit(forgetting=forgetting)
    for arm, values in rewards.items():
        for value in values:
            bandit.reward(arm, "small", value, NOW)
    return bandit


def means(bandit: Bandit, now: float = NOW, place: str = "small") -> list[float]:
    alpha, beta = bandit.posteriors([A, B, C], place, now)
    return [float(one) for one in alpha / (alpha + beta)]


def test_the_same_seed_draws_the_same_values_and_another_seed_others() -> None:
    """A decision can be replayed bit for bit from its id and the posteriors."""
    bandit = taught({A: [0.9, 0.8], B: [0.0]})
    assert drawn(bandit) == drawn(bandit)
    assert drawn(bandit, "t") != drawn(bandit)


def test_a_stored_decision_is_drawn_again_from_its_parameters_in_any_order() -> None:
    """Alpha, beta and the seed are enough, and candidates may have been stored in another order."""
    draws = drawn(taught({A: [0.9, 0.8], B: [0.0]}))
    alpha, beta = np.array([one.alpha for one in draws]), np.array([one.beta for one in draws])
    turned = sampled([C, A, B], alpha[[2, 0, 1]], beta[[2, 0, 1]], "s")
    assert turned.tolist() == [draws[2].sample, draws[0].sample, draws[1].sample]


def test_an_arm_that_has_never_won_breaks_nothing_and_is_tried_again() -> None:
    """0 of 1,841 is a posterior like any other, and so is a stored 0 or less: who was repaired comes back."""
    dead, alive = ("dead", "p"), ("alive", "p")
    for won in (0.0, -1_841.0):
        stored = [
            Kept(*arm, place, won if arm is dead else 900.0, 1_841.0, 1, round(NOW * 1e6))
            for arm in (dead, alive)
            for place in ("small", EVERYWHERE)
        ]
        bandit = Bandit(stored)
        draws = bandit.draw([dead, alive], "small", penalties=[0, 0], seed="s", now=NOW)
        assert draws[0].propensity < 0.01
        assert all(math.isfinite(one.sample) and one.alpha >= 1 for one in draws)
        later = bandit.draw([dead, alive], "small", penalties=[0, 0], seed="s", now=NOW + 12 * 86_400)
        assert later[0].propensity > 0.05


def test_drawing_teaches_nothing() -> None:
    """Only rewards do, so a simulated decision changes no later one."""
    bandit = taught({A: [0.9]})
    before = bandit.kept()
    drawn(bandit)
    assert bandit.kept() == before


def test_a_success_raises_and_a_failure_lowers_the_posterior() -> None:
    """Rewards are counted as shares of a success and a failure on top of Beta(1, 1)."""
    alpha, beta = taught({A: [0.75]}).posteriors([A, B], "small", NOW)
    # One reward in this context, and the same one borrowed from everywhere.
    assert alpha.tolist() == [1 + 0.75 + 0.75, 1.0]
    assert beta.tolist() == [1 + 0.25 + 0.25, 1.0]


def test_a_provider_that_is_dead_in_one_context_is_not_taken_for_new_in_the_next() -> None:
    """A cold context borrows from the others: the dead one comes behind the unknown, which comes behind the good."""
    bandit = taught({A: [0.0] * 20, B: [0.95] * 20})
    dead, good, unknown = means(bandit, place="large")
    assert dead < unknown < good


def test_a_failing_arm_comes_first_less_and_less() -> None:
    """However optimistic the prior, failures wear it down."""
    shares = []
    for failures in (0, 2, 5, 20):
        bandit = taught({A: [0.0] * failures, B: [0.9] * 30, C: [0.85] * 30})
        shares.append(drawn(bandit)[0].propensity)
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 1e-6


def test_a_fresh_start_treats_everyone_alike() -> None:
    """No arm is preferred before anything is known."""
    assert [one.propensity for one in drawn(Bandit())] == pytest.approx([1 / 3] * 3)


def test_what_was_counted_is_forgotten_by_count() -> None:
    """An arm that nobody asks any more returns to its prior and is tried again: it may have been mended."""
    bandit = taught({A: [0.0] * 50}, Forgetting(keep=0.99))
    before = means(bandit)[0]
    for _ in range(1_000):
        bandit.reward(B, "small", 0.9, NOW)
    assert before < 0.05
    assert means(bandit)[0] == pytest.approx(0.5, abs=0.01)


def test_what_was_counted_is_forgotten_by_time() -> None:
    """After one half-life half of the evidence is left."""
    bandit = taught({A: [1.0] * 10}, Forgetting(keep=1.0, half_life=3600))
    alpha, _ = bandit.posteriors([A], "small", NOW + 3600)
    assert alpha[0] == pytest.approx(1 + 5 + 2)


def test_a_clock_that_jumps_back_brings_nothing_back() -> None:
    """Age is never negative, so no evidence grows by itself."""
    bandit = taught({A: [1.0] * 10})
    assert means(bandit, NOW - 1e6) == means(bandit, NOW)


def test_a_restart_goes_on_from_exactly_where_it_was() -> None:
    """The same records give the same draws and take the next reward in the same way, to the last bit."""
    before = taught({A: [0.9, 0.31, 0.0], B: [0.77] * 5, C: [0.0] * 3})
    after = Bandit(before.kept())
    assert drawn(after, now=NOW + 77) == drawn(before, now=NOW + 77)
    for bandit in (before, after):
        bandit.reward(A, "small", 0.123, NOW + 99)
    assert sorted(after.kept(), key=repr) == sorted(before.kept(), key=repr)


def test_saving_changes_only_is_saving_enough() -> None:
    """Records that did not change since the last saving need not be written again."""
    bandit = taught({A: [0.9], B: [0.2]})
    stored = {(one.model, one.context): one for one in bandit.changes()}
    bandit.reward(A, "small", 0.5, NOW)
    changed = bandit.changes()
    assert {(one.model, one.context) for one in changed} == {("a", "small"), ("a", EVERYWHERE)}
    stored |= {(one.model, one.context): one for one in changed}
    assert drawn(Bandit(stored.values())) == drawn(bandit)
    assert bandit.changes() == []


@pytest.mark.parametrize("bad", [0.0, -5.0, math.nan, math.inf, -math.inf, 1e300])
def test_no_stored_state_can_break_a_draw(bad: float) -> None:
    """Zeros, negatives, infinities and what is no number: alpha and beta stay finite and at least 1."""
    bandit = Bandit([Kept("a", "p", "small", bad, bad, 3, 5), Kept("a", "p", EVERYWHERE, bad, 1.0, -9, -9)])
    for draw in drawn(bandit):
        assert 1 <= draw.alpha < math.inf
        assert 1 <= draw.beta < math.inf
        assert 0 <= draw.sample <= 1


floats = st.floats(allow_nan=True, allow_infinity=True)
names = st.sampled_from("abc")
keeps = st.builds(
    Kept,
    names,
    st.sampled_from("pq"),
    st.sampled_from(["small", "large", EVERYWHERE]),
    floats,
    floats,
    st.integers(-(2**62), 2**62),
    st.integers(-(2**62), 2**62),
)
rewards = st.tuples(names, st.sampled_from("pq"), floats, st.floats(-1e12, 1e12))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(keeps, max_size=8),
    st.lists(rewards, max_size=8),
    st.lists(st.floats(0, 0.3), min_size=3, max_size=3),
    st.floats(-1e12, 1e12),
    st.text(max_size=5),
)
def test_no_history_can_produce_an_error_or_something_that_is_no_number(
    stored: list[Kept],
    history: list[tuple[str, str, float, float]],
    penalties: list[float],
    now: float,
    seed: str,
) -> None:
    """Whatever was stored and whatever rewards came: every draw is a number, and the propensities sum to 1."""
    bandit = Bandit(stored)
    for model, provider, reward, at in history:
        bandit.reward((model, provider), "small", reward, at)
    draws = bandit.draw([A, B, C], "small", penalties=penalties, seed=seed, now=now)
    for draw in draws:
        assert 1 <= draw.alpha < math.inf
        assert 1 <= draw.beta < math.inf
        assert 0 <= draw.sample <= 1
        assert 0 <= draw.propensity <= 1
    assert sum(draw.propensity for draw in draws) == pytest.approx(1)
    assert all(math.isfinite(one.won) and math.isfinite(one.lost) for one in bandit.kept())


@pytest.mark.parametrize("size", [2, 12, 60])
def test_propensities_are_how_often_each_comes_first(size: int) -> None:
    """Within what the docstring promises of 100,000 draws, penalties counted."""
    random = np.random.default_rng(size)
    seen = random.integers(0, 2_000, size)
    share = random.random(size) * 0.4 + 0.5
    alpha, beta = 1 + seen * share, 1 + seen * (1 - share)
    penalties = np.where(random.random(size) < 0.3, 0.1, 0.0)
    firsts = (random.beta(alpha, beta, (100_000, size)) - penalties).argmax(axis=1)
    often = np.bincount(firsts, minlength=size) / 100_000
    found = propensities(alpha, beta, penalties)
    assert (
        np.abs(found - often).max() < 0.002 + 0.004
    )  # the promise, and three deviations of what was counted
    assert found.sum() == pytest.approx(1)


@pytest.mark.load
def test_a_thousand_arms_are_drawn_in_well_under_a_millisecond_each_time() -> None:
    """One vectorised draw for all of them; the best of many counts, because the machine is shared."""
    arms = [(f"m{n}", f"p{n % 9}") for n in range(1_000)]
    bandit = Bandit()
    for arm in arms:
        bandit.reward(arm, "small", 0.7, NOW)
    best = math.inf
    for _ in range(30):
        began = time.process_time()
        sampled(arms, *bandit.posteriors(arms, "small", NOW), "s")
        best = min(best, time.process_time() - began)
    assert best < 0.001


def test_the_context_is_told_by_size_and_needs() -> None:
    """Bounds as documented, and only needs that make a model do something else."""
    plain = Features(model="*", needs=frozenset({Need.CHAT}))
    assert [context(plain, n) for n in (0, 999, 1_000, 10_000, 10_001)] == [
        "small",
        "small",
        "medium",
        "medium",
        "large",
    ]
    both = Features(model="*", needs=frozenset({Need.TOOLS, Need.VISION}))
    assert context(both, 5) == "small:tools+media"


def test_records_do_not_grow_without_end() -> None:
    """The arms longest without a reward make room, and what is left can be drawn."""
    bandit = Bandit()
    for n in range(4_200):
        bandit.reward((f"m{n}", "p"), "small", 0.5, NOW)
    assert len(bandit.kept()) == 2 * 4_096
    assert ("m0", "p") not in {(one.model, one.provider) for one in bandit.kept()}
    assert len(bandit.changes()) == 2 * 4_096
