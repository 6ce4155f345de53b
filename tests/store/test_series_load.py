"""What time series cost: a record taken in, and questions about a month of ten million calls.

scripts/test load tests/store/test_series_load.py -s
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from sqlalchemy import Connection

from tests.store.test_series import EVER, NOW, call
from tokenhub_core.store import series, trends
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.rows import MICROS
from tokenhub_core.store.schema import SERIES_CELLS
from tokenhub_core.store.trends import METRICS, Ask
from tokenhub_core.telemetry import sketches
from tokenhub_core.telemetry.rollups import DAY, HOUR, MINUTE, RESOLUTIONS, TEN_SECONDS, cover
from tokenhub_core.telemetry.series import Key
from tokenhub_core.types import Usage

pytestmark = [pytest.mark.load, pytest.mark.timeout(600)]

CALLS: Final = 10_000_000
DAYS: Final = 30
KEPT: Final = {TEN_SECONDS: 2, MINUTE: 14, HOUR: DAYS, DAY: DAYS}
"""As the settings have it, for a month."""
KEYS: Final = [
    Key(f"model-{n % 10}", f"p{n % 5}", f"key-{n // 10}", mode="normal", status="2xx") for n in range(100)
]
END: Final = int(NOW // DAY + 1) * DAY
SLOWEST: Final = 3.0
"""Seconds of CPU that a question may take, on a slow machine."""
_INSERT: Final = f"INSERT INTO series_cells VALUES ({', '.join('?' * len(SERIES_CELLS.columns))})"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


@contextmanager
def timed(what: str) -> Iterator[Callable[[], float]]:
    wall, begun, took = time.perf_counter(), time.process_time(), [0.0]
    yield lambda: took[0]
    took[0] = time.process_time() - begun
    say(f"{what}: {took[0]:.2f} s of CPU, {time.perf_counter() - wall:.2f} s")


def month(connection: Connection) -> int:
    """Fill in what ten million calls of a hundred series come to, and return how many cells that is."""
    chance = np.random.default_rng(7)
    connection.exec_driver_sql(
        "INSERT INTO series VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [(key.id, *key) for key in KEYS]
    )

    @cache
    def sums(calls: int, variant: int) -> tuple[int | bytes, ...]:
        """Return a row's share of so many calls, spread as latencies are; a few of each number are enough."""
        del variant
        where = chance.normal(sketches.slot(2000), 40, min(calls, 200)).astype(int)
        counts = {
            int(one): int(n) * (calls // 200 or 1)
            for one, n in zip(*np.unique(where, return_counts=True), strict=True)
        }
        sketch = sketches.packed(counts)
        tokens = (calls * 1000, calls * 200, 0)
        return (calls, calls, 0, 0, 0, *tokens, calls * 5000, 0, calls * 2_000_000, sketch, sketch, sketch)

    ids, written = sorted(key.id for key in KEYS), 0
    for resolution in RESOLUTIONS:
        mean = CALLS / DAYS / DAY * resolution / len(KEYS)
        for at in range(END - KEPT[resolution] * DAY, END, resolution):
            counts = chance.poisson(mean, len(KEYS)).tolist()
            some = [
                (resolution, at * MICROS, one, *sums(calls, n % 16))
                for n, (one, calls) in enumerate(zip(ids, counts, strict=True))
                if calls
            ]
            connection.exec_driver_sql(_INSERT, some)
            written += len(some)
    return written


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    path = tmp_path_factory.mktemp("series") / "tokenhub.sqlite"
    database = open_database(str(path))
    with database.writing() as connection:
        written = month(connection)
    database.close()  # which puts the write-ahead log into the file
    say(f"\n{CALLS:,} calls in {DAYS} days: {written:,} cells, {path.stat().st_size / 2**20:,.0f} MiB")
    database = open_database(str(path))
    yield database
    database.close()


@pytest.mark.parametrize(
    ("days", "step", "resolution", "metrics", "by"),
    [
        (DAYS, HOUR, HOUR, "cost_nanousd,tokens,calls,errors", "model"),
        (DAYS, 6 * HOUR, HOUR, "latency_p50,latency_p95,latency_p99", ""),
        (DAYS, 6 * HOUR, HOUR, "latency_p95", "key"),
        (1.0, 300, MINUTE, "latency_p50,latency_p95,latency_p99", ""),
        (1.0, 300, MINUTE, "cost_nanousd,calls", "key"),
        (1 / 24, 30, TEN_SECONDS, "latency_p95,calls", "model"),
    ],
)
def test_a_question_about_a_month_is_answered_in_time(
    filled: Database, days: float, step: int, resolution: int, metrics: str, by: str
) -> None:
    """Whatever it is about."""
    asked = Ask(
        tuple(METRICS[name] for name in metrics.split(",")),
        END - round(days * DAY),
        END,
        step,
        resolution,
        {},
        by,
    )
    with (
        filled.reading() as connection,
        timed(f"{metrics} by {by or 'nothing'}, {days:.2f} d / {step} s") as took,
    ):
        found = trends.curves(connection, asked)
    assert all(one.points for one in found)
    assert took() < SLOWEST


def test_a_day_is_summed_up_in_time(filled: Database) -> None:
    """Every window with every split, as `/admin/v1/stats` does it."""
    until = END - 5 * HOUR + 20
    splits = ("model", "provider", "key", "project", "host", "program", "mode")
    with filled.reading() as connection, timed("stats") as took:
        found = [
            trends.window(connection, cover(until - length, until), splits) for length in (60, 300, HOUR, DAY)
        ]
    assert found[-1][""][0][1].request_count == pytest.approx(CALLS / DAYS, rel=0.05)
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
