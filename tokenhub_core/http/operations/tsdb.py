"""What calls came to over time: time series and windows."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tokenhub_core.http import shapes
from tokenhub_core.http.openapi import Area, Operation, shown
from tokenhub_core.http.operations.fleet import BASE
from tokenhub_core.http.tsdb import CURVES, CURVES_MAX
from tokenhub_core.store.trends import Figures, Flow

_Days = Annotated[int, Meta(description="Null for ever.")]


class MetricShown(msgspec.Struct):
    """Something that can be asked for."""

    name: str
    unit: str
    meaning: str


class ResolutionShown(msgspec.Struct):
    """A length of time in which series are kept, and for how many days."""

    name: str
    seconds: int
    days: _Days | None


class MetricList(msgspec.Struct):
    """What can be asked of the series. A percentile is wrong by at most the share `relative_error` of itself."""

    metrics: list[MetricShown]
    dimensions: list[str]
    resolutions: list[ResolutionShown]
    relative_error: float


class CurveShown(msgspec.Struct):
    """One metric of one value of the dimension; null: of all, or of the `values` that have no curve of their own.

    A point is the beginning of a stretch, in seconds since the epoch, and the value; empty stretches are left out.
    """

    metric: str
    value: str | None
    values: int
    points: list[tuple[int, float]]


class SeriesShown(msgspec.Struct):
    """Curves over time; moments in seconds since the epoch, `end` not included."""

    start: int
    end: int
    step: int
    resolution: int
    group_by: str | None
    series: list[CurveShown]
    other_calls: Annotated[int, Meta(description="Calls of series that their day had no room for.")]
    complete: Annotated[bool, Meta(description="Whether all that is in the log was counted.")]


class SeriesQuery(msgspec.Struct):
    """What is asked for. A dimension with a value chooses the calls that have it; empty: those that have none."""

    metric: Annotated[str, Meta(description="One or more, separated by commas: `cost_nanousd,latency_p95`.")]
    start: Annotated[shapes.Seconds, Meta(description="An hour before `end` if left out.")] | None = None
    end: Annotated[shapes.Seconds, Meta(description="Now if left out.")] | None = None
    step: Annotated[int, Meta(ge=10, description="Seconds, a multiple of 10; chosen if left out.")] | None = (
        None
    )
    group_by: Annotated[str, Meta(description="A dimension.")] = ""
    limit: Annotated[int, Meta(ge=1, le=CURVES_MAX, description="Values with curves of their own.")] = CURVES
    model: str | None = None
    provider: str | None = None
    key: Annotated[str, Meta(description="The id of the client's key.")] | None = None
    project: str | None = None
    host: str | None = None
    program: str | None = None
    mode: str | None = None
    status: Annotated[str, Meta(description="The class: `2xx`.")] | None = None
    cause: Annotated[str, Meta(description="The fault's label.")] | None = None


class FlowQuery(msgspec.Struct):
    """Of which time."""

    window: Literal["1m", "5m", "1h", "24h"] = "1h"


FlowShown = shown("FlowShown", Flow, window=str, since=int, until=int, complete=bool)


class Pruned(msgspec.Struct):
    """How many parts of series were deleted."""

    deleted: int


WindowShown = shown("WindowShown", Figures, window=str, since=int)
ModelStats = shown("ModelStats", Figures, model=str)
ProviderStats = shown("ProviderStats", Figures, provider=str)
KeyStats = shown("KeyStats", Figures, key=str)
ProjectStats = shown("ProjectStats", Figures, project=str)
HostStats = shown("HostStats", Figures, host=str)
ProgramStats = shown("ProgramStats", Figures, program=str)
ModeStats = shown("ModeStats", Figures, mode=str)
Stats = msgspec.defstruct(
    "Stats",
    [
        ("as_of", float),
        ("global", list[WindowShown]),  # type: ignore[valid-type]
        ("by_model", dict[str, list[ModelStats]]),  # type: ignore[valid-type]
        ("by_provider", dict[str, list[ProviderStats]]),  # type: ignore[valid-type]
        ("by_api_key", dict[str, list[KeyStats]]),  # type: ignore[valid-type]
        ("by_project", dict[str, list[ProjectStats]]),  # type: ignore[valid-type]
        ("by_host", dict[str, list[HostStats]]),  # type: ignore[valid-type]
        ("by_program", dict[str, list[ProgramStats]]),  # type: ignore[valid-type]
        ("by_mode", dict[str, list[ModeStats]]),  # type: ignore[valid-type]
        ("other_calls", int),
        ("complete", bool),
    ],
    namespace={
        "__doc__": "The last minute, five minutes, hour and day: of all, and by window of each value."
    },
)

AREA: Final = Area(
    "series",
    "What calls came to over time.",
    (
        Operation(
            method="GET",
            path=f"{BASE}/tsdb/query",
            summary="Draw curves of what calls came to",
            query=SeriesQuery,
            answers={200: SeriesShown},
        ),
        Operation(
            method="GET",
            path=f"{BASE}/tsdb/metrics",
            summary="Say what can be asked for, and how long it is kept",
            answers={200: MetricList},
        ),
        Operation(
            method="GET",
            path=f"{BASE}/tsdb/flow",
            summary="Say what the calls of a window went through: program, host, provider, model",
            query=FlowQuery,
            answers={200: FlowShown},
        ),
        Operation(
            method="POST",
            path=f"{BASE}/tsdb/prune",
            summary="Delete what has been kept for long enough now, and not at the next turn",
            answers={200: Pruned},
            refuses=(503,),
        ),
        Operation(
            method="GET",
            path=f"{BASE}/stats",
            summary="Say what the last minute, five minutes, hour and day came to",
            answers={200: Stats},
        ),
    ),
)
