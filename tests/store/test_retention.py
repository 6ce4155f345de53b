"""What is deleted when its time is over, in either database."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from sqlalchemy import Table, func, insert, select

from tests.store.test_log import _record
from tokenhub_core.store import captures, retention, schema, webhooks
from tokenhub_core.store.captures import Captured
from tokenhub_core.store.database import Database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.retention import DAY, PIECE
from tokenhub_core.store.rows import micros
from tokenhub_core.store.writer import Writer
from tokenhub_core.sweeper import Retention, Sweeper
from tokenhub_core.webhooks.values import Webhook

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
    states = {"provider_id": "p", "before": "healthy", "after": "down", "reason": ""}
    health = [{"at": micros(at), **states} for at in (old, new)]
    await writer.commit(lambda connection: connection.execute(insert(schema.HEALTH_HISTORY), health).rowcount)
    rows = [parking(at) for at in (old, new)] + [parking(old)] * PIECE
    await writer.commit(lambda connection: connection.execute(insert(schema.PARKING_HISTORY), rows).rowcount)
    for name, until in (("a", _NOW - 1), ("b", _NOW + 1)):
        await writer.commit(partial(captures.save, captured=Captured(name, old, until, "k", b"\x00\xff")))
    told: list[Any] = []

    async def swept(**kept: int) -> int:
        sweeper = Sweeper(
            writer, _Clock(), Retention(**kept), tell=lambda kind, data: told.append((kind, data))
        )
        return await sweeper.sweep()

    assert await swept() == 1
    assert (count(database, schema.CAPTURES), count(database, schema.PARKING_HISTORY)) == (1, PIECE + 2)
    assert await swept(parkings=7) == PIECE + 1
    assert (log.count(), count(database, schema.PARKING_HISTORY)) == (2, 1)
    assert await swept(records=7) == 2
    assert log.count() == 0
    assert await swept(health=7) == 1
    assert count(database, schema.HEALTH_HISTORY) == 1
    assert await swept(records=7, parkings=7, health=7) == 0
    assert told == [
        ("rows_deleted", {"timestamp": _NOW, "tables": {"captures": 1}}),
        ("rows_deleted", {"timestamp": _NOW, "tables": {"parking_history": PIECE + 1}}),
        ("rows_deleted", {"timestamp": _NOW, "tables": {"request_logs": 2}}),
        ("rows_deleted", {"timestamp": _NOW, "tables": {"health_history": 1}}),
    ]


async def test_a_decision_goes_and_its_record_stays(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where many began in the same moment; what was done is not looked at again."""
    monkeypatch.setattr(retention, "PIECE", 2)
    monkeypatch.setattr("tokenhub_core.sweeper.PIECE", 2)
    log = RequestLog(database)
    old, new = _NOW - 8 * DAY, _NOW - 6 * DAY
    for number, at in enumerate([old, old, old, old + 1, new]):
        await writer.insert(log.insert(_record(str(number), at)))
    sweeper = Sweeper(writer, _Clock(), Retention(decisions=7))
    assert await sweeper.sweep() == 4
    assert await sweeper.sweep() == 0
    found = {row["id"]: row["decision"] for row in (log.get(str(n)) for n in range(5)) if row is not None}
    assert [name for name, decision in found.items() if decision is not None] == ["4"]
    assert len(found) == 5


async def test_what_is_needed_to_go_on_counting_stays(database: Database, writer: Writer) -> None:
    """Of each budget the last four periods, however old they are."""
    days = [100 * n for n in range(1, 8)]
    rows = [
        {"budget_id": name, "since": round((_NOW - day * DAY) * 1e6), "spent": 1, "warned": 0}
        for name in ("a", "b")
        for day in days[: None if name == "a" else 3]
    ]
    await writer.commit(lambda connection: connection.execute(insert(schema.SPENDS), rows).rowcount)
    assert await Sweeper(writer, _Clock(), Retention(spends=550)).sweep() == 2
    assert await Sweeper(writer, _Clock(), Retention(spends=1)).sweep() == 1
    assert count(database, schema.SPENDS) == 4 + 3


async def test_what_webhooks_were_not_told_goes_and_what_waits_stays(
    database: Database, writer: Writer
) -> None:
    """Only what was given up is forgotten."""
    await writer.commit(partial(webhooks.save, hook=Webhook("h", "x", (), True, 1.0, 1.0)))
    found = [("h", name, "audit", "{}") for name in ("dead", "waits")]
    await writer.commit(partial(webhooks.enqueue, found=found, now=_NOW - 8 * DAY))
    await writer.commit(partial(webhooks.failed, seq=1, cause="x", due_at=None))
    assert await Sweeper(writer, _Clock(), Retention(deliveries=9)).sweep() == 0
    assert await Sweeper(writer, _Clock(), Retention(deliveries=7)).sweep() == 1
    with database.reading() as connection:
        assert [one.event_id for one in webhooks.listed(connection, "h", dead=False)] == ["waits"]


async def test_a_capture_is_found_until_its_time_is_over(database: Database, writer: Writer) -> None:
    """As it was stored; a newer one of its id takes its place."""
    for sealed in (b"old", b"\x00new"):
        await writer.commit(partial(captures.save, captured=Captured("a", 1.0, _NOW, "k", sealed)))
    with database.reading() as connection:
        assert captures.load(connection, "a", now=_NOW - 1) == Captured("a", 1.0, _NOW, "k", b"\x00new")
        assert captures.load(connection, "a", now=_NOW) is None
