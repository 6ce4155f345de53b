"""What a policy that was not followed would have been worth, from the log of one that was. Pure.

A logged call has a context, candidates, the one that came first, the probability (propensity) with which the logging
policy put it first, and what came of trying it. The target policy is known by the probability of each candidate that
it would have put first. With t for the target's probability of the choice that was made, p for its propensity and
r for its outcome, the weight of a call is w = t/p, and for a target that holds whatever the log holds

    IPS      sum(w·r) / sum(m)                                         Horvitz and Thompson, JASA 47, 1952
    SNIPS    sum(w·r) / sum(w)                                         Swaminathan and Joachims, NIPS 2015
    DR       sum(sum over a of t(a)·q(a) + w·(r - q(chosen))) / sum(m)    Dudík, Langford and Li, ICML 2011

**Overlap.** A choice that the logging policy could hardly have made teaches nothing about itself. A candidate counts
as supported where its propensity was at least `FLOOR`, and m is the target's probability of supported ones. All
estimates are of the target's supported choices; nothing is extrapolated to the others. Whether a choice is supported
follows from the propensities and not from the luck of the draw, so leaving out the unsupported ones does not bias
what is left (Crump, Hotz, Imbens and Mitnik, Biometrika 96, 2009), and no weight is larger than 1/`FLOOR`.

**The estimand** is the outcome of the first attempt, and not of the whole call. What a failed attempt's successors
did depends on the logging policy's order, which the propensity of the first choice says nothing of; the target would
have gone on in another one. The first attempt depends on the first choice alone, so its mean is identified.

**The reward model** q is a mean by candidate and context, drawn towards the candidate's mean over all contexts, and
that towards the mean over all, each by `SHRINKAGE` observations. For each call it is made of the calls before it
only. That is cross-fitting, the outcome that it is compared with is never in it, and of its kinds it is the one that
holds where the logging policy learned on the way: every term of the sum is then right on average given what went
before (a martingale difference: Bibaut et al., NeurIPS 2021), whereas a fold made of later calls would know, through
what was tried then, what came of this one.

**Intervals** are of 95 %, around a ratio with the standard error of its residuals (Owen, Monte Carlo theory, methods
and examples, sections 9.1 and 9.2; Cochran, Sampling Techniques, section 2.11). Weighted outcomes are skewed, and an
interval that is as long to both sides is then too short on one of them: so the residuals' skewness is taken out by
Hall's cubic transformation (JRSS B 54, 1992), with Student's t in place of the normal distribution, its degrees of
freedom those of the effective sample size, or of the residuals' own variance where large ones are few (Satterthwaite:
2n over the kurtosis less 1). The variance is drawn towards that of the outcome over all calls, by `SHRINKAGE`
observations of the usual weight: forty answers without a failure do not prove that there are none.

**Refusals.** No number is given where the sample is too small to know its own error: with an effective sample size
(Kish, Survey Sampling, 1965: sum(w)²/sum(w²)) below `FEWEST`. Cochran asks for 25 times the squared skewness (section
2.15), which is 50 at a skewness of 1.4; `scripts/bench --coverage` checked it (with 30 the intervals of a policy that
learns held the truth in 75 to 90 of 100 cases). Nor is there one where the supported share of the target's choices is
below `NARROWEST`, a judgement: that would be a figure of a corner of the traffic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from tokenhub_core.numeric import np
from tokenhub_core.routing.bandit import Arm
from tokenhub_core.routing.experiment import Figure, student

if TYPE_CHECKING:
    from numpy.typing import NDArray

type Floats = NDArray[np.float64]
type Ints = NDArray[np.int64]

FLOOR: Final = 0.02
"""The least propensity of a choice that counts as one that could have been made. Recorded ones are within 0.002."""
FEWEST: Final = 50
NARROWEST: Final = 0.05
SHRINKAGE: Final = 5.0
_FLAT: Final = 1e-9
"""A skewness times the root of a share that is as good as none; the transformation has no form at 0."""


class Sample(msgspec.Struct, frozen=True):
    """Logged calls beside a target policy, column by column, in the order in which the calls were made.

    n calls; arms and contexts are numbered. The target's supported choices of call i stand in `arms` and `shares` from
    `starts[i]` to `starts[i + 1]`.
    """

    contexts: Ints
    """n"""
    chosen: Ints
    """n: the arm that came first."""
    propensities: Floats
    """n: with which it did."""
    starts: Ints
    """n + 1"""
    arms: Ints
    shares: Floats
    """The target's probabilities of those arms; with what is unsupported they add up to 1 a call."""


class Support(msgspec.Struct, frozen=True):
    """How far a log can speak of a target policy."""

    calls: int
    unsupported: int
    """Calls of which no choice of the target could have been made."""
    overlap: float
    """The share of the target's choices that the logging policy could have made."""
    effective: float
    """The effective sample size."""
    largest_weight: float
    clipped: int = 0
    """Calls whose weight was cut to the bound that was asked for; 0 where none was."""


class Estimates(msgspec.Struct, frozen=True):
    """Means of one outcome over the target's supported choices."""

    logged: Figure
    """What the logging policy had in the same calls."""
    ips: Figure
    snips: Figure
    dr: Figure
    difference: Figure
    """The doubly robust estimate less `logged`, call by call: what they share is no doubt of it."""


class Gathering:
    """Takes in calls one by one and keeps of each what an estimate needs: a few numbers."""

    def __init__(self) -> None:
        self._numbers: dict[Arm, int] = {}
        self._contexts: dict[str, int] = {}
        self._calls: list[tuple[int, int, float]] = []
        self._starts = [0]
        self._arms: list[int] = []
        self._shares: list[float] = []

    def add(
        self,
        context: str,
        chosen: Arm,
        *,
        propensities: Mapping[Arm, float],
        target: Mapping[Arm, float],
    ) -> None:
        """Count one call: the propensities of all candidates, and the target's probabilities of its own."""
        place = self._contexts.setdefault(context, len(self._contexts))
        self._calls.append((place, self._number(chosen), propensities.get(chosen, 0.0)))
        for arm, share in target.items():
            if share > 0 and propensities.get(arm, 0.0) >= FLOOR:
                self._arms.append(self._number(arm))
                self._shares.append(share)
        self._starts.append(len(self._arms))

    def _number(self, arm: Arm) -> int:
        return self._numbers.setdefault(arm, len(self._numbers))

    def sample(self) -> Sample:
        """Return everything that was counted."""
        contexts, chosen, propensities = zip(*self._calls, strict=True) if self._calls else ((), (), ())
        return Sample(
            np.array(contexts, np.int64),
            np.array(chosen, np.int64),
            np.array(propensities, np.float64),
            np.array(self._starts, np.int64),
            np.array(self._arms, np.int64),
            np.array(self._shares, np.float64),
        )


class Evaluation:
    """A sample made ready; estimates any outcome of its calls.

    Weights above `clip` are cut to it where that is asked for: less spread, and a bias towards nothing.
    """

    def __init__(self, sample: Sample, *, clip: float = math.inf) -> None:
        self._sample = sample
        size = len(sample.chosen)
        self._rows = np.repeat(np.arange(size), np.diff(sample.starts))
        self._shares = _by_row(self._rows, sample.shares, size)
        hit = sample.arms == sample.chosen[self._rows]
        weights = _by_row(self._rows, np.where(hit, sample.shares, 0.0), size)
        np.divide(weights, sample.propensities, out=weights, where=weights > 0)
        self._weights = np.minimum(weights, clip)
        self._model = _Means(sample, self._rows)
        total, squares = float(self._weights.sum()), float((self._weights**2).sum())
        self.support = Support(
            size,
            int((self._shares == 0).sum()),
            float(self._shares.sum() / size) if size else 0.0,
            total * total / squares if squares else 0.0,
            float(self._weights.max(initial=0.0)),
            int((weights > clip).sum()),
        )

    @property
    def refusal(self) -> str:
        """Why there is no number, as a phrase; empty where there is one."""
        told = self.support
        if not told.calls:
            return "no call was observed"
        if not told.overlap:
            return "none of its choices could have been made by the policy that was followed"
        if told.overlap < NARROWEST:
            return (
                f"only {told.overlap:.1%} of its choices could have been made by the policy that was followed"
            )
        if told.effective < FEWEST:
            return f"the log holds as much as {told.effective:.0f} calls of it, and {FEWEST} are needed"
        return ""

    def of(self, outcomes: Floats) -> Estimates | None:
        """Return the means of an outcome, one value a call; None where `refusal` says why there are none."""
        if self.refusal:
            return None
        weights, shares = self._weights, self._shares
        chosen, direct = self._model.of(outcomes)
        robust = direct + weights * (outcomes - chosen)
        plain = shares * outcomes
        spread = float(outcomes.var())
        return Estimates(
            logged=self._ratio(plain, shares, shares, spread),
            ips=self._ratio(weights * outcomes, shares, weights, spread),
            snips=self._ratio(weights * outcomes, weights, weights, spread),
            dr=self._ratio(robust, shares, weights, spread),
            difference=self._ratio(robust - plain, shares, weights - shares, spread),
        )

    def _ratio(self, above: Floats, below: Floats, leverage: Floats, spread: float) -> Figure:
        """Return sum(above)/sum(below) with its interval; `leverage` is what each outcome counts for in `above`."""
        within = (below > 0) | (above != 0)
        size, total = int(within.sum()), float(below.sum())
        value = float(above.sum()) / total
        residuals = (above - value * below)[within]
        weight = float((leverage**2).sum()) / max(float(np.abs(leverage).sum()), 1e-300)
        squares = float((residuals**2).sum()) + SHRINKAGE * weight**2 * spread
        error = math.sqrt(squares) / total
        if not error > abs(value) * 1e-12:
            return Figure(value, value, value)
        skewness = math.sqrt(size) * float((residuals**3).sum()) / squares**1.5
        kurtosis = size * float((residuals**4).sum()) / squares**2
        freedom = min(self.support.effective, size, 2 * size / max(kurtosis - 1, 1))
        bound = student(max(1, round(freedom) - 1))
        return Figure(
            value,
            value - error * _straightened(bound, skewness, size),
            value - error * _straightened(-bound, skewness, size),
        )


def _straightened(point: float, skewness: float, size: int) -> float:
    """Return the studentised mean that Hall's transformation maps to `point`.

    The transformation is g(T) = T + aT²/3 + a²T³/27 + a/6, where a is the skewness over the root of n. It is a
    cube and can be undone.
    """
    slant = skewness / math.sqrt(size)
    if abs(slant) < _FLAT:
        return point
    return 3 / slant * (math.cbrt(1 + slant * (point - slant / 6)) - 1)


class _Means:
    """The reward model: for every call, of the calls before it. Places are found once, for any outcome."""

    def __init__(self, sample: Sample, rows: Ints) -> None:
        size = len(sample.chosen)
        width = int(max(sample.chosen.max(initial=0), sample.arms.max(initial=0))) + 1
        places = sample.contexts * width
        times = np.arange(size)
        self._sample, self._rows, self._size, self._times = sample, rows, size, times
        cells, arms = places + sample.chosen, sample.chosen
        self._chosen = (_Before(cells, cells, times), _Before(arms, arms, times))
        self._target = (
            _Before(cells, places[rows] + sample.arms, rows),
            _Before(arms, sample.arms, rows),
        )

    def of(self, outcomes: Floats) -> tuple[Floats, Floats]:
        """Return for every call the expectation of what was chosen, and of the target's supported choices in sum."""
        before = np.concatenate([[0.0], np.cumsum(outcomes)])[:-1]
        overall = before / (self._times + SHRINKAGE)
        chosen = _drawn(self._chosen, outcomes, overall)
        target = _drawn(self._target, outcomes, overall[self._rows])
        return chosen, _by_row(self._rows, self._sample.shares * target, self._size)


class _Before:
    """Of the calls with a key that were made before a time: how many, and the sum of their outcomes."""

    def __init__(self, keys: Ints, wanted: Ints, times: Ints) -> None:
        size = len(keys)
        self._order = np.argsort(keys, kind="stable")
        placed = keys[self._order] * size + self._order
        self._first = np.searchsorted(placed, wanted * size)
        self._last = np.searchsorted(placed, wanted * size + times)

    def of(self, outcomes: Floats) -> tuple[Ints, Floats]:
        sums = np.concatenate([[0.0], np.cumsum(outcomes[self._order])])
        return self._last - self._first, sums[self._last] - sums[self._first]


def _drawn(places: tuple[_Before, _Before], outcomes: Floats, overall: Floats) -> Floats:
    """Return the means of the cells, drawn towards those of the arms, and these towards the mean over all."""
    for place in reversed(places):
        counts, sums = place.of(outcomes)
        overall = (sums + SHRINKAGE * overall) / (counts + SHRINKAGE)
    return overall


def _by_row(rows: Ints, values: Floats, size: int) -> Floats:
    # A count of nothing is one of whole numbers.
    return np.bincount(rows, values, size).astype(np.float64) if size else np.zeros(0)
