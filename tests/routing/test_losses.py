"""What a dialect cannot carry, as a cost and as a limit of routing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tokenhub_core.errors import Fault
from tokenhub_core.routing import scoring
from tokenhub_core.routing.eligibility import Circumstances, Wire
from tokenhub_core.routing.fleet import build
from tokenhub_core.routing.plan import plan
from tokenhub_core.types import (
    Dialect,
    Features,
    Mode,
    Model,
    Plan,
    Policy,
    Prices,
    Provider,
    ProviderType,
    Skipped,
)

CHAT, MESSAGES, GEMINI = Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES, Dialect.GEMINI
OWN = Provider("own", ProviderType.OPENAI, ("https://a.example",), CHAT, also=(Dialect.OPENAI_EMBEDDINGS,))
OTHER = Provider("other", ProviderType.ANTHROPIC, ("https://b.example",), MESSAGES)
THIRD = Provider("third", ProviderType.GEMINI, ("https://c.example",), GEMINI)
DEAR = Model("dear", "own", prices=Prices(1000, 1000))
CHEAP = Model("cheap", "other", prices=Prices(900, 900))
CHEAPEST = Model("cheapest", "third", prices=Prices(100, 100))
FINE = Circumstances({}, lambda _: True)
ASK = Features(model="", text_bytes=400)


class Translations:
    """Says what each dialect loses, and remembers whom it was asked for."""

    def __init__(self, **losses: tuple[str, ...]) -> None:
        self.losses = losses
        self.asked: list[Dialect] = []

    def __call__(self, dialect: Dialect) -> tuple[str, ...]:
        self.asked.append(dialect)
        return self.losses.get(dialect, ())


def planned(
    losses: Translations, policy: Policy | None = None, *, models: tuple[Model, ...] = (DEAR, CHEAP)
) -> Plan:
    fleet = build([OWN, OTHER, THIRD], models, version=1)
    wishes = policy or Policy(mode=Mode.CHEAP)
    result = plan(fleet, ASK, wishes, now=FINE, seed="s", wire=Wire(CHAT, losses))
    assert isinstance(result, Plan), result
    return result


def order(result: Plan) -> list[str]:
    return [candidate.model.id for candidate in result.candidates]


def test_a_lossless_candidate_is_preferred_to_a_slightly_better_lossy_one() -> None:
    """What is lost costs a part of the score, told apart from the other terms and named."""
    assert order(planned(Translations())) == ["cheap", "dear"]
    result = planned(Translations(anthropic_messages=("logprobs",)))
    assert order(result) == ["dear", "cheap"]
    lossy = result.candidates[1]
    assert (lossy.losses, lossy.terms.loss) == (("logprobs",), 0.1)
    assert lossy.score == scoring.total(lossy.terms)


def test_a_much_better_candidate_is_taken_with_its_losses() -> None:
    """A cost is no ban: a tenth of the price outweighs one setting."""
    result = planned(Translations(gemini=("logprobs",)), models=(DEAR, CHEAPEST))
    assert order(result) == ["cheapest", "dear"]
    assert result.candidates[0].losses == ("logprobs",)


def test_a_translation_is_tried_only_where_it_can_decide() -> None:
    """It costs time: the best candidate in the caller's own dialect ends the search."""
    losses = Translations(anthropic_messages=("a",))
    planned(losses, Policy(mode=Mode.CHEAP, model="dear"))
    assert losses.asked == []
    planned(losses, models=(DEAR, CHEAP, CHEAPEST))
    assert losses.asked == [GEMINI]


def test_a_policy_may_refuse_every_loss() -> None:
    """Then a lossy candidate is left out with its reason, and the last one gone is the caller's to know."""
    losses = Translations(anthropic_messages=("logprobs",))
    strict = Policy(mode=Mode.CHEAP, lossy=False)
    result = planned(losses, strict)
    assert order(result) == ["dear"]
    assert [(skip.model, skip.reason) for skip in result.skips] == [("cheap", Skipped.LOSSY)]
    fleet = build([OTHER], [CHEAP], version=1)
    refused = plan(fleet, ASK, strict, now=FINE, seed="s", wire=Wire(CHAT, losses))
    assert isinstance(refused, Fault)
    assert (refused.http_status, refused.cause) == (400, "lossy")


def test_vectors_are_asked_of_those_who_speak_of_them() -> None:
    """An embeddings call is never translated, whatever the scores."""
    wire = Wire(Dialect.OPENAI_EMBEDDINGS)
    fleet = build([OWN, OTHER], [DEAR, replace(CHEAP, id="dear")], version=1)
    result = plan(fleet, ASK, Policy(model="dear", fallback=False), now=FINE, seed="s", wire=wire)
    assert isinstance(result, Plan)
    assert [c.provider.id for c in result.candidates] == ["own"]
    assert result.candidates[0].dialect is Dialect.OPENAI_EMBEDDINGS


@pytest.mark.parametrize(("count", "cost"), [(0, 0.0), (1, 0.1), (2, 0.15), (5, 0.3), (50, 0.3)])
def test_the_cost_of_losses_is_bounded(count: int, cost: float) -> None:
    """The first one weighs most."""
    assert scoring.loss(("x",) * count) == pytest.approx(cost)
