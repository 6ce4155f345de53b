"""What goes when its time is over, piece by piece.

Every function works on a connection that its caller holds, deletes no more than a piece, and returns how many rows that
were: fewer than a piece, and there are no more. Times are in seconds since the epoch.

Of a chain the beginning can go, and never silently: in the same transaction an entry of the audit log says up to which
hash, so that what is left can be verified from there. Whoever deletes rows otherwise has no such entry.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Column, Connection, Row, Table, and_, delete, func, or_, select, update

from tokenhub_core.audit.entries import Action, Draft, Head
from tokenhub_core.store import audit, catalog
from tokenhub_core.store.rows import MICROS, micros
from tokenhub_core.store.schema import (
    AUDIT,
    CAPTURES,
    DELIVERIES,
    HEALTH_HISTORY,
    IDEMPOTENCY,
    PARKING_HISTORY,
    PROOFS,
    REQUEST_LOGS,
    SPENDS,
)

DAY: Final = 86_400.0
"""Seconds."""
PIECE: Final = 500
"""Rows that go in one transaction: whoever waits for the writer waits for no more than that."""
CHAIN_PIECE: Final = 5000
"""The same of a chain, whose rows are short: each piece leaves an entry behind."""
_ALL: Final = 1 << 62
_KEPT_COUNTS: Final = 4
"""Of each budget, the newest ones: what is needed to go on counting."""
_CLEARED: Final = "retention.decisions"
"""Where the place is stored up to which decisions are gone."""


def texts(connection: Connection, *, now: float) -> int:
    """Delete text of calls whose own time is over."""
    return _delete(connection, CAPTURES, CAPTURES.c.id, CAPTURES.c.until, micros(now))


def marks(connection: Connection, *, now: float) -> int:
    """Delete marks of idempotent calls whose own time is over."""
    return _delete(connection, IDEMPOTENCY, IDEMPOTENCY.c.id, IDEMPOTENCY.c.expires_at, micros(now))


def records(connection: Connection, *, before: float) -> int:
    """Delete records of calls that began before then."""
    return _delete(connection, REQUEST_LOGS, REQUEST_LOGS.c.seq, REQUEST_LOGS.c.at, micros(before))


def decisions(connection: Connection, *, before: float) -> int:
    """Take the decision out of records of calls that began before then; the records stay.

    How far this has come is stored: what is done is not looked at again.
    """
    table = REQUEST_LOGS.c
    at, seq = map(int, (catalog.setting(connection, _CLEARED) or "0:0").split(":"))
    behind = or_(table.at > at, and_(table.at == at, table.seq > seq))
    some = select(table.seq, table.at).where(table.at >= at, behind, table.at <= micros(before))
    found = connection.execute(some.order_by(table.at, table.seq).limit(PIECE)).all()
    if found:
        places = [row.seq for row in found]
        connection.execute(update(REQUEST_LOGS).where(table.seq.in_(places)).values(decision=None))
        catalog.put_setting(connection, _CLEARED, f"{found[-1].at}:{found[-1].seq}")
    return len(found)


def parkings(connection: Connection, *, before: float) -> int:
    """Delete history of parkings."""
    table = PARKING_HISTORY.c
    return _delete(connection, PARKING_HISTORY, table.seq, table.at, micros(before))


def health(connection: Connection, *, before: float) -> int:
    """Delete history of providers' health."""
    table = HEALTH_HISTORY.c
    return _delete(connection, HEALTH_HISTORY, table.seq, table.at, micros(before))


def spends(connection: Connection, *, before: float) -> int:
    """Delete what budgets came to in periods that began before then, but for the last ones of each budget."""
    table, later = SPENDS.c, SPENDS.alias().c
    newer = (
        select(func.count())
        .select_from(later.since.table)
        .where(later.budget_id == table.budget_id, later.since > table.since)
        .scalar_subquery()
    )
    old = (
        select(table.budget_id, table.since)
        .where(table.since < micros(before), newer >= _KEPT_COUNTS)
        .limit(PIECE)
    )
    found = connection.execute(old).all()
    for row in found:
        connection.execute(delete(SPENDS).where(table.budget_id == row.budget_id, table.since == row.since))
    return len(found)


def deliveries(connection: Connection, *, before: float) -> int:
    """Delete what webhooks were not told of and are not going to be."""
    table = DELIVERIES.c
    some = select(table.seq).where(table.due_at.is_(None), table.made_at <= micros(before)).limit(PIECE)
    return connection.execute(delete(DELIVERIES).where(table.seq.in_(some.scalar_subquery()))).rowcount


def entries(connection: Connection, *, before: float, keep: int, signed: bool) -> tuple[int, list[Draft]]:
    """Cut the beginning off the audit log, and return what it is to say of that; nothing from `keep` on goes.

    Of signed entries none goes unless what it says is to be `signed`, too. Where that takes the entry along that says
    where the proofs begin, it is written anew.
    """
    proofs_begin = audit.trim_entry(connection, Action.PROOF_TRIM)
    count, last, draft = _cut(connection, AUDIT, Action.AUDIT_TRIM, before=before, keep=keep, signed=signed)
    if draft is None:
        return 0, []
    if proofs_begin is not None and proofs_begin.seq <= last:
        return count, [draft, Draft(Action.PROOF_TRIM, after=audit.shown(proofs_begin)["after"])]
    return count, [draft]


def proofs(connection: Connection, *, before: float, signed: bool) -> tuple[int, list[Draft]]:
    """Cut the beginning off the chain of proofs, and return what the audit log is to say of that."""
    count, _, draft = _cut(connection, PROOFS, Action.PROOF_TRIM, before=before, keep=_ALL, signed=signed)
    return count, [] if draft is None else [draft]


def _cut(
    connection: Connection, table: Table, action: Action, *, before: float, keep: int, signed: bool
) -> tuple[int, int, Draft | None]:
    """Delete old entries at the beginning of a chain; return how many, the last one's place, and the entry for that.

    The last one of all stays, for the next one holds on to it. Nothing goes before a day's worth is over, so that the
    entries about it are few.
    """
    seq = table.c.seq
    newest = connection.execute(select(func.max(seq))).scalar() or 0
    eldest = select(seq, table.c.at, table.c.hash, table.c.key_id).order_by(seq).limit(CHAIN_PIECE)
    old: list[Row[*tuple[Any, ...]]] = []
    for row in connection.execute(eldest).all():
        if row.at > micros(before) or row.seq >= min(newest, keep):
            break
        old.append(row)
    if not old or old[0].at > micros(before - DAY):
        return 0, 0, None
    if not signed and any(row.key_id for row in old):
        return 0, 0, None
    last = Head(old[-1].seq, bytes(old[-1].hash))
    connection.execute(delete(table).where(seq <= last.seq))
    told = {"through": str(last), "entries": len(old), "from": old[0].at / MICROS, "to": old[-1].at / MICROS}
    return len(old), last.seq, Draft(action, after=told)


def _delete(connection: Connection, table: Table, key: Column[int], moment: Column[int], until: int) -> int:
    some = select(key).where(moment <= until).order_by(moment).limit(PIECE).scalar_subquery()
    return connection.execute(delete(table).where(key.in_(some))).rowcount
