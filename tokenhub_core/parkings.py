"""Tells of parked credentials: to the database, which keeps them over a restart, and to whoever listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from tokenhub_core.admission.parking import Change, Parked
from tokenhub_core.store import parkings as rows
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.types import Json

HISTORY: Final = 200
"""The most changes that are shown together."""

_log: Final = logging.getLogger(__name__)


class Parkings:
    """Hears of every change. What it stores is on its way when `tell` returns, and durable a moment later."""

    def __init__(self, database: Database, writer: Writer, bus: Bus, metrics: Metrics) -> None:
        self._database = database
        self._writer = writer
        self._bus = bus
        self._metrics = metrics
        self._fresh: list[Change] = []
        self._followers: tuple[Callable[[Change], None], ...] = ()

    def follow(self, hear: Callable[[Change], None]) -> None:
        """Let `hear` be called with every change from now on; it never waits and never fails."""
        self._followers = (*self._followers, hear)

    async def load(self) -> list[Parked]:
        """Return what was parked when the last process ended."""
        return await asyncio.to_thread(self._load)

    def tell(self, change: Change) -> None:
        """Keep a change and tell of it. Must be called from the writer's event loop."""
        self._fresh.append(change)
        one = change.parking
        name, model = f"{one.place.provider}/{one.place.credential}", one.place.model
        done = "parked" if change.parked else "unparked"
        _log.warning("credential %s is %s%s: %s", name, done, f" for {model}" if model else "", change.why)
        if not self._writer.post(partial(rows.save, change=change)):
            _log.error("that credential %s is %s could not be stored", name, done)
        if change.parked:
            self._metrics.parked(one.place.provider, one.place.credential, one.reason.value)
        self._bus.publish(f"credential_{done}", described(change))
        for hear in self._followers:
            hear(change)

    def fresh(self) -> list[Change]:
        """Return what has changed since this was last asked."""
        fresh, self._fresh = self._fresh, []
        return fresh

    async def history(self, provider_id: str) -> list[Json]:
        """Return a provider's last changes, the newest first."""
        return await asyncio.to_thread(self._history, provider_id)

    def _load(self) -> list[Parked]:
        with self._database.reading() as connection:
            return rows.load(connection)

    def _history(self, provider_id: str) -> list[Json]:
        with self._database.reading() as connection:
            return rows.history(connection, provider_id, limit=HISTORY)


def described(change: Change) -> Json:
    """Return the event of a change."""
    one = change.parking
    return {
        "timestamp": change.at,
        "provider_id": one.place.provider,
        "credential": one.place.credential,
        **({"model_id": one.place.model} if one.place.model else {}),
        "reason": one.reason.value,
        "why": change.why,
        "by": change.by.value,
        **({"until": one.until} if change.parked else {}),
    }
