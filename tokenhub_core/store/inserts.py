"""Rows that are added once: what the writer hands to the driver without asking what stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from tokenhub_core.store.spelling import spelling_of


class Insert(msgspec.Struct, frozen=True, eq=False):
    """One row for a statement that does nothing where the row is already there. Its result: whether it was new.

    `statement` is driver SQL in words that SQLite and PostgreSQL share; it marks values by `?` and holds no other one.
    Neighbours in a batch with the same statement go to the driver in one call.
    """

    statement: str
    row: tuple[Any, ...]
    then: tuple[Insert, ...] = ()
    """What is inserted with it, in the same transaction, if it is new; whatever that has for `then` is left out."""


def inserted(connection: Connection, insert: Insert) -> bool:
    """Insert the row, with what follows it, in the caller's transaction; tell whether it was new."""
    told = spelling_of(connection.dialect.name).told
    new = connection.exec_driver_sql(told(insert.statement), insert.row).rowcount > 0
    for statement, rows in after([insert]).items() if new else ():
        connection.exec_driver_sql(told(statement), rows)
    return new


def after(inserts: Sequence[Insert]) -> dict[str, list[tuple[Any, ...]]]:
    """Return what is inserted with these rows, by statement."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for insert in inserts:
        for one in insert.then:
            found.setdefault(one.statement, []).append(one.row)
    return found
