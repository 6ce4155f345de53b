"""The request log: written once, read newest first, cut by cursor."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.fakes.databases import plan
from tests.fakes.keys import ANN
from tests.fakes.traffic import records
from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.errors import TokenHubError
from tokenhub_core.http import exporting, shapes
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.search import Filters
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import (
    Attempt,
    Caller,
    Composition,
    Lane,
    Outcome,
    Plan,
    Policy,
    Record,
    Shadow,
    Timings,
)


def _record(record_id: str, at: float = 1000.0, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "id": record_id,
        "at": at,
        "outcome": Outcome.OK,
        "status": 200,
        "caller": Caller("127.0.0.1", Lane.HANDOFF, "regular", "", "openai-python"),
        "method": "POST",
        "path": "/v1/messages",
        "attempts": (Attempt(1, "claude", "anthropic", 0.0, 1.0),),
        "plan": Plan(Policy(why={"mode": "default"}), (), (), 1, 2, "routed-weight-5"),
    }
    return Record(**(fields | changes))


async def _filled(database: Database, writer: Writer, *records: Record) -> RequestLog:
    log = RequestLog(database)
    for record in records:
        assert await writer.insert(log.insert(record))
    return log


def _ids(log: RequestLog, filters: Filters) -> list[str]:
    found = [item["id"] for item in log.page(filters=filters).items]
    assert log.count(filters) == len(found)
    return found


async def test_a_record_is_read_as_it_was_written(database: Database, writer: Writer) -> None:
    """Times in microseconds, flags as flags, JSON as values; the decision comes with the single record."""
    log = await _filled(
        database, writer, _record("a", 1000.5, stream=True, losses=("top_k",), cost_nanousd=7)
    )
    shown = log.get("a")
    assert shown is not None
    assert (shown["at"], shown["stream"], shown["identical"], shown["losses"]) == (
        1_000_500_000,
        True,
        False,
        ["top_k"],
    )
    assert (shown["seq"], shown["cost_nanousd"], shown["attempts"][0]["model"]) == (1, 7, "claude")
    assert shown["decision"]["policy"]["why"] == {"mode": "default"}
    assert log.get("b") is None


async def test_pages_go_back_in_time_and_miss_nothing(database: Database, writer: Writer) -> None:
    """Rows that arrive while someone pages move nothing; the last page says that it is the last."""
    log = await _filled(database, writer, *(_record(str(n)) for n in range(7)))
    first = log.page(limit=3)
    assert [item["id"] for item in first.items] == ["6", "5", "4"]
    await writer.insert(log.insert(_record("new")))
    second = log.page(limit=3, before_seq=first.next)
    third = log.page(limit=3, before_seq=second.next)
    assert [item["id"] for item in (*second.items, *third.items)] == ["3", "2", "1", "0"]
    assert third.next is None
    assert log.page(limit=4, before_seq=first.next).next is None
    assert "decision" not in first.items[0]
    assert len(first.items[0]["attempts"]) == 1


async def test_a_page_has_a_longest_length(database: Database) -> None:
    """A limit outside 1 to 1,000 is the caller's mistake and names its parameter."""
    log = RequestLog(database)
    for limit in (0, -1, 1001):
        with pytest.raises(TokenHubError) as caught:
            log.page(limit=limit)
        assert (caught.value.fault.http_status, caught.value.fault.param) == (400, "limit")
    assert log.page(limit=1000).items == ()


async def test_filters_choose_and_combine(database: Database, writer: Writer) -> None:
    """Model (asked for or served), provider, outcome, a half-open span of time, a piece of text."""
    log = await _filled(
        database,
        writer,
        _record("a", 10.0, model="claude", provider="anthropic"),
        _record("b", 20.0, requested_model="claude", model="gpt", provider="openai"),
        _record("c", 30.0, provider="openai", outcome=Outcome.ERROR, message="100% Broken_pipe"),
    )
    assert _ids(log, Filters()) == ["c", "b", "a"]
    assert _ids(log, Filters(model="claude")) == ["b", "a"]
    assert _ids(log, Filters(provider="openai")) == ["c", "b"]
    assert _ids(log, Filters(provider="openai", outcome="ok")) == ["b"]
    assert _ids(log, Filters(since=10.0, until=30.0)) == ["b", "a"]
    assert _ids(log, Filters(q="broken_PIPE")) == ["c"]
    assert _ids(log, Filters(q="100%")) == ["c"]
    assert _ids(log, Filters(q="n_p")) == ["c"]
    assert (
        _ids(log, Filters(q="1_0")) == _ids(log, Filters(q="1%Broken")) == []
    )  # nothing in it is a wildcard
    assert _ids(log, Filters(q="' OR 1=1 --")) == []


async def test_a_record_that_comes_twice_is_kept_once_as_it_came_first(
    database: Database, writer: Writer
) -> None:
    """The id decides; the second one changes nothing."""
    log = await _filled(database, writer, _record("a", status=200))
    assert await writer.insert(log.insert(_record("a", status=500))) is False
    shown = log.get("a")
    assert shown is not None
    assert shown["status"] == 200
    assert log.count() == 1


async def test_a_number_is_never_used_twice(database: Database, writer: Writer) -> None:
    """A cursor that somebody keeps must not skip rows that came after old ones were removed."""
    log = await _filled(database, writer, _record("a"), _record("b"))
    await writer.commit(lambda connection: connection.exec_driver_sql("DELETE FROM request_logs").rowcount)
    await writer.insert(log.insert(_record("c")))
    assert log.page().items[0]["seq"] == 3


@pytest.mark.parametrize("name", ["model_id", "provider_id", "outcome"])
async def test_a_filtered_page_is_read_from_an_index(database: Database, name: str) -> None:
    """The first page of a large log must not read all of it."""
    read = plan(database, f"SELECT * FROM request_logs WHERE {name} = 'x' ORDER BY seq DESC LIMIT 10")
    assert f"ix_request_logs_{name.removesuffix('_id')}" in read
    assert not re.search("TEMP B-TREE|Sort|Filter", read)


_READER = """
import sys
from tokenhub_core.store.database import open_database
from tokenhub_core.store.log import RequestLog
database = open_database(sys.argv[1])
log, seen, looks = RequestLog(database), 0, 0
print("ready", flush=True)
while seen < 400:
    count = log.count()
    page = log.page(limit=10)
    assert count >= seen, (count, seen)
    assert all(log.get(item["id"]) for item in page.items)
    seen, looks = count, looks + 1
print(looks, flush=True)
"""


async def test_two_processes_read_while_one_writes(tmp_path: Path) -> None:
    """Nobody is locked out, and nobody sees a count go down."""
    database = open_database(str(tmp_path / "t.sqlite"))
    readers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _READER, database.where, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(2)
    ]
    writer = Writer(database)
    writer.start()
    log = RequestLog(database)
    for reader in readers:
        assert reader.stdout is not None
        assert await reader.stdout.readline() == b"ready\n"
    for n in range(0, 400, 4):
        await asyncio.gather(*(writer.insert(log.insert(_record(str(n + k)))) for k in range(4)))
    for reader in readers:
        out, _ = await asyncio.wait_for(reader.communicate(), PROGRAM_PATIENCE)
        assert reader.returncode == 0
        assert int(out) > 1
    assert writer.counts.failed == 0
    await writer.close()
    database.close()


async def test_decided_calls_come_oldest_first_and_page_by_page(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many pages they are; calls that were never decided are none of them."""
    monkeypatch.setattr("tokenhub_core.store.log._CHUNK", 2)
    records = [_record(name, at) for at, name in enumerate("abcdefg")]
    records[3] = _record("d", 3, plan=None)
    log = await _filled(database, writer, *records)
    assert [row["id"] for row in log.decided(limit=100)] == list("abcefg")
    assert [row["id"] for row in log.decided(Filters(since=1, until=5), limit=100)] == list("bce")
    assert [row["id"] for row in log.decided(limit=3)] == list("efg")
    assert list(log.decided(Filters(since=50), limit=3)) == []


async def test_what_several_calls_answered_is_neither_rehearsed_nor_compared(
    database: Database, writer: Writer
) -> None:
    """Its cost is that of all its steps: next to one decision, or one target of an alias, it would mislead."""
    made = Composition("vote", "judge", (), 4)
    records = [_record("a", alias="x"), _record("b", alias="x", composition=made)]
    log = await _filled(database, writer, *records)
    assert [row["id"] for row in log.decided(limit=9)] == ["a"]
    assert len(log.calls("x", limit=9)) == 1


async def test_decided_calls_are_chosen_by_host_and_program(database: Database, writer: Writer) -> None:
    """Exactly these, with their decisions and attempts as values."""
    robot = Caller("127.0.0.1", Lane.HANDOFF, "regular", "", "robot")
    log = await _filled(
        database, writer, _record("a", origin_host="api.openai.com"), _record("b", caller=robot), _record("c")
    )
    (one,) = log.decided(Filters(host="api.openai.com"), limit=9)
    assert (one["id"], one["decision"]["reason"], one["attempts"][0]["blame"]) == ("a", "routed-weight-5", "")
    assert [row["id"] for row in log.decided(Filters(program="robot"), limit=9)] == ["b"]


async def test_what_is_recorded_meanwhile_is_not_among_the_decided(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a growing log ends."""
    monkeypatch.setattr("tokenhub_core.store.log._CHUNK", 1)
    log = await _filled(database, writer, _record("a"), _record("b"))
    found = []
    for row in log.decided(limit=9):
        found.append(row["id"])
        await writer.insert(log.insert(_record(f"later {len(found)}")))
    assert found == ["a", "b"]


async def test_a_column_of_an_export_has_one_type(database: Database, writer: Writer) -> None:
    """Null aside, and the same on either database: whoever reads the lines into columns needs to guess nothing."""
    whole = Timings(queue_ms=0, route_ms=1, ttft_ms=2, total_ms=3)
    full = _record(
        "full",
        timings=whole,
        shadow=Shadow(model="m"),
        composition=Composition("vote", "agreed"),
        losses=("top_k",),
        alias="fast",
        caller=Caller(key=ANN),
    )
    log = await _filled(database, writer, _record("plain", 1000.5), full, *records(20, until=2000.0))
    rows = [shapes.log_json(row) for row in log.page().items]
    lines = [orjson.loads(line) for line in exporting.lines(rows, exporting.Format.JSONL).splitlines()]
    types = {name: {type(line[name]).__name__ for line in lines} - {"NoneType"} for name in exporting.FIELDS}
    assert [name for name, found in types.items() if len(found) != 1] == []
    assert {types[name].pop() for name in ("at", "queue_ms", "route_ms", "ttft_ms", "total_ms")} == {"float"}
