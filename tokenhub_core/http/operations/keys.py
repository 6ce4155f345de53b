"""Clients: their keys, what those may spend, and what they sign directives with."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from tokenhub_core.admission.apikeys import KeyBody
from tokenhub_core.admission.budgets import Period, Unit
from tokenhub_core.http.apikeys import RotateBody
from tokenhub_core.http.budgets import BudgetBody, BudgetPatch
from tokenhub_core.http.openapi import Area, Operation, items, many, shown
from tokenhub_core.http.operations.fleet import BASE, Done
from tokenhub_core.types import KeyLimits, Privacy, Scope

_KEYS: Final = f"{BASE}/apikeys"
_KEY: Final = _KEYS + "/{id}"
_BUDGETS: Final = f"{BASE}/budgets"
_BUDGET: Final = _BUDGETS + "/{id}"


class NewKeyBody(KeyBody, forbid_unknown_fields=True, kw_only=True):
    """What an operator says of a new key."""

    name: str


KeyLimitsShown = shown("KeyLimitsShown", KeyLimits)
KeyPrivacyShown = shown("KeyPrivacyShown", Privacy)


class TrustShown(msgspec.Struct):
    """What directives in a key's calls may do; null: as the operator's default says."""

    roles: list[str] | None
    names: list[str] | None
    signed: bool
    max_budget_usd: float | None
    max_latency_ms: int | None
    max_steps: int | None


class Previous(msgspec.Struct):
    """An older secret that goes on until it ends."""

    prefix: str
    expires_at: float | None


class _Key(msgspec.Struct):
    """A client's key, without its secret. Moments in seconds since the epoch; null: never."""

    id: str
    name: str
    prefix: str
    enabled: bool
    scopes: list[Scope]
    models: list[str]
    providers: list[str]
    hosts: list[str]
    project: str
    tags: list[str]
    trust: TrustShown
    expires_at: float | None
    rotation_days: int
    rotate_at: float | None
    previous: list[Previous]
    created_at: float
    updated_at: float
    last_used_at: float | None
    rotation_due: bool
    expired: bool


ApiKeyShown = shown("ApiKeyShown", _Key, limits=KeyLimitsShown, privacy=KeyPrivacyShown)
ApiKeyMade = shown("ApiKeyMade", ApiKeyShown, key=str, warning=str)


class _Keys(msgspec.Struct):
    """One page, newest first; `next` goes into `before` for the page after this one, null at the end."""

    total: int
    next: str | None


ApiKeyPage = shown("ApiKeyPage", _Keys, items=many(ApiKeyShown))


class KeyQuery(msgspec.Struct):
    """Which keys."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    before: Annotated[str, Meta(pattern=r"^[0-9]{1,18}\.", description="The `next` of another page.")] = ""


class Forecast(msgspec.Struct):
    """What comes of a budget if it is used as fast as up to now; null: there is no end, or it is not met."""

    at_end: int | None
    met_at: float | None


class BudgetShown(msgspec.Struct):
    """A budget and where it is. Amounts in micro-dollars where the unit is dollars, moments in seconds."""

    id: str
    owner: str
    period: Period
    unit: Unit
    zone: str
    limit: int
    spent: int
    reserved: int
    left: int
    thresholds: list[int]
    hard: bool
    since: float
    resets_at: float | None
    forecast: Forecast | None
    created_at: float


class BudgetQuery(msgspec.Struct):
    """Which budgets."""

    owner: str = ""


class SigningSecret(msgspec.Struct):
    """What a key signs its directives with, in URL-safe base64."""

    key_id: str
    secret: str


AREA: Final = Area(
    "keys",
    "Clients' keys, budgets, and what directives are signed with.",
    (
        Operation(
            method="GET",
            path=_KEYS,
            summary="List keys, newest first",
            query=KeyQuery,
            answers={200: ApiKeyPage},
        ),
        Operation(
            method="POST",
            path=_KEYS,
            summary="Make a key; its secret is in this answer and in no other",
            body=NewKeyBody,
            answers={201: ApiKeyMade},
        ),
        Operation(method="GET", path=_KEY, summary="Show a key", answers={200: ApiKeyShown}, refuses=(404,)),
        Operation(
            method="PATCH",
            path=_KEY,
            summary="Change a key",
            body=KeyBody,
            answers={200: ApiKeyShown},
            refuses=(404,),
        ),
        Operation(
            method="DELETE",
            path=_KEY,
            summary="Revoke a key: nobody is let in with it any more",
            answers={200: Done},
            refuses=(404,),
        ),
        Operation(
            method="POST",
            path=f"{_KEY}/rotate",
            summary="Give a key another secret; the older ones go on for a while",
            body=RotateBody,
            bare=True,
            answers={200: ApiKeyMade},
            refuses=(404,),
        ),
        Operation(
            method="GET",
            path=_BUDGETS,
            summary="List budgets and where they are",
            query=BudgetQuery,
            answers={200: items(BudgetShown)},
        ),
        Operation(
            method="POST",
            path=_BUDGETS,
            summary="Make a budget, or change the one of this owner, period and unit",
            body=BudgetBody,
            answers={200: BudgetShown, 201: BudgetShown},
        ),
        Operation(
            method="GET", path=_BUDGET, summary="Show a budget", answers={200: BudgetShown}, refuses=(404,)
        ),
        Operation(
            method="PATCH",
            path=_BUDGET,
            summary="Change a budget; its count stays",
            body=BudgetPatch,
            answers={200: BudgetShown},
            refuses=(404,),
        ),
        Operation(
            method="DELETE",
            path=_BUDGET,
            summary="Remove a budget, and what was counted of it",
            answers={200: Done},
            refuses=(404,),
        ),
        Operation(
            method="POST",
            path=f"{_BUDGET}/paid",
            summary="Begin to count anew",
            answers={200: BudgetShown},
            refuses=(404, 413),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/directives/secrets/{{key_id}}",
            summary="Read what a key signs directives with; the audit log has it first",
            text="An id with a slash or a line break has no path, and is a 404.",
            answers={200: SigningSecret},
            refuses=(404,),
        ),
    ),
)
