"""The JSON of the admin API: what it takes, checked and typed, and what it shows."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, replace
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from tokenhub_core.catalog import NANO_PER_1K, nano_per_token, prices_per_1k
from tokenhub_core.errors import Kind, client_fault
from tokenhub_core.health.tracker import State, View
from tokenhub_core.providers import vendors
from tokenhub_core.providers.adapters import dialect_of
from tokenhub_core.store.rows import MICROS
from tokenhub_core.store.search import PAGE_MAX
from tokenhub_core.types import (
    Dialect,
    Json,
    Mode,
    Model,
    Need,
    OnDisconnect,
    Prices,
    Provider,
    ProviderType,
    Tier,
)

MAX_BODY: Final = 1 << 20
"""Bytes of a request body."""
PAGE: Final = 100
"""Entries of a page where nobody says how many."""
_MAX_DIGITS: Final = 18
_MAX_SEQ: Final = 1 << 62
_LATEST: Final = 1e11
_UNSEEN: Final = View(State.HEALTHY, 0, 0.0, 0, 0.0, 0, None, False, "", None, None)
"""A provider that was never called."""
_MOMENTS: Final = tuple(field.name for field in fields(View) if field.name.endswith(("_until", "_at")))

_PRICES: Final = {
    f"{name}_per_1k": name for name in ("input", "output", "cache_read", "cache_write", "reasoning")
}
"""The fields of prices in dollars per thousand tokens, and of `types.Prices`."""

type Weight = Annotated[int, Meta(ge=0, le=10)]
type Tokens = Annotated[int, Meta(ge=0, le=1_000_000_000)]
type PerThousand = Annotated[float, Meta(ge=0, le=1000)]
"""Dollars per thousand tokens."""
type Share = Annotated[float, Meta(gt=0, le=1)]
type Budget = Annotated[float, Meta(ge=0, le=100)]
"""Dollars."""
type Latency = Annotated[int, Meta(ge=1, le=3_600_000)]
"""Milliseconds."""
type Seconds = Annotated[float, Meta(ge=0, lt=_LATEST)]
"""Since the epoch."""
type PageSize = Annotated[int, Meta(ge=1, le=PAGE_MAX)]
type Seq = Annotated[int, Meta(ge=0, le=_MAX_SEQ)]
"""A place in a log; 0 stands for its end."""


class ProviderBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /providers`. The id of a known vendor says type and base URL; else `openai`, and none."""

    id: str
    type: ProviderType | None = None
    base_url: str = ""
    endpoints: list[str] = []
    enabled: bool = True
    cred_store: str = ""
    api_key: str = ""
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL


class ProviderPatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`PATCH /providers/{id}`: what is absent stays."""

    type: ProviderType | msgspec.UnsetType = msgspec.UNSET
    base_url: str | msgspec.UnsetType = msgspec.UNSET
    endpoints: list[str] | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    cred_store: str | msgspec.UnsetType = msgspec.UNSET
    api_key: str | msgspec.UnsetType = msgspec.UNSET
    on_disconnect: OnDisconnect | msgspec.UnsetType = msgspec.UNSET


class TierBody(msgspec.Struct, forbid_unknown_fields=True):
    """What all tokens of a call cost that has more than `above_tokens` input tokens."""

    above_tokens: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    input_per_1k: PerThousand
    output_per_1k: PerThousand
    cache_read_per_1k: PerThousand | None = None
    cache_write_per_1k: PerThousand | None = None


class ModelBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /models`. Prices in dollars per thousand tokens; absent ones come from the price catalogue."""

    id: str
    provider_id: str
    upstream: str = ""
    weight: Weight = 5
    max_context_tokens: Tokens = 0
    max_output_tokens: Tokens = 0
    input_per_1k: PerThousand | None = None
    output_per_1k: PerThousand | None = None
    cache_read_per_1k: PerThousand | None = None
    cache_write_per_1k: PerThousand | None = None
    reasoning_per_1k: PerThousand | None = None
    batch_share: Share | None = None
    price_tiers: list[TierBody] = []
    enabled: bool = True
    lacks: list[Need] = []
    quirks: list[str] = []


class ModelPatch(msgspec.Struct, forbid_unknown_fields=True):
    """`PATCH /models/{id}`: what is absent stays."""

    upstream: str | msgspec.UnsetType = msgspec.UNSET
    weight: Weight | msgspec.UnsetType = msgspec.UNSET
    max_context_tokens: Tokens | msgspec.UnsetType = msgspec.UNSET
    max_output_tokens: Tokens | msgspec.UnsetType = msgspec.UNSET
    input_per_1k: PerThousand | msgspec.UnsetType = msgspec.UNSET
    output_per_1k: PerThousand | msgspec.UnsetType = msgspec.UNSET
    cache_read_per_1k: PerThousand | msgspec.UnsetType | None = msgspec.UNSET
    cache_write_per_1k: PerThousand | msgspec.UnsetType | None = msgspec.UNSET
    reasoning_per_1k: PerThousand | msgspec.UnsetType | None = msgspec.UNSET
    batch_share: Share | msgspec.UnsetType | None = msgspec.UNSET
    price_tiers: list[TierBody] | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    lacks: list[Need] | msgspec.UnsetType = msgspec.UNSET
    quirks: list[str] | msgspec.UnsetType = msgspec.UNSET


class RoutingBody(msgspec.Struct, forbid_unknown_fields=True):
    """`PUT /routing-config`: the whole of it; null means the setting's own default."""

    default_mode: Mode | None = None
    default_max_budget_usd: Budget | None = None
    default_max_latency_ms: Latency | None = None
    on_malformed_directive: Literal["reject", "ignore", "off"] | None = None
    fallback: bool | None = None
    explore: Literal["off", "thompson"] | None = None
    affinity: Literal["on", "off"] | None = None


class HostBody(msgspec.Struct, forbid_unknown_fields=True):
    """A host to intercept; `*.` stands for one label. Its calls speak this dialect."""

    host: str
    dialect: Dialect


class PasswordBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /vault/init` and `/vault/rotate`."""

    admin_password: str


class UnlockBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /vault/unlock`."""

    admin_password: str
    accept: bool = False
    """Take what can still be opened of a vault that cannot be trusted."""


class NewPasswordBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /vault/password`."""

    old_password: str
    new_password: str


class SecretBody(msgspec.Struct, forbid_unknown_fields=True):
    """`PUT /vault/secrets/{name}`."""

    value: str


async def raw(request: web.Request, limit: int = MAX_BODY) -> bytes:
    """Return a body of at most `limit` bytes; raises `TokenHubError` (`TOO_LARGE`)."""
    body = bytearray()
    async for piece in request.content.iter_any():
        body += piece
        if len(body) > limit:
            raise client_fault(f"the body is larger than {limit} bytes", kind=Kind.TOO_LARGE)
    return bytes(body)


async def read[T](request: web.Request, type_: type[T]) -> T:
    """Decode and check a body; raises `TokenHubError` that names the field."""
    body = await raw(request)
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.MsgspecError as error:
        raise client_fault(str(error)) from None
    except UnicodeDecodeError:
        raise client_fault("the body is not valid UTF-8") from None


def whole(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    """Return a whole number from the query, within bounds; raises `TokenHubError` that names it."""
    raw = request.query.get(name)
    if raw is None:
        return default
    digits = raw.isascii() and raw.isdigit() and len(raw) <= _MAX_DIGITS
    if not digits or not low <= int(raw) <= high:
        raise client_fault(f"{name} must be between {low} and {high}", param=name)
    return int(raw)


def page(request: web.Request) -> tuple[int, int | None]:
    """Return how many entries the query asks for, and before which; raises `TokenHubError` that names the field."""
    return whole(request, "limit", PAGE, 1, PAGE_MAX), place(request, "before") or None


def place(request: web.Request, name: str) -> int | None:
    """Return a place in a log from the query, None where it names none."""
    return whole(request, name, 0, 0, _MAX_SEQ) if name in request.query else None


def moment(request: web.Request, name: str) -> float | None:
    """Return seconds since the epoch from the query, None where it names none."""
    raw = request.query.get(name)
    if raw is None:
        return None
    try:
        seconds = float(raw)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < _LATEST:
        raise client_fault(f"{name} must be seconds since the epoch", param=name)
    return seconds


def provider_json(provider: Provider, *, models: int, credentials: list[Json]) -> Json:
    """Return what the API shows of a provider; never a credential, only whether there is one."""
    return {
        "id": provider.id,
        "type": provider.type.value,
        "base_url": provider.endpoints[0] if provider.endpoints else "",
        "endpoints": list(provider.endpoints),
        "dialect": provider.dialect.value,
        "enabled": provider.enabled,
        "cred_store": provider.cred_store,
        "on_disconnect": provider.on_disconnect.value,
        "credential": any(one["credential"] for one in credentials),
        "credentials": credentials,
        "models": models,
    }


def model_json(model: Model) -> Json:
    """Return what the API shows of a model; prices in dollars per thousand tokens."""
    return {
        "id": model.id,
        "provider_id": model.provider_id,
        "upstream": model.name,
        "weight": model.weight,
        "max_context_tokens": model.max_context_tokens,
        "max_output_tokens": model.max_output_tokens,
        **prices_json(model.prices),
        "pricing_source": model.pricing_source,
        "enabled": model.enabled,
        "lacks": sorted(need.value for need in model.lacks),
        "quirks": sorted(model.quirks),
    }


def prices_json(prices: Prices) -> Json:
    """Return prices as the API shows them, in dollars per thousand tokens; null where none is known apart."""
    return {
        "input_per_1k": prices.input / NANO_PER_1K,
        "output_per_1k": prices.output / NANO_PER_1K,
        "cache_read_per_1k": _per_1k(prices.cache_read),
        "cache_write_per_1k": _per_1k(prices.cache_write),
        "reasoning_per_1k": _per_1k(prices.reasoning),
        "batch_share": prices.batch,
        "price_tiers": [
            {
                "above_tokens": tier.above,
                "input_per_1k": tier.input / NANO_PER_1K,
                "output_per_1k": tier.output / NANO_PER_1K,
                "cache_read_per_1k": _per_1k(tier.cache_read),
                "cache_write_per_1k": _per_1k(tier.cache_write),
            }
            for tier in prices.tiers
        ],
    }


def _per_1k(price: float | None) -> float | None:
    return None if price is None else price / NANO_PER_1K


def provider_of(body: ProviderBody, cred_store: str) -> Provider:
    """Return the provider that a body describes; `cred_store` holds where the body names none."""
    kind, usual = vendors.starting(body.id, body.type)
    named = [base] if (base := body.base_url or usual) else []
    return Provider(
        id=body.id,
        type=kind,
        endpoints=tuple(body.endpoints or named),
        dialect=dialect_of(kind),
        enabled=body.enabled,
        cred_store=body.cred_store or cred_store,
        on_disconnect=body.on_disconnect,
    )


def provider_changes(patch: ProviderPatch) -> dict[str, Any]:
    """Return a patch in the fields of `types.Provider`, the key left out."""
    changes = given(patch)
    changes.pop("api_key", None)
    if "base_url" in changes:
        changes["endpoints"] = [changes.pop("base_url")]
    if "endpoints" in changes:
        changes["endpoints"] = tuple(changes["endpoints"])
    if "type" in changes:
        changes["dialect"] = dialect_of(changes["type"])
    return changes


def model_of(body: ModelBody) -> Model:
    """Return the model that a body describes, without its prices."""
    return Model(
        id=body.id,
        provider_id=body.provider_id,
        upstream=body.upstream,
        weight=body.weight,
        max_context_tokens=body.max_context_tokens,
        max_output_tokens=body.max_output_tokens,
        enabled=body.enabled,
        lacks=frozenset(body.lacks),
        quirks=frozenset(body.quirks),
    )


def given(body: msgspec.Struct) -> dict[str, Any]:
    """Return the fields that a patch names."""
    fields = ((name, getattr(body, name)) for name in body.__struct_fields__)
    return {name: value for name, value in fields if value is not msgspec.UNSET}


def model_changes(patch: ModelPatch) -> dict[str, Any]:
    """Return a patch in the fields of `types.Model`."""
    changes = given(patch)
    prices: dict[str, Any] = {}
    for key, name in _PRICES.items():
        if key in changes:
            price = changes.pop(key)
            prices[name] = None if price is None else nano_per_token(price)
    if "batch_share" in changes:
        prices["batch"] = changes.pop("batch_share")
    if "price_tiers" in changes:
        prices["tiers"] = tuple(map(_tier, changes.pop("price_tiers")))
    return {**changes, "prices": prices} if prices else changes


def prices_of(body: ModelBody) -> Prices | None:
    """Return the prices that a body gives, None where it gives none; what belongs to prices needs prices."""
    prices = prices_per_1k(body.input_per_1k, body.output_per_1k)
    more = ModelPatch(
        cache_read_per_1k=body.cache_read_per_1k,
        cache_write_per_1k=body.cache_write_per_1k,
        reasoning_per_1k=body.reasoning_per_1k,
        batch_share=body.batch_share,
        price_tiers=body.price_tiers,
    )
    # What is free is given too.
    given_too = {
        name: value for name, value in model_changes(more)["prices"].items() if value not in (None, ())
    }
    if prices is None and given_too:
        raise client_fault("give input_per_1k and output_per_1k too", param="input_per_1k")
    return prices and replace(prices, **given_too)


def _tier(body: TierBody) -> Tier:
    read, write = body.cache_read_per_1k, body.cache_write_per_1k
    return Tier(
        body.above_tokens,
        nano_per_token(body.input_per_1k),
        nano_per_token(body.output_per_1k),
        None if read is None else nano_per_token(read),
        None if write is None else nano_per_token(write),
    )


def health_json(provider_id: str, view: View | None, *, age: float) -> Json:
    """Return what the API shows of a provider's health; `age` turns monotonic moments into the calendar's."""
    shown = asdict(view or _UNSEEN)
    for name in _MOMENTS:
        if shown[name] is not None:
            shown[name] = round(shown[name] + age, 3)
    return {"provider_id": provider_id, **shown}


def log_json(row: Json) -> Json:
    """Return a record as the API shows it: `at` in seconds since the epoch."""
    return {**row, "at": row["at"] / MICROS}
