"""The JSON of the admin API: what it takes, checked and typed, and what it shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import msgspec
from aiohttp import web

from tokenhub_core.errors import Kind, client_fault
from tokenhub_core.policy import Layer
from tokenhub_core.types import Json, Mode, Model, Need, Plan, Prices, Provider, ProviderType

PER_1K: Final = 1e6
"""Nano-dollars per token for one dollar per thousand tokens."""
MAX_BODY: Final = 1 << 20


class ProviderBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /providers`."""

    id: str
    type: ProviderType = ProviderType.OPENAI
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
    weight: int = 5
    max_context_tokens: int = 0
    max_output_tokens: int = 0
    input_per_1k: float | None = None
    output_per_1k: float | None = None
    enabled: bool = True
    lacks: list[Need] = []


class ModelPatch(msgspec.Struct, forbid_unknown_fields=True):
    """`PATCH /models/{id}`: what is absent stays."""

    upstream: str | msgspec.UnsetType = msgspec.UNSET
    weight: int | msgspec.UnsetType = msgspec.UNSET
    max_context_tokens: int | msgspec.UnsetType = msgspec.UNSET
    max_output_tokens: int | msgspec.UnsetType = msgspec.UNSET
    input_per_1k: float | msgspec.UnsetType = msgspec.UNSET
    output_per_1k: float | msgspec.UnsetType = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET
    lacks: list[Need] | msgspec.UnsetType = msgspec.UNSET


class RoutingBody(msgspec.Struct, forbid_unknown_fields=True):
    """`PUT /routing-config`: the whole of it; null means the setting's own default."""

    default_mode: Mode | None = None
    default_max_budget_usd: float | None = None
    default_max_latency_ms: int | None = None
    on_malformed_directive: str | None = None
    fallback: bool | None = None


class SimulateBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /routing/simulate`."""

    mode: Mode | None = None
    max_budget_usd: float | None = None
    max_latency_ms: int | None = None
    min_weight: int = 0
    token_count: int = 500
    max_output_tokens: int | None = None
    model_hint: str = ""
    provider: str | None = None
    needs: list[Need] = []


class PasswordBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /vault/init` and `/vault/unlock`."""

    admin_password: str


async def read[T](request: web.Request, type_: type[T]) -> T:
    """Decode and check a body; raises `TokenHubError` that names the field."""
    raw = await request.content.read(MAX_BODY + 1)
    if len(raw) > MAX_BODY:
        raise client_fault("the body is too large", kind=Kind.TOO_LARGE)
    try:
        return msgspec.json.decode(raw, type=type_)
    except msgspec.MsgspecError as error:
        raise client_fault(str(error)) from None


def whole(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    """Return a whole number from the query, within bounds; raises `TokenHubError` that names it."""
    raw = request.query.get(name)
    if raw is None:
        return default
    if not raw.isascii() or not raw.isdigit() or not low <= int(raw[:19]) <= high:
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
        "input_per_1k": model.prices.input / PER_1K,
        "output_per_1k": model.prices.output / PER_1K,
        "pricing_source": model.pricing_source,
        "enabled": model.enabled,
        "lacks": sorted(need.value for need in model.lacks),
    }


def model_of(body: ModelBody) -> Model:
    """Return the model that a body describes, prices open where it names none."""
    return Model(
        id=body.id,
        provider_id=body.provider_id,
        upstream=body.upstream,
        weight=body.weight,
        max_context_tokens=body.max_context_tokens,
        max_output_tokens=body.max_output_tokens,
        prices=Prices((body.input_per_1k or 0.0) * PER_1K, (body.output_per_1k or 0.0) * PER_1K),
        enabled=body.enabled,
        lacks=frozenset(body.lacks),
    )


def given(body: msgspec.Struct) -> dict[str, Any]:
    """Return the fields that a patch names."""
    fields = ((name, getattr(body, name)) for name in body.__struct_fields__)
    return {name: value for name, value in fields if value is not msgspec.UNSET}


def model_changes(patch: ModelPatch) -> dict[str, Any]:
    """Return a patch in the fields of `types.Model`."""
    changes = given(patch)
    names = {"input_per_1k": "input", "output_per_1k": "output"}
    prices = {names[k]: changes.pop(k) * PER_1K for k in list(changes) if k in names}
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
                "terms": asdict(candidate.terms),
                "estimated_cost_usd": candidate.estimated_nanousd / 1e9,
                "pinned": candidate.pinned,
            }
            for candidate in plan.candidates
        ],
        "skips": [asdict(skip) for skip in plan.skips],
    }


def layer_of(body: SimulateBody) -> Layer:
    """Return the wishes of a simulated call."""
    wishes: dict[str, Any] = {"min_weight": body.min_weight}
    for name in ("mode", "max_budget_usd", "max_latency_ms", "provider"):
        if (value := getattr(body, name)) is not None:
            wishes[name] = value
    return Layer("request", wishes)
