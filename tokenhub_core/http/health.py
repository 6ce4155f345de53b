"""The admin API's part about what became of providers.

GET /admin/v1/health/history   ?since=&until=&provider=&limit=   changes of health and parked credentials, newest first
"""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from tokenhub_core.chronicle import MOST, Chronicle
from tokenhub_core.http import shapes
from tokenhub_core.http.side import answer
from tokenhub_core.ports import Clock
from tokenhub_core.store.retention import DAY

HISTORY: Final = "/admin/v1/health/history"


class HealthPages:
    """The handler."""

    def __init__(self, chronicle: Chronicle, clock: Clock) -> None:
        self._chronicle = chronicle
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get(HISTORY, self._history)]

    async def _history(self, request: web.Request) -> web.Response:
        """Show the last day, or the time that is asked for."""
        until = shapes.moment(request, "until")
        until = self._clock.now() if until is None else until
        since = shapes.moment(request, "since")
        moves = await self._chronicle.told(
            since=until - DAY if since is None else since,
            until=until,
            provider_id=request.query.get("provider", ""),
            limit=shapes.whole(request, "limit", MOST, 1, MOST),
        )
        return answer({"items": msgspec.to_builtins(moves), "total": len(moves)})
