"""Shares of budgets as rows: one for each process, budget and time that is counted together.

Whoever draws holds the budgets' rows until the end of the transaction, so that of two that draw from one budget the
second sees what the first has taken. What a record adds is counted in the row of its process, in the transaction that
stores the record: what a process has spent is never more than a moment behind what it says that it may spend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import batched
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, and_, delete, func, insert, or_, select, update

from tokenhub_core.admission import leases
from tokenhub_core.admission.leases import Claim, Key, Pot, Share, View
from tokenhub_core.store import generations
from tokenhub_core.store.budgets import locked
from tokenhub_core.store.rows import micros
from tokenhub_core.store.schema import SHARES, SPENDS

_BATCH: Final = 200
"""Rows that one statement names."""
_COLUMNS: Final = (
    SHARES.c.process,
    SHARES.c.spent,
    SHARES.c.granted,
    SHARES.c.idle,
    SHARES.c.wanted,
    SHARES.c.until,
)


class Seen(msgspec.Struct, frozen=True):
    """What a process looks for that has nothing to draw."""

    generation: int
    """The number of the last change of budgets."""
    others: int
    """How many other processes have a lease that is good."""
    asked: frozenset[Key]
    """Where they wait for more."""


def look(connection: Connection, process: str, *, now: float) -> Seen:
    """Return what others do; `now` in seconds since the epoch."""
    table = SHARES.c
    live = and_(table.process != process, table.until > micros(now))
    others = connection.execute(select(func.count(table.process.distinct())).where(live)).scalar_one()
    asked = connection.execute(select(table.budget_id, table.since).where(live, table.wanted > 0)).all()
    return Seen(
        generations.last(connection, generations.BUDGETS),
        others,
        frozenset((row.budget_id, row.since) for row in asked),
    )


def draw(
    connection: Connection, process: str, claims: Mapping[Key, Claim], *, clock: Callable[[], float]
) -> dict[Key, View]:
    """Draw shares, renew the lease of those that are good, and return what is known then.

    The clock is read behind the lock: how long that was waited for takes nothing from the lease. A budget that was
    removed meanwhile is left out.
    """
    limits = locked(connection, {budget for budget, _ in claims})
    now = micros(clock())
    until = now + micros(leases.LEASE)
    soon = now + micros(leases.MARGIN)
    mine = SHARES.c.process == process
    connection.execute(update(SHARES).where(mine, SHARES.c.until > soon).values(until=until))
    views: dict[Key, View] = {}
    pots = _pots(connection, [key for key in claims if key[0] in limits], limits)
    for key, pot in pots.items():
        share, views[key] = leases.divide(pot, process, claims[key], now=now, until=until)
        if leases.changed(pot.shares, share, alone=views[key].processes == 1):
            _put(connection, key, share)
    return views


def leave(connection: Connection, process: str) -> None:
    """Let go of every share of a process; what it has spent stays."""
    connection.execute(update(SHARES).where(SHARES.c.process == process).values(until=0, wanted=0))


def settle(connection: Connection, *, before: float) -> None:
    """Count what processes have spent whose leases ended before this as past, and forget their rows.

    One of them that was only asleep and wakes begins a new row with what it counts then.
    """
    gone = SHARES.c.until < micros(before)
    ids = set(connection.execute(select(SHARES.c.budget_id).where(gone).distinct()).scalars())
    if not ids:
        return
    locked(connection, ids)
    columns = (SHARES.c.budget_id, SHARES.c.since, SHARES.c.spent)
    for row in connection.execute(delete(SHARES).where(gone).returning(*columns)).all():
        more = update(SPENDS).where(_at(SPENDS, (row.budget_id, row.since)))
        if not connection.execute(more.values(spent=SPENDS.c.spent + row.spent)).rowcount:
            values = {"budget_id": row.budget_id, "since": row.since, "spent": row.spent, "warned": 0}
            connection.execute(insert(SPENDS).values(values))


def _pots(connection: Connection, keys: Sequence[Key], limits: Mapping[str, int]) -> dict[Key, Pot]:
    pots: dict[Key, Pot] = {}
    for some in batched(keys, _BATCH, strict=False):
        past: dict[Key, Row[Any]] = {}
        for row in connection.execute(select(SPENDS).where(or_(*(_at(SPENDS, key) for key in some)))):
            past[row.budget_id, row.since] = row
        shares: dict[Key, list[Share]] = {}
        columns = (SHARES.c.budget_id, SHARES.c.since, *_COLUMNS)
        for row in connection.execute(select(*columns).where(or_(*(_at(SHARES, key) for key in some)))):
            shares.setdefault((row.budget_id, row.since), []).append(Share(*row[2:]))
        for key in some:
            old = past.get(key)
            spent, warned = (old.spent, old.warned) if old is not None else (0, 0)
            pots[key] = Pot(limits[key[0]], spent, tuple(shares.get(key, ())), warned)
    return pots


def _at(table: Any, key: Key) -> Any:
    return and_(table.c.budget_id == key[0], table.c.since == key[1])


def _put(connection: Connection, key: Key, share: Share) -> None:
    """Store a row; what its records have added is theirs to write."""
    values = {"granted": share.granted, "idle": share.idle, "wanted": share.wanted, "until": share.until}
    mine = and_(_at(SHARES, key), SHARES.c.process == share.process)
    if not connection.execute(update(SHARES).where(mine).values(**values)).rowcount:
        row = {"budget_id": key[0], "since": key[1], "process": share.process, "spent": 0, **values}
        connection.execute(insert(SHARES).values(row))
