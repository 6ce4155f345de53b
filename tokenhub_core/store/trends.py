"""What is asked of the time series: curves over time, and what a window came to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, case, func, literal, null, select

from tokenhub_core.errors import client_fault
from tokenhub_core.store.rows import MICROS
from tokenhub_core.store.schema import SERIES, SERIES_CELLS
from tokenhub_core.store.series import counted
from tokenhub_core.telemetry import sketches
from tokenhub_core.telemetry.rollups import Span
from tokenhub_core.telemetry.series import COUNTERS, DIMENSIONS, OTHER, SKETCHES, Sums

CELLS_MAX: Final = 300_000
"""Cells whose sketches one answer is made of: half a second's work."""
TOP: Final = 50
"""Values of a dimension that a window tells apart."""
_SHARES: Final[Mapping[str, float]] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Metric(msgspec.Struct, frozen=True):
    """Something that can be asked for: what it is of a stretch of time, in which unit."""

    name: str
    unit: str
    meaning: str
    sums: tuple[str, ...] = ()
    """The counters that are added up for it."""
    sketch: str = ""
    share: float = 0.0
    over: str = ""
    """The counter that the sum is divided by."""


def _metrics() -> dict[str, Metric]:
    plain = (
        ("calls", "calls", "Records, whatever became of them"),
        ("answered", "calls", "Answers that succeeded"),
        ("errors", "calls", "Records that ended in an error"),
        ("cancelled", "calls", "Callers that left"),
        ("passed", "calls", "Records of what was not routed"),
        ("input_tokens", "tokens", "Input tokens, cached ones included"),
        ("output_tokens", "tokens", "Output tokens"),
        ("cached_tokens", "tokens", "Input tokens that were read from a cache"),
        ("cost_nanousd", "nanodollars", "Cost over all attempts"),
        ("saved_nanousd", "nanodollars", "Cost of calls in shadow, less what it would have been"),
    )
    timed = (
        ("latency", "ms", "From the request to the end of the answer, answers only"),
        ("ttft", "ms", "From the request to the first content, streams only"),
        ("pace", "ms", "Time per output token after the first, streams only"),
    )
    found = [Metric(name, unit, meaning, (name,)) for name, unit, meaning in plain]
    found.append(Metric("tokens", "tokens", "Input and output tokens", ("input_tokens", "output_tokens")))
    found.append(Metric("latency_avg", "ms", "Mean latency of answers", ("took_us",), over="answered"))
    for name, unit, meaning in timed:
        found += [
            Metric(f"{name}_{told}", unit, f"{meaning}: percentile {told[1:]}", sketch=name, share=share)
            for told, share in _SHARES.items()
        ]
    return {one.name: one for one in found}


METRICS: Final[Mapping[str, Metric]] = _metrics()


@dataclass(frozen=True, slots=True)
class Ask:
    """A question. Moments in whole seconds since the epoch and multiples of `step`, `until` not included."""

    metrics: tuple[Metric, ...]
    since: int
    until: int
    step: int
    resolution: int
    where: Mapping[str, str]
    """Dimension → the value that it must have."""
    by: str = ""
    """The dimension whose values have curves of their own; empty for one curve."""
    limit: int = 10
    """Values that have their own; those with the most of the first metric, or the most calls, do."""


class Curve(msgspec.Struct, frozen=True):
    """One metric of one value of the dimension."""

    metric: str
    value: str | None
    """None: of all, or of the values that have no curve of their own."""
    values: int
    """How many values this is of."""
    points: list[tuple[int, float | int]]
    """The beginning of a stretch, in seconds since the epoch, and its value; stretches without any are left out."""


@dataclass(slots=True)
class _Stretch:
    sums: Any = None
    sketches: dict[str, list[bytes]] | None = None


def curves(connection: Connection, ask: Ask) -> list[Curve]:
    """Return the curves that answer a question, the largest value's first; raises a 400 where that is too much."""
    top, count = _top(connection, ask) if ask.by else ([], 1)
    group: ColumnElement[Any] = literal("")
    if ask.by:
        group = case((SERIES.c[ask.by].in_(top), SERIES.c[ask.by]), else_=null())
    stretches: dict[str | None, dict[int, _Stretch]] = defaultdict(lambda: defaultdict(_Stretch))
    at = (SERIES_CELLS.c.at - SERIES_CELLS.c.at % (ask.step * MICROS)).label("stretch")
    label = group.label("part")
    if needed := sorted({name for one in ask.metrics for name in (*one.sums, one.over) if name}):
        summed = [func.sum(SERIES_CELLS.c[name]).label(name) for name in needed]
        for row in connection.execute(_chosen(ask, select(at, label, *summed)).group_by("stretch", "part")):
            stretches[row.part][row.stretch // MICROS].sums = row
    if wanted := sorted({one.sketch for one in ask.metrics if one.sketch}):
        packed = _chosen(ask, select(at, label, *(SERIES_CELLS.c[name] for name in wanted)))
        for when, value, *found in _bounded(connection, packed.where(SERIES_CELLS.c.answered > 0)):
            here = stretches[value][when // MICROS]
            if here.sketches is None:
                here.sketches = {name: [] for name in wanted}
            for name, one in zip(wanted, found, strict=True):
                here.sketches[name].append(one)
    names: list[tuple[str | None, int]] = [(value, 1) for value in top] if ask.by else [("", count)]
    if ask.by and count > len(top):
        names.append((None, count - len(top)))
    return [
        Curve(one.name, value if ask.by else None, size, _points(one, stretches.get(value, {})))
        for value, size in names
        for one in ask.metrics
    ]


def other_calls(connection: Connection, spans: Iterable[Span]) -> int:
    """Return how many calls of these times were folded into `other`."""
    folded = select(SERIES.c.id).where(*(SERIES.c[name] == OTHER for name in DIMENSIONS[:6]))
    ids = connection.execute(folded).scalars().all()
    if not ids:
        return 0
    query = select(func.sum(SERIES_CELLS.c.calls)).where(SERIES_CELLS.c.series.in_(ids))
    return sum(int(connection.execute(_within(query, span)).scalar() or 0) for span in spans)


def _top(connection: Connection, ask: Ask) -> tuple[list[str], int]:
    """Return the values with the most, and how many there are."""
    value = SERIES.c[ask.by]
    sums = ask.metrics[0].sums
    most = func.sum(
        sum((SERIES_CELLS.c[name] for name in sums[1:]), SERIES_CELLS.c[sums[0] if sums else "calls"])
    )
    ranked = (
        connection.execute(_chosen(ask, select(value)).group_by(value).order_by(most.desc(), value))
        .scalars()
        .all()
    )
    return list(ranked[: ask.limit]), len(ranked)


def _chosen[S: Select[*tuple[Any, ...]]](ask: Ask, query: S) -> S:
    query = query.select_from(
        SERIES_CELLS.join(SERIES, SERIES.c.id == SERIES_CELLS.c.series)
        if ask.by or ask.where
        else SERIES_CELLS
    )
    query = _within(query, Span(ask.resolution, ask.since, ask.until))
    return query.where(*(SERIES.c[name] == value for name, value in ask.where.items()))


def _within[S: Select[*tuple[Any, ...]]](query: S, span: Span) -> S:
    table = SERIES_CELLS.c
    return query.where(
        table.resolution == span.resolution, table.at >= span.since * MICROS, table.at < span.until * MICROS
    )


def _bounded(connection: Connection, query: Select[*tuple[Any, ...]]) -> Sequence[Any]:
    found = connection.execute(query.limit(CELLS_MAX + 1)).all()
    if len(found) > CELLS_MAX:
        raise client_fault(
            f"percentiles of this would be made of more than {CELLS_MAX:,} parts;"
            " ask for a shorter time, a larger step or fewer series",
            param="step",
        )
    return found


def _points(metric: Metric, stretches: Mapping[int, _Stretch]) -> list[tuple[int, float | int]]:
    points = []
    for at in sorted(stretches):
        value = _value(metric, stretches[at])
        if value is not None:
            points.append((at, value))
    return points


def _value(metric: Metric, stretch: _Stretch) -> float | int | None:
    if metric.sketch:
        told = sketches.percentiles((stretch.sketches or {}).get(metric.sketch, ()), (metric.share,))
        return None if told is None else round(told[0], 3)
    total = sum(int(getattr(stretch.sums, name)) for name in metric.sums)
    if not metric.over:
        return total
    count = int(getattr(stretch.sums, metric.over))
    return round(total / 1000 / count, 3) if count else None


# --- windows ------------------------------------------------------------------------------------------------


class Figures(msgspec.Struct, frozen=True):
    """What the calls of a window came to. Times in milliseconds, of answers; None where there are none."""

    request_count: int
    error_count: int
    error_rate: float
    cancelled_count: int
    answered_count: int
    avg_latency_ms: float | None
    p50_latency_ms: float | None
    p95_latency_ms: float | None
    p99_latency_ms: float | None
    p50_ttft_ms: float | None
    p95_ttft_ms: float | None
    p50_pace_ms: float | None
    total_cost_usd: float
    saved_usd: float
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    total_tokens: int


@dataclass(slots=True)
class _Heap:
    """What is gathered of one value of a dimension."""

    sums: Sums
    packed: dict[str, list[bytes]]


def window(
    connection: Connection, spans: Sequence[Span], by: Sequence[str]
) -> dict[str, list[tuple[str, Figures]]]:
    """Return what a stretch of time came to: `""` for all, and for each dimension its `TOP` values with the most calls.

    Raises a 400 where it is too much to read.
    """
    heaps = _heaped(connection, spans)
    named = _named(connection, heaps)
    told = {"": [("", _figures(list(heaps.values())))]}
    for name in by:
        parts: dict[str, list[_Heap]] = defaultdict(list)
        for series, heap in heaps.items():
            parts[getattr(named[series], name)].append(heap)
        values = [(value, _figures(some)) for value, some in parts.items()]
        told[name] = sorted(values, key=lambda one: (-one[1].request_count, one[0]))[:TOP]
    return told


def _heaped(connection: Connection, spans: Sequence[Span]) -> dict[int, _Heap]:
    """Return what each series came to, by its id; raises a 400 where it is too much to read."""
    table = SERIES_CELLS.c
    heaps: dict[int, _Heap] = defaultdict(lambda: _Heap(Sums(), {name: [] for name in SKETCHES}))
    for span in spans:
        summed = select(table.series, *(func.sum(table[name]).label(name) for name in COUNTERS))
        for row in connection.execute(_within(summed, span).group_by(table.series)):
            heaps[row.series].sums.add(counted(row))
        packed = select(table.series, *(table[name] for name in SKETCHES)).where(table.answered > 0)
        for series, *found in _bounded(connection, _within(packed, span)):
            for name, one in zip(SKETCHES, found, strict=True):
                heaps[series].packed[name].append(one)
    return heaps


def _named(connection: Connection, heaps: Iterable[int]) -> dict[int, Row[Any]]:
    """Return the values of series by their ids."""
    return {row.id: row for row in connection.execute(select(SERIES).where(SERIES.c.id.in_(heaps)))}


def _figures(heaps: Sequence[_Heap]) -> Figures:
    sums = Sums()
    for heap in heaps:
        sums.add(heap.sums)
    times = {
        name: sketches.percentiles(
            (one for heap in heaps for one in heap.packed[name]), tuple(_SHARES.values())
        )
        for name in SKETCHES
    }
    p50, p95, p99 = _told(times["latency"])
    first50, first95, _ = _told(times["ttft"])
    return Figures(
        request_count=sums.calls,
        error_count=sums.errors,
        error_rate=sums.errors / sums.calls if sums.calls else 0.0,
        cancelled_count=sums.cancelled,
        answered_count=sums.answered,
        avg_latency_ms=round(sums.took_us / 1000 / sums.answered, 3) if sums.answered else None,
        p50_latency_ms=p50,
        p95_latency_ms=p95,
        p99_latency_ms=p99,
        p50_ttft_ms=first50,
        p95_ttft_ms=first95,
        p50_pace_ms=_told(times["pace"])[0],
        total_cost_usd=sums.cost_nanousd / 1e9,
        saved_usd=sums.saved_nanousd / 1e9,
        input_tokens=sums.input_tokens,
        output_tokens=sums.output_tokens,
        cached_tokens=sums.cached_tokens,
        total_tokens=sums.input_tokens + sums.output_tokens,
    )


def _told(values: list[float] | None) -> tuple[float | None, float | None, float | None]:
    if values is None:
        return None, None, None
    p50, p95, p99 = values
    return round(p50, 3), round(p95, 3), round(p99, 3)


# --- flow ---------------------------------------------------------------------------------------------------

COLUMNS: Final = ("program", "host", "provider", "model")
"""What calls go through, in this order. Of those that nobody served the last one is the fault's label."""
PLACES: Final = 12
"""Values of a column that are told apart: those with the most calls."""


class Stream(msgspec.Struct, frozen=True):
    """What went from a place of one column to a place of the next; None: those that are not told apart."""

    column: int
    """The index of the column that it comes from."""
    source: str | None
    target: str | None
    calls: int
    errors: int
    cost_nanousd: int
    tokens: int
    p50_latency_ms: float | None
    """Half of the answers took no longer; None where there are none."""


class Flow(msgspec.Struct, frozen=True):
    """What the calls of a stretch of time went through."""

    calls: int
    places: list[int]
    """How many places each column has."""
    streams: list[Stream]


def flow(connection: Connection, spans: Sequence[Span]) -> Flow:
    """Return who asked whom for what; every call is counted once between any two columns.

    Raises a 400 where it is too much to read.
    """
    heaps = _heaped(connection, spans)
    named = _named(connection, heaps)
    paths = {
        series: (row.program, row.host, row.provider, row.model or row.cause) for series, row in named.items()
    }
    sizes: list[dict[str, int]] = [{} for _ in COLUMNS]
    for series, path in paths.items():
        for size, place in zip(sizes, path, strict=True):
            size[place] = size.get(place, 0) + heaps[series].sums.calls
    kept = [set(sorted(size, key=lambda one: (-size[one], one))[:PLACES]) for size in sizes]
    parts: dict[tuple[int, str | None, str | None], list[_Heap]] = defaultdict(list)
    for series, path in paths.items():
        told = [place if place in some else None for place, some in zip(path, kept, strict=True)]
        for column, (source, target) in enumerate(pairwise(told)):
            parts[column, source, target].append(heaps[series])
    streams = [_stream(*place, some) for place, some in parts.items()]
    streams.sort(key=lambda one: (one.column, -one.calls, one.source or "", one.target or ""))
    return Flow(sum(heap.sums.calls for heap in heaps.values()), [len(size) for size in sizes], streams)


def _stream(column: int, source: str | None, target: str | None, heaps: Sequence[_Heap]) -> Stream:
    sums = Sums()
    for heap in heaps:
        sums.add(heap.sums)
    half = sketches.percentiles((one for heap in heaps for one in heap.packed["latency"]), (0.5,))
    return Stream(
        column,
        source,
        target,
        calls=sums.calls,
        errors=sums.errors,
        cost_nanousd=sums.cost_nanousd,
        tokens=sums.input_tokens + sums.output_tokens,
        p50_latency_ms=None if half is None else round(half[0], 3),
    )
