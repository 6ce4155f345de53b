"""Names that stand for models, and what is done with the calls to each host."""

from __future__ import annotations

from typing import Final, Literal, get_type_hints

import msgspec
from msgspec import UnsetType

from tokenhub_core.http.aliases import AliasBody, AliasPatch, Variant
from tokenhub_core.http.openapi import Area, Operation, items, many, shown
from tokenhub_core.http.operations.fleet import BASE, Done
from tokenhub_core.http.shadow import ModeBody
from tokenhub_core.http.shapes import Seconds
from tokenhub_core.modes import ANY_HOST
from tokenhub_core.routing import experiment, savings

VariantShown = shown("VariantShown", Variant, missing=str)
AliasShown = shown(
    "AliasShown", AliasBody, variants=many(VariantShown), shadowed=bool, models=list[str] | UnsetType
)
ModeShown = shown("ModeShown", ModeBody, source=Literal["stored", "setting"])
_VariantReport = shown(
    "VariantReport", experiment.Outcomes, without=("variant",), model_id=str, weight=int | None
)


class _Period(msgspec.Struct):
    since: float | None
    until: float | None
    confidence: float
    """Of every interval."""
    complete: bool
    """Whether every call of the period is in it, and not only the newest ones."""


AliasReport = shown("AliasReport", _Period, alias=str, requests=int, variants=many(_VariantReport))
ShadowReport = shown("ShadowReport", savings.Report, **get_type_hints(_Period), host=str, user=str, alias=str)


class ReportQuery(msgspec.Struct):
    """Of when."""

    since: Seconds | None = None
    until: Seconds | None = None


class ShadowQuery(ReportQuery):
    """Of which calls, and of when."""

    host: str = ""
    user: str = ""
    alias: str = ""


class ModeQuery(msgspec.Struct):
    """For which calls."""

    host: str = ANY_HOST
    user: str = ""
    alias: str = ""


AREA: Final = Area(
    "naming",
    "Names that stand for models, and what is done with the calls to each host.",
    (
        Operation(
            method="GET", path=f"{BASE}/aliases", summary="List aliases", answers={200: items(AliasShown)}
        ),
        Operation(
            method="POST",
            path=f"{BASE}/aliases",
            summary="Make or replace an alias",
            body=AliasBody,
            answers={200: AliasShown, 201: AliasShown},
        ),
        Operation(
            method="GET",
            path=f"{BASE}/aliases/{{name}}",
            summary="Show an alias",
            answers={200: AliasShown},
            refuses=(404,),
        ),
        Operation(
            method="PATCH",
            path=f"{BASE}/aliases/{{name}}",
            summary="Change an alias",
            body=AliasPatch,
            answers={200: AliasShown},
            refuses=(404,),
        ),
        Operation(
            method="DELETE",
            path=f"{BASE}/aliases/{{name}}",
            summary="Remove an alias",
            answers={200: Done},
            refuses=(404,),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/aliases/{{name}}/report",
            summary="Say what each variant came to, also of an alias that is not there any more",
            query=ReportQuery,
            answers={200: AliasReport},
            refuses=(404,),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/modes",
            summary="List the modes of hosts, the most specific first",
            answers={200: items(ModeShown)},
        ),
        Operation(
            method="PUT",
            path=f"{BASE}/modes",
            summary="Say what is done with the calls to a host, of a caller or for an alias",
            body=ModeBody,
            answers={200: ModeShown},
        ),
        Operation(
            method="DELETE",
            path=f"{BASE}/modes",
            summary="Forget a mode, so that the next one decides",
            query=ModeQuery,
            answers={200: Done},
            refuses=(404,),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/shadow/report",
            summary="Say what calls in shadow cost, and would have cost",
            query=ShadowQuery,
            answers={200: ShadowReport},
        ),
    ),
)
