"""Time series in either database: every record once, whoever takes it in and whatever ends meanwhile."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select

from tests.store.test_log import _record
from tokenhub_core.rolling import Roller
from tokenhub_core.store import retention, series, trends
from tokenhub_core.store.database import MEMORY, Database, open_database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.schema import REQUEST_LOGS, SERIES, SERIES_CELLS, SETTINGS
from tokenhub_core.store.trends import METRICS, Ask, Curve
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.rollups import DAY, HOUR, RESOLUTIONS, Keep, cover
from tokenhub_core.telemetry.sketches import RELATIVE
from tokenhub_core.types import ApiKey, Caller, Outcome, Record, Timings, Usage

NOW = 1_700_000_000.0
TODAY = int(NOW // DAY * DAY)
EVER = Keep((None, None, None, None))


class Fixed:
    """A clock that stands."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return 0.0


def call(name: str, at: float = NOW, model: str = "m", total_ms: float = 1000.0, **changes: Any) -> Record:
    fields = {"model": model, "provider": "p", "cost_nanousd": 5, "usage": Usage(100, 11)}
    return _record(name, at, **{**fields, "timings": Timings(ttft_ms=200.0, total_ms=total_ms), **changes})


def roller(database: Database, writer: Writer, keep: Keep = EVER, most: int = 100, at: float = NOW) -> Roller:
    return Roller(database, writer, Fixed(at), keep, most=most)


async def logged(database: Database, writer: Writer, *records: Record) -> None:
    log = RequestLog(database)
    for record in records:
        assert await writer.insert(log.insert(record))


def totals(database: Database, name: str = "calls") -> list[int]:
    """What each resolution adds up to."""
    table = SERIES_CELLS.c
    with database.reading() as connection:
        return [
            int(
                connection.execute(select(func.sum(table[name])).where(table.resolution == one)).scalar() or 0
            )
            for one in RESOLUTIONS
        ]


def curves(database: Database, metrics: str, **changes: Any) -> list[Curve]:
    fields: dict[str, Any] = {
        "since": TODAY,
        "until": TODAY + DAY,
        "step": DAY,
        "resolution": HOUR,
        "where": {},
    }
    chosen = tuple(METRICS[name] for name in metrics.split(","))
    with database.reading() as connection:
        return trends.curves(connection, Ask(chosen, **(fields | changes)))


def told(found: list[Curve]) -> list[tuple[str | None, list[float]]]:
    return [(one.value, [value for _, value in one.points]) for one in found]


@asynccontextmanager
async def process(dsn: str) -> AsyncIterator[tuple[Database, Writer, Roller]]:
    """One of several processes on a database."""
    database = open_database(dsn)
    writer = Writer(database)
    writer.start()
    yield database, writer, roller(database, writer)
    await writer.close()
    database.close()


# --- every record once --------------------------------------------------------------------------------------


async def test_every_record_is_counted_once_in_every_resolution(database: Database, writer: Writer) -> None:
    """What is in the log is in the series; who looks a second time, or after a restart, adds nothing."""
    rolls = roller(database, writer)
    await logged(database, writer, *(call(f"a{n}", NOW - n * 1000) for n in range(5)))
    assert await rolls.roll() == 5
    assert await rolls.roll() == 0
    await logged(database, writer, call("late", NOW - 2000, cost_nanousd=2**40))
    assert await roller(database, writer).roll() == 1
    assert totals(database) == [6] * 4
    assert totals(database, "cost_nanousd") == [25 + 2**40] * 4
    assert totals(database, "took_us") == [6_000_000] * 4


async def test_what_a_crash_kept_from_being_counted_is_counted_after_it(dsn: str) -> None:
    """A record that is durable is not lost to the series, although nobody had taken it in; nor is it counted twice."""
    async with process(dsn) as (database, writer, rolls):
        await logged(database, writer, call("before"))
        await rolls.roll()
        await logged(database, writer, call("after"))
        with database.reading() as connection:
            made = series.batch(connection, 2, EVER, NOW, most=100)
        assert made is not None  # and then the process dies
    async with process(dsn) as (database, writer, rolls):
        assert await rolls.roll() == 1
        assert totals(database) == [2] * 4
        assert not await writer.commit(lambda connection: series.store(connection, made))
        assert totals(database) == [2] * 4


async def test_two_that_take_the_same_records_in_count_them_once(database: Database, writer: Writer) -> None:
    """Both made their sums from the same point; the second one's are thrown away, the first time too."""
    for name in ("a", "b"):
        await logged(database, writer, call(name))
        batches = []
        for _ in range(2):
            with database.reading() as connection:
                batches.append(series.batch(connection, 9, EVER, NOW, most=100))
        stored = [await writer.commit(partial(series.store, batch=one)) for one in batches if one]
        assert stored == [True, False]
    assert totals(database) == [2] * 4


async def test_processes_on_one_database_add_and_do_not_overwrite(dsn: str) -> None:
    """Each records and each takes in, all at once, into the same stretches of time."""
    async with process(dsn) as one, process(dsn) as two:

        async def busy(name: str, database: Database, writer: Writer, rolls: Roller) -> None:
            for n in range(15):
                await logged(database, writer, call(f"{name}{n}"))
                await rolls.roll()

        await asyncio.gather(busy("a", *one), busy("b", *two))
        await one[2].roll()
        assert totals(one[0]) == [30] * 4
        assert totals(one[0], "input_tokens") == [3000] * 4


async def test_a_record_that_is_seen_later_than_one_behind_it_is_not_passed_over(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL gives numbers before it shows rows: while somebody still adds, nothing beyond is taken in."""
    monkeypatch.setattr(series, "_WAIT", 0.0)
    async with process(postgresql) as (database, writer, rolls):
        log = RequestLog(database)
        slow = log.insert(call("slow"))
        raw: Any = database.writer_connection()
        driver = raw.connection.dbapi_connection
        driver.execute("BEGIN")
        driver.execute(database.spelling.told(slow.statement), slow.row)
        await logged(database, writer, call("quick"))
        assert await rolls.roll() == 0
        driver.execute("COMMIT")
        raw.close()
        assert await rolls.roll() == 2
        assert totals(database) == [2] * 4


@pytest.fixture(scope="module")
def empty() -> Iterator[Database]:
    """A database that each example empties: making one takes longer than all else."""
    database = open_database(MEMORY)
    yield database
    database.close()


@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3 * DAY),
            st.sampled_from(list(Outcome)),
            st.sampled_from("abc"),
            st.integers(0, 10**9),
        ),
        max_size=25,
    ),
    st.integers(1, 7),
)
def test_counters_are_the_sums_of_the_records(
    empty: Database, calls: list[tuple[int, Outcome, str, int]], piece: int
) -> None:
    """In every resolution, in whatever pieces they are taken in."""
    log = RequestLog(empty)
    with empty.writing() as connection:
        for table in (REQUEST_LOGS, SERIES, SERIES_CELLS, SETTINGS):
            connection.execute(delete(table))
        connection.exec_driver_sql("DELETE FROM sqlite_sequence")
        for n, (ago, outcome, model, cost) in enumerate(calls):
            insert = log.insert(call(str(n), NOW - ago, model, outcome=outcome, cost_nanousd=cost))
            connection.exec_driver_sql(insert.statement, insert.row)
    while True:
        with empty.writing() as connection:
            made = series.batch(connection, len(calls), EVER, NOW, most=2, limit=piece)
            if made is None:
                break
            assert series.store(connection, made)
    assert totals(empty) == [len(calls)] * 4
    assert totals(empty, "cost_nanousd") == [sum(cost for *_, cost in calls)] * 4
    assert totals(empty, "errors") == [sum(one is Outcome.ERROR for _, one, _, _ in calls)] * 4


# --- bounds -------------------------------------------------------------------------------------------------


async def test_a_day_with_too_many_series_counts_the_rest_together_and_says_so(
    database: Database, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """No call is lost, the answer says how many, the log says it once a day; the next day begins anew."""
    rolls = roller(database, writer, most=2)
    for turn in range(2):
        await logged(database, writer, *(call(f"{turn}{model}", model=model) for model in "abcd"))
        with caplog.at_level(logging.WARNING):
            await rolls.roll()
    await logged(database, writer, call("next", NOW + DAY, "d"))
    await rolls.roll()
    assert told(curves(database, "calls", by="model")) == [("other", [4]), ("a", [2]), ("b", [2])]
    assert told(curves(database, "calls", by="model", since=TODAY + DAY, until=TODAY + 2 * DAY)) == [
        ("d", [1])
    ]
    with database.reading() as connection:
        assert trends.other_calls(connection, cover(TODAY, TODAY + 2 * DAY)) == 4
    assert [one.message.count("other") for one in caplog.records] == [1]


async def test_each_resolution_is_kept_for_its_own_time(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due goes, piece by piece, and series that have nothing left with it; the log keeps what it has."""
    monkeypatch.setattr(series, "SWEPT", 2)
    keep = Keep((2, 3, 4, 5))
    await logged(database, writer, *(call(f"{n}", NOW - n * DAY, model=f"m{n}") for n in range(8)))
    assert await roller(database, writer, keep).roll() == 8
    assert totals(database) == [3, 4, 5, 6]  # what was due already was not put in
    later = roller(database, writer, keep, at=NOW + DAY)
    assert await later.sweep() == 4
    assert totals(database) == [2, 3, 4, 5]
    await roller(database, writer, keep, at=NOW + 10 * DAY).sweep()
    assert totals(database) == [0] * 4
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(SERIES)).scalar() == 0
        assert connection.execute(select(func.count()).select_from(REQUEST_LOGS)).scalar() == 8


async def test_a_log_that_was_emptied_goes_on(database: Database, writer: Writer) -> None:
    """What is deleted from the log stays in the series, and what comes after it is counted."""
    rolls = roller(database, writer)
    await logged(database, writer, call("a"), call("b"))
    await rolls.roll()
    await writer.commit(lambda connection: retention.records(connection, before=NOW + 1))
    await logged(database, writer, call("c"))
    assert await rolls.roll() == 1
    assert totals(database) == [3] * 4


# --- what is asked ------------------------------------------------------------------------------------------


async def filled(database: Database, writer: Writer) -> None:
    """Ten calls of `a` and two of `b` in one hour, one of `c` in the next."""
    key = ApiKey(id="k1", name="n", project="x", models=("*",), providers=("*",))
    calls = [call(f"a{n}", TODAY + n, "a", 100.0 * (n + 1)) for n in range(10)]
    calls += [call(f"b{n}", TODAY + n, "b", 5000.0, caller=Caller(program="cli", key=key)) for n in range(2)]
    calls += [call("c", TODAY + HOUR, "c", outcome=Outcome.ERROR, status=503, fault="http_503")]
    await logged(database, writer, *calls)
    await roller(database, writer).roll()


async def test_curves_are_cut_by_value_filter_and_step(database: Database, writer: Writer) -> None:
    """The largest have curves of their own, the rest one together; what has none is left out."""
    await filled(database, writer)
    assert told(curves(database, "calls,tokens")) == [(None, [13]), (None, [1443])]
    assert curves(database, "calls", step=HOUR)[0].points == [(TODAY, 12), (TODAY + HOUR, 1)]
    split = curves(database, "calls,cost_nanousd", by="model", limit=1)
    assert [(one.metric, one.value, one.values, one.points[0][1]) for one in split] == [
        *(("calls", "a", 1, 10), ("cost_nanousd", "a", 1, 50)),
        *(("calls", None, 2, 3), ("cost_nanousd", None, 2, 15)),
    ]
    assert told(curves(database, "calls", where={"key": "k1"})) == [(None, [2])]
    assert told(curves(database, "calls", where={"key": ""})) == [(None, [11])]
    assert told(curves(database, "calls", where={"project": "x", "program": "cli", "model": "a"})) == [
        (None, [])
    ]
    assert told(curves(database, "errors", by="cause")) == [("http_503", [1]), ("", [0])]
    assert told(curves(database, "calls", by="status")) == [("2xx", [12]), ("5xx", [1])]
    assert told(curves(database, "calls", by="key", since=TODAY - DAY, until=TODAY)) == []


async def test_percentiles_of_many_stretches_are_those_of_the_calls(
    database: Database, writer: Writer
) -> None:
    """Of a day made of hours, and of all values together; failures have none."""
    await filled(database, writer)
    names = "latency_p50,latency_p95,latency_avg,ttft_p50,pace_p99"
    times = sorted([100.0 * (n + 1) for n in range(10)] + [5000.0] * 2)
    for resolution in RESOLUTIONS:
        found = [values[0] for _, values in told(curves(database, names, resolution=resolution))]
        exact = [times[math.floor(share * 11)] for share in (0.5, 0.95)]
        assert found == pytest.approx([*exact, sum(times) / 12, 200.0, 480.0], rel=RELATIVE)
    assert told(curves(database, "latency_p50", where={"model": "c"})) == [(None, [])]


async def test_percentiles_of_too_much_are_refused(
    database: Database, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do instead; counters are added up by the database and have no such bound."""
    await filled(database, writer)
    monkeypatch.setattr(trends, "CELLS_MAX", 1)
    with pytest.raises(Exception, match="larger step"):
        curves(database, "latency_p50", resolution=10)
    assert told(curves(database, "calls", resolution=10)) == [(None, [13])]


async def test_a_window_comes_to_what_its_calls_do(database: Database, writer: Writer) -> None:
    """Out of stretches of several lengths; of all and of each value, those with the most calls first."""
    await filled(database, writer)
    with database.reading() as connection:
        spans = cover(TODAY - 50, TODAY + 2 * HOUR + 70)
        found = trends.window(connection, spans, ("model", "key"))
        empty = trends.window(connection, cover(TODAY + DAY, TODAY + 2 * DAY), ("model",))
    assert len({one.resolution for one in spans}) == 3
    [(_, all_)] = found[""]
    assert (all_.request_count, all_.error_count, all_.answered_count, all_.total_tokens) == (13, 1, 12, 1443)
    assert all_.total_cost_usd == pytest.approx(65e-9)
    assert all_.error_rate == pytest.approx(1 / 13)
    assert [(value, one.request_count) for value, one in found["model"]] == [("a", 10), ("b", 2), ("c", 1)]
    assert [value for value, _ in found["key"]] == ["", "k1"]
    assert found["model"][1][1].p95_latency_ms == pytest.approx(5000, rel=RELATIVE)
    assert found["model"][2][1].p50_latency_ms is None
    assert empty[""][0][1].request_count == 0
    assert empty["model"] == []
