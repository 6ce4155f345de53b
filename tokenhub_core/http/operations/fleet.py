"""Who could serve: providers, their credentials, models and prices."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tokenhub_core.admission.parking import By, Reason
from tokenhub_core.http import shapes
from tokenhub_core.http.credentials import CredentialBody, CredentialPatch
from tokenhub_core.http.openapi import BYTES, Area, Operation, items, many, shown
from tokenhub_core.types import Dialect

BASE: Final = "/admin/v1"


class Done(msgspec.Struct):
    """It is done."""

    ok: Literal[True]


class ParkingShown(msgspec.Struct):
    """Why a credential is not used, for one model or (where `model` is empty) for all; in seconds since the epoch."""

    model: str
    reason: Reason
    cause: str
    since: float
    until: float
    failures: int


class LimitShown(msgspec.Struct):
    """What a provider said that a credential may use, and what is left of it."""

    metric: str
    window: str
    model: str
    limit: float
    remaining: float
    resets_at: float


class CredentialShown(msgspec.Struct):
    """What is known of a credential, never the credential. Moments in seconds since the epoch."""

    name: str
    cred_store: str
    enabled: bool
    credential: bool
    """Whether it can be read now."""
    state: Literal["disabled", "missing", "parked", "limited", "ready"]
    parked_until: float | None
    cool_off_until: float | None
    parkings: list[ParkingShown]
    limits: list[LimitShown]


class Unparked(CredentialShown):
    """A credential that may be used again, and how many parkings of it ended."""

    unparked: int


class ParkingEvent(msgspec.Struct):
    """A parking that began or ended. Moments in seconds since the epoch."""

    at: float
    credential: str
    model: str
    action: Literal["parked", "unparked"]
    by: By
    reason: Reason
    why: str
    until: float


ProviderShown = shown(
    "ProviderShown",
    shapes.ProviderBody,
    without=("api_key",),
    dialect=Dialect,
    credential=bool,
    credentials=many(CredentialShown),
    models=int,
)
ModelShown = shown("ModelShown", shapes.ModelBody, pricing_source=str)


class Added(msgspec.Struct):
    """How many models were registered."""

    added: int


class PricesShown(msgspec.Struct):
    """Prices in dollars per thousand tokens; null where none is known apart."""

    input_per_1k: float
    output_per_1k: float
    cache_read_per_1k: float | None
    cache_write_per_1k: float | None
    reasoning_per_1k: float | None
    batch_share: float | None
    price_tiers: list[shapes.TierBody]


class PriceChange(msgspec.Struct):
    """One model whose price is another one in the list."""

    model_id: str
    provider_id: str
    pricing_source: str
    was: PricesShown
    now: PricesShown
    applied: bool


class PriceDifference(msgspec.Struct):
    """A price list, compared with what is registered; `manual` models have prices set by hand and keep them."""

    changes: list[PriceChange]
    same: int
    manual: int
    unlisted: int
    source: str
    sha256: str
    applied: bool


class ModelsQuery(msgspec.Struct):
    """Which models."""

    provider: str = ""


class RefreshQuery(msgspec.Struct):
    """What the list must be, and whether its prices are taken."""

    sha256: Annotated[str, Meta(description="What the body must have.")] = ""
    apply: Annotated[str, Meta(description="`true`: change the prices, and do not only compare.")] = ""


_NAMED: Final = (
    "The id may hold slashes, as they are or as %2F. Where several providers serve it, `provider` says whose."
)

AREA: Final = Area(
    "fleet",
    "Who could serve. What comes from the environment or the simulator is shown and cannot be changed.",
    (
        Operation(
            method="GET",
            path=f"{BASE}/providers",
            summary="List providers",
            answers={200: items(ProviderShown)},
        ),
        Operation(
            method="POST",
            path=f"{BASE}/providers",
            summary="Register or replace a provider",
            body=shapes.ProviderBody,
            answers={200: ProviderShown, 201: ProviderShown},
        ),
        Operation(
            method="PATCH",
            path=f"{BASE}/providers/{{id}}",
            summary="Change a provider",
            body=shapes.ProviderPatch,
            answers={200: ProviderShown},
            refuses=(404,),
        ),
        Operation(
            method="DELETE",
            path=f"{BASE}/providers/{{id}}",
            summary="Remove a provider, its credentials and models",
            answers={200: Done},
            refuses=(400, 404),
        ),
        Operation(
            method="POST",
            path=f"{BASE}/providers/{{id}}/catalogue",
            summary="Register every model that the price list names",
            answers={201: Added},
            refuses=(400, 404),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/providers/{{id}}/credentials",
            summary="List a provider's credentials",
            answers={200: items(CredentialShown)},
            refuses=(404,),
        ),
        Operation(
            method="POST",
            path=f"{BASE}/providers/{{id}}/credentials",
            summary="Add a credential, or give one a new key",
            body=CredentialBody,
            answers={200: CredentialShown, 201: CredentialShown},
            refuses=(404,),
        ),
        Operation(
            method="PATCH",
            path=f"{BASE}/providers/{{id}}/credentials/{{name}}",
            summary="Switch a credential on or off",
            body=CredentialPatch,
            answers={200: CredentialShown},
            refuses=(404,),
        ),
        Operation(
            method="DELETE",
            path=f"{BASE}/providers/{{id}}/credentials/{{name}}",
            summary="Remove a further credential",
            answers={200: Done},
            refuses=(400, 404),
        ),
        Operation(
            method="POST",
            path=f"{BASE}/providers/{{id}}/credentials/{{name}}/unpark",
            summary="Use a parked credential again",
            answers={200: Unparked},
            refuses=(404,),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/providers/{{id}}/parkings",
            summary="List the parkings of a provider's credentials, the newest first",
            answers={200: items(ParkingEvent)},
            refuses=(404,),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/models",
            summary="List models",
            query=ModelsQuery,
            answers={200: items(ModelShown)},
        ),
        Operation(
            method="POST",
            path=f"{BASE}/models",
            summary="Register or replace a model",
            body=shapes.ModelBody,
            answers={200: ModelShown, 201: ModelShown},
            refuses=(404,),
        ),
        Operation(
            method="PATCH",
            path=f"{BASE}/models/{{id}}",
            summary="Change a model",
            text=_NAMED,
            query=ModelsQuery,
            body=shapes.ModelPatch,
            answers={200: ModelShown},
            refuses=(404,),
        ),
        Operation(
            method="DELETE",
            path=f"{BASE}/models/{{id}}",
            summary="Remove a model",
            text=_NAMED,
            query=ModelsQuery,
            answers={200: Done},
            refuses=(404,),
        ),
        Operation(
            method="POST",
            path=f"{BASE}/prices/refresh",
            summary="Compare what is registered with a price list, and take its prices",
            text="The body is a list in the form of models.dev; an empty one stands for the installed list.",
            query=RefreshQuery,
            body={},
            media=BYTES,
            answers={200: PriceDifference},
        ),
    ),
)
