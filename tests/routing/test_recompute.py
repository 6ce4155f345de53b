"""A recorded decision gives the same plan again, to the last bit of every score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.routing.fleets import Scene, scenes
from tokenhub_core.routing import decision, pricing
from tokenhub_core.routing.bandit import Bandit
from tokenhub_core.routing.eligibility import Circumstances
from tokenhub_core.routing.fleet import build
from tokenhub_core.routing.plan import decide
from tokenhub_core.routing.recompute import recompute
from tokenhub_core.store.rows import dumps
from tokenhub_core.types import (
    Candidate,
    Features,
    Json,
    Model,
    Plan,
    Policy,
    Prices,
    Provider,
    ProviderType,
    Skip,
    Skipped,
    Standing,
    Usage,
)

P = Provider("p", ProviderType.OPENAI, ("https://p.example",))
Q = Provider("q", ProviderType.OPENAI, ("https://q.example",))
FLEET = build(
    [P, Q], [Model("m", "p", prices=Prices(100, 300)), Model("n", "q", prices=Prices(1, 3))], version=4
)
SEEN = {"p": Standing(error_rate=0.25, latency_ms=321.5), "q": Standing(latency_ms=1 / 3)}


def decided(scene: Scene) -> Plan:
    return decide(
        scene.view,
        scene.features,
        scene.policy,
        now=scene.now,
        seed=scene.seed,
        wire=scene.wire,
        origin=scene.origin,
    )[0]


def stored(plan: Plan) -> Json:
    """Return the decision as it comes back from the store."""
    return decision.unpack(orjson.loads(dumps(decision.pack(plan))))


def bits(candidate: Candidate) -> tuple[Any, ...]:
    """Return what must be the same: no approximation, floats are compared as they are."""
    return (
        candidate.model.id,
        candidate.provider.id,
        candidate.score.hex(),
        candidate.terms,
        candidate.facts,
        candidate.losses,
        candidate.dialect,
        candidate.pinned,
        candidate.estimated_nanousd,
        candidate.expected,
        candidate.standing,
        candidate.draw,
    )


def same(again: Plan, plan: Plan) -> None:
    assert [bits(one) for one in again.candidates] == [bits(one) for one in plan.candidates]
    assert [bits(one) for one in again.spared] == [bits(one) for one in plan.spared]
    assert sorted(again.skips, key=repr) == sorted(plan.skips, key=repr)
    kept = ("reason", "lone", "input_tokens", "output_tokens", "features", "dialect", "seed", "origin")
    assert [getattr(again, name) for name in kept] == [getattr(plan, name) for name in kept]
    assert again.bond == plan.bond
    schema: Json | None = None if plan.policy.output_schema is None else {}
    assert again.policy == structs.replace(plan.policy, output_schema=schema)


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_every_decision_can_be_made_again_from_its_record(scene: Scene) -> None:
    """Whatever the fleet, its health, the call and the policy: same order, same scores, same reason."""
    plan = decided(scene)
    same(recompute(stored(plan)), plan)


@settings(max_examples=40, deadline=None)
@given(scenes(), st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1)), max_size=20))
def test_a_drawn_order_can_be_made_again(scene: Scene, rewards: list[tuple[str, float]]) -> None:
    """The values are drawn again from the recorded distributions and the seed."""
    bandit = Bandit()
    for name, reward in rewards:
        bandit.reward((name, "p0"), "small", reward, 1.0)
    now = structs.replace(scene.now, explorer=bandit, at=2.0)
    plan = decided(replace(scene, now=now, policy=structs.replace(scene.policy, model=None), origin=None))
    locked = plan.bond is not None and plan.bond.lock
    assert plan.lone or all((one.draw is None) == bool(locked) for one in plan.candidates)
    same(recompute(stored(plan)), plan)


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_the_recorded_prices_and_tokens_give_the_recorded_cost(scene: Scene) -> None:
    """The tier that held is the one that is recorded."""
    for one in stored(decided(scene))["candidates"]:
        prices = Prices(one["input_nanousd"], one["output_nanousd"], one.get("cache_read_nanousd"))
        expected = one["expected"]
        tokens = Usage(expected["input_tokens"], expected["output_tokens"], expected["cached_tokens"])
        assert pricing.cost(prices, tokens) == one["expected"]["nanousd"]
        assert one["facts"]["cost"] in (None, one["expected"]["nanousd"])


@settings(max_examples=40, deadline=None)
@given(scenes())
def test_a_record_from_before_conversations_were_known_gives_its_plan(scene: Scene) -> None:
    """It has no such member, and nobody was known."""
    plan = decided(replace(scene, now=structs.replace(scene.now, bond=None)))
    told = stored(plan)
    del told["affinity"]
    for one in (*told["candidates"], *told["spared"]):
        del one["expected"]["cached_tokens"]
    same(recompute(told), plan)


def plan_of(standings: dict[str, Standing] = SEEN) -> Plan:
    now = Circumstances(standings, lambda _: True)
    return decide(FLEET, Features("*", text_bytes=999), Policy(), now=now, seed="s")[0]


@pytest.mark.parametrize("fact", ["cost", "latency_ms", "error_rate", "weight"])
def test_a_record_that_was_changed_gives_other_scores(fact: str) -> None:
    """The scores are made anew from the facts, not read back."""
    told = stored(plan_of())
    told["candidates"][0]["facts"][fact] += 1
    again = recompute(told)
    scores = {one["model"]: one["score"] for one in told["candidates"]}
    assert any(one.score != scores[one.model.id] for one in again.candidates)


def test_the_weights_of_then_hold() -> None:
    """A table that is changed later does not change what was decided."""
    told = stored(plan_of())
    told["weights"] = {"cost": 0.0, "latency": 1.0, "failure": 0.0, "weight": 0.0, "loss": 0.0}
    assert [one.score for one in recompute(told).candidates] == [(1 / 3) / 321.5, 1.0]


def test_those_that_were_spared_count_in_the_scores() -> None:
    """Where all are ill, the one that is tried was measured against the others."""
    down = {name: Standing(available=False, latency_ms=ms) for name, ms in (("p", 10.0), ("q", 40.0))}
    plan = plan_of(down)
    told = stored(plan)
    assert (told["lone"], len(told["candidates"]), len(told["spared"])) == (True, 1, 1)
    same(recompute(told), plan)


def test_a_decision_that_left_nobody_is_recorded_too() -> None:
    """Who was left out and why is all there is to tell."""
    plan, fault = decide(
        FLEET, Features("*"), Policy(min_weight=9), now=Circumstances({}, lambda _: True), seed="s"
    )
    assert fault is not None
    told = stored(plan)
    assert (told["candidates"], [skip["reason"] for skip in told["skips"]]) == (
        [],
        ["weight_below_minimum"] * 2,
    )
    same(recompute(told), plan)


@pytest.mark.parametrize(
    "change", [{"version": 2}, {"version": None}, {"candidates": [{}]}, {"policy": None}]
)
def test_what_cannot_be_recomputed_says_so(change: Json) -> None:
    """Other versions and broken records are refused, not guessed at."""
    with pytest.raises(ValueError, match="decision"):
        recompute({**stored(plan_of()), **change})


def test_skips_keep_their_details_and_are_listed_once() -> None:
    """By reason and provider in the store, one by one where they are shown."""
    skips = (
        Skip("a", "p", Skipped.DISABLED),
        Skip("b", "p", Skipped.DISABLED, "since Monday"),
        Skip("a", "q", Skipped.HEALTH_DOWN),
    )
    plan = Plan(Policy(), (), skips, 0, 0, "")
    assert decision.pack(plan)["skips"] == {
        "disabled": {"p": ["a", ["b", "since Monday"]]},
        "health_down": {"q": ["a"]},
    }
    assert recompute(stored(plan)).skips == skips


def test_a_large_fleet_is_stored_small() -> None:
    """A hundred candidates in less than 20 KB, which compresses well."""
    models = [
        Model(f"vendor/model-{n}", "p", weight=n % 11, prices=Prices(100.0 + n, 300.0 + n))
        for n in range(100)
    ]
    plan, _ = decide(
        build([P], models, version=1),
        Features("*", text_bytes=4_000),
        Policy(),
        now=Circumstances(SEEN, lambda _: True),
        seed="s",
    )
    assert len(dumps(decision.pack(plan))) < 20_000


def test_a_name_that_a_caller_chose_is_stored_within_bounds() -> None:
    """However long it was."""
    plan, _ = decide(
        FLEET,
        Features("x" * 10_000),
        Policy(model="x" * 10_000),
        now=Circumstances({}, lambda _: True),
        seed="s",
    )
    assert len(dumps(decision.pack(plan))) < 3_000
