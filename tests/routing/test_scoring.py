"""The score."""

from __future__ import annotations

import pytest

from tokenhub_core.routing.eligibility import UNKNOWN_PRICE
from tokenhub_core.routing.scoring import score, total
from tokenhub_core.types import Mode, Model, Provider, ProviderType, Standing

CHEAP = (Model("cheap", "p", weight=2), Provider("p", ProviderType.OPENAI, ()), 10)
DEAR = (Model("dear", "q", weight=8), Provider("q", ProviderType.OPENAI, ()), 40)
STANDINGS = {"p": Standing(error_rate=0.1, latency_ms=500), "q": Standing(error_rate=0.2, latency_ms=250)}


def test_the_score_is_the_weighted_sum_over_the_options_maxima() -> None:
    """Worked by hand for `normal`: a quarter of each ratio, the weight's subtracted."""
    cheap, dear = score([CHEAP, DEAR], Mode.NORMAL, STANDINGS)
    assert total(cheap) == pytest.approx(0.25 * (10 / 40) + 0.25 * 1 + 0.25 * 0.5 - 0.25 * (2 / 8))
    assert total(dear) == pytest.approx(0.25 + 0.25 * 0.5 + 0.25 - 0.25)


@pytest.mark.parametrize(
    ("mode", "best"),
    [(Mode.CHEAP, 0), (Mode.HIGH_CONFIDENCE, 1), (Mode.PLANNING, 1), (Mode.ADVERSARIAL, 1)],
)
def test_modes_prefer_what_they_are_for(mode: Mode, best: int) -> None:
    """Cheap takes the cheap model, the others the weighty one."""
    scores = [total(terms) for terms in score([CHEAP, DEAR], mode, STANDINGS)]
    assert scores.index(min(scores)) == best


def test_a_maximum_of_zero_counts_nothing() -> None:
    """Free models at providers without history score 0 for cost, latency and errors."""
    free = (Model("free", "p", weight=0), CHEAP[1], 0)
    terms = score([free], Mode.NORMAL, {})[0]
    assert (terms.cost, terms.latency, terms.failure, terms.weight) == (0, 0, 0, 0)


def test_an_unknown_price_is_scored_as_the_dearest() -> None:
    """Nobody told us what it costs: it must not win as if it were free."""
    unknown = (Model("u", "p", weight=2, pricing_source=UNKNOWN_PRICE), CHEAP[1], 0)
    terms = score([CHEAP, DEAR, unknown], Mode.CHEAP, STANDINGS)
    assert terms[2].cost == terms[1].cost > terms[0].cost
