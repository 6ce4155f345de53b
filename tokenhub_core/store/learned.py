"""What was learned, as rows: posteriors of arms, averages behind estimates, spreads of times, marks of conversations.

What is stored are the records themselves and never what was added to them: a process that reads them goes on from
exactly where the one before it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Table, bindparam, delete, insert, select

from tokenhub_core.routing import spread
from tokenhub_core.routing.affinity import Served
from tokenhub_core.routing.bandit import Kept
from tokenhub_core.routing.learning import Average, Key, Measure
from tokenhub_core.store.rows import dumps, micros, text
from tokenhub_core.store.schema import ESTIMATES, MARKS, POSTERIORS, SPREADS

_MEASURES: Final = frozenset(Measure)


def posteriors(connection: Connection) -> list[Kept]:
    """Return every record, the one longest without a reward first."""
    table = POSTERIORS.c
    found = connection.execute(
        select(
            table.model_id, table.provider_id, table.context, table.won, table.lost, table.step, table.at
        ).order_by(table.step)
    )
    return [Kept(*row) for row in found]


def estimates(connection: Connection) -> list[tuple[Key, Average]]:
    """Return every average, the one longest unchanged first; measures of another version are left out."""
    table = ESTIMATES.c
    columns = (table.measure, table.model_id, table.subject, table.mean, table.error, table.count)
    found = connection.execute(select(*columns).order_by(table.updated_at))
    return [
        (Key(Measure(measure), model, subject), Average(mean, error, count))
        for measure, model, subject, mean, error, count in found
        if measure in _MEASURES
    ]


def spreads(connection: Connection) -> list[spread.Kept]:
    """Return every spread, the one longest unchanged first."""
    table = SPREADS.c
    columns = (table.model_id, table.provider_id, table.weights, table.next, table.seen)
    found = connection.execute(select(*columns).order_by(table.updated_at))
    return [
        spread.Kept(
            model, provider, tuple((at, weight) for at, weight in orjson.loads(weights)), following, seen
        )
        for model, provider, weights, following, seen in found
    ]


def save(
    connection: Connection,
    records: Sequence[Kept],
    averages: Sequence[tuple[Key, Average]],
    times: Sequence[spread.Kept] = (),
    *,
    now: float,
) -> None:
    """Store these in place of what they have grown from; `now` is in seconds since the epoch."""
    _replace(
        connection,
        POSTERIORS,
        [
            {
                "model_id": text(one.model),
                "provider_id": text(one.provider),
                "context": text(one.context),
                "won": one.won,
                "lost": one.lost,
                "step": one.step,
                "at": one.at,
            }
            for one in records
        ],
    )
    _replace(
        connection,
        ESTIMATES,
        [
            {
                "measure": key.measure.value,
                "model_id": text(key.model),
                "subject": text(key.subject),
                "mean": one.mean,
                "error": one.error,
                "count": one.count,
                "updated_at": micros(now),
            }
            for key, one in averages
        ],
    )
    _replace(
        connection,
        SPREADS,
        [
            {
                "model_id": text(one.model),
                "provider_id": text(one.provider),
                "weights": dumps(one.weights),
                "next": one.next,
                "seen": one.seen,
                "updated_at": micros(now),
            }
            for one in times
        ],
    )


def marks(connection: Connection) -> list[tuple[bytes, Served]]:
    """Return every mark and who served the call that left it, the oldest first."""
    table = MARKS.c
    found = connection.execute(
        select(table.mark, table.model_id, table.provider_id, table.at, table.tokens).order_by(table.at)
    )
    return [(mark, Served(model, provider, at / 1e6, tokens)) for mark, model, provider, at, tokens in found]


def save_marks(
    connection: Connection,
    noted: Sequence[tuple[bytes, Served]],
    forgotten: Sequence[bytes] | None,
) -> None:
    """Store marks and remove those that were forgotten; None: all but the ones that are stored now."""
    if forgotten is None:
        connection.execute(delete(MARKS))
    elif forgotten:
        gone = delete(MARKS).where(MARKS.c.mark == bindparam("gone"))
        connection.execute(gone, [{"gone": mark} for mark in forgotten])
    _replace(
        connection,
        MARKS,
        [
            {
                "mark": mark,
                "model_id": text(one.model),
                "provider_id": text(one.provider),
                "at": micros(one.at),
                "tokens": one.tokens,
            }
            for mark, one in noted
        ],
    )


def _replace(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Put rows in the place of those with their keys. Names that strangers chose may become the same once storable."""
    key = [column.name for column in table.primary_key]
    unlike = {tuple(row[name] for name in key): row for row in rows}
    if not unlike:
        return
    gone = delete(table).where(*(table.c[name] == bindparam(f"old_{name}") for name in key))
    connection.execute(gone, [{f"old_{name}": row[name] for name in key} for row in unlike.values()])
    connection.execute(insert(table), list(unlike.values()))
