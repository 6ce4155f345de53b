"""The multi-objective score. Lower is better.

    score = Wc·cost/max cost + Wl·latency/max latency + Wf·errors/max errors - Ww·weight/max weight + losses

The maxima are taken over the options at hand; a ratio whose maximum is 0 counts 0. Cost is what the call is expected
to cost, latency the time to the end of the answer that was learned of the model at this provider, or where nothing
was the provider's moving average; errors are its share of failures in the window, weight the model's 0..10.
Losses are what of the call the provider's dialect cannot carry: 0.1 for the first, 0.05 for each further one, at
most 0.3, in every mode alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Final

from tokenhub_core.routing.eligibility import UNKNOWN_PRICE, Option
from tokenhub_core.types import Expected, Facts, Mode, Standing, Terms

WEIGHTS: Final[Mapping[Mode, Terms]] = {
    Mode.CHEAP: Terms(0.70, 0.10, 0.10, 0.10),
    Mode.NORMAL: Terms(0.25, 0.25, 0.25, 0.25),
    Mode.HIGH_CONFIDENCE: Terms(0.05, 0.10, 0.15, 0.70),
    Mode.PLANNING: Terms(0.10, 0.10, 0.20, 0.60),
    Mode.ADVERSARIAL: Terms(0.10, 0.10, 0.20, 0.60),
}

_FINE: Final = Standing()


def score(
    options: Sequence[Option],
    mode: Mode,
    standings: Mapping[str, Standing],
    outlook: Sequence[Expected] = (),
) -> list[Terms]:
    """Return each option's weighted terms, in the order of `options`; their sum is its score."""
    return weighed(facts(options, standings, outlook), WEIGHTS[mode])


def facts(
    options: Sequence[Option], standings: Mapping[str, Standing], outlook: Sequence[Expected] = ()
) -> list[Facts]:
    """Return what the scores of these options are made of.

    `outlook` is what is expected of each; without it the options' own costs and the providers' averages count.
    """
    found = []
    for (model, provider, cost), one in zip_longest(options, outlook):
        seen = standings.get(provider.id, _FINE)
        price = cost if one is None else one.nanousd
        found.append(
            Facts(
                None if model.pricing_source == UNKNOWN_PRICE else price,
                seen.latency_ms if one is None else one.latency_ms,
                seen.error_rate,
                model.weight,
            )
        )
    return found


def weighed(known: Sequence[Facts], weights: Terms) -> list[Terms]:
    """Return the terms of options with these facts, in their order."""
    top_cost = max((fact.cost for fact in known if fact.cost is not None), default=0)
    top_latency = max((fact.latency_ms for fact in known), default=0.0)
    top_error = max((fact.error_rate for fact in known), default=0.0)
    top_weight = max((fact.weight for fact in known), default=0)
    return [
        Terms(
            cost=weights.cost * _ratio(top_cost if fact.cost is None else fact.cost, top_cost),
            latency=weights.latency * _ratio(fact.latency_ms, top_latency),
            failure=weights.failure * _ratio(fact.error_rate, top_error),
            weight=-weights.weight * _ratio(fact.weight, top_weight),
        )
        for fact in known
    ]


def total(terms: Terms) -> float:
    """Return the score of these terms."""
    return terms.cost + terms.latency + terms.failure + terms.weight + terms.loss


def loss(losses: Sequence[str]) -> float:
    """Return the term of what a dialect cannot carry."""
    return min(0.05 + 0.05 * len(losses), 0.3) if losses else 0.0


def _ratio(value: float, top: float) -> float:
    return value / top if top > 0 else 0.0
