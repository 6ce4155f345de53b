"""Who could serve: providers, models, and the plan that orders them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

from tokenhub_core.types.aliases import Alias
from tokenhub_core.types.conversation import Features, Need
from tokenhub_core.types.policy import Policy
from tokenhub_core.types.traces import Bond
from tokenhub_core.types.wire import Dialect


class ProviderType(StrEnum):
    """Which adapter speaks to a provider."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    VLLM = "vllm"
    OPENAI_COMPATIBLE = "openai_compatible"
    GEMINI = "gemini"
    OLLAMA = "ollama"
    AZURE = "azure"
    SIMULATOR = "simulator"
    ORIGIN = "origin"
    """The host that an intercepted call was meant for, with the caller's own credential."""


class OnDisconnect(StrEnum):
    """What is done with a provider's stream when its caller has left."""

    CANCEL = "cancel"
    """It is let go of at once; what was used is an estimate."""
    DRAIN = "drain"
    """It is read on, within limits, so that its usage is known: for providers that bill on anyway."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One of a provider's credentials: what it is called, where it is read at use, and whether it may be used."""

    name: str
    store: str
    """`vault`, `env:NAME` or `memory`; empty for the provider's own one, which is where `cred_store` says."""
    enabled: bool = True


DEFAULT_CREDENTIAL: Final = "default"
"""The name of a provider's own credential, the one of `cred_store`."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An endpoint that serves models. `endpoints` are base URLs, tried in turn where there are several."""

    id: str
    type: ProviderType
    endpoints: tuple[str, ...]
    dialect: Dialect = Dialect.OPENAI_CHAT
    """The one that calls in a dialect which it does not speak are translated into."""
    enabled: bool = True
    cred_store: str = "none"
    """`vault`, `env:NAME`, `memory`, `caller` or `none`: where the credential is read at use."""
    also: tuple[Dialect, ...] = ()
    """Further dialects that it speaks: calls in them stay as they are."""
    credentials: tuple[Credential, ...] = ()
    """Those beside its own one, by name; its own one too where that is switched off."""
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL

    @property
    def keys(self) -> tuple[Credential, ...]:
        """Return all credentials, its own one first; without one of its own there may be others."""
        own = next((one for one in self.credentials if one.name == DEFAULT_CREDENTIAL), None)
        others = tuple(one for one in self.credentials if one is not own)
        if others and self.cred_store == "none":
            return others
        enabled = own is None or own.enabled
        return (Credential(DEFAULT_CREDENTIAL, self.cred_store, enabled), *others)

    def speaks(self, dialect: Dialect) -> Dialect:
        """Return the dialect to use for a call in `dialect`: the same where the provider speaks it."""
        return dialect if dialect in self.also else self.dialect


@dataclass(frozen=True, slots=True)
class Tier:
    """Nano-dollars per token of a call with more than `above` input tokens: of all its tokens, the first ones too."""

    above: int
    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None


@dataclass(frozen=True, slots=True)
class Prices:
    """Nano-dollars per token."""

    input: float = 0.0
    output: float = 0.0
    cache_read: float | None = None
    """None: cached input costs like other input."""
    cache_write: float | None = None
    reasoning: float | None = None
    """None: thoughts cost like other output."""
    batch: float | None = None
    """The share of all these that a batched call pays. Only known and shown: batches pass through, unrouted."""
    tiers: tuple[Tier, ...] = ()
    """By `above`, ascending."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model at one provider. The same `id` may stand at several providers."""

    id: str
    provider_id: str
    upstream: str = ""
    """Its name at the provider; empty means `id`."""
    weight: int = 5
    max_context_tokens: int = 0
    """0: unknown."""
    max_output_tokens: int = 0
    """0: unknown."""
    prices: Prices = Prices()
    pricing_source: str = "manual"
    enabled: bool = True
    lacks: frozenset[Need] = frozenset()
    """Capabilities known to be missing; what is not known is assumed to be there."""
    quirks: frozenset[str] = frozenset()
    """Names of the repairs in `quirks.table` that its calls and answers need."""

    @property
    def name(self) -> str:
        """Return the name that the provider knows it by."""
        return self.upstream or self.id


class Standing(msgspec.Struct, frozen=True):
    """What routing sees of a provider's health at one moment."""

    available: bool = True
    probing: bool = False
    """Half-open: one trial call may go through."""
    error_rate: float = 0.0
    latency_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """The frozen view of everything that could serve; swapped whole when anything changes."""

    version: int = 0
    providers: Mapping[str, Provider] = field(default_factory=dict)
    models: tuple[Model, ...] = ()
    by_id: Mapping[str, tuple[Model, ...]] = field(default_factory=dict)
    """Derived from `models` by `routing.fleet.build`."""
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    """By name, the switched-off ones too."""
    pools: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Derived: the ids of the models that the patterns of each pool match."""


class Skipped(StrEnum):
    """Why a model was not eligible. The first reason that applies, in this order, is counted."""

    DISABLED = "disabled"
    NO_ADAPTER = "no_adapter"
    NOT_ALLOWED = "not_allowed"
    """The caller's key is not good for this model, or for this provider."""
    NOT_REQUESTED = "not_requested"
    WEIGHT_BELOW_MINIMUM = "weight_below_minimum"
    CAPABILITY_MISSING = "capability_missing"
    CONTEXT_OVERFLOW = "context_overflow"
    LOSSY = "lossy"
    BUDGET_EXCEEDED = "budget_exceeded"
    NO_CREDENTIAL = "no_credential"
    RATE_LIMITED = "rate_limited"
    HEALTH_DOWN = "health_down"


class Skip(msgspec.Struct, frozen=True):
    """One model that was left out, and why."""

    model: str
    provider: str
    reason: Skipped
    detail: str = ""


class Terms(msgspec.Struct, frozen=True):
    """The terms of a score, each already weighted; their sum is the score."""

    cost: float = 0.0
    latency: float = 0.0
    failure: float = 0.0
    weight: float = 0.0
    loss: float = 0.0


class Expected(msgspec.Struct, frozen=True):
    """What a call was expected to be at one candidate; with its terms these are all that its score was made of."""

    input_tokens: int = 0
    output_tokens: int = 0
    """The likely length of the answer; the reserve that money is set aside for may be larger."""
    nanousd: int = 0
    latency_ms: float = 0.0
    """To the end of the answer where that was learned, else the provider's moving average."""
    input_error: float = 0.0
    """The relative error of the input estimate, as learned; 0 where nothing was."""
    cached_tokens: int = 0
    """Of the input tokens, those that are likely to be read from the provider's cache."""


class Draw(msgspec.Struct, frozen=True):
    """One sampled value and the Beta distribution it came from."""

    sample: float
    alpha: float
    beta: float
    propensity: float
    """The probability that this candidate comes first, over all draws from the same distributions."""


class Facts(msgspec.Struct, frozen=True):
    """What one candidate's score is made of: all of it, so that whoever kept them can score again."""

    cost: int | None = 0
    """Nano-dollars; None where the price is unknown, which counts like the dearest."""
    latency_ms: float = 0.0
    error_rate: float = 0.0
    weight: int = 0


class Candidate(msgspec.Struct, frozen=True):
    """One way to serve the call. Lower scores are better."""

    model: Model
    provider: Provider
    score: float
    terms: Terms
    estimated_nanousd: int
    """Input estimate plus the output reserve."""
    pinned: bool = False
    """The caller named this model."""
    dialect: Dialect = Dialect.OPENAI_CHAT
    """What is spoken to the provider for this call."""
    losses: tuple[str, ...] = ()
    """What of the call this dialect cannot carry, told before anything is sent."""
    expected: Expected = Expected()
    draw: Draw | None = None
    """Set where sampled values and not the scores made the order."""
    facts: Facts = Facts()
    standing: Standing = Standing()
    """The provider's health as it was seen."""


class Plan(msgspec.Struct, frozen=True):
    """The ordered candidates of one call, and everything that explains the order."""

    policy: Policy
    candidates: tuple[Candidate, ...]
    skips: tuple[Skip, ...]
    input_tokens: int
    output_tokens: int
    reason: str
    """`routed-hint-exact`, `routed-weight-N`, `routed-origin`, `routed-affinity` or `routed-thompson`."""
    fleet_version: int = 0
    lone: bool = False
    """Bad health alone had emptied the list: the one candidate is to be tried in spite of it."""
    features: Features | None = None
    """The call as routing saw it."""
    context: str = ""
    """The kind of call that rewards are learned for, see `routing.bandit.context`."""
    dialect: Dialect = Dialect.OPENAI_CHAT
    """The caller's."""
    seed: str = ""
    """What broke ties."""
    origin: str = ""
    """The id of the provider that stands for the host that the call was meant for, empty where it was no option."""
    chances: Mapping[str, float] = {}
    """Where an alias drew its target anew for this call: each target's share, as the alias names it."""
    spared: tuple[Candidate, ...] = ()
    """The other unhealthy ones where `lone`: scored, and not to be tried."""
    bond: Bond | None = None
    """Who served the conversation before; None where the call begins one, or nobody knows it again."""
    passed_over: tuple[Skip, ...] = ()
    """Candidates that were not asked when their turn came: their caller's budgets had too little left for them."""
