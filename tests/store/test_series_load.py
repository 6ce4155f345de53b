"""What time series cost: a record taken in, and questions about a month of ten million calls.

scripts/test load tests/store/test_series_load.py -s
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from scripts.benchmark import rows
from scripts.benchmark.months import DAYS, cells
from tests.store.test_series import EVER, NOW, call
from tokenhub_core.store import series, trends
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.trends import Ask
from tokenhub_core.types import Usage

pytestmark = [pytest.mark.load, pytest.mark.timeout(600)]

CALLS: Final = 10_000_000
SLOWEST: Final = 3.0
"""Seconds of CPU that a question may take, on a slow machine."""


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


@contextmanager
def timed(what: str) -> Iterator[Callable[[], float]]:
    wall, begun, took = time.perf_counter(), time.process_time(), [0.0]
    yield lambda: took[0]
    took[0] = time.process_time() - begun
    say(f"{what}: {took[0]:.2f} s of CPU, {time.perf_counter() - wall:.2f} s")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    path = tmp_path_factory.mktemp("series") / "tokenhub.sqlite"
    database = open_database(str(path))
    with database.writing() as connection:
        written = cells(connection, CALLS)
    database.close()  # which puts the write-ahead log into the file
    say(f"\n{CALLS:,} calls in {DAYS} days: {written:,} cells, {path.stat().st_size / 2**20:,.0f} MiB")
    database = open_database(str(path))
    yield database
    database.close()


@pytest.mark.parametrize(("what", "asked"), rows.CURVES)
def test_a_question_about_a_month_is_answered_in_time(filled: Database, what: str, asked: Ask) -> None:
    """Whatever it is about."""
    with filled.reading() as connection, timed(what) as took:
        found = trends.curves(connection, asked)
    assert all(one.points for one in found)
    assert took() < SLOWEST


def test_a_day_is_summed_up_in_time(filled: Database) -> None:
    """Every window with every split, as `/admin/v1/stats` does it."""
    with filled.reading() as connection, timed("stats") as took:
        found = rows.windows(connection)
    assert found[""][0][1].request_count == pytest.approx(CALLS / DAYS, rel=0.05)
    assert took() < SLOWEST


def test_what_a_record_costs(tmp_path: Path) -> None:
    """Taken in with others, in the thread that makes sums and in the one that writes."""
    database, many = open_database(str(tmp_path / "log.sqlite")), 20_000
    log = RequestLog(database)
    with database.writing() as connection:
        for n in range(many):
            record = call(str(n), NOW + n / 100, f"m{n % 8}", 300.0 + n % 5000, usage=Usage(100 + n, 50))
            insert = log.insert(record)
            connection.exec_driver_sql(insert.statement, insert.row)
    made, stored = 0.0, 0.0
    while True:
        begun = time.process_time()
        with database.reading() as connection:
            batch = series.batch(connection, many, EVER, NOW, most=2000)
        if batch is None:
            break
        between = time.process_time()
        with database.writing() as connection:
            assert partial(series.store, batch=batch)(connection)
        made += between - begun
        stored += time.process_time() - between
    database.close()
    say(f"\na record: {made / many * 1e6:.1f} µs of CPU to sum up, {stored / many * 1e6:.1f} µs to write")
    assert made + stored < many * 1e-3
