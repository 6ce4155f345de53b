"""What is deleted when its time is over, in either database."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Table, func, insert, select

from tests.store.test_log import _record
from tokenhub_core.store import captures, schema
from tokenhub_core.store.captures import DAY, PIECE, Captured
from tokenhub_core.store.database import Database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.writer import Writer
from tokenhub_core.sweeper import Sweeper

_NOW = 1_700_000_000.0


class _Clock:
    def now(self) -> float:
        return _NOW

    def monotonic(self) -> float:
        return 0.0


def parking(at: float) -> dict[str, Any]:
    words = dict.fromkeys(("provider_id", "credential", "model", "by", "reason", "why"), "x")
    return {**words, "at": round(at * 1e6), "parked": True, "until": 0}


def count(database: Database, table: Table) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(table)).scalar_one()


async def test_each_table_has_a_time_of_its_own(database: Database, writer: Writer) -> None:
    """What is older goes, piece by piece, and what is as old as it may be stays."""
    old, new = _NOW - 8 * DAY, _NOW - 6 * DAY
    log = RequestLog(database)
    for name in ("a", "b"):
        await writer.insert(log.insert(_record(name)))  # of long ago
    rows = [parking(at) for at in (old, new)] + [parking(old)] * PIECE
    await writer.commit(lambda connection: connection.execute(insert(schema.PARKING_HISTORY), rows).rowcount)
    for name, until in (("a", _NOW - 1), ("b", _NOW + 1)):
        await writer.commit(partial(captures.save, captured=Captured(name, old, until, "k", b"\x00\xff")))
    assert await Sweeper(writer, _Clock(), None).sweep() == 1
    assert (count(database, schema.CAPTURES), count(database, schema.PARKING_HISTORY)) == (1, PIECE + 2)
    assert await Sweeper(writer, _Clock(), None, parkings=7).sweep() == PIECE + 1
    assert (log.count(), count(database, schema.PARKING_HISTORY)) == (2, 1)
    assert await Sweeper(writer, _Clock(), 7).sweep() == 2
    assert log.count() == 0


async def test_a_capture_is_found_until_its_time_is_over(database: Database, writer: Writer) -> None:
    """As it was stored; a newer one of its id takes its place."""
    for sealed in (b"old", b"\x00new"):
        await writer.commit(partial(captures.save, captured=Captured("a", 1.0, _NOW, "k", sealed)))
    with database.reading() as connection:
        assert captures.load(connection, "a", now=_NOW - 1) == Captured("a", 1.0, _NOW, "k", b"\x00new")
        assert captures.load(connection, "a", now=_NOW) is None
