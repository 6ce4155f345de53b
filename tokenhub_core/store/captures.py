"""The text of calls as sealed rows, and what deletes rows whose time is over.

Every function works on a connection that its caller holds. Times are in seconds since the epoch.
"""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import Column, Connection, Table, delete, insert, select

from tokenhub_core.store.rows import MICROS, micros
from tokenhub_core.store.schema import CAPTURES, PARKING_HISTORY, REQUEST_LOGS

DAY: Final = 86_400.0
"""Seconds."""
PIECE: Final = 500
"""Rows that are deleted in one transaction: whoever waits for the writer waits for no more than that."""


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


def delete_texts(connection: Connection, *, now: float) -> int:
    """Delete a piece of the text whose time is over; return how many rows that were."""
    return _delete(connection, CAPTURES, CAPTURES.c.id, CAPTURES.c.until, micros(now))


def delete_records(connection: Connection, *, before: float) -> int:
    """Delete a piece of the records of calls that were older than `before`; return how many rows that were."""
    return _delete(connection, REQUEST_LOGS, REQUEST_LOGS.c.seq, REQUEST_LOGS.c.at, micros(before))


def delete_parkings(connection: Connection, *, before: float) -> int:
    """Delete a piece of the history of parkings older than `before`; return how many rows that were."""
    table = PARKING_HISTORY.c
    return _delete(connection, PARKING_HISTORY, table.seq, table.at, micros(before))


def _delete(connection: Connection, table: Table, key: Column[int], moment: Column[int], until: int) -> int:
    some = select(key).where(moment <= until).order_by(moment).limit(PIECE).scalar_subquery()
    return connection.execute(delete(table).where(key.in_(some))).rowcount
