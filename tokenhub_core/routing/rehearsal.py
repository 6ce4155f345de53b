"""What logged traffic would come to under another policy, beside what it came to. Pure.

Calls are taken in one by one, and of each only sums and a few numbers are kept, so the log may be longer than memory.

Three kinds of figures, of falling reach:

* **Choices** (models, exclusions, refusals, how many calls go elsewhere) are what `replay` decides. Exact.
* **Expectations** (cost, latency) are those that the decision itself goes by, for both policies with the same facts.
  As good as the estimates are; see docs/learning.md.
* **Estimates** of reward, cost, latency and success are made of what happened, by `offpolicy`. They hold for the
  first attempt of a call, for calls whose first choice was tried and tells something, and only where the policy that
  was followed could have chosen as the other one does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec import structs

from tokenhub_core.errors import Kind
from tokenhub_core.numeric import np
from tokenhub_core.routing import estimate, replay
from tokenhub_core.routing.bandit import Arm
from tokenhub_core.routing.experiment import Figure
from tokenhub_core.routing.offpolicy import FEWEST, FLOOR, Estimates, Evaluation, Gathering, Support
from tokenhub_core.routing.replay import Choice, Ground
from tokenhub_core.routing.reward import Reward
from tokenhub_core.types import NANO, Attempt, Expected, Features, Json, Skipped

REWARD: Final = "reward"
COST: Final = "cost_usd"
LATENCY: Final = "latency_ms"
ANSWERED: Final = "answered"
OUTCOMES: Final = (REWARD, ANSWERED, COST, LATENCY)

type _Sides[T] = tuple[dict[T, float], dict[T, float]]
"""Counts under the policy that was followed, and under the one that is rehearsed."""

_BOUNDS: Final = {REWARD: 1.0, ANSWERED: 1.0}
"""The largest that a mean can be; the least is 0 for all."""


_REWARD: Final = Reward()


class Deciding(Protocol):
    """Who decides logged calls once more: `replay.Today` or `replay.AsLogged`."""

    def choices(self, entry: Json) -> list[Choice]:
        """Return the ways that a logged call could go."""
        ...


class Pair[T](msgspec.Struct, frozen=True):
    """A figure of the policy that was followed and of the one that is rehearsed."""

    logged: T
    rehearsed: T


class Share(msgspec.Struct, frozen=True):
    """How many calls had a model as their first choice. A policy that draws has fractions of calls."""

    model: str
    provider: str
    logged: float
    rehearsed: float


class Count(msgspec.Struct, frozen=True):
    """How often something was so."""

    reason: str
    logged: float
    rehearsed: float


class Report(msgspec.Struct, frozen=True):
    """What a rehearsal came to. Counts are of calls where nothing else is said."""

    calls: int
    """That could be decided again."""
    unreadable: int
    """Whose decision was recorded in another version, or not at all."""
    differently: float
    """Whose first choice is another one, refusals included."""
    refused: Pair[float]
    """For whom nobody could serve."""
    compared: float
    """Calls that both policies serve; what is expected is the mean of these."""
    cost_usd: Pair[float] | None
    latency_ms: Pair[float] | None
    mix: tuple[Share, ...]
    exclusions: tuple[Count, ...]
    """By reason, how many models were left out, in sum over calls."""
    refusals: tuple[Count, ...]
    observed: int
    """Calls whose first attempt tells something: what the estimates are made of."""
    unobserved: Mapping[str, int]
    """Why the others tell nothing."""
    support: Support
    changed: float
    """Observed calls that go elsewhere."""
    changed_overlap: float
    """The share of those choices that the policy that was followed could have made."""
    refusal: str
    """Why there are no estimates; empty where there are."""
    estimates: Mapping[str, Estimates]


class Rehearsal:
    """Takes in logged calls and adds up what they come to."""

    def __init__(self, deciding: Deciding, *, ground: Ground | None = None, reward: Reward = _REWARD) -> None:
        self._deciding = deciding
        self._ground = ground
        self._reward = reward
        self._calls = self._unreadable = 0
        self._differently = self._compared = self._changed = self._changed_overlap = 0.0
        self._refused = [0.0, 0.0]
        self._expected = {name: [0.0, 0.0] for name in (COST, LATENCY)}
        self._mix: _Sides[Arm] = ({}, {})
        self._excluded: _Sides[str] = ({}, {})
        self._refusals: _Sides[str] = ({}, {})
        self._unobserved: Counter[str] = Counter()
        self._gathering = Gathering()
        self._outcomes: dict[str, list[float]] = {name: [] for name in OUTCOMES}

    def add(self, entry: Json) -> None:
        """Decide a call once more and count it. `entry` is a row of `RequestLog.decided`."""
        decision = entry["decision"]
        if not replay.readable(decision):
            self._unreadable += 1
            return
        self._calls += 1
        choices = self._deciding.choices(entry)
        target: dict[Arm, float] = {}
        for choice in choices:
            for arm, share in choice.arms().items():
                target[arm] = target.get(arm, 0.0) + share
            self._leave_out(choice)
        first = _first(decision)
        for skip in decision["skips"]:
            _count(self._excluded[0], skip["reason"], 1.0)
        if first is None:
            self._refused[0] += 1
            _count(self._refusals[0], entry["error_class"] or "refused", 1.0)
        else:
            _count(self._mix[0], first, 1.0)
        served = min(1.0, sum(target.values()))
        same = target.get(first, 0.0) if first else 1.0 - served
        self._refused[1] += 1.0 - served
        self._differently += max(0.0, 1.0 - same)
        for arm, share in target.items():
            _count(self._mix[1], arm, share)
        if first is not None:
            self._expect(entry, choices, first)
            self._observe(entry, first, target, same)

    def _leave_out(self, choice: Choice) -> None:
        if choice.plan is not None:
            for skip in choice.plan.skips:
                _count(self._excluded[1], skip.reason.value, choice.share)
        if choice.fault is not None or choice.plan is None or not choice.plan.candidates:
            why = choice.fault.label if choice.fault else Kind.NO_CANDIDATE.value
            _count(self._refusals[1], why, choice.share)

    def _expect(self, entry: Json, choices: Sequence[Choice], first: Arm) -> None:
        """Add what the call is expected to be under both policies, by the same facts."""
        before: Expected | None = None
        for choice in choices:
            if choice.plan is None or not choice.plan.candidates:
                continue
            by_arm = {replay.arm_of(one): one.expected for one in choice.plan.candidates}
            for arm, share in choice.arms().items():
                self._expected[COST][1] += share * by_arm[arm].nanousd / NANO
                self._expected[LATENCY][1] += share * by_arm[arm].latency_ms
                self._compared += share
                if before is None:
                    before = by_arm.get(first) or self._afresh(entry, first)
                self._expected[COST][0] += share * before.nanousd / NANO
                self._expected[LATENCY][0] += share * before.latency_ms

    def _afresh(self, entry: Json, arm: Arm) -> Expected:
        """Return what is expected of a choice that the policy rules out: by today's facts where these are used."""
        decision = entry["decision"]
        recorded = msgspec.convert(decision["candidates"][0]["expected"], Expected)
        if self._ground is None:
            return recorded
        view, now = self._ground.view, self._ground.now
        for model in view.by_id.get(arm[0], ()):
            if model.provider_id == arm[1]:
                features = msgspec.convert(decision["asked"], Features)
                found = estimate.expected(
                    features, model, view.providers[arm[1]], now.estimates, entry["program"]
                )
                standing = now.standings.get(arm[1])
                late = standing.latency_ms if standing else recorded.latency_ms
                return found if found.latency_ms else structs.replace(found, latency_ms=late)
        return recorded

    def _observe(self, entry: Json, first: Arm, target: Mapping[Arm, float], same: float) -> None:
        """Take in what came of the call, where that says something of its first choice."""
        decision = entry["decision"]
        attempt, why = _tried(entry["attempts"], first)
        limit = decision["policy"]["max_latency_ms"]
        reward = None if attempt is None else self._reward.of(attempt, limit)
        if attempt is None or reward is None:
            self._unobserved[why or _BLAMELESS] += 1
            return
        chances = replay.logged(decision)
        self._gathering.add(decision["context"], first, propensities=chances, target=target)
        values = (
            reward,
            float(not attempt.cause),
            attempt.cost_nanousd / NANO,
            attempt.ended_ms - attempt.started_ms,
        )
        for name, value in zip(OUTCOMES, values, strict=True):
            self._outcomes[name].append(value)
        self._changed += max(0.0, 1.0 - same)
        self._changed_overlap += sum(
            share for arm, share in target.items() if arm != first and chances.get(arm, 0.0) >= FLOOR
        )

    def report(self, *, clip: float = float("inf")) -> Report:
        """Return what all calls that were taken in come to."""
        evaluation = Evaluation(self._gathering.sample(), clip=clip)
        found = {name: evaluation.of(np.array(values)) for name, values in self._outcomes.items()}
        return Report(
            calls=self._calls,
            unreadable=self._unreadable,
            differently=self._differently,
            refused=Pair(*self._refused),
            compared=self._compared,
            cost_usd=self._mean(COST),
            latency_ms=self._mean(LATENCY),
            mix=tuple(
                Share(*arm, *(side.get(arm, 0.0) for side in self._mix))
                for arm in sorted({*self._mix[0], *self._mix[1]}, key=self._rank)
            ),
            exclusions=_counts(self._excluded),
            refusals=_counts(self._refusals),
            observed=evaluation.support.calls,
            unobserved=dict(self._unobserved.most_common()),
            support=evaluation.support,
            changed=self._changed,
            changed_overlap=self._changed_overlap / self._changed if self._changed else 0.0,
            refusal=evaluation.refusal,
            estimates={name: _held(one, _BOUNDS.get(name)) for name, one in found.items() if one is not None},
        )

    def _rank(self, arm: Arm) -> tuple[float, float, Arm]:
        return -self._mix[0].get(arm, 0.0), -self._mix[1].get(arm, 0.0), arm

    def _mean(self, name: str) -> Pair[float] | None:
        if not self._compared:
            return None
        return Pair(*(value / self._compared for value in self._expected[name]))


def sentences(told: Report) -> list[str]:
    """Return in plain words what can be said of the policy, and what cannot."""
    if not told.calls:
        return ["There is no call here that could be decided again."]
    share = told.differently / told.calls
    said = [f"{told.differently:,.0f} of {told.calls:,} calls would be decided differently ({share:.1%})."]
    if told.differently < 0.5:
        said.append("The policy changes nothing for this traffic.")
    if told.refusal:
        said.append(f"What it would be worth cannot be said: {told.refusal}.")
    elif told.changed >= 0.5:
        said.append(
            f"The estimates hold for the first attempt of calls like these, where both policies could have chosen"
            f" alike: {told.support.overlap:.1%} of the choices."
        )
    if told.changed >= 0.5 and told.changed_overlap < 0.005:
        said.append(
            "None of the changed choices was ever possible in the log, so nothing that happened speaks of them."
            " Exploring, or a weighted alias that is sticky by request, makes such choices now and then."
        )
    elif told.changed >= 0.5 and told.changed_overlap < 0.995:
        said.append(f"Of the changed choices the log can speak of {told.changed_overlap:.1%}.")
    if not told.refusal and REWARD in told.estimates and told.changed >= 0.5:
        said.append(_verdict(told.estimates[REWARD].difference))
    if not told.refusal and told.support.effective < 4 * FEWEST:
        said.append(
            f"With an effective sample of {told.support.effective:.0f} calls the intervals are held a little less"
            " often than in 95 of 100 cases."
        )
    if told.support.clipped:
        said.append(f"{told.support.clipped} weights were clipped: the estimates lean towards nothing.")
    return said


def _verdict(difference: Figure) -> str:
    low, high = difference.low or 0.0, difference.high or 0.0
    if low > 0:
        return f"There the mean reward is higher, by {difference.value:.3f} ({low:.3f} to {high:.3f})."
    if high < 0:
        return f"There the mean reward is lower, by {-difference.value:.3f} ({-high:.3f} to {-low:.3f})."
    return f"There no difference in reward is shown: {difference.value:+.3f} ({low:+.3f} to {high:+.3f})."


_BLAMELESS: Final = "the caller left or was to blame"
_UNTRIED: Final = "the first choice was not tried"
_OLDER: Final = "recorded before blame was"


def _first(decision: Json) -> Arm | None:
    rows = decision["candidates"]
    return (rows[0]["model"], rows[0]["provider"]) if rows else None


def _tried(attempts: Sequence[Json], first: Arm) -> tuple[Attempt | None, str]:
    """Return the first attempt where it was made at the first choice, else why it says nothing."""
    if not attempts or (attempts[0]["model"], attempts[0]["provider"]) != first:
        return None, _UNTRIED
    told: Mapping[str, Any] = attempts[0]
    if "blame" not in told:
        return None, _OLDER
    if told["started_ms"] is None or told["ended_ms"] is None:
        return None, _UNTRIED
    return (
        Attempt(
            told["n"],
            *first,
            told["started_ms"],
            told["ended_ms"],
            cause=told["cause"],
            blame=told["blame"],
            cost_nanousd=told["cost_nanousd"],
        ),
        "",
    )


def _count[T](counts: dict[T, float], name: T, share: float) -> None:
    counts[name] = counts.get(name, 0.0) + share


def _counts(sides: _Sides[str]) -> tuple[Count, ...]:
    order = [reason.value for reason in Skipped]
    names = sorted(
        {*sides[0], *sides[1]}, key=lambda name: (order.index(name) if name in order else len(order), name)
    )
    return tuple(Count(name, *(side.get(name, 0.0) for side in sides)) for name in names)


def _held(estimates: Estimates, most: float | None) -> Estimates:
    """Return the estimates with intervals within what a mean can be; the points stay where they are."""
    held: dict[str, Figure] = {}
    for name in ("logged", "ips", "snips", "dr"):
        one: Figure = getattr(estimates, name)
        low, high = max(0.0, one.low or 0.0), one.high
        held[name] = Figure(one.value, low, high if most is None or high is None else min(high, most))
    return structs.replace(estimates, **held)
