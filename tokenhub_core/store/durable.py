"""Durable calls as rows: what is needed to go on with one, and a mark for each attempt before it is sent.

Whoever makes the mark of an attempt makes the attempt, and nobody makes it after him. What came of it is written once:
the first to say so is believed. Rows go when their call is recorded, at the latest after a day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update

from tokenhub_core.store.database import Database
from tokenhub_core.store.rows import MICROS, micros
from tokenhub_core.store.schema import DURABLE_ATTEMPTS, DURABLE_CALLS
from tokenhub_core.store.writer import Writer

KEPT: Final = 86_400.0
"""Seconds. Whatever is still on its way after that finds its mark gone, and its call with it."""


class By(StrEnum):
    """Who makes a call."""

    WORKFLOW = "workflow"
    DIRECT = "direct"


class Sealed(msgspec.Struct, frozen=True):
    """What was sealed, and under which root's key."""

    key_id: str
    data: bytes

    def __repr__(self) -> str:
        return f"Sealed({len(self.data)} bytes)"


class Mark(msgspec.Struct, frozen=True):
    """An attempt that was begun. `outcome` is None while nobody knows what came of it."""

    n: int
    by: By
    begun_at: float
    """Seconds since the epoch."""
    outcome: Sealed | None = None


class DurableCalls:
    """The rows. Everything that writes raises `TokenHubError` where the store fails."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    async def keep(self, call_id: str, sealed: Sealed, *, now: float) -> None:
        """Return once the call is durable."""
        await self._writer.commit(partial(_keep, call_id=call_id, sealed=sealed, now=now))

    async def first(self, call_id: str, sealed: Sealed, *, now: float) -> Sealed:
        """Keep a call where none of its id is kept; return what was kept first."""
        return await self._writer.commit(partial(_first, call_id=call_id, sealed=sealed, now=now))

    async def begins(self, prefix: str) -> Sequence[str]:
        """Return the ids of the calls that begin so."""
        return await self._read(partial(_begins, prefix=prefix))

    async def load(self, call_id: str) -> Sealed | None:
        """Return the call, None where it is gone."""
        return await self._read(partial(_load, call_id=call_id))

    async def begin(self, call_id: str, n: int, by: By, *, now: float, part_of: str = "") -> Mark | None:
        """Return the mark of an attempt that was begun before; None once this one is begun.

        `part_of`: the call that it belongs to. Where any of that is made directly, the mark which says so is returned.
        """
        return await self._writer.commit(
            partial(_begin, call_id=call_id, n=n, by=by, now=now, part_of=part_of)
        )

    async def end(self, call_id: str, n: int, outcome: Sealed) -> Sealed:
        """Say what came of an attempt; return what was said first."""
        return await self._writer.commit(partial(_end, call_id=call_id, n=n, outcome=outcome))

    async def marks(self, call_id: str) -> Sequence[Mark]:
        """Return a call's attempts in their order."""
        return await self._read(partial(_marks, call_id=call_id))

    def forget(self, call_id: str, *, attempts: bool) -> None:
        """Delete what was kept of a call that is recorded; its answers too where they have arrived."""
        self._writer.post(partial(_forget, call_id=call_id, attempts=attempts))

    async def _read[T](self, work: Callable[[Connection], T]) -> T:
        def read() -> T:
            with self._database.reading() as connection:
                return work(connection)

        return await asyncio.to_thread(read)


def _keep(connection: Connection, *, call_id: str, sealed: Sealed, now: float) -> None:
    for table in (DURABLE_CALLS, DURABLE_ATTEMPTS):
        connection.execute(delete(table).where(table.c.until <= micros(now)))
    row = {"id": call_id, "until": micros(now + KEPT), "key_id": sealed.key_id, "sealed": sealed.data}
    connection.execute(insert(DURABLE_CALLS).values(**row))


def _first(connection: Connection, *, call_id: str, sealed: Sealed, now: float) -> Sealed:
    kept = _load(connection, call_id=call_id)
    if kept is None:
        _keep(connection, call_id=call_id, sealed=sealed, now=now)
    return kept or sealed


def _begins(connection: Connection, *, prefix: str) -> Sequence[str]:
    mine = DURABLE_CALLS.c.id.startswith(prefix, autoescape=True)
    return list(connection.scalars(select(DURABLE_CALLS.c.id).where(mine).order_by(DURABLE_CALLS.c.id)))


def _load(connection: Connection, *, call_id: str) -> Sealed | None:
    row = connection.execute(select(DURABLE_CALLS).where(DURABLE_CALLS.c.id == call_id)).first()
    return None if row is None else Sealed(row.key_id, bytes(row.sealed))


def _begin(connection: Connection, *, call_id: str, n: int, by: By, now: float, part_of: str) -> Mark | None:
    table = DURABLE_ATTEMPTS.c
    if part_of:
        direct = (table.call_id == part_of, table.by == By.DIRECT.value)
        if (row := connection.execute(select(DURABLE_ATTEMPTS).where(*direct)).first()) is not None:
            return _mark(row)
    row = connection.execute(
        select(DURABLE_ATTEMPTS).where(table.call_id == call_id, table.n == n)
    ).one_or_none()
    if row is not None:
        return _mark(row)
    values = {"call_id": call_id, "n": n, "by": by.value}
    times = {"begun_at": micros(now), "until": micros(now + KEPT)}
    connection.execute(insert(DURABLE_ATTEMPTS).values(**values, **times))
    return None


def _end(connection: Connection, *, call_id: str, n: int, outcome: Sealed) -> Sealed:
    table = DURABLE_ATTEMPTS.c
    mine = (table.call_id == call_id, table.n == n)
    given = {"key_id": outcome.key_id, "sealed": outcome.data}
    connection.execute(update(DURABLE_ATTEMPTS).where(*mine, table.sealed.is_(None)).values(**given))
    row = connection.execute(select(DURABLE_ATTEMPTS).where(*mine)).one_or_none()
    return outcome if row is None else Sealed(row.key_id, bytes(row.sealed))


def _marks(connection: Connection, *, call_id: str) -> Sequence[Mark]:
    table = DURABLE_ATTEMPTS.c
    rows = connection.execute(select(DURABLE_ATTEMPTS).where(table.call_id == call_id).order_by(table.n))
    return [_mark(row) for row in rows]


def _mark(row: Row[Any]) -> Mark:
    outcome = None if row.sealed is None else Sealed(row.key_id, bytes(row.sealed))
    return Mark(row.n, By(row.by), row.begun_at / MICROS, outcome)


def _forget(connection: Connection, *, call_id: str, attempts: bool) -> None:
    connection.execute(delete(DURABLE_CALLS).where(DURABLE_CALLS.c.id == call_id))
    if attempts:
        # The mark of a call that was made directly stays: its workflow may still be on its way.
        gone = (DURABLE_ATTEMPTS.c.call_id == call_id, DURABLE_ATTEMPTS.c.by == By.WORKFLOW.value)
        connection.execute(delete(DURABLE_ATTEMPTS).where(*gone))
        mine = DURABLE_ATTEMPTS.c.call_id == call_id
        connection.execute(update(DURABLE_ATTEMPTS).where(mine).values(key_id=None, sealed=None))
