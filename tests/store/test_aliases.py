"""Aliases at rest, and the calls that they stood in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic import command

from tests.fakes.databases import plan
from tests.store.test_log import _filled, _record
from tokenhub_core.routing.experiment import Call
from tokenhub_core.store import catalog, upgrade
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.driver import choose
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import Alias, Outcome, Sticky, Strategy, Target, Timings, Usage

_RAW: Any = choose().module
_ONE = Alias("x/y", (Target("a", 3), Target("b", 0)), Strategy.WEIGHTED, Sticky.CONVERSATION, False)
_TWO = Alias("*", (Target("claude-*"),), Strategy.POOL)


def test_an_alias_is_loaded_as_it_was_stored(database: Database) -> None:
    """By name; storing again replaces it and keeps its first date."""
    with database.writing() as connection:
        for alias, now in ((replace(_ONE, enabled=True), 1.0), (_TWO, 1.0), (_ONE, 2.5)):
            catalog.put_alias(connection, alias, now=now)
    with database.reading() as connection:
        assert catalog.load(connection).aliases == (_TWO, _ONE)
        dates = "SELECT created_at, updated_at FROM aliases WHERE name = 'x/y'"
        assert tuple(connection.exec_driver_sql(dates).one()) == (1_000_000, 2_500_000)


def test_an_alias_is_removed_alone(database: Database) -> None:
    """Removing what is not there is told."""
    with database.writing() as connection:
        catalog.put_alias(connection, _ONE, now=1.0)
        catalog.put_alias(connection, _TWO, now=1.0)
        assert catalog.delete_alias(connection, "*")
        assert not catalog.delete_alias(connection, "*")
        assert catalog.load(connection).aliases == (_ONE,)


async def test_the_calls_of_an_alias_are_read_for_its_report(database: Database, writer: Writer) -> None:
    """Its own, newest first, within the time; of a pool's call the variant is the model that served."""
    paid = {"usage": Usage(3, 4), "cost_nanousd": 7, "timings": Timings(ttft_ms=2.0, total_ms=5.0)}
    log = await _filled(
        database,
        writer,
        _record("1", 100.0, alias="x", variant="p/a", model="a", **paid),
        _record("2", 200.0, alias="x", variant="b", model="c", outcome=Outcome.ERROR),
        _record("3", 300.0, alias="x", model="pooled"),
        _record("4", 300.0, alias="y", variant="a", model="a"),
        _record("5", 300.0, requested_model="x", model="a"),
    )
    found = log.calls("x", limit=10)
    assert [(call.variant, call.failed_over) for call in found] == [
        ("pooled", False),
        ("b", True),
        ("p/a", False),
    ]
    assert found[2] == Call("p/a", "ok", 7, 5.0, 2.0, 3, 4)
    assert found[1].outcome == "error"
    assert [call.variant for call in log.calls("x", limit=1)] == ["pooled"]
    assert [call.variant for call in log.calls("x", limit=9, since=200.0, until=300.0)] == ["b"]
    shown = [(item["id"], item["alias"], item["variant"]) for item in log.page().items[-2:]]
    assert shown == [("2", "x", "b"), ("1", "x", "p/a")]


async def test_the_calls_of_an_alias_are_found_by_index(database: Database, writer: Writer) -> None:
    """A report does not read the whole log, and calls without an alias are not in the index."""
    log = await _filled(database, writer, _record("1", alias="x"), _record("2"))
    assert [item["alias"] for item in log.page().items] == [None, "x"]
    read = plan(database, "SELECT id FROM request_logs WHERE alias = 'x' ORDER BY seq DESC")
    assert "ix_request_logs_alias" in read
    assert not re.search("TEMP B-TREE|Sort|Filter", read)


async def test_a_log_without_aliases_is_kept_row_for_row(tmp_path: Path) -> None:
    """Its order, its numbers, and that none of them is given twice."""
    path = tmp_path / "t.sqlite"
    engine = sqlalchemy.create_engine(f"sqlite+pysqlite:///{path}", module=_RAW)
    with engine.begin() as connection:
        command.upgrade(upgrade.configuration(connection), "0002")
        names = [row.name for row in connection.exec_driver_sql("PRAGMA table_info(request_logs)")]
        for seq in (3, 7, 9):
            values = {name: f"{name}{seq}" for name in names} | {"seq": seq}
            connection.execute(
                sqlalchemy.table("request_logs", *map(sqlalchemy.column, names)).insert(), values
            )
        connection.exec_driver_sql("DELETE FROM request_logs WHERE seq = 9")
        before = connection.exec_driver_sql(f"SELECT {', '.join(names)} FROM request_logs").all()
    engine.dispose()
    database = open_database(str(path))
    with database.reading() as connection:
        after = connection.exec_driver_sql(f"SELECT {', '.join(names)} FROM request_logs").all()
        assert after == before
        told = connection.exec_driver_sql("SELECT alias, variant FROM request_logs").all()
    assert [tuple(row) for row in told] == [(None, "")] * 2
    writer = Writer(database)
    writer.start()
    await writer.insert(RequestLog(database).insert(_record("new")))
    await writer.close()
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT max(seq) FROM request_logs").scalar_one() == 10
    database.close()
