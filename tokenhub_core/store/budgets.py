"""Budgets as rows, and what was counted of each: a row for every time that is counted together.

A count is only ever added to, in the transaction that stores the record which it comes from (`charge`). Of a process
that shares its budgets it stands in a row of that process, until that is gone (`leases`).

Every change of a budget counts up a number in the same transaction, so that other processes see it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from itertools import batched
from typing import Final

import orjson
from msgspec import structs
from sqlalchemy import Connection, delete, func, select, update

from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.admission.ledger import Count, Crossing
from tokenhub_core.ports import Charge
from tokenhub_core.store import generations
from tokenhub_core.store.inserts import Insert
from tokenhub_core.store.rows import dumps, whole
from tokenhub_core.store.schema import BUDGETS, SHARES, SPENDS
from tokenhub_core.store.upsert import insert

_COUNTS: Final = 4
"""Of one budget, the newest ones: what is needed to go on."""
_CHARGE: Final = (
    "INSERT INTO spends (budget_id, since, spent, warned) SELECT ?, ?, ?, 0"
    " WHERE EXISTS (SELECT 1 FROM budgets WHERE id = ?)"
    " ON CONFLICT (budget_id, since) DO UPDATE SET spent = spends.spent + excluded.spent"
)
"""A budget that was removed meanwhile is not counted."""
_SHARED: Final = (
    "INSERT INTO shares (budget_id, since, process, spent, granted, idle, wanted, until)"
    " SELECT ?, ?, ?, ?, 0, 0, 0, 0 WHERE EXISTS (SELECT 1 FROM budgets WHERE id = ?)"
    " ON CONFLICT (budget_id, since, process) DO UPDATE SET spent = shares.spent + excluded.spent"
)
_BATCH: Final = 200
"""Rows that one statement names."""


def load(connection: Connection, counted: Container[str] = ()) -> list[tuple[Budget, list[Count]]]:
    """Return every budget in the order in which they were made, with its newest counts; not of those `counted`."""
    found = connection.execute(select(BUDGETS).order_by(BUDGETS.c.created_at, BUDGETS.c.id)).mappings().all()
    return [
        (
            Budget(
                **{
                    **row,
                    "period": Period(row["period"]),
                    "unit": Unit(row["unit"]),
                    "thresholds": tuple(orjson.loads(row["thresholds"])),
                }
            ),
            [] if row["id"] in counted else _counts(connection, row["id"]),
        )
        for row in found
    ]


def save(connection: Connection, budget: Budget) -> None:
    """Store a budget; one of its id is replaced."""
    values = {**structs.asdict(budget), "thresholds": dumps(list(budget.thresholds))}
    connection.execute(
        insert(connection, BUDGETS).values(values).on_conflict_do_update(index_elements=["id"], set_=values)
    )
    generations.counted(connection, generations.BUDGETS)


def remove(connection: Connection, budget: Budget) -> None:
    """Remove a budget and what was counted of it."""
    connection.execute(delete(BUDGETS).where(BUDGETS.c.id == budget.id))
    connection.execute(delete(SPENDS).where(SPENDS.c.budget_id == budget.id))
    connection.execute(delete(SHARES).where(SHARES.c.budget_id == budget.id))
    generations.counted(connection, generations.BUDGETS)


def locked(connection: Connection, ids: Iterable[str]) -> dict[str, int]:
    """Return the limits of budgets, and keep their rows from everybody else who asks for them like this.

    They are taken in one order, so that no two wait for each other.
    """
    table, limits = BUDGETS.c, dict[str, int]()
    for some in batched(sorted(ids), _BATCH, strict=False):
        rows = select(table.id, table.limit).where(table.id.in_(some)).order_by(table.id).with_for_update()
        limits.update({row.id: row.limit for row in connection.execute(rows)})
    return limits


def charge(one: Charge) -> Insert:
    """Return what adds a charge to its count."""
    if one.process:
        return Insert(_SHARED, (one.budget, one.since, one.process, whole(one.amount), one.budget))
    return Insert(_CHARGE, (one.budget, one.since, whole(one.amount), one.budget))


def warned(connection: Connection, crossings: Iterable[Crossing]) -> list[Crossing]:
    """Store that thresholds were told of; return those that no other process has told of before."""
    crossings = tuple(crossings)
    locked(connection, {one.budget.id for one in crossings})
    return [one for one in crossings if _first(connection, one)]


def _first(connection: Connection, one: Crossing) -> bool:
    here = (SPENDS.c.budget_id == one.budget.id, SPENDS.c.since == one.since)
    known = connection.execute(select(SPENDS.c.warned).where(*here)).scalar()
    if known is None:
        row = {"budget_id": one.budget.id, "since": one.since, "spent": 0, "warned": one.percent}
        connection.execute(insert(connection, SPENDS).values(row))
    elif known < one.percent:
        connection.execute(update(SPENDS).where(*here).values(warned=one.percent))
    return known is None or known < one.percent


def _counts(connection: Connection, budget_id: str) -> list[Count]:
    table, shares = SPENDS.c, SHARES.c
    query = select(table.since, table.spent, table.warned).where(table.budget_id == budget_id)
    past = connection.execute(query.order_by(table.since.desc()).limit(_COUNTS))
    found = {row.since: Count(row.since, row.spent, row.warned) for row in past}
    added = select(shares.since, func.sum(shares.spent).label("spent")).where(shares.budget_id == budget_id)
    newest = added.group_by(shares.since).order_by(shares.since.desc()).limit(_COUNTS)
    for row in connection.execute(newest):
        old = found.get(row.since, Count(row.since, 0))
        found[row.since] = structs.replace(old, spent=old.spent + int(row.spent))
    return [found[since] for since in sorted(found, reverse=True)[:_COUNTS]]
