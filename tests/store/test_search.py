"""The log is searched by what its rows say, paged both ways, and no question reads all of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import Select, make_url

from tests.fakes.databases import plan
from tests.fakes.keys import ANN
from tests.store.test_log import _filled, _ids, _record
from tokenhub_core.errors import TokenHubError
from tokenhub_core.store import search
from tokenhub_core.store.database import Database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.schema import REQUEST_LOGS
from tokenhub_core.store.search import Filters, Span
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import Mode, Outcome, Plan, Policy, Record

ALL: dict[str, Any] = {
    "model": "m",
    "provider": "p",
    "host": "h",
    "program": "x",
    "key": "k",
    "project": "j",
    "outcome": "ok",
    "since": 1.0,
    "until": 2.0,
    "q": "y",
    "mode": "cheap",
    "directive": "denied",
    "tag": "t",
    "status": (400, 499),
    "error": "timeout",
}
"""A value for every filter."""


def _sql(database: Database, query: Select[Any]) -> str:
    dialect = make_url(
        "sqlite://" if database.where == ":memory:" else "postgresql+psycopg://"
    ).get_dialect()()
    return str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))


def _plan(database: Database, filters: Filters, *, back: bool = True) -> str:
    query = search.query(filters, Span(10, 90), 5, back=back)
    return plan(database, _sql(database, query))


def _bounded(read: str) -> bool:
    """Tell whether a plan reads the table between two places, or by an index, and in no other way."""
    looks = [line for line in read.splitlines() if re.search("(SCAN|SEARCH| on) request_logs", line)]
    if "Index Cond" in read:
        return all(" Index " in line for line in looks) and read.count("Index Cond") >= len(looks)
    return bool(looks) and all(re.search("SEARCH .*(rowid|seq)[>=]", line) for line in looks)


async def test_the_ends_of_the_log_are_found_without_reading_it(database: Database) -> None:
    """Each by itself, from the end where it is; likewise the end of what may be looked at."""
    ends = plan(database, _sql(database, search.ends_query()))
    assert ends.count("SEARCH request_logs") == 2 or ends.count("Limit") == 2, ends
    floor = search.floor_query([REQUEST_LOGS.c.key_id == "k"], Span(1, 9), back=True)
    assert "ix_request_logs_key_id" in plan(database, _sql(database, floor))


async def test_no_filter_reads_the_log_without_a_bound(database: Database) -> None:
    """Each is read from its index, or between two places of the log, in the order of the page."""
    for name, value in ALL.items():
        for back in (True, False):
            read = _plan(database, Filters(**{name: value}), back=back)
            assert _bounded(read), (name, read)


INDEXES = {
    "key": ("key_id",),
    "project": ("project",),
    "tag": ("tags",),
    "directive": ("directive",),
    "error": ("error",),
    "model": ("asked", "model"),
    "provider": ("provider",),
    "outcome": ("outcome",),
}
"""The indexes of each filter that has one."""


async def test_the_index_that_leaves_least_is_the_one_that_is_used(database: Database) -> None:
    """Beside any other filter too: with a second index the database could read what nothing bounds."""
    every = {"at", *(index for indexes in INDEXES.values() for index in indexes)}
    order = [*INDEXES]
    for place, name in enumerate(order):
        later = {other: ALL[other] for other in [*order[place:], "since", "until", "status", "q"]}
        read = _plan(database, Filters(**later))
        used = {index for index in every if re.search(rf"ix_request_logs_{index}\b", read)}
        assert used == set(INDEXES[name]), (name, read)


async def test_every_filter_chooses_its_records(database: Database, writer: Writer) -> None:
    """Mode, directive, tag, status, the text of errors; all of them together too."""
    tagged = Plan(Policy(tags=("a", "a b"), mode=Mode.CHEAP), (), (), 1, 2, "r")
    log = await _filled(
        database,
        writer,
        _record("plain"),
        _record("tagged", plan=tagged, directive="honoured"),
        _record("failed", outcome=Outcome.ERROR, status=503, fault="timeout", message="No Answer in 5 s"),
        _record("denied", directive="denied", status=404, outcome=Outcome.ERROR, fault="model_not_found"),
    )
    assert _ids(log, Filters(mode="cheap")) == ["tagged"]
    assert _ids(log, Filters(directive="denied")) == ["denied"]
    assert _ids(log, Filters(tag="a")) == _ids(log, Filters(tag="a b")) == ["tagged"]
    assert _ids(log, Filters(tag="b")) == _ids(log, Filters(tag="%")) == _ids(log, Filters(tag='"')) == []
    assert _ids(log, Filters(status=(500, 599))) == ["failed"]
    assert _ids(log, Filters(error="NO ANSWER")) == _ids(log, Filters(error="timeo")) == ["failed"]
    assert _ids(log, Filters(error="o", status=(400, 599), outcome="error")) == ["denied", "failed"]
    assert _ids(log, Filters(error="%")) == []


async def test_a_piece_is_folded_in_ascii_letters_alone(database: Database, writer: Writer) -> None:
    """On either database alike, whatever language it sorts by; and every sign stands for itself."""
    log = await _filled(
        database,
        writer,
        _record("a", message="Émile's 5/6_7 %", fault="f"),
        _record("b", message="plain", fault="f"),
    )
    for piece in ("ÉMILE", "5/6", "6_7", "7 %", "'"):
        assert _ids(log, Filters(q=piece)) == _ids(log, Filters(error=piece)) == ["a"], piece
    for piece in ("émile", "5/_", "6/_", "_mile", "%5"):
        assert _ids(log, Filters(q=piece)) == _ids(log, Filters(error=piece)) == [], piece


async def test_a_model_is_found_where_it_served_and_where_it_was_asked_for(
    database: Database, writer: Writer
) -> None:
    """Once each, in the order of the log, over the edges of pages."""
    made = [("m", "m"), ("m", "x"), ("x", "m"), ("x", "x"), ("m", "m")]
    records = [_record(str(n), requested_model=a, model=b) for n, (a, b) in enumerate(made)]
    log = await _filled(database, writer, *records)
    first = log.page(limit=3, filters=Filters(model="m"))
    rest = log.page(limit=3, filters=Filters(model="m"), before_seq=first.next)
    assert [row["id"] for row in (*first.items, *rest.items)] == ["4", "2", "1", "0"]
    assert rest.next is None


async def test_pages_go_forward_as_well(database: Database, writer: Writer) -> None:
    """`newer` of a page is `after` of the one that follows it: nothing is missed, and nothing comes twice."""
    log = await _filled(database, writer, *(_record(str(n)) for n in range(3)))
    at = log.page(limit=1).newer
    assert log.page(after_seq=at).items == ()
    for n in range(3, 8):
        await writer.insert(log.insert(_record(str(n), status=200 + n)))
    first = log.page(limit=2, after_seq=at)
    assert [row["id"] for row in first.items] == ["4", "3"]
    second = log.page(limit=2, after_seq=first.newer)
    third = log.page(limit=2, after_seq=second.newer)
    assert [row["id"] for row in (*second.items, *third.items)] == ["6", "5", "7"]
    assert log.page(after_seq=third.newer).items == ()
    back = log.page(limit=2, before_seq=second.next)
    assert [row["id"] for row in back.items] == ["4", "3"]
    with pytest.raises(TokenHubError, match="not both"):
        log.page(before_seq=1, after_seq=1)


@pytest.mark.parametrize(
    "filters",
    [{"host": "rare"}, {"key": "k", "host": "rare"}, {"error": "rare"}, {"model": "m", "status": (500, 599)}],
)
async def test_a_page_looks_at_so_many_rows_and_says_where_to_go_on(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch, filters: dict[str, Any]
) -> None:
    """What is rare is found all the same, in several questions, in both directions."""
    monkeypatch.setattr(search, "SCAN", 3)
    rare: dict[str, Any] = {"origin_host": "rare", "message": "rare", "status": 503}
    log = RequestLog(database)
    for n in range(11):
        more = rare if n in {1, 10} else {}
        record = _record(str(n), fault="f", model="m", **more)
        await writer.insert(log.insert(_keyed(record)))
    wanted = Filters(**filters)
    looks, found, before = 0, [], None
    while looks < 20:
        page = log.page(filters=wanted, before_seq=before)
        looks, before = looks + 1, page.next
        found += [row["id"] for row in page.items]
        if before is None:
            break
    assert (found, looks > 2) == (["10", "1"], True)
    forward, at = [], 0
    for _ in range(looks + 1):
        page = log.page(filters=wanted, after_seq=at)
        at = page.newer
        forward += [row["id"] for row in page.items]
    assert forward == ["1", "10"]


def _keyed(record: Record) -> Record:
    key = structs.replace(ANN, id="k")
    return structs.replace(record, caller=structs.replace(record.caller, key=key))


@pytest.mark.parametrize("near", [50_000, 1])
async def test_a_span_of_time_is_found_where_calls_ended_out_of_order(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    """A long call began before others that are written before it."""
    monkeypatch.setattr(search, "_NEAR", near)
    day = search.LONGEST
    times = [0.0, 3 * day, 3 * day + 60, 3 * day + 10, 6 * day]
    log = await _filled(database, writer, *(_record(str(n), at) for n, at in enumerate(times)))
    assert _ids(log, Filters(since=3 * day, until=3 * day + 60)) == ["3", "1"]
    assert _ids(log, Filters(since=3 * day + 60)) == ["4", "2"]
    assert _ids(log, Filters(until=3 * day)) == ["0"]
    assert _ids(log, Filters(since=7 * day)) == []


async def test_a_span_leaves_out_most_of_the_log(database: Database, writer: Writer) -> None:
    """Before anything is read, its place is looked up."""
    day = search.LONGEST
    log = await _filled(database, writer, *(_record(str(n), n * 3 * day) for n in range(5)))
    assert log.count() == 5
    with database.reading() as connection:
        span = search._within(connection, Filters(since=6 * day, until=7 * day), Span(0, 6))
    assert span == Span(2, 4)
