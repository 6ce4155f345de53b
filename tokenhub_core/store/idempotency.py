"""Calls with an idempotency key, as rows: one that was made is not made again after a restart either."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import orjson
from sqlalchemy import Connection, delete, insert, select, update

from tokenhub_core.admission.idempotency import Kept, Mark
from tokenhub_core.store.rows import MICROS, dumps, micros, text
from tokenhub_core.store.schema import IDEMPOTENCY
from tokenhub_core.store.writer import Writer

_BEGUN, _DONE = "begun", "done"


class Earlier(msgspec.Struct, frozen=True):
    """An earlier call with the same key of the same owner."""

    request_id: str
    asked: bytes
    done: bool
    """It was answered; else nobody knows what became of it."""
    answer: Kept | None = None
    begun: float = 0.0
    """When, in seconds since the epoch."""


class Marks:
    """Keeps the marks in the database; answers too where `answers` says so."""

    def __init__(self, writer: Writer, *, answers: bool = False) -> None:
        self._writer = writer
        self._answers = answers

    async def claim(self, mark: Mark, request_id: str, *, now: float, until: float) -> Earlier | None:
        """Return the earlier call with this key. Where there was none, return None once the mark is durable.

        Times are seconds since the epoch. Raises `TokenHubError` where the store fails.
        """
        return await self._writer.commit(
            partial(claim, mark=mark, request_id=request_id, now=now, until=until)
        )

    def finish(self, mark: Mark, request_id: str, kept: Kept | None) -> bool:
        """Note that the call was answered; durable a moment later. False where there was no room for it."""
        answer = kept if self._answers else None
        return self._writer.post(partial(finish, mark=mark, request_id=request_id, answer=answer))

    def drop(self, mark: Mark, request_id: str) -> bool:
        """Forget the mark that this call made; as `finish` does."""
        return self._writer.post(partial(drop, mark=mark, request_id=request_id))


def claim(connection: Connection, *, mark: Mark, request_id: str, now: float, until: float) -> Earlier | None:
    """Return the call that has this mark already; where none has, give it to this one. Marks end at their time."""
    table = IDEMPOTENCY.c
    connection.execute(delete(IDEMPOTENCY).where(table.expires_at <= micros(now)))
    row = connection.execute(select(IDEMPOTENCY).where(table.id == mark.id)).one_or_none()
    if row is None:
        connection.execute(
            insert(IDEMPOTENCY).values(
                id=mark.id,
                owner=text(mark.owner),
                asked=mark.asked,
                request_id=request_id,
                outcome=_BEGUN,
                begun_at=micros(now),
                expires_at=micros(until),
            )
        )
        return None
    answer = None
    if row.answer is not None:
        headers = tuple((str(name), str(value)) for name, value in orjson.loads(row.headers))
        answer = Kept(row.request_id, row.asked, row.status, headers, row.answer)
    return Earlier(row.request_id, row.asked, row.outcome == _DONE, answer, row.begun_at / MICROS)


def finish(connection: Connection, *, mark: Mark, request_id: str, answer: Kept | None) -> None:
    """Note that the call was answered, and with what where that is to be kept."""
    given: dict[str, Any] = {}
    if answer is not None:
        given = {"status": answer.status, "headers": dumps(answer.headers), "answer": answer.body}
    table = IDEMPOTENCY.c
    mine = (table.id == mark.id, table.request_id == request_id)
    connection.execute(update(IDEMPOTENCY).where(*mine).values(outcome=_DONE, **given))


def drop(connection: Connection, *, mark: Mark, request_id: str) -> None:
    """Forget the mark, if it is this call's."""
    table = IDEMPOTENCY.c
    connection.execute(delete(IDEMPOTENCY).where(table.id == mark.id, table.request_id == request_id))
