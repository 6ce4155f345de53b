"""Why calls go where they go: defaults, decisions, simulation and rehearsal."""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_type_hints

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tokenhub_core.errors import Kind
from tokenhub_core.http import shapes
from tokenhub_core.http.decisions import SimulateBody
from tokenhub_core.http.openapi import JSON, Area, Operation, many, shown
from tokenhub_core.http.operations.fleet import BASE
from tokenhub_core.http.operations.log import AttemptShown, CompositionShown
from tokenhub_core.http.rehearse import LINES, RehearseBody
from tokenhub_core.routing.rehearsal import Report
from tokenhub_core.types import (
    Bond,
    Dialect,
    Draw,
    Expected,
    Facts,
    Features,
    Json,
    Lane,
    Mode,
    Need,
    Outcome,
    Policy,
    Shadow,
    Skip,
    Skipped,
    Standing,
    Terms,
    Usage,
)

_OnOff = Literal["on", "off"]


class Effective(msgspec.Struct):
    """What holds: what was set at run time, else the settings."""

    default_mode: Mode
    default_max_budget_usd: float | None
    default_max_latency_ms: int | None
    on_malformed_directive: Literal["reject", "ignore", "off"]
    fallback: bool
    explore: Literal["off", "thompson"]
    affinity: _OnOff


RoutingShown = shown("RoutingShown", shapes.RoutingBody, effective=Effective)
PolicyShown = shown("PolicyShown", Policy, models=list[str] | None, output_schema=bool)
_Asked = shown("SimulatedCall", Features)


class CandidateShown(msgspec.Struct):
    """One who could serve, and all that its score was made of."""

    model: str
    model_id: str
    provider: str
    provider_id: str
    score: float
    estimated_nanousd: int | None
    estimated_cost_usd: float
    pinned: bool
    dialect: Dialect
    losses: list[str]
    input_nanousd: float
    output_nanousd: float
    max_context_tokens: int
    max_output_tokens: int
    terms: Terms
    facts: Facts
    expected: Expected
    standing: Standing
    draw: Draw | UnsetType = UNSET
    cache_read_nanousd: float | UnsetType | None = UNSET
    served: bool | UnsetType = UNSET


class Left(msgspec.Struct):
    """One model that was left out."""

    model: str
    provider: str
    detail: str


class Exclusion(msgspec.Struct):
    """Who was left out for one reason."""

    reason: Skipped
    count: int
    models: list[Left]


class _Decision(msgspec.Struct):
    """A decision; what is said only where somebody was looked at may be absent."""

    reason: str
    candidates: list[CandidateShown]
    spared: list[CandidateShown]
    skips: list[Skip]
    exclusions: list[Exclusion]
    """The same, counted by reason."""
    version: int | UnsetType = UNSET
    seed: str | UnsetType = UNSET
    dialect: Dialect | UnsetType = UNSET
    origin: str | UnsetType = UNSET
    fleet_version: int | UnsetType = UNSET
    lone: bool | UnsetType = UNSET
    input_tokens: int | UnsetType = UNSET
    output_tokens: int | UnsetType = UNSET
    context: str | UnsetType = UNSET
    affinity: Bond | UnsetType | None = UNSET
    weights: Terms | UnsetType = UNSET
    chances: dict[str, float] | UnsetType = UNSET
    steps: dict[str, Json] | UnsetType = UNSET
    """Of a call that several calls answer: the decisions of the later steps, by the step's name."""


class Chosen(msgspec.Struct):
    """What would be tried first."""

    model_id: str
    provider_id: str
    estimated_cost_usd: float
    reason: str


class WouldFail(msgspec.Struct):
    """What the caller would be told."""

    type: str
    kind: Kind
    message: str
    status: int


Simulation = shown(
    "Simulation",
    _Decision,
    policy=PolicyShown | None,
    asked=Json | None,
    decision=Chosen | None,
    total=int,
    error=WouldFail | None,
)


class CallShown(msgspec.Struct):
    """The call; what routing saw of it may be absent."""

    model: str
    dialect: Dialect | None
    stream: bool
    method: str
    path: str
    origin_host: str
    lane: Lane
    program: str
    directive: str
    alias: str | None
    variant: str
    max_output_tokens: int | UnsetType | None = UNSET
    needs: list[Need] | UnsetType = UNSET
    text_bytes: int | UnsetType = UNSET
    media: int | UnsetType = UNSET
    turns: int | UnsetType = UNSET


class Served(msgspec.Struct):
    """Who served."""

    model: str
    provider: str
    reason: str


class TimesShown(msgspec.Struct):
    """In milliseconds since the call came."""

    queue_ms: float | None
    route_ms: float | None
    ttft_ms: float | None
    total_ms: float | None


UsageShown = shown("UsageShown", Usage, estimated=bool)


class Failure(msgspec.Struct):
    """What the caller was told."""

    type: str
    message: str
    status: int


Decision = shown(
    "Decision",
    _Decision,
    id=str,
    at=float,
    policy=PolicyShown | None,
    asked=CallShown,
    served=Served | None,
    attempts=many(AttemptShown),
    timings=TimesShown,
    usage=UsageShown,
    cost_usd=float,
    losses=list[str],
    outcome=Outcome,
    status=int,
    identical=bool,
    simulated=bool,
    stop_reason=str,
    error=Failure | None,
    shadow=Shadow | None,
    composition=CompositionShown | None,
)


class _Rehearsed(msgspec.Struct):
    since: float
    until: float
    host: str
    program: str
    facts: Literal["as logged", "today"]
    policy: Json
    explore: str
    aliases: list[str]
    complete: bool
    confidence: float
    said: list[str]
    """The report in sentences."""


RehearsalShown = shown("RehearsalShown", Report, **get_type_hints(_Rehearsed))


class LinesHeaders(msgspec.Struct):
    """Whether one wants to be told how far it is."""

    accept: Annotated[str, Meta(description=f"`{LINES}` for lines that tell how far it is.")] = ""


AREA: Final = Area(
    "routing",
    "Why calls go where they go.",
    (
        Operation(
            method="GET",
            path=f"{BASE}/routing-config",
            summary="Show the routing defaults",
            answers={200: RoutingShown},
        ),
        Operation(
            method="PUT",
            path=f"{BASE}/routing-config",
            summary="Set the routing defaults, all of them",
            body=shapes.RoutingBody,
            answers={200: RoutingShown},
        ),
        Operation(
            method="GET",
            path=f"{BASE}/decisions/{{id}}",
            summary="Show why a call went where it went",
            answers={200: Decision},
            refuses=(404,),
        ),
        Operation(
            method="POST",
            path=f"{BASE}/routing/simulate",
            summary="Show where a call would go, without making it",
            body=SimulateBody,
            answers={200: Simulation},
        ),
        Operation(
            method="POST",
            path=f"{BASE}/rehearse",
            summary="Show what logged traffic would come to under another policy",
            text="One at a time; what runs ends when its caller leaves.",
            body=RehearseBody,
            headers=LinesHeaders,
            answers={200: {JSON: RehearsalShown, LINES: {"description": "At last the report, or an error."}}},
        ),
    ),
)
