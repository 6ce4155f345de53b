"""Plans that explore: another order, the same limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tokenhub_core.errors import Fault
from tokenhub_core.routing import estimate, scoring
from tokenhub_core.routing.bandit import EVERYWHERE, Bandit, Kept
from tokenhub_core.routing.eligibility import CONTEXT_MARGIN, UNKNOWN_PRICE, Circumstances, Wire
from tokenhub_core.routing.fleet import build
from tokenhub_core.routing.learning import Average, Key, Learner, Measure
from tokenhub_core.routing.plan import plan
from tokenhub_core.types import (
    NANO,
    Dialect,
    Features,
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

PROVIDERS = [Provider(name, ProviderType.VLLM, ("https://x.example",)) for name in "pqr"]
FLEET = build(PROVIDERS, [Model("a", "p"), Model("b", "q"), Model("c", "r")], version=1)
ASK = Features(model="*", text_bytes=400)
NOW = 1.8e9


def knowing(**records: tuple[float, float]) -> Bandit:
    """Return a bandit that has won and lost so much with model and provider of each name."""
    homes = dict(zip("abc", "pqr", strict=True))
    return Bandit(
        Kept(name, homes[name], place, won, lost, 1, round(NOW * 1e6))
        for name, (won, lost) in records.items()
        for place in ("small", EVERYWHERE)
    )


def circumstances(bandit: Bandit, **standings: Standing) -> Circumstances:
    return Circumstances(standings, lambda _: True, explorer=bandit, at=NOW)


def planned(bandit: Bandit, policy: Policy = Policy(), seed: str = "s", **standings: Standing) -> Plan:  # noqa: B008 - a frozen value
    result = plan(FLEET, ASK, policy, now=circumstances(bandit, **standings), seed=seed)
    assert isinstance(result, Plan)
    return result


def leaders(bandit: Bandit, count: int = 300, **standings: Standing) -> list[str]:
    return [planned(bandit, Policy(), str(seed), **standings).candidates[0].model.id for seed in range(count)]


def test_candidates_come_in_the_order_of_their_samples() -> None:
    """Largest first, each with where it came from; the plan says what kind of call it was."""
    result = planned(knowing(a=(5.0, 5.0)))
    draws = [one.draw for one in result.candidates]
    samples = [draw.sample for draw in draws if draw]
    assert samples == sorted(samples, reverse=True)
    assert len(samples) == 3
    assert sum(draw.propensity for draw in draws if draw) == pytest.approx(1)
    assert (result.reason, result.context) == ("routed-thompson", "small")


def test_a_decision_is_the_same_for_the_same_posterior_and_seed() -> None:
    """Also after a restart: the posterior that was saved gives the choice that would have been made."""
    bandit = knowing(a=(5.0, 5.0), b=(9.0, 2.0))
    again = Bandit(bandit.kept())
    assert all(planned(bandit, seed=str(n)) == planned(again, seed=str(n)) for n in range(20))


def test_streams_are_explored_like_whole_answers() -> None:
    """The same seed gives the same order for both."""
    now = circumstances(knowing(a=(3.0, 1.0)))
    for seed in map(str, range(20)):
        whole = plan(FLEET, ASK, Policy(), now=now, seed=seed)
        stream = plan(FLEET, structs.replace(ASK, stream=True), Policy(), now=now, seed=seed)
        assert isinstance(whole, Plan)
        assert isinstance(stream, Plan)
        assert whole.candidates == stream.candidates


def test_a_named_model_is_served_and_not_explored() -> None:
    """Whoever asks for a model gets it, however badly it has done."""
    result = planned(knowing(a=(0.0, 500.0), b=(500.0, 0.0)), Policy(model="a"))
    assert result.candidates[0].model.id == "a"
    assert all(one.draw is None for one in result.candidates)
    assert result.reason == "routed-hint-exact"


def test_a_dead_provider_is_no_candidate_on_a_fresh_start() -> None:
    """Nothing is known of anybody, but health is: the prior's optimism does not reach the dead."""
    firsts = leaders(Bandit(), p=Standing(available=False))
    assert "a" not in firsts
    assert {"b", "c"} == set(firsts)


def test_a_restart_does_not_make_a_dead_provider_new() -> None:
    """Health begins anew with every process; what was learned does not."""
    firsts = leaders(knowing(a=(0.0, 30.0), b=(20.0, 5.0), c=(18.0, 6.0)))
    assert "a" not in firsts


def test_a_lone_unhealthy_provider_is_still_tried() -> None:
    """Where bad health alone empties the list, the best by score is kept, and nothing is drawn."""
    down = Standing(available=False)
    result = planned(Bandit(), p=down, q=down, r=down)
    assert result.lone
    assert [one.draw for one in result.candidates] == [None]


def test_what_a_dialect_loses_counts_against_a_sample() -> None:
    """Two that are known equally well: the one that carries the whole call leads as often as it is told."""
    fleet = build(
        [PROVIDERS[0], replace(PROVIDERS[1], dialect=Dialect.ANTHROPIC_MESSAGES)],
        [Model("a", "p"), Model("b", "q")],
        version=1,
    )
    wire = Wire(Dialect.OPENAI_CHAT, lambda _: ("n", "seed", "logprobs"))
    now = circumstances(knowing(a=(80.0, 20.0), b=(80.0, 20.0)))
    firsts = []
    for seed in range(400):
        result = plan(fleet, ASK, Policy(), now=now, seed=str(seed), wire=wire)
        assert isinstance(result, Plan)
        firsts.append(result.candidates[0])
    share = sum(one.model.id == "a" for one in firsts) / 400
    told = {one.model.id: one.draw.propensity for one in firsts if one.draw}
    assert share == pytest.approx(told["a"], abs=0.03)
    assert share > 0.95


def test_scores_are_made_of_what_was_learned_of_each_model() -> None:
    """Two models of one provider: the quicker one is preferred, which its provider's average could not tell."""
    fleet = build(PROVIDERS, [Model("quick", "p"), Model("slow", "p")], version=1)
    learner = Learner(
        [
            (Key(Measure.TTFT, "quick", "p"), Average(200.0)),
            (Key(Measure.TTFT, "slow", "p"), Average(900.0)),
        ]
    )
    now = Circumstances({"p": Standing(latency_ms=500.0)}, lambda _: True, estimates=learner)
    for seed in map(str, range(10)):
        result = plan(fleet, ASK, Policy(), now=now, seed=seed)
        assert isinstance(result, Plan)
        assert [one.model.id for one in result.candidates] == ["quick", "slow"]
        assert [one.expected.latency_ms for one in result.candidates] == [200.0, 900.0]


def test_a_learned_count_decides_what_fits() -> None:
    """A model whose tokenizer needs more tokens than the rule of thumb says is left out in time."""
    fleet = build(PROVIDERS, [Model("m", "p", max_context_tokens=1_200)], version=1)
    ask = structs.replace(ASK, text_bytes=4_000)
    dense = Learner([(Key(Measure.TOKENS, "m", "prose"), Average(0.4))])
    fits = plan(fleet, ask, Policy(), now=Circumstances({}, lambda _: True), seed="s")
    full = plan(fleet, ask, Policy(), now=Circumstances({}, lambda _: True, estimates=dense), seed="s")
    assert isinstance(fits, Plan)
    assert isinstance(full, Fault)
    assert "context_overflow" in full.message


models = st.builds(
    Model,
    id=st.sampled_from("abcde"),
    provider_id=st.sampled_from("pqr"),
    weight=st.integers(0, 10),
    max_context_tokens=st.sampled_from([0, 1_000, 100_000]),
    max_output_tokens=st.sampled_from([0, 100, 4_000]),
    prices=st.builds(Prices, st.integers(0, 10_000), st.integers(0, 50_000)),
    pricing_source=st.sampled_from(["manual", UNKNOWN_PRICE]),
    enabled=st.booleans(),
    lacks=st.frozensets(st.sampled_from(list(Need)), max_size=3),
)
policies = st.builds(
    Policy,
    mode=st.sampled_from(list(Mode)),
    max_budget_usd=st.none() | st.floats(0, 0.1),
    min_weight=st.integers(0, 10),
    model=st.none() | st.sampled_from("abc"),
    provider=st.none() | st.sampled_from("pq"),
    fallback=st.booleans(),
    lossy=st.booleans(),
)
asks = st.builds(
    Features,
    model=st.just("*"),
    text_bytes=st.integers(0, 40_000),
    max_output_tokens=st.none() | st.integers(1, 4_000),
    needs=st.frozensets(st.sampled_from(list(Need)), max_size=2),
    media=st.integers(0, 2),
)
records = st.builds(
    Kept,
    st.sampled_from("abcde"),
    st.sampled_from("pqr"),
    st.sampled_from(["small", "medium", EVERYWHERE]),
    st.floats(0, 500),
    st.floats(0, 500),
    st.integers(0, 100),
    st.integers(0, 2 * 10**15),
)
averages = st.tuples(
    st.builds(
        Key, st.sampled_from(list(Measure)), st.sampled_from("abcde"), st.sampled_from(["prose", "", "p"])
    ),
    st.builds(Average, st.floats(0, 1_000), st.floats(0, 10), st.integers(1, 100)),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(models, max_size=8, unique_by=lambda one: (one.id, one.provider_id)),
    policies,
    asks,
    st.lists(records, max_size=6),
    st.lists(averages, max_size=6),
    st.frozensets(st.sampled_from("pqr")),
    st.booleans(),
)
def test_exploring_never_breaks_a_hard_limit(
    stock: list[Model],
    policy: Policy,
    ask: Features,
    stored: list[Kept],
    known: list[tuple[Key, Average]],
    down: frozenset[str],
    anthropic: bool,
) -> None:
    """Whatever was learned and whatever is drawn, every candidate holds every limit, and nobody is lost or added."""
    dialect = Dialect.ANTHROPIC_MESSAGES if anthropic else Dialect.OPENAI_CHAT
    fleet = build([replace(PROVIDERS[0], dialect=dialect), *PROVIDERS[1:]], stock, version=1)
    learner = Learner(known)
    standings = {name: Standing(available=False) for name in down}
    wire = Wire(Dialect.OPENAI_CHAT, lambda _: ("n",))
    still = Circumstances(standings, lambda _: True, estimates=learner, at=NOW)
    moving = Circumstances(standings, lambda _: True, estimates=learner, explorer=Bandit(stored), at=NOW)
    calm = plan(fleet, ask, policy, now=still, seed="s", wire=wire)
    found = plan(fleet, ask, policy, now=moving, seed="s", wire=wire)
    if isinstance(calm, Fault):
        assert found == calm
        return
    assert isinstance(found, Plan)
    assert {(one.model.id, one.provider.id) for one in found.candidates} == {
        (one.model.id, one.provider.id) for one in calm.candidates
    }
    assert found.skips == calm.skips
    for one in found.candidates:
        model = one.model
        tokens = estimate.input_tokens(ask, model.id, learner)
        assert model.enabled
        assert model.weight >= policy.min_weight
        assert not ask.needs & model.lacks
        assert not model.max_context_tokens or int(tokens * CONTEXT_MARGIN) <= model.max_context_tokens
        assert policy.max_budget_usd is None or (
            one.estimated_nanousd <= policy.max_budget_usd * NANO and model.pricing_source != UNKNOWN_PRICE
        )
        assert policy.provider in (None, one.provider.id)
        assert policy.fallback or policy.model in (None, model.id)
        assert policy.lossy or one.dialect is Dialect.OPENAI_CHAT
        assert found.lone or one.provider.id not in down
        assert one.score == scoring.total(one.terms)
    assert {skip.reason for skip in found.skips} <= set(Skipped)
