"""What became of providers as rows: every change of their health that was told, beside the parkings of credentials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, Row, insert, select

from tokenhub_core.store.rows import MICROS, micros, text
from tokenhub_core.store.schema import HEALTH_HISTORY, PARKING_HISTORY


class Moved(msgspec.Struct, frozen=True):
    """One change of a provider's health, or of what a credential of it is good for."""

    at: float
    """Seconds since the epoch."""
    provider_id: str
    kind: Literal["health", "credential"]
    credential: str
    """Empty where it is about the provider."""
    model_id: str
    """The one that a credential is parked for, empty for all."""
    before: str
    after: str
    """Of providers `healthy`, `degraded`, `down` or `half_open`, of credentials `ready` or `parked`."""
    reason: str


def save(connection: Connection, moves: Sequence[Moved]) -> None:
    """Store changes of health."""
    rows = [
        {
            "at": micros(one.at),
            "provider_id": text(one.provider_id),
            "before": one.before,
            "after": one.after,
            "reason": text(one.reason),
        }
        for one in moves
    ]
    connection.execute(insert(HEALTH_HISTORY), rows)


def load(connection: Connection, *, since: float, until: float, provider_id: str, limit: int) -> list[Moved]:
    """Return what happened from `since` on and before `until` (of the epoch), the newest first.

    An empty `provider_id` stands for all of them.
    """
    found: list[Moved] = []
    for table, told in ((HEALTH_HISTORY, _health), (PARKING_HISTORY, _credential)):
        one = table.c
        query = select(table).where(one.at >= micros(since), one.at < micros(until))
        if provider_id:
            query = query.where(one.provider_id == provider_id)
        rows = connection.execute(query.order_by(one.at.desc(), one.seq.desc()).limit(limit))
        found += [told(row) for row in rows]
    return sorted(found, key=lambda moved: -moved.at)[:limit]


def _health(row: Row[Any]) -> Moved:
    return Moved(row.at / MICROS, row.provider_id, "health", "", "", row.before, row.after, row.reason)


def _credential(row: Row[Any]) -> Moved:
    before, after = ("ready", "parked") if row.parked else ("parked", "ready")
    at, why = row.at / MICROS, row.why or row.reason
    return Moved(at, row.provider_id, "credential", row.credential, row.model, before, after, why)
