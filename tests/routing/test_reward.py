"""Rewards."""

from __future__ import annotations

import math

import pytest

from tokenhub_core.errors import Blame
from tokenhub_core.routing.reward import DEFAULT, Reward
from tokenhub_core.types import NANO, Attempt


def attempt(
    cause: str = "", blame: Blame | str = "", *, n: int = 1, ms: float = 2_000, usd: float = 0.02
) -> Attempt:
    return Attempt(n, "m", "p", 0, ms, cause=cause, blame=str(blame), cost_nanousd=round(usd * NANO))


def test_the_default_reward_is_worked_by_hand() -> None:
    """0.3 of cheapness up to ten cents, 0.3 of quickness up to the horizon, 0.4 for having answered."""
    reward = Reward()
    assert reward.of(attempt(), None) == pytest.approx(0.3 * 0.8 + 0.3 * 0.9 + 0.4)
    assert reward.of(attempt(), 4_000) == pytest.approx(0.3 * 0.8 + 0.3 * 0.5 + 0.4)
    assert reward.of(attempt(ms=500), 10) == pytest.approx(0.3 * 0.8 + 0.3 * 0.5 + 0.4)
    assert reward.of(attempt(ms=1e9, usd=9), None) == pytest.approx(0.4)


@pytest.mark.parametrize("blame", [Blame.PROVIDER, Blame.CREDENTIAL])
def test_a_failed_attempt_is_worth_nothing(blame: Blame) -> None:
    """Failures teach."""
    assert Reward().of(attempt("http_503", blame), None) == 0.0


@pytest.mark.parametrize("blame", [Blame.CLIENT, Blame.US])
def test_what_the_candidate_is_not_to_blame_for_teaches_nothing(blame: Blame) -> None:
    """A bad request, a caller that left and our own failures say nothing of a model."""
    assert Reward().of(attempt("invalid_request", blame), None) is None


def test_a_candidate_that_used_up_the_calls_time_alone_has_failed() -> None:
    """The time limit is the caller's, but the first attempt had all of it."""
    assert Reward().of(attempt("deadline", Blame.CLIENT), 100) == 0.0
    assert Reward().of(attempt("deadline", Blame.CLIENT, n=2), 100) is None


def test_other_terms_can_stand_in_their_place_and_never_leave_0_and_1() -> None:
    """Weights are scaled to 1, and whatever a term returns is held within bounds."""
    odd = Reward(((3.0, lambda _: math.nan), (1.0, lambda _: 7.0)))
    assert odd.of(attempt(), None) == pytest.approx(0.25)
    dearness = Reward(((1.0, lambda facts: facts.cost_usd * 10),))
    assert dearness.of(attempt(usd=0.05), None) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "terms", [(), ((0.0, DEFAULT[0][1]),), ((-1.0, DEFAULT[0][1]), (3.0, DEFAULT[1][1]))]
)
def test_weights_that_make_no_sum_are_refused(terms: tuple[tuple[float, object], ...]) -> None:
    """They would divide by nothing, or reward what they punish."""
    with pytest.raises(ValueError, match="weights"):
        Reward(terms)  # type: ignore[arg-type]  # the table of cases holds the terms as plain objects
