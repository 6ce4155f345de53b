"""Time series in the database: made of the request log, each record exactly once.

The log is the one truth, and a record in it is durable. How far the series have taken it in is a number (`mark`), and
whoever takes in more stores its sums and the new number in one transaction, which does nothing where the number is not
any more what it was. So a record is counted once, whichever process counts it, and a crash loses nothing: what was not
taken in stands in the log. Sums are made outside of that transaction, because nobody else can have changed them
while the number stands.

A record's place in the log is given before its transaction ends, so on PostgreSQL a lower number may appear after a
higher one. What is taken in ends where nobody who could have a lower number is still adding: every such transaction
holds its lock on the log from before it has numbers until its rows can be seen (`settled`). SQLite has one writer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import batched
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, literal, select, tuple_

from tokenhub_core.store import catalog, upsert
from tokenhub_core.store.database import Database
from tokenhub_core.store.rows import MICROS, whole
from tokenhub_core.store.schema import REQUEST_LOGS, SERIES, SERIES_CELLS
from tokenhub_core.telemetry import rollups, sketches
from tokenhub_core.telemetry.rollups import DAY, RESOLUTIONS, Keep
from tokenhub_core.telemetry.series import COUNTERS, SKETCHES, Fact, Key, Sums, folded

PIECE: Final = 1000
"""Records that are taken in at once."""
SWEPT: Final = 500
"""Cells that are deleted in one transaction."""
_MARK: Final = "series.seq"
_MANY: Final = 200
"""Values that one statement names."""
_WAIT: Final = 1.0
"""Seconds for those who are adding to the log to end."""
_LOOK: Final = 0.005
_ADDING: Final = (
    "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted"
    " AND relation = 'request_logs'::regclass"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)
_FACTS: Final = tuple(REQUEST_LOGS.c[name] for name in Fact._fields)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a piece of the log comes to, ready to be stored."""

    before: int
    """The mark that it was made from."""
    after: int
    series: tuple[tuple[Any, ...], ...]
    cells: tuple[tuple[Any, ...], ...]
    records: int
    others: int
    """Calls among them that were folded into `other`."""


def settled(database: Database) -> int | None:
    """Return the number up to which the log is complete; None where somebody takes too long over adding to it."""
    with database.reading() as connection:
        last = connection.execute(select(func.max(REQUEST_LOGS.c.seq))).scalar() or 0
        if connection.dialect.name != "postgresql":
            return int(last)
        adding = _adding(connection)
        until = time.monotonic() + _WAIT
        while adding:
            if time.monotonic() >= until:
                return None
            time.sleep(_LOOK)
            adding &= _adding(connection)
    return int(last)


def _adding(connection: Connection) -> set[str]:
    """Return the transactions that may have numbers of rows that nobody sees yet."""
    return set(connection.exec_driver_sql(_ADDING).scalars())


def behind(connection: Connection) -> bool:
    """Tell whether the log has more than the series."""
    last = connection.execute(select(func.max(REQUEST_LOGS.c.seq))).scalar() or 0
    return bool(last > mark(connection))


def mark(connection: Connection) -> int:
    """Return the number of the last record that was taken in, 0 where none was."""
    return int(catalog.setting(connection, _MARK) or 0)


def batch(
    connection: Connection, upto: int, keep: Keep, now: float, *, most: int, limit: int = PIECE
) -> Batch | None:
    """Return what the next `limit` records up to number `upto` come to, None where there are none.

    `most` is how many series a day may have. What is older than a resolution is kept is not put into it.
    """
    before = mark(connection)
    seq = REQUEST_LOGS.c.seq
    query = select(seq, *_FACTS).where(seq > before, seq <= upto).order_by(seq).limit(limit)
    rows = connection.execute(query).all()
    if not rows:
        return None
    fine = folded(Fact(*row[1:]) for row in rows)
    kept = rollups.bounded(fine, _series_of_days(connection, {at // DAY * DAY for at, _ in fine}), most)
    others = sum(sums.calls for (_, key), sums in kept.items() if key == key.folded)
    series = tuple((key.id, *key) for key in rollups.series_of(kept))
    cells: list[tuple[Any, ...]] = []
    # All of them before what is there already is added to any.
    for resolution, added in [(one, rollups.coarser(kept, one)) for one in RESOLUTIONS]:
        since = keep.since(resolution, now)
        fresh = {(at, key): sums for (at, key), sums in added.items() if at + resolution > since}
        cells += _rows(connection, resolution, fresh)
    return Batch(before, rows[-1].seq, series, tuple(cells), len(rows), others)


def store(connection: Connection, batch: Batch) -> bool:
    """Store a batch; False, and nothing, where its records were taken in by somebody else meanwhile.

    The connection holds the write lock, so between the look and the change nobody comes.
    """
    if mark(connection) != batch.before:
        return False
    catalog.put_setting(connection, _MARK, str(batch.after))
    if batch.series:
        names = [column.name for column in SERIES.columns]
        insert = upsert.insert(connection, SERIES).on_conflict_do_nothing()
        connection.execute(insert, [dict(zip(names, one, strict=True)) for one in batch.series])
    if batch.cells:
        names = [column.name for column in SERIES_CELLS.columns]
        cells = upsert.insert(connection, SERIES_CELLS)
        key = [column.name for column in SERIES_CELLS.primary_key]
        changed = {name: cells.excluded[name] for name in names if name not in key}
        connection.execute(
            cells.on_conflict_do_update(index_elements=key, set_=changed),
            [dict(zip(names, one, strict=True)) for one in batch.cells],
        )
    return True


def prune(connection: Connection, resolution: int, since: float) -> int:
    """Delete a piece of the cells of a resolution that end before `since`; return how many."""
    table = SERIES_CELLS.c
    old = (table.resolution == resolution, table.at <= round((since - resolution) * MICROS))
    place = (table.resolution, table.at, table.series)
    some = connection.execute(select(*place).where(*old).order_by(*place).limit(SWEPT)).all()
    if some:
        last = some[-1]
        upto = tuple_(table.at, table.series) <= tuple_(literal(last.at), literal(last.series))
        connection.execute(delete(SERIES_CELLS).where(table.resolution == resolution, upto, *old))
    return len(some)


def prune_series(connection: Connection) -> int:
    """Delete a piece of the series that have no cell any more; days are kept longest, so those without a day."""
    days = select(SERIES_CELLS.c.series).where(SERIES_CELLS.c.resolution == DAY)
    some = select(SERIES.c.id).where(SERIES.c.id.not_in(days)).limit(SWEPT).scalar_subquery()
    return connection.execute(delete(SERIES).where(SERIES.c.id.in_(some))).rowcount


def _series_of_days(connection: Connection, days: Iterable[int]) -> dict[int, set[int]]:
    table = SERIES_CELLS.c
    found: dict[int, set[int]] = {}
    for some in batched(sorted(days), _MANY, strict=False):
        query = select(table.at, table.series).where(
            table.resolution == DAY, table.at.in_([day * MICROS for day in some])
        )
        for at, series in connection.execute(query):
            found.setdefault(at // MICROS, set()).add(series)
    return found


def _rows(
    connection: Connection, resolution: int, fresh: dict[tuple[int, Key], Sums]
) -> list[tuple[Any, ...]]:
    """Return rows of cells as they are with what is new."""
    by_place = {(at * MICROS, key.id): sums for (at, key), sums in fresh.items()}
    table = SERIES_CELLS.c
    for some in batched(sorted({at for at, _ in by_place}), _MANY, strict=False):
        ids = {series for at, series in by_place if some[0] <= at <= some[-1]}
        found = select(SERIES_CELLS).where(table.resolution == resolution, table.at.in_(some))
        for row in connection.execute(found if len(ids) > _MANY else found.where(table.series.in_(ids))):
            sums = by_place.get((row.at, row.series))
            if sums is not None:
                sums.add(counted(row))
                for name in SKETCHES:
                    sketches.added(getattr(sums, name), sketches.unpacked(getattr(row, name)))
    return [
        (
            resolution,
            at,
            series,
            *(whole(getattr(sums, name)) for name in COUNTERS),
            *(sketches.packed(getattr(sums, name)) for name in SKETCHES),
        )
        for (at, series), sums in by_place.items()
    ]


def counted(row: Row[Any]) -> Sums:
    """Return the counters of a row that has them all, and no times."""
    sums = Sums()
    for name in COUNTERS:
        setattr(sums, name, int(getattr(row, name)))
    return sums
