"""Plans of calls that go on with a conversation: who stays first, and what a cache is worth."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from msgspec import structs

from tests.routing.fleets import Scene, scenes
from tokenhub_core.routing.bandit import Bandit
from tokenhub_core.routing.eligibility import Circumstances
from tokenhub_core.routing.fleet import build
from tokenhub_core.routing.learning import Average, Key, Learner, Measure
from tokenhub_core.routing.plan import OriginOption, decide
from tokenhub_core.types import (
    Attempt,
    Bond,
    Caller,
    Features,
    Mode,
    Model,
    Need,
    Outcome,
    Plan,
    Policy,
    Prices,
    Provider,
    ProviderType,
    Record,
    Skipped,
    Standing,
    Usage,
)

PROVIDERS = [Provider(name, ProviderType.VLLM, ("https://x.example",)) for name in "pqr"]
FLEET = build(
    PROVIDERS,
    [
        Model("good", "p", weight=9, prices=Prices(100, 300)),
        Model("poor", "q", weight=1, prices=Prices(900, 900)),
        Model("poor", "r", weight=1, prices=Prices(1_900, 1_900)),
    ],
    version=1,
)
ASK = Features("*", text_bytes=40_000)
LOOP = Bond("poor", "q", 5.0, 9_000, "calls", "tool_loop")


def planned(bond: Bond | None, policy: Policy = Policy(), **more: Any) -> Plan:  # noqa: B008 - a frozen value
    now = Circumstances(more.pop("standings", {}), lambda _: True, bond=bond, **more)
    return decide(FLEET, ASK, policy, now=now, seed="s")[0]


def order(plan: Plan) -> list[str]:
    return [f"{one.model.id}@{one.provider.id}" for one in plan.candidates]


# --- locks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("lock", ["tool_loop", "thinking", "stored_state"])
def test_what_is_locked_goes_on_where_it_was(mode: Mode, lock: str) -> None:
    """The model at its provider comes first, then the model elsewhere, whatever their scores."""
    found = planned(structs.replace(LOOP, lock=lock), Policy(mode=mode))
    assert order(found) == ["poor@q", "poor@r", "good@p"]
    assert (found.reason, found.bond and found.bond.lock) == ("routed-affinity", lock)


def test_what_is_not_locked_goes_where_the_scores_say() -> None:
    """To have been somewhere is no reason by itself."""
    found = planned(structs.replace(LOOP, lock=""))
    assert order(found) == ["good@p", "poor@q", "poor@r"]
    assert found.reason == "routed-weight-9"


def test_inside_a_lock_nobody_explores() -> None:
    """Nothing is drawn, so there is no propensity to tell; outside of one there is."""
    bandit = Bandit()
    for seed in map(str, range(30)):
        now = Circumstances({}, lambda _: True, explorer=bandit, bond=LOOP)
        found = decide(FLEET, ASK, Policy(), now=now, seed=seed)[0]
        assert order(found)[0] == "poor@q"
        assert [one.draw for one in found.candidates] == [None] * 3
    free = planned(structs.replace(LOOP, lock=""), explorer=bandit)
    assert all(free_one.draw for free_one in free.candidates)
    assert free.reason == "routed-thompson"


def test_a_lock_opens_no_limit() -> None:
    """Who is not eligible is no candidate, locked or not; the model elsewhere comes first then, then the scores."""
    gone = planned(LOOP, standings={"q": Standing(available=False)})
    assert order(gone) == ["poor@r", "good@p"]
    assert gone.reason == "routed-weight-1"
    assert Skipped.HEALTH_DOWN in [skip.reason for skip in gone.skips]
    for policy in (Policy(models=frozenset({"good"})), Policy(min_weight=5), Policy(max_budget_usd=0.002)):
        found = planned(LOOP, policy)
        assert order(found) == ["good@p"]
        assert found.reason == "routed-weight-9"


def test_a_named_model_is_served_whoever_was_before() -> None:
    """A lock orders the providers of the model that was named, and nothing else."""
    named = planned(structs.replace(LOOP, provider="r"), Policy(model="poor"))
    assert order(named) == ["poor@r", "poor@q", "good@p"]
    assert named.reason == "routed-hint-exact"
    other = planned(LOOP, Policy(model="good"))
    assert order(other)[0] == "good@p"


def test_a_conversation_that_its_own_host_served_stays_there() -> None:
    """Behind our own providers of the model the host stands last; in a loop that it has begun it is first."""
    host = Provider("origin:h", ProviderType.ORIGIN, ("https://h",))
    origin = OriginOption(Model("poor", host.id), host)
    for bond, first in ((None, "q"), (structs.replace(LOOP, provider=host.id), host.id)):
        now = Circumstances({}, lambda _: True, bond=bond)
        found = decide(FLEET, ASK, Policy(model="poor"), now=now, seed="s", origin=origin)[0]
        assert found.candidates[0].provider.id == first


def test_where_all_are_ill_the_one_that_began_is_tried() -> None:
    """A lone one has no rivals; among the ill it is the one that knows the conversation."""
    ill = dict.fromkeys("pqr", Standing(available=False))
    assert order(planned(LOOP, standings=ill)) == ["poor@q"]
    assert order(planned(None, standings=ill)) == ["good@p"]


@settings(max_examples=150, deadline=None)
@given(scenes())
def test_a_conversation_changes_the_order_and_no_limit(scene: Scene) -> None:
    """Whoever may serve may serve without it, at the same reserve; and what is locked is first where it may be."""

    def of(bond: Bond | None) -> Plan:
        return decide(
            scene.view,
            scene.features,
            scene.policy,
            now=structs.replace(scene.now, bond=bond),
            seed=scene.seed,
            wire=scene.wire,
            origin=scene.origin,
        )[0]

    bond, found, fresh = scene.now.bond, of(scene.now.bond), of(None)
    everyone = [
        {(o.model.id, o.provider.id): o.estimated_nanousd for o in (*p.candidates, *p.spared)}
        for p in (found, fresh)
    ]
    assert everyone[0] == everyone[1]
    assert found.skips == fresh.skips
    if bond is None or not bond.lock or (bond.model, bond.provider) not in everyone[0]:
        return
    first, pinned = found.candidates[0], {o.model.id for o in found.candidates if o.pinned}
    if not pinned or bond.model in pinned:
        assert (first.model.id, first.provider.id) == (bond.model, bond.provider)


# --- warmth ---------------------------------------------------------------------------------------------------

WARM = Bond("warm", "p", 30.0, 10_000, "turns")


def record(bond: Bond | None, cached: int, *, model: str = "warm", estimated: bool = False) -> Record:
    """Return a call that went on with a conversation and read so much from a cache."""
    attempt = Attempt(1, model, "p", 0, 10, status=200, usage=Usage(12_000, 10, cached))
    plan = Plan(Policy(), (), (), 0, 0, "", features=Features("*", text_bytes=48_000), bond=bond)
    return Record(
        id="r",
        at=0.0,
        outcome=Outcome.OK,
        status=200,
        caller=Caller(),
        method="POST",
        path="/",
        attempts=(attempt,),
        plan=plan,
        usage_estimated=estimated,
    )


def learned(*records: Record) -> Learner:
    learner = Learner()
    for one in records:
        learner.learn(one)
    return learner


def test_warmth_is_learned_by_the_time_since() -> None:
    """A share of what was sent before, for each model at its provider and each span of time."""
    learner = learned(
        *[record(WARM, 9_000)] * 3,
        record(structs.replace(WARM, age=200.0), 4_000),
        record(structs.replace(WARM, age=3_000.0), 0),
    )
    ages = (0.0, 60.0, 61.0, 300.0, 301.0, 900.0, 901.0, 3_600.0)
    assert [learner.warmth("warm", "p", age) for age in ages] == [0.9, 0.9, 0.4, 0.4, None, None, 0.0, 0.0]
    assert learner.warmth("warm", "q", 1.0) is None


def test_only_what_a_provider_has_counted_of_its_own_cache_teaches() -> None:
    """Not a call that begins a conversation, nor one that was served elsewhere, nor one too short to be cached."""
    learner = learned(
        record(None, 9_000),
        record(WARM, 9_000, model="another"),
        record(structs.replace(WARM, tokens=1_000), 900),
        record(WARM, 9_000, estimated=True),
    )
    assert not [key for key in learner.averages() if key.measure.value == "warmth"]


def test_more_read_than_was_sent_is_no_more_than_all_of_it() -> None:
    """Others may have sent the rest; what is expected is held within what can be true."""
    assert learned(record(WARM, 11_500)).warmth("warm", "p", 1.0) == 1.0


SEEN = Learner([(Key(Measure.WARMTH, "warm", "p 60"), Average(0.9))])


def rivals(cold: float, bond: Bond | None, policy: Policy = Policy(), learner: Learner | None = None) -> Plan:  # noqa: B008 - a frozen value
    """Plan a call for two models that differ in price alone; the warm one's is 100 a token, 10 of a cached one."""
    fleet = build(
        PROVIDERS[:2],
        [
            Model("warm", "p", prices=Prices(100, 100, cache_read=10)),
            Model("cold", "q", prices=Prices(cold, cold, cache_read=cold / 10)),
        ],
        version=1,
    )
    now = Circumstances({}, lambda _: True, estimates=learner or SEEN, bond=bond)
    return decide(fleet, ASK, policy, now=now, seed="s")[0]


@pytest.mark.parametrize("mode", list(Mode))
def test_a_warm_cache_beats_a_slightly_cheaper_cold_model_and_loses_to_a_much_cheaper_one(mode: Mode) -> None:
    """What a switch costs is what the cold one asks for the whole call."""
    policy = Policy(mode=mode)
    assert rivals(80.0, None, policy).candidates[0].model.id == "cold"
    assert rivals(80.0, WARM, policy).candidates[0].model.id == "warm"
    assert rivals(15.0, WARM, policy).candidates[0].model.id == "cold"


def test_what_is_likely_to_be_cached_is_told_and_costs_what_cached_input_costs() -> None:
    """90 % of the 10,000 tokens of the call before; the reserve knows of no cache."""
    warm = next(one for one in rivals(80.0, WARM).candidates if one.model.id == "warm")
    tokens, output = warm.expected.input_tokens, warm.expected.output_tokens
    assert warm.expected.cached_tokens == 9_000
    assert warm.facts.cost == warm.expected.nanousd == 9_000 * 10 + (tokens - 9_000 + output) * 100
    assert warm.estimated_nanousd == (tokens + output) * 100


def test_nobody_is_taken_to_have_a_cache_who_was_not_seen_to() -> None:
    """Nothing learned, a span of time that nobody has seen, a call too short: the full price."""
    for bond, learner in (
        (WARM, Learner()),
        (structs.replace(WARM, age=301.0), None),
        (structs.replace(WARM, tokens=1_023), None),
    ):
        found = rivals(80.0, bond, learner=learner)
        assert found.candidates[0].model.id == "cold"
        assert {one.expected.cached_tokens for one in found.candidates} == {0}


def test_a_budget_holds_if_the_cache_misses() -> None:
    """A warm call that could cost too much is left out, however likely its cache."""
    warm = rivals(80.0, WARM, Policy(max_budget_usd=0.0009))
    assert [one.model.id for one in warm.candidates] == ["cold"]
    assert [(skip.model, skip.reason) for skip in warm.skips] == [("warm", Skipped.BUDGET_EXCEEDED)]


def test_a_shorter_call_than_the_one_before_has_no_more_cached_than_it_has() -> None:
    """A client that has cut its history sends less than the cache holds."""
    found = rivals(80.0, structs.replace(WARM, tokens=900_000))
    warm = next(one for one in found.candidates if one.model.id == "warm")
    assert warm.expected.cached_tokens == warm.expected.input_tokens


def test_capability_comes_before_a_lock() -> None:
    """A loop that now brings a picture leaves a model that cannot see."""
    fleet = build(
        PROVIDERS,
        [Model("blind", "q", lacks=frozenset({Need.VISION})), Model("good", "p")],
        version=1,
    )
    ask = structs.replace(ASK, needs=frozenset({Need.VISION}), media=1)
    bond = structs.replace(LOOP, model="blind")
    now = Circumstances({}, lambda _: True, bond=bond)
    found = decide(fleet, ask, Policy(), now=now, seed="s")[0]
    assert order(found) == ["good@p"]
