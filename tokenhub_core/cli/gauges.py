"""What `tokenhub top` knows: the calls of the last minute, counted. Pure: time comes from whoever asks.

A call counts from its end, for as long as the window is. Percentiles are of the calls that were answered.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from tokenhub_core.types import Json

WINDOW: Final = 60.0
"""Seconds."""
_MOST: Final = 50_000
"""Calls that are kept; of more in one window the oldest are forgotten."""
_FAULTS: Final = 20
"""The newest errors that are kept."""

SORTS: Final = ("calls", "tokens", "cost", "errors", "p95", "name")
"""What the rows can be sorted by, in the order of the key that changes it."""

_WHO: Final = ("model_id", "requested_model", "provider_id", "program")


class Call(msgspec.Struct, frozen=True):
    """One call that is over."""

    ended: float
    """Seconds since the epoch."""
    model: str
    provider: str
    outcome: str
    ms: float
    ttft_ms: float | None
    tokens: int
    usd: float
    fault: str = ""
    message: str = ""
    program: str = ""
    key: str = ""


class Row(msgspec.Struct, frozen=True):
    """What some calls of the window came to."""

    model: str
    provider: str
    calls: int
    per_second: float
    tokens_per_second: float
    usd: float
    """In the window."""
    errors: float
    """Share, from 0 to 1."""
    p50_ms: float | None
    """None where no call was answered."""
    p95_ms: float | None
    ttft_ms: float | None
    """The median time to the first token of those that were streamed."""


class Figures(msgspec.Struct, frozen=True):
    """One look at everything."""

    at: float
    window: float
    total: Row
    rows: tuple[Row, ...]
    faults: tuple[Call, ...]
    """The newest first."""
    info: Json
    underway: tuple[Json, ...]
    """Calls that have not ended, the longest first."""
    health: tuple[Json, ...]
    budgets: tuple[Json, ...]
    lost: int
    """Events that the server could not keep for us."""


class Gauges:
    """Gathers what is told. `events` come in any order, and twice after a break: each call counts once."""

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._calls: deque[Call] = deque(maxlen=_MOST)
        self._faults: deque[Call] = deque(maxlen=_FAULTS)
        self._known: deque[str] = deque(maxlen=_MOST)
        self._ids: set[str] = set()
        self._lost = 0
        self.info: Json = {}
        self.underway: tuple[Json, ...] = ()
        self.health: tuple[Json, ...] = ()
        self.budgets: tuple[Json, ...] = ()

    def event(self, kind: str, data: Mapping[str, Any]) -> None:
        """Hear of an event of the server's."""
        if kind == "lost":
            self._lost += int(data.get("count", 0))
        elif kind in {"route_success", "route_error"}:
            self._add(str(data.get("request_id", "")), of_event(data))

    def logged(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Hear of lines of the request log, the newest first."""
        for row in reversed([*rows]):
            self._add(str(row["id"]), of_log(row))

    def look(self, now: float, *, sort: str = SORTS[0], only: str = "") -> Figures:
        """Return what there is to see at `now`; rows whose names hold `only`, sorted as `SORTS` says."""
        since = now - self._window
        seen = [call for call in self._calls if since < call.ended <= now + 1 and _holds(call, only)]
        groups: dict[tuple[str, str], list[Call]] = {}
        for call in seen:
            groups.setdefault((call.model, call.provider), []).append(call)
        rows = [_row(calls, self._window, *names) for names, calls in groups.items()]
        rows.sort(key=lambda row: (row.model, row.provider))
        rows.sort(key=_ORDER[sort])
        return Figures(
            at=now,
            window=self._window,
            total=_row(seen, self._window),
            rows=tuple(rows),
            faults=tuple(call for call in reversed(self._faults) if _holds(call, only)),
            info=self.info,
            underway=tuple(one for one in self.underway if _named(only, *(one[name] for name in _WHO))),
            health=self.health,
            budgets=self.budgets,
            lost=self._lost,
        )

    def _add(self, name: str, call: Call) -> None:
        if name in self._ids:
            return
        if len(self._known) == self._known.maxlen:
            self._ids.discard(self._known[0])
        self._known.append(name)
        self._ids.add(name)
        self._calls.append(call)
        if call.outcome == "error":
            self._faults.append(call)


def of_event(data: Mapping[str, Any]) -> Call:
    """Return the call of an event, which leaves out what is empty."""
    ms = float(data.get("latency_ms", 0.0))
    return Call(
        ended=float(data.get("timestamp", 0.0)) + ms / 1000,
        model=str(data.get("model_id") or data.get("requested_model", "")),
        provider=str(data.get("provider_id") or data.get("origin_host", "")),
        outcome=str(data.get("outcome", "")),
        ms=ms,
        ttft_ms=data.get("ttft_ms"),
        tokens=int(data.get("input_tokens", 0)) + int(data.get("output_tokens", 0)),
        usd=float(data.get("cost_usd", 0.0)),
        fault=str(data.get("error_class", "")),
        message=str(data.get("error_msg", "")),
        program=str(data.get("program", "")),
    )


def of_log(row: Mapping[str, Any]) -> Call:
    """Return the call of a line of the request log."""
    ms = float(row["total_ms"] or 0.0)
    return Call(
        ended=row["at"] + ms / 1000,
        model=row["model_id"] or row["requested_model"],
        provider=row["provider_id"] or row["origin_host"],
        outcome=row["outcome"],
        ms=ms,
        ttft_ms=row["ttft_ms"],
        tokens=row["input_tokens"] + row["output_tokens"],
        usd=row["cost_nanousd"] / 1e9,
        fault=row["error_class"],
        message=row["message"],
        program=row["program"],
        key=row["key_id"],
    )


def _holds(call: Call, only: str) -> bool:
    return _named(only, call.model, call.provider, call.program)


def _named(only: str, *names: str) -> bool:
    return not only or any(only.lower() in name.lower() for name in names)


def _row(calls: Sequence[Call], window: float, model: str = "", provider: str = "") -> Row:
    answered = sorted(call.ms for call in calls if call.outcome in {"ok", "passed"})
    first = sorted(call.ttft_ms for call in calls if call.ttft_ms is not None)
    errors = sum(call.outcome == "error" for call in calls)
    return Row(
        model=model,
        provider=provider,
        calls=len(calls),
        per_second=len(calls) / window,
        tokens_per_second=sum(call.tokens for call in calls) / window,
        usd=sum(call.usd for call in calls),
        errors=errors / len(calls) if calls else 0.0,
        p50_ms=percentile(answered, 0.5),
        p95_ms=percentile(answered, 0.95),
        ttft_ms=percentile(first, 0.5),
    )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least `share` of them do not exceed (nearest rank); None of none."""
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1] if ordered else None


_ORDER: Final[Mapping[str, Callable[[Row], Any]]] = {
    "calls": lambda row: -row.calls,
    "tokens": lambda row: -row.tokens_per_second,
    "cost": lambda row: -row.usd,
    "errors": lambda row: (-row.errors, -row.calls),
    "p95": lambda row: -(row.p95_ms or 0.0),
    "name": lambda row: (row.model, row.provider),
}
