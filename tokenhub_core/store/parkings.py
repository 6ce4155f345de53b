"""Parkings as rows: what is parked now, and every parking and unparking that ever was."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, delete, insert, select

from tokenhub_core.admission.parking import Change, Parked, Place, Reason
from tokenhub_core.store.rows import MICROS, micros, text
from tokenhub_core.store.schema import PARKING_HISTORY, PARKINGS
from tokenhub_core.types import Json

_REASONS: Final = frozenset(Reason)


def load(connection: Connection) -> list[Parked]:
    """Return every parking; those whose reason another version gave are left out."""
    return [
        Parked(
            Place(row.provider_id, row.credential, row.model),
            Reason(row.reason),
            row.cause,
            row.since / MICROS,
            row.until / MICROS,
            row.failures,
        )
        for row in connection.execute(select(PARKINGS))
        if row.reason in _REASONS
    ]


def save(connection: Connection, change: Change) -> None:
    """Store what a change left, and the change itself."""
    one, table = change.parking, PARKINGS.c
    place = {
        "provider_id": text(one.place.provider),
        "credential": text(one.place.credential),
        "model": text(one.place.model),
    }
    connection.execute(delete(PARKINGS).where(*(table[name] == value for name, value in place.items())))
    if change.parked:
        connection.execute(
            insert(PARKINGS).values(
                **place,
                reason=one.reason.value,
                cause=text(one.cause),
                since=micros(one.since),
                until=micros(one.until),
                failures=one.failures,
            )
        )
    connection.execute(
        insert(PARKING_HISTORY).values(
            **place,
            at=micros(change.at),
            parked=change.parked,
            by=change.by.value,
            reason=one.reason.value,
            why=text(change.why),
            until=micros(one.until),
        )
    )


def history(connection: Connection, provider_id: str, *, limit: int) -> list[Json]:
    """Return a provider's changes, the newest first; moments in seconds since the epoch."""
    table = PARKING_HISTORY.c
    found = connection.execute(
        select(PARKING_HISTORY)
        .where(table.provider_id == provider_id)
        .order_by(table.seq.desc())
        .limit(limit)
    )
    return [
        {
            "at": row.at / MICROS,
            "credential": row.credential,
            "model": row.model,
            "action": "parked" if row.parked else "unparked",
            "by": row.by,
            "reason": row.reason,
            "why": row.why,
            "until": row.until / MICROS,
        }
        for row in found
    ]
