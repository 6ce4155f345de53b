"""Who may serve a call at all. Every limit here is hard: no later step lets an excluded model back in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from tokenhub_core.routing import estimate
from tokenhub_core.types import (
    NANO,
    Dialect,
    Features,
    Fleet,
    Model,
    Policy,
    Provider,
    Skip,
    Skipped,
    Standing,
    Usage,
)

CONTEXT_MARGIN: Final = 1.15
"""The input estimate is counted this much larger against a context window."""

UNKNOWN_PRICE: Final = "unknown"
"""The `pricing_source` of a model whose price nobody told us: never taken for free, and within no budget."""

type Option = tuple[Model, Provider, int]
"""A model, its provider, and the estimated cost of the call there in nano-dollars."""


class Eligible(msgspec.Struct, frozen=True):
    """The options that are left, those that only bad health keeps back, and what was left out."""

    options: tuple[Option, ...]
    unhealthy: tuple[Option, ...]
    skips: tuple[Skip, ...]


class Circumstances(msgspec.Struct, frozen=True):
    """What eligibility depends on besides the call and the policy."""

    standings: Mapping[str, Standing]
    credentialed: Callable[[Provider], bool]
    """Whether a credential can be had for this provider now."""


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
    tokens = estimate.input_tokens(features)
    options: list[Option] = []
    unhealthy: list[Option] = []
    skips: list[Skip] = []
    for model in fleet.models:
        provider = fleet.providers.get(model.provider_id)
        reason, cost = _judge(model, provider, features, policy, tokens)
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
        elif not now.standings.get(provider.id, _FINE).available:
            unhealthy.append((model, provider, cost))
            skips.append(Skip(model.id, model.provider_id, Skipped.HEALTH_DOWN))
        else:
            options.append((model, provider, cost))
    return Eligible(tuple(options), tuple(unhealthy), tuple(skips))


_FINE: Final = Standing()


def _judge(
    model: Model, provider: Provider | None, features: Features, policy: Policy, tokens: int
) -> tuple[Skipped | None, int]:
    if provider is None:
        return Skipped.NO_ADAPTER, 0
    if not model.enabled or not provider.enabled:
        return Skipped.DISABLED, 0
    if policy.provider is not None and provider.id != policy.provider:
        return Skipped.NOT_REQUESTED, 0
    if model.weight < policy.min_weight:
        return Skipped.WEIGHT_BELOW_MINIMUM, 0
    if features.needs & model.lacks:
        return Skipped.CAPABILITY_MISSING, 0
    if 0 < model.max_context_tokens < int(tokens * CONTEXT_MARGIN):
        return Skipped.CONTEXT_OVERFLOW, 0
    output = estimate.output_tokens(features, model)
    cost = estimate.cost(model.prices, Usage(input_tokens=tokens, output_tokens=output))
    unbounded = model.pricing_source == UNKNOWN_PRICE
    if policy.max_budget_usd is not None and (unbounded or cost > policy.max_budget_usd * NANO):
        return Skipped.BUDGET_EXCEEDED, cost
    return None, cost


def _unrequested(model: Model, policy: Policy, wanted: frozenset[tuple[str, str]]) -> bool:
    return policy.model is not None and not policy.fallback and (model.id, model.provider_id) not in wanted
