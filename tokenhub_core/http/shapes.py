"""The JSON of the admin API: what it takes, checked and typed, and what it shows."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, structs

from tokenhub_core.catalog import NANO_PER_1K, nano_per_token
from tokenhub_core.errors import Kind, client_fault
from tokenhub_core.health.tracker import State, View
from tokenhub_core.policy import ANY_MODEL, Layer
from tokenhub_core.providers import vendors
from tokenhub_core.providers.adapters import dialect_of
from tokenhub_core.store.rows import MICROS
from tokenhub_core.types import Json, Mode, Model, Need, Plan, Provider, ProviderType

MAX_BODY: Final = 1 << 20
"""Bytes of a request body."""
_MAX_DIGITS: Final = 18
_UNSEEN: Final = View(State.HEALTHY, 0, 0.0, 0, 0.0, 0, None, None, None, False, "", None, None)
"""A provider that was never called."""
_MOMENTS: Final = tuple(field.name for field in fields(View) if field.name.endswith(("_until", "_at")))

type Weight = Annotated[int, Meta(ge=0, le=10)]
type Tokens = Annotated[int, Meta(ge=0, le=1_000_000_000)]
type PerThousand = Annotated[float, Meta(ge=0, le=1000)]
"""Dollars per thousand tokens."""
type Budget = Annotated[float, Meta(ge=0, le=100)]
"""Dollars."""
type Latency = Annotated[int, Meta(ge=1, le=3_600_000)]
"""Milliseconds."""


class ProviderBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /providers`. The id of a known vendor says type and base URL; else `openai`, and none."""

    id: str
    type: ProviderType | None = None
    base_url: str = ""
    endpoints: list[str] = []
    enabled: bool = True
    cred_store: str = ""
    api_key: str = ""


class ProviderPatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`PATCH /providers/{id}`: what is absent stays."""

    type: ProviderType | msgspec.UnsetType = msgspec.UNSET
    base_url: str | msgspec.UnsetType = msgspec.UNSET
    endpoints: list[str] | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    cred_store: str | msgspec.UnsetType = msgspec.UNSET
    api_key: str | msgspec.UnsetType = msgspec.UNSET


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


class SimulateBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /routing/simulate`."""

    mode: Mode | None = None
    max_budget_usd: Budget | None = None
    max_latency_ms: Latency | None = None
    min_weight: Weight | None = None
    token_count: Tokens = 500
    max_output_tokens: Tokens | None = None
    model_hint: str = ""
    provider: str | None = None
    needs: list[Need] = []


class PasswordBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /vault/init` and `/vault/unlock`."""

    admin_password: str


async def read[T](request: web.Request, type_: type[T]) -> T:
    """Decode and check a body; raises `TokenHubError` that names the field."""
    raw = bytearray()
    async for piece in request.content.iter_any():
        raw += piece
        if len(raw) > MAX_BODY:
            raise client_fault(f"the body is larger than {MAX_BODY} bytes", kind=Kind.TOO_LARGE)
    try:
        return msgspec.json.decode(raw, type=type_)
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


def provider_json(provider: Provider, *, models: int, credential: bool) -> Json:
    """Return what the API shows of a provider; never a credential, only whether there is one."""
    return {
        "id": provider.id,
        "type": provider.type.value,
        "base_url": provider.endpoints[0] if provider.endpoints else "",
        "endpoints": list(provider.endpoints),
        "dialect": provider.dialect.value,
        "enabled": provider.enabled,
        "cred_store": provider.cred_store,
        "credential": credential,
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
        "input_per_1k": model.prices.input / NANO_PER_1K,
        "output_per_1k": model.prices.output / NANO_PER_1K,
        "pricing_source": model.pricing_source,
        "enabled": model.enabled,
        "lacks": sorted(need.value for need in model.lacks),
        "quirks": sorted(model.quirks),
    }


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
    names = {"input_per_1k": "input", "output_per_1k": "output"}
    prices = {names[key]: nano_per_token(changes.pop(key)) for key in names if key in changes}
    return {**changes, "prices": prices} if prices else changes


def plan_json(plan: Plan) -> Json:
    """Return a plan as the simulator shows it: candidates with their scores, skips with their reasons."""
    return {
        "reason": plan.reason,
        "input_tokens": plan.input_tokens,
        "output_tokens": plan.output_tokens,
        "policy": {**asdict(plan.policy), "why": dict(plan.policy.why)},
        "candidates": [
            {
                "model_id": candidate.model.id,
                "provider_id": candidate.provider.id,
                "score": candidate.score,
                "terms": structs.asdict(candidate.terms),
                "estimated_cost_usd": candidate.estimated_nanousd / 1e9,
                "pinned": candidate.pinned,
            }
            for candidate in plan.candidates
        ],
        "skips": [structs.asdict(skip) for skip in plan.skips],
    }


def layer_of(body: SimulateBody) -> Layer:
    """Return the wishes of a simulated call."""
    names = ("mode", "max_budget_usd", "max_latency_ms", "min_weight", "provider")
    wishes = {name: value for name in names if (value := getattr(body, name)) is not None}
    if body.model_hint not in ANY_MODEL:
        wishes["model"] = body.model_hint
    return Layer("request", wishes)


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
