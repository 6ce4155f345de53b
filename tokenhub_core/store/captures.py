"""The text of calls as sealed rows; `retention` deletes those whose time is over.

Every function works on a connection that its caller holds. Times are in seconds since the epoch.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, delete, insert, select

from tokenhub_core.store.rows import MICROS, micros
from tokenhub_core.store.schema import CAPTURES


class Captured(msgspec.Struct, frozen=True):
    """One row."""

    id: str
    at: float
    until: float
    """When it is to be deleted."""
    key_id: str
    sealed: bytes

    def __repr__(self) -> str:
        return f"Captured({self.id})"


def save(connection: Connection, captured: Captured) -> None:
    """Store a row, in the place of an older one of this id."""
    connection.execute(delete(CAPTURES).where(CAPTURES.c.id == captured.id))
    connection.execute(
        insert(CAPTURES).values(
            id=captured.id,
            at=micros(captured.at),
            until=micros(captured.until),
            key_id=captured.key_id,
            sealed=captured.sealed,
        )
    )


def load(connection: Connection, name: str, *, now: float) -> Captured | None:
    """Return the row of a call, None where there is none or its time is over."""
    table = CAPTURES.c
    row = connection.execute(select(CAPTURES).where(table.id == name, table.until > micros(now))).first()
    if row is None:
        return None
    return Captured(row.id, row.at / MICROS, row.until / MICROS, row.key_id, bytes(row.sealed))
