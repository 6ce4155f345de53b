"""Budgets as rows, and what was counted of each: a row for every time that is counted together.

A count is only ever added to, in the transaction that stores the record which it comes from (`charge`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson
from msgspec import structs
from sqlalchemy import Connection, delete, select

from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.admission.ledger import Count, Crossing
from tokenhub_core.ports import Charge
from tokenhub_core.store.rows import dumps, whole
from tokenhub_core.store.schema import BUDGETS, SPENDS
from tokenhub_core.store.upsert import insert
from tokenhub_core.store.writer import Insert

_COUNTS: Final = 4
"""Of one budget, the newest ones: what is needed to go on."""
_CHARGE: Final = (
    "INSERT INTO spends (budget_id, since, spent, warned) SELECT ?, ?, ?, 0"
    " WHERE EXISTS (SELECT 1 FROM budgets WHERE id = ?)"
    " ON CONFLICT (budget_id, since) DO UPDATE SET spent = spends.spent + excluded.spent"
)
"""A budget that was removed meanwhile is not counted."""


def load(connection: Connection) -> list[tuple[Budget, list[Count]]]:
    """Return every budget in the order in which they were made, with its newest counts."""
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
            _counts(connection, row["id"]),
        )
        for row in found
    ]


def save(connection: Connection, budget: Budget) -> None:
    """Store a budget; one of its id is replaced."""
    values = {**structs.asdict(budget), "thresholds": dumps(list(budget.thresholds))}
    connection.execute(
        insert(connection, BUDGETS).values(values).on_conflict_do_update(index_elements=["id"], set_=values)
    )


def remove(connection: Connection, budget: Budget) -> None:
    """Remove a budget and what was counted of it."""
    connection.execute(delete(BUDGETS).where(BUDGETS.c.id == budget.id))
    connection.execute(delete(SPENDS).where(SPENDS.c.budget_id == budget.id))


def charge(one: Charge) -> Insert:
    """Return what adds a charge to its count."""
    return Insert(_CHARGE, (one.budget, one.since, whole(one.amount), one.budget))


def warned(connection: Connection, crossings: Iterable[Crossing]) -> None:
    """Store that thresholds were told of."""
    for one in crossings:
        row = {"budget_id": one.budget.id, "since": one.since, "spent": 0, "warned": one.percent}
        update = {"warned": one.percent}
        connection.execute(
            insert(connection, SPENDS)
            .values(row)
            .on_conflict_do_update(index_elements=["budget_id", "since"], set_=update)
        )


def _counts(connection: Connection, budget_id: str) -> list[Count]:
    table = SPENDS.c
    query = select(table.since, table.spent, table.warned).where(table.budget_id == budget_id)
    found = connection.execute(query.order_by(table.since.desc()).limit(_COUNTS))
    return [Count(row.since, row.spent, row.warned) for row in found]
