"""Random fleets, calls and circumstances, for properties of plans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from tokenhub_core.admission.limits import FREE, Call, Room
from tokenhub_core.routing.eligibility import UNKNOWN_PRICE, Circumstances, Wire
from tokenhub_core.routing.fleet import build
from tokenhub_core.routing.learning import Average, Key, Learner, Measure
from tokenhub_core.routing.plan import OriginOption
from tokenhub_core.types import (
    Bond,
    Dialect,
    Features,
    Fleet,
    Form,
    Mode,
    Model,
    Need,
    Policy,
    Prices,
    Provider,
    ProviderType,
    Standing,
    Tier,
)

DIALECTS = (Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES, Dialect.GEMINI)

_share = st.floats(0, 1)
_price = st.one_of(st.just(0.0), st.floats(0, 1e5))
_tokens = st.sampled_from([0, 1_000, 8_000, 200_000])
_needs = st.frozensets(st.sampled_from(list(Need)), max_size=2)


@dataclass(frozen=True)
class Scene:
    """Everything that a plan follows from."""

    view: Fleet
    features: Features
    policy: Policy
    now: Circumstances
    seed: str
    wire: Wire
    origin: OriginOption | None


@st.composite
def prices(draw: st.DrawFn) -> Prices:
    tiers = tuple(Tier(above, draw(_price), draw(_price)) for above in draw(st.sampled_from([(), (500,)])))
    return Prices(draw(_price), draw(_price), draw(st.none() | _price), tiers=tiers)


@st.composite
def bonds(draw: st.DrawFn) -> Bond | None:
    """Draw who served the conversation before: nobody, somebody, somebody who is gone."""
    if draw(st.booleans()):
        return None
    return Bond(
        draw(st.sampled_from(["a", "b", "vendor/c", "gone"])),
        draw(st.sampled_from(["p0", "p1", "origin:h"])),
        draw(st.floats(0, 3600)),
        draw(st.sampled_from([0, 1_000, 5_000])),
        "calls",
        draw(st.sampled_from(["", "tool_loop", "thinking"])),
    )


@st.composite
def learners(draw: st.DrawFn) -> Learner:
    """Draw what was learned of caches."""
    return Learner(
        (Key(Measure.WARMTH, model, f"{provider} {limit}"), Average(draw(_share)))
        for model in ("a", "b", "vendor/c")
        for provider in ("p0", "p1")
        for limit in (60, 300, 900, 3600)
        if draw(st.booleans())
    )


@st.composite
def models(draw: st.DrawFn, name: str, provider: str) -> Model:
    return Model(
        name,
        provider,
        weight=draw(st.integers(0, 10)),
        max_context_tokens=draw(_tokens),
        max_output_tokens=draw(_tokens),
        prices=draw(prices()),
        pricing_source=draw(st.sampled_from(["manual", UNKNOWN_PRICE])),
        enabled=draw(st.integers(0, 9)) > 0,
        lacks=draw(_needs) if draw(st.integers(0, 3)) == 0 else frozenset(),
    )


@st.composite
def rooms(draw: st.DrawFn, providers: list[Provider]) -> Callable[[Provider, Call], Room] | None:
    """Draw how soon each provider can take a call, whatever its size; None: at once."""
    if draw(st.booleans()):
        return None
    limited = {
        provider.id: Room(draw(st.floats(0.1, 1e6)), "requests", draw(st.booleans()))
        for provider in providers
        if draw(st.booleans())
    }
    return lambda provider, call: limited.get(provider.id, FREE)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Draw a fleet of up to four providers with the same few models, in any state of health, and a call."""
    providers = [
        Provider(
            f"p{n}", ProviderType.OPENAI_COMPATIBLE, ("https://x.example",), draw(st.sampled_from(DIALECTS))
        )
        for n in range(draw(st.integers(1, 4)))
    ]
    names = ["a", "b", "vendor/c"]
    stock = [
        draw(models(name, provider.id)) for provider in providers for name in names if draw(st.booleans())
    ]
    standings = {
        provider.id: Standing(draw(st.integers(0, 3)) > 0, False, draw(_share), draw(st.floats(0, 1e4)))
        for provider in providers
        if draw(st.booleans())
    }
    losses = {dialect: draw(st.sampled_from([(), ("top_k",), ("n", "seed")])) for dialect in DIALECTS}
    wanted = draw(st.sampled_from([None, "a", "p0/b", "vendor/c", "nobody"]))
    features = Features(
        model=wanted or "*",
        stream=draw(st.booleans()),
        max_output_tokens=draw(st.sampled_from([None, 1, 5_000])),
        needs=draw(_needs),
        text_bytes=draw(st.integers(0, 50_000)),
        media=draw(st.integers(0, 2)),
        turns=draw(st.integers(0, 9)),
    )
    policy = Policy(
        mode=draw(st.sampled_from(list(Mode))),
        model=wanted,
        min_weight=draw(st.sampled_from([0, 0, 3])),
        max_budget_usd=draw(st.sampled_from([None, None, 0.01])),
        fallback=draw(st.booleans()),
        hedge=draw(st.sampled_from([None, 0.95])),
        lossy=draw(st.integers(0, 3)) > 0,
        output_schema=draw(st.sampled_from([None, {"type": "object"}])),
        tags=("t",),
        needs=draw(_needs),
        input_tokens=draw(st.sampled_from([0, 0, 7])),
        output_format=draw(st.sampled_from([None, *Form])),
        strip_think=draw(st.booleans()),
        output_max_tokens=draw(st.sampled_from([None, 9])),
        validate=draw(st.booleans()),
        buffered=draw(st.booleans()),
        guarded=draw(st.booleans()),
        resume=draw(st.booleans()),
        models=draw(st.sampled_from([None, None, frozenset({"a", "b"})])),
        allowed_models=draw(st.sampled_from([None, None, None, ("a*", "vendor/*"), ()])),
        allowed_providers=draw(st.sampled_from([None, None, None, ("p0", "origin:*")])),
        why={"mode": "default"},
    )
    host = Provider("origin:h", ProviderType.ORIGIN, ("https://h",), draw(st.sampled_from(DIALECTS)))
    return Scene(
        build(providers, stock, version=draw(st.integers(0, 9))),
        features,
        policy,
        Circumstances(
            standings,
            lambda _: True,
            estimates=draw(learners()),
            room=draw(rooms(providers)),
            bond=draw(bonds()),
        ),
        draw(st.text(max_size=8)),
        Wire(draw(st.sampled_from(DIALECTS)), lambda dialect: losses[dialect]),
        OriginOption(draw(models(wanted, host.id)), host) if wanted and draw(st.booleans()) else None,
    )
