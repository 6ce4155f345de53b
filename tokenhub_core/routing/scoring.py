"""The multi-objective score. Lower is better.

    score = Wc·cost/max cost + Wl·latency/max latency + Wf·errors/max errors - Ww·weight/max weight + losses

The maxima are taken over the options at hand; a ratio whose maximum is 0 counts 0. Cost is the call's estimate,
latency the provider's moving average, errors its share of failures in the window, weight the model's 0..10.
Losses are what of the call the provider's dialect cannot carry: 0.1 for the first, 0.05 for each further one, at
most 0.3, in every mode alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from tokenhub_core.routing.eligibility import UNKNOWN_PRICE, Option
from tokenhub_core.types import Mode, Standing, Terms

WEIGHTS: Final[Mapping[Mode, Terms]] = {
    Mode.CHEAP: Terms(0.70, 0.10, 0.10, 0.10),
    Mode.NORMAL: Terms(0.25, 0.25, 0.25, 0.25),
    Mode.HIGH_CONFIDENCE: Terms(0.05, 0.10, 0.15, 0.70),
    Mode.PLANNING: Terms(0.10, 0.10, 0.20, 0.60),
    Mode.ADVERSARIAL: Terms(0.10, 0.10, 0.20, 0.60),
}

_FINE: Final = Standing()


def score(options: Sequence[Option], mode: Mode, standings: Mapping[str, Standing]) -> list[Terms]:
    """Return each option's four weighted terms, in the order of `options`; their sum is its score."""
    weights = WEIGHTS[mode]
    known = [cost for model, _, cost in options if model.pricing_source != UNKNOWN_PRICE]
    top_cost = max(known, default=0)
    costs = [top_cost if model.pricing_source == UNKNOWN_PRICE else cost for model, _, cost in options]
    seen = [standings.get(provider.id, _FINE) for _, provider, _ in options]
    top_latency = max((s.latency_ms for s in seen), default=0.0)
    top_error = max((s.error_rate for s in seen), default=0.0)
    top_weight = max((model.weight for model, _, _ in options), default=0)
    return [
        Terms(
            cost=weights.cost * _ratio(cost, top_cost),
            latency=weights.latency * _ratio(standing.latency_ms, top_latency),
            failure=weights.failure * _ratio(standing.error_rate, top_error),
            weight=-weights.weight * _ratio(model.weight, top_weight),
        )
        for (model, _, _), cost, standing in zip(options, costs, seen, strict=True)
    ]


def total(terms: Terms) -> float:
    """Return the score of these terms."""
    return terms.cost + terms.latency + terms.failure + terms.weight + terms.loss


def loss(losses: Sequence[str]) -> float:
    """Return the term of what a dialect cannot carry."""
    return min(0.05 + 0.05 * len(losses), 0.3) if losses else 0.0


def _ratio(value: float, top: float) -> float:
    return value / top if top > 0 else 0.0
