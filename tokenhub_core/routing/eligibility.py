"""Who may serve a call at all. Every limit here is hard: no later step lets an excluded model back in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import structs

from tokenhub_core.admission.doorkeeper import matches
from tokenhub_core.admission.limits import FREE, Call, Room
from tokenhub_core.routing import estimate
from tokenhub_core.routing.bandit import STILL, Explorer
from tokenhub_core.routing.estimate import UNLEARNED, Estimates
from tokenhub_core.types import (
    NANO,
    Bond,
    Dialect,
    Expected,
    Features,
    Fleet,
    Model,
    Policy,
    Provider,
    Skip,
    Skipped,
    Standing,
)

CONTEXT_MARGIN: Final = 1.15
"""The input estimate is counted this much larger against a context window."""

UNKNOWN_PRICE: Final = "unknown"
"""The `pricing_source` of a model whose price nobody told us: never taken for free, and within no budget."""

type Option = tuple[Model, Provider, int]
"""A model, its provider, and the estimated cost of the call there in nano-dollars."""


type Matching = Callable[[tuple[str, ...], str], bool]
"""Tells whether one of a key's patterns is for a name."""


class Eligible(msgspec.Struct, frozen=True):
    """The options that are left, those that only bad health or a rate limit keeps back, and what was left out."""

    options: tuple[Option, ...]
    unhealthy: tuple[Option, ...]
    limited: tuple[tuple[Option, Room], ...]
    """No credential can take the call now; with how soon one can."""
    skips: tuple[Skip, ...]
    expected: Mapping[tuple[str, str], Expected]
    """What the call is expected to be at each option and each unhealthy one, by model and provider."""


class Circumstances(msgspec.Struct, frozen=True):
    """What eligibility depends on besides the call and the policy."""

    standings: Mapping[str, Standing]
    credentialed: Callable[[Provider], bool]
    """Whether a credential can be had for this provider now."""
    estimates: Estimates = UNLEARNED
    explorer: Explorer = STILL
    program: str = ""
    """Who calls, as far as the lengths of its answers go."""
    at: float = 0.0
    """Seconds since the epoch: what is remembered fades."""
    room: Callable[[Provider, Call], Room] | None = None
    """How soon a provider can take a call by any of its credentials; None: nothing keeps any of them back."""
    bond: Bond | None = None
    """Who served the conversation before."""
    matching: Matching = matches
    """Of a plan the one dear part that neither the call nor the moment changes, so that it can be remembered."""


class Wire(msgspec.Struct, frozen=True):
    """What the caller's dialect means for who may serve."""

    dialect: Dialect = Dialect.OPENAI_CHAT
    losses: Callable[[Dialect], tuple[str, ...]] = lambda _: ()
    """What of the call another dialect cannot carry; costs a translation, so it is asked as seldom as can be."""

    def spoken(self, provider: Provider) -> bool:
        """Tell whether the call can be said to this provider at all."""
        return self.dialect.translates or provider.speaks(self.dialect) is self.dialect

    def lost(self, provider: Provider) -> tuple[str, ...]:
        """Return what of the call this provider's dialect cannot carry."""
        spoken = provider.speaks(self.dialect)
        return () if spoken is self.dialect else self.losses(spoken)


def eligible(
    fleet: Fleet,
    features: Features,
    policy: Policy,
    *,
    wanted: frozenset[tuple[str, str]],
    now: Circumstances,
    wire: Wire = Wire(),
) -> Eligible:
    """Sort the fleet's models into options and skips; `wanted` holds (model, provider) of the named model.

    Reasons are checked in the order of `Skipped`, the first that applies is counted.
    """
    options: list[Option] = []
    unhealthy: list[Option] = []
    limited: list[tuple[Option, Room]] = []
    skips: list[Skip] = []
    expected: dict[tuple[str, str], Expected] = {}
    bond = now.bond
    for model in fleet.models:
        provider = fleet.providers.get(model.provider_id)
        reason, reserved = _judge(model, provider, features, policy, now)
        if reason is None and provider is not None and not wire.spoken(provider):
            reason = Skipped.NO_ADAPTER
        if reason is None and not policy.lossy and provider is not None and wire.lost(provider):
            reason = Skipped.LOSSY
        if reason is None and _unrequested(model, policy, wanted):
            reason = Skipped.NOT_REQUESTED
        if reason is None and provider is not None and not now.credentialed(provider):
            reason = Skipped.NO_CREDENTIAL
        if reason is not None or provider is None:
            skips.append(Skip(model.id, model.provider_id, reason or Skipped.NO_ADAPTER))
            continue
        standing = now.standings.get(provider.id, _FINE)
        cached = 0
        if bond is not None and bond.model == model.id and bond.provider == provider.id:
            cached = estimate.cached_tokens(reserved[0], bond, now.estimates)
        one = estimate.expected(
            features, model, provider, now.estimates, now.program, reserved=reserved, cached=cached
        )
        if not one.latency_ms:
            one = structs.replace(one, latency_ms=standing.latency_ms)
        expected[model.id, provider.id] = one
        option = (model, provider, reserved[2])
        room = FREE
        if now.room is not None:
            room = now.room(provider, Call(model.name, one.input_tokens, one.output_tokens))
        if room.wait > 0:
            limited.append((option, room))
            skips.append(Skip(model.id, model.provider_id, Skipped.RATE_LIMITED, _until(room, now.at)))
        elif standing.available:
            options.append(option)
        else:
            unhealthy.append(option)
            skips.append(Skip(model.id, model.provider_id, Skipped.HEALTH_DOWN))
    return Eligible(tuple(options), tuple(unhealthy), tuple(limited), tuple(skips), expected)


def _until(room: Room, at: float) -> str:
    """Return what an operator reads: what is used up, and until when (UTC)."""
    when = datetime.fromtimestamp(at + room.wait, UTC)
    return f"{room.why} until {when:%Y-%m-%dT%H:%M:%SZ}"


_FINE: Final = Standing()
_NOTHING: Final = (0, 0, 0)


def _judge(
    model: Model, provider: Provider | None, features: Features, policy: Policy, now: Circumstances
) -> tuple[Skipped | None, tuple[int, int, int]]:
    """Return why the model cannot serve, None where it can, and what is reserved for it, as `estimate.reserve` does."""
    if provider is None:
        return Skipped.NO_ADAPTER, _NOTHING
    if not model.enabled or not provider.enabled:
        return Skipped.DISABLED, _NOTHING
    if not allowed(model.id, provider.id, policy, now.matching):
        return Skipped.NOT_ALLOWED, _NOTHING
    if policy.provider is not None and provider.id != policy.provider:
        return Skipped.NOT_REQUESTED, _NOTHING
    if policy.models is not None and model.id not in policy.models:
        return Skipped.NOT_REQUESTED, _NOTHING
    if model.weight < policy.min_weight:
        return Skipped.WEIGHT_BELOW_MINIMUM, _NOTHING
    if features.needs & model.lacks:
        return Skipped.CAPABILITY_MISSING, _NOTHING
    reserved = estimate.reserve(features, model, now.estimates, now.program)
    tokens, _, cost = reserved
    if 0 < model.max_context_tokens < int(tokens * CONTEXT_MARGIN):
        return Skipped.CONTEXT_OVERFLOW, _NOTHING
    unbounded = model.pricing_source == UNKNOWN_PRICE
    if policy.max_budget_usd is not None and (unbounded or cost > policy.max_budget_usd * NANO):
        return Skipped.BUDGET_EXCEEDED, reserved
    return None, reserved


def allowed(model: str, provider: str, policy: Policy, matching: Matching = matches) -> bool:
    """Tell whether the caller's key may use this model at this provider."""
    models, providers = policy.allowed_models, policy.allowed_providers
    return (models is None or matching(models, model)) and (
        providers is None or matching(providers, provider)
    )


def _unrequested(model: Model, policy: Policy, wanted: frozenset[tuple[str, str]]) -> bool:
    return policy.model is not None and not policy.fallback and (model.id, model.provider_id) not in wanted
