"""A logged call decided once more: the same where nothing changed, and what a policy changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from tests.routing.entries import entry
from tests.routing.fleets import Scene, scenes
from tests.routing.test_recompute import decided, same
from tokenhub_core import policy
from tokenhub_core.policy import Layer
from tokenhub_core.routing import aliases, replay
from tokenhub_core.routing.bandit import EVERYWHERE, STILL, Bandit, Explorer, Kept
from tokenhub_core.routing.eligibility import Circumstances, Wire
from tokenhub_core.routing.fleet import build
from tokenhub_core.routing.plan import decide
from tokenhub_core.routing.replay import AsLogged, Ground, Today, Wish
from tokenhub_core.types import (
    Alias,
    Dialect,
    Features,
    Fleet,
    Json,
    Mode,
    Model,
    Plan,
    Policy,
    Prices,
    Provider,
    ProviderType,
    Skipped,
    Standing,
    Sticky,
    Strategy,
    Target,
)

P = Provider("p", ProviderType.OPENAI, ("https://p.example",))
MODELS = [
    Model("cheap", "p", weight=2, prices=Prices(100, 300)),
    Model("middle", "p", weight=5, prices=Prices(1_000, 3_000)),
    Model("dear", "p", weight=9, prices=Prices(10_000, 30_000)),
]
FLEET = build([P], MODELS, version=1)
SEEN = {"p": Standing(latency_ms=400.0)}
NORMAL: Mapping[str, Any] = {"mode": Mode.NORMAL}


def ground(view: Fleet = FLEET, explorer: Explorer = STILL, **defaults: Any) -> Ground:
    now = Circumstances(SEEN, lambda _: True, explorer=explorer, at=1.8e9)
    return Ground(view, Layer("default", {**NORMAL, **defaults}), now, lambda host, name, dialect: None)


def logged(
    view: Fleet = FLEET,
    *,
    asked: str = "*",
    directive: Mapping[str, Any] | None = None,
    explorer: Explorer = STILL,
    seed: str = "req",
    **defaults: Any,
) -> Json:
    """Decide a call as the pipeline does, and return its row."""
    wishes = policy.for_call(Layer("default", {**NORMAL, **defaults}), asked, directive or {})
    meant = aliases.applied(wishes, view, aliases.Asking(seed))
    now = Circumstances(SEEN, lambda _: True, explorer=explorer, at=1.8e9)
    features = Features(asked, text_bytes=4_000)
    features, wishes = policy.framed(Dialect.OPENAI_CHAT, features, meant.policy)
    plan, _ = decide(view, features, wishes, now=now, seed=seed)
    plan = Plan(**{name: getattr(plan, name) for name in plan.__struct_fields__} | {"chances": meant.chances})
    return entry(plan, alias=meant.alias)


def models(choices: list[replay.Choice]) -> dict[str, float]:
    """Return the probability of each model to be first, to nine digits."""
    found: dict[str, float] = {}
    for choice in choices:
        for (model, _), share in choice.arms().items():
            found[model] = found.get(model, 0.0) + share
    return {model: round(share, 9) for model, share in found.items()}


# --- nothing changed ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_the_policy_of_then_gives_the_plan_of_then(scene: Scene) -> None:
    """As logged, whatever the fleet and the call: the same order and the same scores, to the last bit."""
    plan = decided(scene)
    (choice,) = AsLogged(Wish()).choices(entry(plan))
    assert choice.plan is not None
    same(choice.plan, plan)


@settings(max_examples=60, deadline=None)
@given(scenes())
def test_the_facts_of_then_give_the_plan_of_then(scene: Scene) -> None:
    """Today's facts are those of then: the engine's own decision comes out again."""
    names = ("mode", "min_weight", "max_budget_usd", "fallback", "lossy", "tags")
    defaults = Layer("default", {name: getattr(scene.policy, name) for name in names})
    wishes = policy.for_call(defaults, scene.features.model, {})
    features, wishes = policy.framed(scene.wire.dialect, scene.features, wishes)
    plan, _ = decide(
        scene.view,
        features,
        wishes,
        now=scene.now,
        seed=scene.seed,
        wire=scene.wire,
        origin=scene.origin,
    )
    if not wishes.lossy:
        return  # what a dialect loses is known of candidates only
    facts = Ground(scene.view, defaults, scene.now, lambda host, name, dialect: scene.origin)
    row = entry(plan, origin_host="h" if scene.origin else "")
    (choice,) = Today(facts, Wish()).choices(row)
    again = choice.plan
    assert again is not None
    firsts = [[(one.model.id, one.provider.id) for one in each.candidates[:1]] for each in (again, plan)]
    assert firsts[0] == firsts[1]
    assert {(skip.model, skip.reason) for skip in again.skips} == {
        (skip.model, skip.reason) for skip in plan.skips
    }


# --- what a policy changes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["today", "as logged"])
@pytest.mark.parametrize(
    ("wish", "first"),
    [
        (Wish({"mode": Mode.CHEAP}), "cheap"),
        (Wish({"mode": Mode.HIGH_CONFIDENCE}), "dear"),
        (Wish({"mode": Mode.CHEAP, "min_weight": 5}), "middle"),
        (Wish({"mode": Mode.HIGH_CONFIDENCE, "max_budget_usd": 0.01}), "middle"),
        (Wish(model="dear"), "dear"),
    ],
)
def test_a_policy_decides_logged_calls(way: str, wish: Wish, first: str) -> None:
    """Modes, weights, budgets and names do what they would do."""
    deciding = AsLogged(wish) if way == "as logged" else Today(ground(), wish)
    assert models(deciding.choices(logged())) == {first: 1.0}


def test_limits_of_the_policy_are_told_as_exclusions() -> None:
    """As logged too: each by its own reason, in the order in which they are checked."""
    wish = Wish({"min_weight": 5, "max_budget_usd": 0.01})
    (choice,) = AsLogged(wish).choices(logged())
    assert choice.plan is not None
    assert {(skip.model, skip.reason) for skip in choice.plan.skips} == {
        ("cheap", Skipped.WEIGHT_BELOW_MINIMUM),
        ("dear", Skipped.BUDGET_EXCEEDED),
    }
    nobody = AsLogged(Wish({"min_weight": 10})).choices(logged())
    assert models(nobody) == {}


def test_what_callers_wished_for_stays() -> None:
    """A directive's mode and a name that was asked for come before the operator's defaults."""
    wish = Wish({"mode": Mode.CHEAP})
    for deciding in (AsLogged(wish), Today(ground(), wish)):
        assert models(deciding.choices(logged(directive={"mode": Mode.HIGH_CONFIDENCE}))) == {"dear": 1.0}
        assert models(deciding.choices(logged(asked="middle"))) == {"middle": 1.0}


def test_a_name_can_be_taken_from_every_call() -> None:
    """`*` leaves calls that named a model to the router."""
    wish = Wish({"mode": Mode.CHEAP}, model="*")
    for deciding in (AsLogged(wish), Today(ground(), wish)):
        assert models(deciding.choices(logged(asked="dear"))) == {"cheap": 1.0}


def test_the_answer_of_one_model_is_no_others() -> None:
    """Embeddings keep their model, whatever the policy says of names."""
    both = replace(P, also=(Dialect.OPENAI_EMBEDDINGS,))
    view = build([both], MODELS, version=1)
    asked = Policy(model="dear", fallback=False, why={"model": "request"})
    wire = Wire(Dialect.OPENAI_EMBEDDINGS)
    plan, _ = decide(view, Features("dear"), asked, now=ground().now, seed="s", wire=wire)
    for deciding in (AsLogged(Wish(model="*")), Today(ground(view), Wish(model="*"))):
        assert models(deciding.choices(entry(plan))) == {"dear": 1.0}


def test_a_model_that_came_since_is_a_candidate_today_and_not_then() -> None:
    """Today's fleet is today's."""
    more = build([P], [*MODELS, Model("new", "p", weight=9, prices=Prices(1, 1))], version=2)
    wish = Wish({"mode": Mode.CHEAP})
    assert models(Today(ground(more), wish).choices(logged())) == {"new": 1.0}
    assert models(AsLogged(wish).choices(logged())) == {"cheap": 1.0}


def test_a_call_that_nobody_could_serve_today_is_refused() -> None:
    """With the reason that its caller would be told."""
    (choice,) = Today(ground(), Wish({"max_budget_usd": 0.0})).choices(logged())
    assert choice.arms() == {}
    assert choice.fault is not None
    assert choice.fault.label == "budget_exceeded"


# --- chance ------------------------------------------------------------------------------------------------


def knowing() -> Bandit:
    return Bandit(
        Kept(name, "p", place, won, 5.0, 1, 1_800_000_000_000_000)
        for name, won in (("cheap", 3.0), ("middle", 6.0), ("dear", 4.0))
        for place in ("medium", EVERYWHERE)
    )


def test_the_propensities_of_a_drawn_order_are_the_recorded_ones() -> None:
    """Of all candidates, adding up to 1; the policy that drew is worth its own probabilities again."""
    row = logged(explorer=knowing())
    chances = replay.logged(row["decision"])
    assert set(chances) == {(name, "p") for name in ("cheap", "middle", "dear")}
    assert sum(chances.values()) == pytest.approx(1)
    by_model = {model: round(share, 9) for (model, _), share in chances.items()}
    assert models(Today(ground(explorer=knowing()), Wish()).choices(row)) == by_model
    assert models(AsLogged(Wish()).choices(row)) == by_model


def test_those_who_are_left_share_the_chances_of_those_who_are_not() -> None:
    """A stricter limit on a drawn order makes new propensities, not smaller ones."""
    (choice,) = AsLogged(Wish({"min_weight": 5})).choices(logged(explorer=knowing()))
    found = choice.arms()
    assert set(found) == {("middle", "p"), ("dear", "p")}
    assert sum(found.values()) == pytest.approx(1)


def test_exploring_can_be_rehearsed_off() -> None:
    """Then the scores make the order, in a call whose order was drawn too."""
    row = logged(explorer=knowing(), seed="x")
    wish = Wish({"mode": Mode.CHEAP}, explore="off")
    assert models(AsLogged(wish).choices(row)) == {"cheap": 1.0}


def aliased(*targets: Target, sticky: Sticky = Sticky.REQUEST) -> Fleet:
    return build([P], MODELS, version=1, aliases=[Alias("fast", targets, Strategy.WEIGHTED, sticky)])


def test_the_shares_of_a_weighted_alias_are_its_propensities() -> None:
    """Recorded with each decision, so that a weight that is changed later changes no propensity."""
    view = aliased(Target("cheap", 3), Target("dear", 1))
    for seed in "abcdef":
        row = logged(view, asked="fast", seed=seed)
        assert row["decision"]["chances"] == {"cheap": 0.75, "dear": 0.25}
        assert replay.logged(row["decision"]) == {("cheap", "p"): 0.75, ("dear", "p"): 0.25}


def test_what_is_sticky_was_bound_to_be() -> None:
    """A caller's or a conversation's target is no chance of the call."""
    row = logged(aliased(Target("cheap", 1), Target("dear", 1), sticky=Sticky.KEY), asked="fast")
    assert "chances" not in row["decision"]
    assert set(replay.logged(row["decision"]).values()) == {1.0}


def test_the_draw_of_the_log_does_not_decide_again() -> None:
    """The same alias with other weights: each target counts with its share, whichever the call had drawn."""
    view = aliased(Target("cheap", 1), Target("dear", 1))
    weights = Alias("fast", (Target("cheap", 1), Target("dear", 4)))
    for seed in "abcdef":
        row = logged(view, asked="fast", seed=seed)
        found = models(Today(ground(view), Wish(aliases=(weights,))).choices(row))
        assert found == {"cheap": 0.2, "dear": 0.8}


def test_an_alias_can_be_tried_out_before_it_exists() -> None:
    """Under the name of a model that programs ask for without its being registered, and for `*`."""
    star = Alias("*", (Target("middle", 1),))
    assert models(Today(ground(), Wish(aliases=(star,))).choices(logged())) == {"middle": 1.0}
    pool = Alias("*", (Target("d*"),), Strategy.POOL)
    assert models(Today(ground(), Wish(aliases=(pool,))).choices(logged())) == {"dear": 1.0}
