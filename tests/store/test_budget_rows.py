"""Budgets and their counts as rows, in either database."""

from __future__ import annotations

from msgspec import structs

from tests.store.test_log import _record
from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.admission.ledger import Count, Crossing
from tokenhub_core.ports import Charge
from tokenhub_core.store import budgets
from tokenhub_core.store.database import Database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.writer import Writer

_DAY = Budget("b1", "all", Period.DAY, Unit.USD, 10**15, thresholds=(50, 90))


def stored(database: Database) -> dict[str, list[Count]]:
    with database.reading() as connection:
        return {budget.id: counts for budget, counts in budgets.load(connection)}


async def test_a_budget_is_replaced_by_one_of_its_id(database: Database, writer: Writer) -> None:
    """Everything of it comes back as it was stored, up to the largest amount that fits."""
    await writer.commit(lambda connection: budgets.save(connection, _DAY))
    other = structs.replace(_DAY, limit=2**63 - 1, hard=not _DAY.hard)
    await writer.commit(lambda connection: budgets.save(connection, other))
    with database.reading() as connection:
        assert budgets.load(connection) == [(other, [])]


async def test_a_charge_is_added_to_its_count(database: Database, writer: Writer) -> None:
    """With its record, once; of each time the budget keeps a count, and the newest come first."""
    await writer.commit(lambda connection: budgets.save(connection, _DAY))
    log = RequestLog(database)
    for name, since, amount in (("a", 10, 5), ("b", 10, 2**40), ("c", 20, 7), ("a", 10, 5)):
        await writer.insert(log.insert(_record(name), [Charge("b1", since, amount)]))
    assert stored(database) == {"b1": [Count(20, 7, 0), Count(10, 5 + 2**40, 0)]}


async def test_a_budget_that_is_gone_is_not_counted(database: Database, writer: Writer) -> None:
    """Its counts went with it, and what was under way leaves none."""
    await writer.commit(lambda connection: budgets.save(connection, _DAY))
    log = RequestLog(database)
    await writer.insert(log.insert(_record("a"), [Charge("b1", 10, 5)]))
    await writer.commit(lambda connection: budgets.remove(connection, _DAY))
    await writer.insert(log.insert(_record("b"), [Charge("b1", 10, 5)]))
    await writer.commit(lambda connection: budgets.save(connection, _DAY))
    assert stored(database) == {"b1": []}


async def test_what_was_told_is_kept_beside_what_was_spent(database: Database, writer: Writer) -> None:
    """In either order, and a later threshold takes the place of an earlier one."""
    await writer.commit(lambda connection: budgets.save(connection, _DAY))
    crossings = [Crossing(_DAY, 10, percent, 0) for percent in (50, 90)]
    await writer.commit(lambda connection: budgets.warned(connection, crossings))
    await writer.insert(RequestLog(database).insert(_record("a"), [Charge("b1", 10, 5)]))
    assert stored(database) == {"b1": [Count(10, 5, 90)]}
