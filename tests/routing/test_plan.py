"""Plans: who is tried, in which order, and why others are not."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tokenhub_core.admission.doorkeeper import matches
from tokenhub_core.admission.limits import FREE, Call, Room
from tokenhub_core.errors import Fault, Kind
from tokenhub_core.routing.eligibility import CONTEXT_MARGIN, Circumstances
from tokenhub_core.routing.fleet import build
from tokenhub_core.routing.plan import OriginOption, decide, plan
from tokenhub_core.types import (
    NANO,
    Features,
    Fleet,
    Mode,
    Model,
    Need,
    Plan,
    Policy,
    Prices,
    Provider,
    ProviderType,
    Skipped,
    Standing,
)

OPENAI = Provider("openai", ProviderType.OPENAI, ("https://api.openai.com",), cred_store="vault")
AZURE = Provider("azure", ProviderType.OPENAI_COMPATIBLE, ("https://a.example",), cred_store="vault")
LOCAL = Provider("local", ProviderType.VLLM, ("http://127.0.0.1:8000",))
BIG = Model("big", "openai", weight=9, max_context_tokens=200_000, prices=Prices(3000, 15000))
BIG_AZURE = replace(BIG, provider_id="azure", prices=Prices(3500, 16000))
SMALL = Model("small", "local", weight=3, max_context_tokens=8_000, lacks=frozenset({Need.VISION}))
FLEET = build([OPENAI, AZURE, LOCAL], [BIG, BIG_AZURE, SMALL], version=7)
ASK = Features(model="big", text_bytes=4_000, turns=1)
FINE = Circumstances({}, lambda _: True)
ORIGIN = OriginOption(
    Model("big", "origin:api.openai.com", pricing_source="unknown"),
    Provider("origin:api.openai.com", ProviderType.ORIGIN, ("https://api.openai.com",), cred_store="caller"),
)


def planned(
    policy: Policy, ask: Features = ASK, now: Circumstances = FINE, origin: OriginOption | None = None
) -> Plan:
    result = plan(FLEET, ask, policy, now=now, seed="s", origin=origin)
    assert isinstance(result, Plan), result
    return result


def refused(policy: Policy, ask: Features = ASK, now: Circumstances = FINE) -> Fault:
    result = plan(FLEET, ask, policy, now=now, seed="s")
    assert isinstance(result, Fault)
    return result


def order(result: Plan) -> list[str]:
    return [f"{c.model.id}@{c.provider.id}" for c in result.candidates]


def test_the_named_model_comes_first_at_all_its_providers() -> None:
    """Whoever asks for a model gets it; others stand in only behind it."""
    result = planned(Policy(model="big", mode=Mode.CHEAP))
    assert order(result) == ["big@openai", "big@azure", "small@local"]
    assert [c.pinned for c in result.candidates] == [True, True, False]
    assert result.reason == "routed-hint-exact"


def test_without_a_name_the_scores_decide() -> None:
    """No name, no pin: the cheap mode takes the free model."""
    result = planned(Policy(mode=Mode.CHEAP))
    assert order(result)[0] == "small@local"
    assert result.reason == "routed-weight-3"


def test_no_fallback_means_the_named_model_only() -> None:
    """A policy can forbid that another model stands in."""
    result = planned(Policy(model="big", fallback=False))
    assert order(result) == ["big@openai", "big@azure"]
    assert [s.reason for s in result.skips] == [Skipped.NOT_REQUESTED]


def test_the_origin_comes_behind_registered_providers_of_the_same_model() -> None:
    """Our credentials first, then the caller's own at the host it meant, then other models."""
    result = planned(Policy(model="big"), origin=ORIGIN)
    assert order(result) == ["big@openai", "big@azure", "big@origin:api.openai.com", "small@local"]


def test_an_unregistered_name_is_served_by_its_origin() -> None:
    """A program behind us keeps working before anybody has configured anything."""
    unheard = OriginOption(replace(ORIGIN.model, id="o9"), ORIGIN.provider)
    result = plan(Fleet(), Features(model="o9"), Policy(model="o9"), now=FINE, seed="s", origin=unheard)
    assert isinstance(result, Plan)
    assert (order(result), result.reason) == (["o9@origin:api.openai.com"], "routed-origin")


def test_a_name_that_nobody_can_serve_is_404() -> None:
    """Neither registered nor answerable by an origin."""
    fault = refused(Policy(model="nonsense"))
    assert (fault.kind, fault.code, fault.param) == (Kind.NOT_FOUND, "model_not_found", "model")
    assert "'nonsense'" in fault.message
    assert len(refused(Policy(model="m" * 65_536)).message) < 400


def test_every_exclusion_has_its_reason() -> None:
    """Each hard limit is told by name, and the fault says the most telling one."""
    cases = [
        (Policy(max_budget_usd=0.0), structs.replace(ASK, needs=frozenset({Need.VISION})), Kind.BUDGET),
        (Policy(provider="local"), structs.replace(ASK, text_bytes=40_000), Kind.OVERFLOW),
        (Policy(provider="local"), structs.replace(ASK, needs=frozenset({Need.VISION})), Kind.INVALID),
        (Policy(min_weight=10), ASK, Kind.INVALID),
        (Policy(provider="nobody"), ASK, Kind.NO_CANDIDATE),
    ]
    for policy, ask, kind in cases:
        assert refused(policy, ask).kind is kind


def test_a_locked_vault_takes_its_providers_out() -> None:
    """Without a credential a provider is no candidate, and the plan says so."""
    now = Circumstances({}, lambda provider: provider.cred_store != "vault")
    result = planned(Policy(model="big"), now=now)
    assert order(result) == ["small@local"]
    assert {s.reason for s in result.skips} == {Skipped.NO_CREDENTIAL}


def test_an_unhealthy_provider_is_left_out_while_others_can_serve() -> None:
    """Bad health is a soft limit: it moves traffic away."""
    now = Circumstances({"openai": Standing(available=False)}, lambda _: True)
    assert order(planned(Policy(model="big"), now=now)) == ["big@azure", "small@local"]


def test_a_lone_unhealthy_provider_is_tried_all_the_same() -> None:
    """When health alone empties the list, the best is kept, and only that one."""
    down = Standing(available=False)
    now = Circumstances({"openai": down, "azure": down, "local": down}, lambda _: True)
    assert order(planned(Policy(model="big"), now=now)) == ["big@openai"]


def crowded(some: bool = False, **waits: float) -> Circumstances:
    """Return circumstances in which these providers can take a call only after so many seconds."""

    def room(provider: Provider, call: Call) -> Room:
        del call
        wait = waits.get(provider.id.partition(":")[0], 0.0)
        return Room(wait, "requests", some) if wait else FREE

    return Circumstances({}, lambda _: True, at=1_790_000_000.0, room=room)


def test_a_rate_limited_provider_is_left_out_while_others_can_serve() -> None:
    """Routed before the 429, and the plan says until when."""
    result = planned(Policy(model="big"), now=crowded(openai=40.0))
    assert order(result) == ["big@azure", "small@local"]
    assert [(s.reason, s.detail) for s in result.skips] == [
        (Skipped.RATE_LIMITED, "requests until 2026-09-21T14:14:00Z")
    ]


def test_where_all_are_limited_the_caller_is_told_when_to_come_back() -> None:
    """At the soonest of them."""
    fault = refused(Policy(model="big"), now=crowded(openai=40.0, azure=12.0, local=90.0))
    assert (fault.kind, fault.http_status, fault.retry_after) == (Kind.RATE_LIMITED, 429, 12.0)


def test_where_something_is_left_the_soonest_is_tried_all_the_same() -> None:
    """Alone: the estimate of the call's size may be wrong."""
    result = planned(Policy(model="big"), now=crowded(some=True, openai=40.0, azure=12.0, local=90.0))
    assert (order(result), result.lone) == (["big@azure"], True)


def test_a_callers_own_key_is_for_its_own_host_to_refuse() -> None:
    """We do not say 429 in a host's name as long as it is the only one."""
    now = crowded(openai=40.0, azure=12.0, local=90.0, origin=60.0)
    result = planned(Policy(model="big"), now=now, origin=ORIGIN)
    assert (order(result), result.lone) == (["big@origin:api.openai.com"], True)


def test_equal_scores_are_ordered_by_the_seed_and_fairly() -> None:
    """The same seed gives the same order; over many seeds each of three equals leads about as often."""
    providers = [Provider(name, ProviderType.VLLM, ("http://127.0.0.1",)) for name in "abc"]
    fleet = build(providers, [Model("m", name) for name in "abc"], version=1)
    leads = dict.fromkeys("abc", 0)
    for seed in range(900):
        result = plan(fleet, Features(model="m"), Policy(), now=FINE, seed=str(seed))
        assert isinstance(result, Plan)
        assert result == plan(fleet, Features(model="m"), Policy(), now=FINE, seed=str(seed))
        leads[result.candidates[0].provider.id] += 1
    assert all(230 < count < 370 for count in leads.values())


models = st.builds(
    Model,
    id=st.sampled_from(["a", "b", "c"]),
    provider_id=st.sampled_from(["openai", "azure", "local"]),
    weight=st.integers(0, 10),
    max_context_tokens=st.sampled_from([0, 1_000, 100_000]),
    prices=st.builds(Prices, st.integers(0, 10_000), st.integers(0, 50_000)),
    enabled=st.booleans(),
    lacks=st.frozensets(st.sampled_from(list(Need))),
)
policies = st.builds(
    Policy,
    mode=st.sampled_from(list(Mode)),
    max_budget_usd=st.none() | st.floats(0, 0.1),
    min_weight=st.integers(0, 10),
    model=st.none() | st.sampled_from(["a", "b", "c"]),
    provider=st.none() | st.sampled_from(["openai", "local"]),
    fallback=st.booleans(),
)
asks = st.builds(
    Features,
    model=st.just(""),
    text_bytes=st.integers(0, 40_000),
    max_output_tokens=st.none() | st.integers(1, 4_000),
    needs=st.frozensets(st.sampled_from(list(Need)), max_size=2),
)


@given(
    st.lists(models, max_size=8, unique_by=lambda m: (m.id, m.provider_id)),
    policies,
    asks,
    st.frozensets(st.sampled_from(["openai", "azure", "local"])),
)
def test_no_candidate_ever_breaks_a_hard_limit(
    fleet_models: list[Model], policy: Policy, ask: Features, down: frozenset[str]
) -> None:
    """Budget, weight, context, capability, provider and enablement hold for every candidate of every plan."""
    fleet = build([OPENAI, AZURE, LOCAL], fleet_models, version=1)
    now = Circumstances({name: Standing(available=False) for name in down}, lambda _: True)
    result = plan(fleet, ask, policy, now=now, seed="s")
    if isinstance(result, Fault):
        return
    for candidate in result.candidates:
        model = candidate.model
        assert model.enabled
        assert model.weight >= policy.min_weight
        assert not (ask.needs & model.lacks)
        assert (
            not model.max_context_tokens
            or result.input_tokens * CONTEXT_MARGIN < model.max_context_tokens + 1
        )
        assert policy.max_budget_usd is None or candidate.estimated_nanousd <= policy.max_budget_usd * NANO
        assert policy.provider in (None, candidate.provider.id)
        assert policy.fallback or policy.model in (None, model.id)


def test_a_key_bounds_models_and_providers_by_patterns() -> None:
    """What it is not good for is left out, right behind what is switched off; the record says why."""
    result = planned(Policy(allowed_models=("b?g", "smal"), allowed_providers=("open*", "local")))
    assert order(result) == ["big@openai"]
    assert {(s.model, s.provider, s.reason) for s in result.skips} == {
        ("big", "azure", Skipped.NOT_ALLOWED),
        ("small", "local", Skipped.NOT_ALLOWED),
    }
    off = build([OPENAI], [replace(BIG, enabled=False)], version=1)
    told, _ = decide(off, ASK, Policy(allowed_models=()), now=FINE, seed="s")
    assert [s.reason for s in told.skips] == [Skipped.DISABLED]


def test_whether_a_pattern_is_for_a_name_may_be_remembered() -> None:
    """The fleet's names are asked about once: the plan is the same, and nothing is asked for another time."""
    remembering = lru_cache(maxsize=64)(matches)
    policy = Policy(allowed_models=("b?g", "smal"), allowed_providers=("open*", "local"))
    now = structs.replace(FINE, matching=remembering)
    first = planned(policy, now=now)
    asked = remembering.cache_info().misses

    assert first == planned(policy, now=now) == planned(policy)
    assert remembering.cache_info().misses == asked > 0


def test_the_origin_is_a_provider_that_a_key_is_good_for_or_not() -> None:
    """By the name of the host, on every path: it is no way around the list."""
    for allowed, served in (
        (("origin:api.openai.com",), ["big@origin:api.openai.com"]),
        (("origin:*.anthropic.com", "openai"), ["big@openai"]),
    ):
        policy = Policy(model="big", allowed_providers=allowed)
        assert order(planned(policy, origin=ORIGIN)) == served


def test_a_named_model_that_the_key_is_not_good_for_is_refused_by_name() -> None:
    """Others would do, and may stand in for what fails; but to be forbidden is no failure."""
    for policy in (
        Policy(model="big", allowed_models=("small",)),
        Policy(model="big", allowed_providers=("local",)),
        Policy(model="big", allowed_models=(), allowed_providers=()),
    ):
        fault = refused(policy)
        assert (fault.http_status, fault.code, fault.param) == (403, "model_not_allowed", "model")
        assert "'big'" in fault.message


def test_a_key_that_is_good_for_nothing_gets_a_403_and_no_other_reason_is_hidden() -> None:
    """Where the key alone empties the plan; what else keeps an allowed model back is told instead."""
    assert refused(Policy(allowed_models=())).label == "model_not_allowed"
    assert refused(Policy(model="big", allowed_models=("big",), max_budget_usd=0.0)).kind is Kind.BUDGET
    locked = structs.replace(FINE, credentialed=lambda provider: False)
    assert refused(Policy(allowed_models=("big",)), now=locked).kind is Kind.NO_CANDIDATE
