"""Webhooks as rows, and the queue of what each is still to be told.

Every function works on a connection that its caller holds. Times are in seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, delete, func, select, update

from tokenhub_core.store.rows import MICROS, dumps, micros
from tokenhub_core.store.schema import DELIVERIES, WEBHOOKS
from tokenhub_core.store.upsert import insert
from tokenhub_core.webhooks.values import MOST_WAITING, Delivery, Webhook

_PAGE: Final = 100


def load(connection: Connection) -> list[Webhook]:
    """Return every webhook in the order in which they were made."""
    return [
        Webhook(
            row.id,
            row.url,
            tuple(orjson.loads(row.kinds)),
            row.enabled,
            row.created_at / MICROS,
            row.updated_at / MICROS,
        )
        for row in connection.execute(select(WEBHOOKS).order_by(WEBHOOKS.c.created_at, WEBHOOKS.c.id))
    ]


def save(connection: Connection, hook: Webhook) -> None:
    """Store a webhook; one of its id is replaced."""
    values = {
        "id": hook.id,
        "url": hook.url,
        "kinds": dumps(list(hook.kinds)),
        "enabled": hook.enabled,
        "created_at": micros(hook.created_at),
        "updated_at": micros(hook.updated_at),
    }
    connection.execute(
        insert(connection, WEBHOOKS).values(values).on_conflict_do_update(index_elements=["id"], set_=values)
    )


def remove(connection: Connection, hook_id: str) -> bool:
    """Remove a webhook and all that waits for it; False where there was none."""
    connection.execute(delete(DELIVERIES).where(DELIVERIES.c.webhook_id == hook_id))
    return connection.execute(delete(WEBHOOKS).where(WEBHOOKS.c.id == hook_id)).rowcount > 0


# --- the queue ---------------------------------------------------------------------------------------------------


def enqueue(
    connection: Connection, found: Sequence[tuple[str, str, str, str]], *, now: float
) -> dict[str, int]:
    """Let events wait: (webhook, event's id, kind, body). Return how many were left out, by webhook.

    Those of a webhook that is gone are left out without a count; an event that waits already is not there twice.
    """
    known = set(connection.execute(select(WEBHOOKS.c.id)).scalars())
    room = {one: MOST_WAITING - waiting(connection, one) for one in known & {hook for hook, *_ in found}}
    lost: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for hook, event_id, kind, body in found:
        if room.get(hook, 0) <= 0:
            if hook in known:
                lost[hook] = lost.get(hook, 0) + 1
            continue
        room[hook] -= 1
        at = micros(now)
        names = {"webhook_id": hook, "event_id": event_id, "kind": kind, "body": body, "cause": ""}
        rows.append({**names, "made_at": at, "due_at": at, "attempts": 0})
    if rows:
        statement = insert(connection, DELIVERIES).on_conflict_do_nothing(
            index_elements=["webhook_id", "event_id"]
        )
        connection.execute(statement, rows)
    return lost


def waiting(connection: Connection, hook_id: str) -> int:
    """Return how many events wait for a webhook, counted no further than is kept."""
    table = DELIVERIES.c
    some = select(table.seq).where(table.webhook_id == hook_id, table.due_at.is_not(None)).limit(MOST_WAITING)
    return connection.execute(select(func.count()).select_from(some.subquery())).scalar_one()


def claim(connection: Connection, hook_id: str, *, now: float, until: float) -> Delivery | None:
    """Return what is due, the longest first, and keep it from other processes `until` then; None where nothing is."""
    table = DELIVERIES.c
    due = select(DELIVERIES).where(table.webhook_id == hook_id, table.due_at <= micros(now))
    row = connection.execute(due.order_by(table.due_at, table.seq).limit(1).with_for_update()).first()
    if row is None:
        return None
    connection.execute(update(DELIVERIES).where(table.seq == row.seq).values(due_at=micros(until)))
    return _delivery(row)


def told(connection: Connection, seq: int) -> None:
    """Let go of what the receiver has."""
    connection.execute(delete(DELIVERIES).where(DELIVERIES.c.seq == seq))


def failed(connection: Connection, seq: int, *, cause: str, due_at: float | None) -> None:
    """Count a try that failed; `due_at` is when the next one is, None where it is given up."""
    table = DELIVERIES.c
    values = {"attempts": table.attempts + 1, "cause": cause, "due_at": due_at and micros(due_at)}
    connection.execute(update(DELIVERIES).where(table.seq == seq).values(values))


def next_due(connection: Connection, hooks: Iterable[str]) -> float | None:
    """Return when the next try of these webhooks is, None where nothing waits."""
    table = DELIVERIES.c
    some = select(func.min(table.due_at)).where(table.webhook_id.in_(list(hooks)))
    found = connection.execute(some).scalar()
    return None if found is None else found / MICROS


def listed(connection: Connection, hook_id: str, *, dead: bool, before: int | None = None) -> list[Delivery]:
    """Return the newest that wait, or that were given up."""
    table = DELIVERIES.c
    query = select(DELIVERIES).where(table.webhook_id == hook_id)
    query = query.where(table.due_at.is_(None) if dead else table.due_at.is_not(None))
    if before is not None:
        query = query.where(table.seq < before)
    return [_delivery(row) for row in connection.execute(query.order_by(table.seq.desc()).limit(_PAGE))]


def revive(connection: Connection, hook_id: str, *, now: float) -> int:
    """Let everything that was given up be tried anew; return how many that are."""
    table = DELIVERIES.c
    dead = (table.webhook_id == hook_id) & table.due_at.is_(None)
    values = {"due_at": micros(now), "attempts": 0}
    return connection.execute(update(DELIVERIES).where(dead).values(values)).rowcount


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        row.seq,
        row.webhook_id,
        row.event_id,
        row.kind,
        row.body,
        row.made_at / MICROS,
        None if row.due_at is None else row.due_at / MICROS,
        row.attempts,
        row.cause,
    )
