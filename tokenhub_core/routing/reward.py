"""What an attempt was worth, from 0 to 1. Pure.

    reward = 0                                                                         for a failed attempt
    reward = 0.3·(1 - min(cost/$0.10, 1)) + 0.3·(1 - min(time/horizon, 1)) + 0.4·1     for an answer

The horizon is the call's own `max_latency_ms`, at least a second, where it has one, else 20 s: with a second for
every call, the second term would be 0 for nearly every answer of a language model and teach nothing. Terms are
plain functions, so others can stand in their place; whatever they return is held within 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec

from tokenhub_core.errors import Blame
from tokenhub_core.types import NANO, Attempt, ProviderType, Record


class Facts(msgspec.Struct, frozen=True):
    """What a term may look at: an attempt that was answered."""

    cost_usd: float
    latency_ms: float
    max_latency_ms: float | None = None
    """The call's own limit, None where it had none."""


type Term = Callable[[Facts], float]

SHORTEST_MS: Final = 1_000.0
HORIZON_MS: Final = 20_000.0
DEAR_USD: Final = 0.10


def cheapness(facts: Facts) -> float:
    """Return 1 for a free answer, 0 for one of ten cents or more."""
    return 1 - min(facts.cost_usd / DEAR_USD, 1)


def quickness(facts: Facts) -> float:
    """Return 1 for an answer in no time, 0 for one at the horizon or later."""
    limit = facts.max_latency_ms
    return 1 - min(facts.latency_ms / (HORIZON_MS if limit is None else max(limit, SHORTEST_MS)), 1)


def success(_: Facts) -> float:
    """Return 1: it was answered."""
    return 1.0


DEFAULT: Final = ((0.3, cheapness), (0.3, quickness), (0.4, success))
"""Weights and terms."""


class Reward:
    """The weighted sum of terms; weights that do not add up to 1 are scaled so that they do."""

    def __init__(self, terms: tuple[tuple[float, Term], ...] = DEFAULT) -> None:
        total = math.fsum(weight for weight, _ in terms)
        if not terms or not total > 0 or any(weight < 0 for weight, _ in terms):
            raise ValueError("a reward needs terms with weights that are not negative and not all 0")
        self._terms = tuple((weight / total, term) for weight, term in terms)

    def of(self, attempt: Attempt, max_latency_ms: float | None) -> float | None:
        """Return what the attempt was worth, None where it says nothing of the candidate.

        It says nothing where the caller got something wrong or left, or where we failed ourselves. A first attempt
        that used up all of the call's time by itself is a failure all the same.
        """
        if attempt.cause:
            late = attempt.cause == "deadline" and attempt.n == 1
            theirs = attempt.blame in {Blame.PROVIDER.value, Blame.CREDENTIAL.value}
            return 0.0 if late or theirs else None
        facts = Facts(attempt.cost_nanousd / NANO, attempt.ended_ms - attempt.started_ms, max_latency_ms)
        return unit(math.fsum(weight * unit(term(facts)) for weight, term in self._terms))

    def lessons(self, record: Record) -> list[tuple[str, str, float]]:
        """Return model, provider and reward of every attempt that says something of its candidate."""
        plan = record.plan
        if plan is None:
            return []
        # Nobody explores the origin: it serves what was asked for by name, with a stranger's key.
        origins = {one.provider.id for one in plan.candidates if one.provider.type is ProviderType.ORIGIN}
        found = []
        for attempt in record.attempts:
            reward = self.of(attempt, plan.policy.max_latency_ms)
            if reward is not None and attempt.provider not in origins:
                found.append((attempt.model, attempt.provider, reward))
        return found


def unit(value: float) -> float:
    """Return the value within 0 and 1; what is no number is worth nothing."""
    return max(0.0, min(1.0, value)) if not math.isnan(value) else 0.0
