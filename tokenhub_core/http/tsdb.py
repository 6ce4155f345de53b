"""The admin API's time series, `/admin/v1/tsdb`, and what the last minute, hour and day came to, `/admin/v1/stats`."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Any, Final

import msgspec
from aiohttp import web

from tokenhub_core.errors import TokenHubError, client_fault
from tokenhub_core.http.shapes import moment
from tokenhub_core.http.side import answer
from tokenhub_core.rolling import PATIENCE, Roller
from tokenhub_core.store import series, trends
from tokenhub_core.store.rows import text
from tokenhub_core.store.trends import METRICS, Ask, Figures, Metric
from tokenhub_core.telemetry import rollups
from tokenhub_core.telemetry.rollups import DAY, NAMES, RESOLUTIONS, TEN_SECONDS, Span
from tokenhub_core.telemetry.series import DIMENSIONS
from tokenhub_core.telemetry.sketches import RELATIVE
from tokenhub_core.types import Json

BASE: Final = "/admin/v1"
WINDOWS: Final = {"1m": 60, "5m": 300, "1h": 3600, "24h": DAY}
"""Seconds."""
SPLITS: Final = {
    "by_model": "model",
    "by_provider": "provider",
    "by_api_key": "key",
    "by_project": "project",
    "by_host": "host",
    "by_program": "program",
    "by_mode": "mode",
}
POINTS_MAX: Final = 2000
"""Stretches of one curve."""
VALUES_MAX: Final = 100_000
"""Points of one answer."""
CURVES_MAX: Final = 50
CURVES: Final = 10
_LATEST: Final = 4_102_444_800
"""The beginning of 2100, in seconds since the epoch."""


class TsdbPages:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(self, roller: Roller) -> None:
        self._roller = roller

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(f"{BASE}/tsdb/query", self._query),
            web.get(f"{BASE}/tsdb/metrics", self._metrics),
            web.get(f"{BASE}/tsdb/flow", self._flow),
            web.post(f"{BASE}/tsdb/prune", self._prune),
            web.get(f"{BASE}/stats", self._stats),
        ]

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        return answer(
            {
                "metrics": [
                    {"name": one.name, "unit": one.unit, "meaning": one.meaning} for one in METRICS.values()
                ],
                "dimensions": DIMENSIONS,
                "resolutions": [
                    {"name": NAMES[one], "seconds": one, "days": days}
                    for one, days in zip(RESOLUTIONS, self._roller.keep.days, strict=True)
                ],
                "relative_error": RELATIVE,
            }
        )

    async def _query(self, request: web.Request) -> web.Response:
        """Answer with curves; what came in up to now is among them."""
        ask = self._asked(request)
        await self._catch_up()

        def made() -> Json:
            with self._roller.database.reading() as connection:
                found = trends.curves(connection, ask)
                span = Span(ask.resolution, ask.since, ask.until)
                return {
                    "start": ask.since,
                    "end": ask.until,
                    "step": ask.step,
                    "resolution": ask.resolution,
                    "group_by": ask.by or None,
                    "series": msgspec.to_builtins(found),
                    "other_calls": trends.other_calls(connection, [span]),
                    "complete": not series.behind(connection),
                }

        return answer(await asyncio.to_thread(made))

    async def _stats(self, request: web.Request) -> web.Response:
        """Say what the last minute, five minutes, hour and day came to."""
        del request
        await self._catch_up()
        now = self._roller.clock.now()
        return answer(await asyncio.to_thread(self._windows, now))

    def _windows(self, now: float) -> Json:
        told: dict[str, Any] = {"as_of": now, "global": [], **{name: {} for name in SPLITS}}
        with self._roller.database.reading() as connection:
            for name, length in WINDOWS.items():
                since, until = _window(now, length)
                spans = rollups.cover(since, until)
                found = trends.window(connection, spans, tuple(SPLITS.values()))
                told["global"].append({"window": name, "since": since, **_shown(found[""][0][1])})
                for split, dimension in SPLITS.items():
                    told[split][name] = [{dimension: value, **_shown(one)} for value, one in found[dimension]]
            day = rollups.cover(*_window(now, DAY))
            told["other_calls"] = trends.other_calls(connection, day)
            told["complete"] = not series.behind(connection)
        return told

    async def _flow(self, request: web.Request) -> web.Response:
        """Say what the calls of a window went through: program, host, provider, model."""
        window = request.query.get("window", "1h")
        if window not in WINDOWS:
            raise client_fault(f"window must be one of {', '.join(WINDOWS)}", param="window")
        await self._catch_up()
        since, until = _window(self._roller.clock.now(), WINDOWS[window])

        def made() -> Json:
            with self._roller.database.reading() as connection:
                found: Json = msgspec.to_builtins(trends.flow(connection, rollups.cover(since, until)))
                complete = not series.behind(connection)
                return {"window": window, "since": since, "until": until, **found, "complete": complete}

        return answer(await asyncio.to_thread(made))

    async def _prune(self, request: web.Request) -> web.Response:
        del request
        return answer({"deleted": await self._roller.sweep()})

    async def _catch_up(self) -> None:
        """Take in what the log has; a store that takes no changes does not keep anybody from reading."""
        with suppress(TokenHubError):
            await self._roller.roll(PATIENCE)

    def _asked(self, request: web.Request) -> Ask:
        query, keep, now = request.query, self._roller.keep, self._roller.clock.now()
        metrics = _metrics(query.get("metric", ""))
        start, end = moment(request, "start"), moment(request, "end")
        until = min(now + 1 if end is None else end, _LATEST)
        since = until - 3600 if start is None else start
        if since >= until:
            raise client_fault("end must be after start", param="end")
        step = _whole(request, "step", TEN_SECONDS, 400 * DAY) or rollups.step_for(since, until, keep, now)
        low, high = int(since) // step * step, -(-math.ceil(until) // step) * step
        resolution = rollups.resolution_for(step, since, keep, now)
        by = query.get("group_by", "")
        if by and by not in DIMENSIONS:
            raise client_fault(f"group_by must be one of {', '.join(DIMENSIONS)}", param="group_by")
        limit = _whole(request, "limit", 1, CURVES_MAX) or CURVES
        points = (high - low) // step
        if points > POINTS_MAX or points * len(metrics) * (limit + 1 if by else 1) > VALUES_MAX:
            raise client_fault(
                f"{points:,} stretches of time for {len(metrics)} metrics are too many; ask for a larger step",
                param="step",
            )
        where = {name: text(query[name]) for name in DIMENSIONS if name in query}
        return Ask(metrics, low, high, step, resolution, where, by, limit)


def _window(now: float, length: int) -> tuple[int, int]:
    """Return where a window of so many seconds begins and ends: at whole ten seconds, now within it."""
    return int(now - length) // TEN_SECONDS * TEN_SECONDS, (int(now) // TEN_SECONDS + 1) * TEN_SECONDS


def _metrics(names: str) -> tuple[Metric, ...]:
    wanted = tuple(dict.fromkeys(name for name in names.split(",") if name))
    if unknown := [name for name in wanted if name not in METRICS]:
        raise client_fault(
            f"there is no metric {unknown[0][:80]!r}; see /admin/v1/tsdb/metrics", param="metric"
        )
    if not wanted:
        raise client_fault("metric must name one or more metrics, separated by commas", param="metric")
    return tuple(METRICS[name] for name in wanted)


def _whole(request: web.Request, name: str, low: int, high: int) -> int | None:
    raw = request.query.get(name)
    if raw is None:
        return None
    if not (raw.isascii() and raw.isdigit() and len(raw) < 12 and low <= int(raw) <= high):
        raise client_fault(f"{name} must be a whole number from {low} to {high}", param=name)
    return int(raw)


def _shown(figures: Figures) -> Json:
    told: Json = msgspec.to_builtins(figures)
    return told
