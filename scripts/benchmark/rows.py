"""A log of many rows: how long its pages and the questions about time series take, and how large the database is.

SQLite stands in a file on the disk that `--folder` names; PostgreSQL takes part where TOKENHUB_DB_DSN names one, in a
database that is empty: the rows are left there. What is asked is what the admin API asks, with its bounds. Each
question is asked `TIMES` times: `first` and the median of the others are told, in seconds by the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from sqlalchemy import Connection

from scripts.benchmark import months
from scripts.benchmark.months import DAYS, END, NEEDLE, RARE
from tokenhub_core.store import rows, trends
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.schema import REQUEST_LOGS
from tokenhub_core.store.search import EVERY, Filters
from tokenhub_core.store.trends import METRICS, Ask
from tokenhub_core.telemetry.rollups import DAY, HOUR, MINUTE, TEN_SECONDS, cover

PAGE: Final = 100
TIMES: Final = 4
_SPLITS: Final = ("model", "provider", "key", "project", "host", "program", "mode")

type Tell = Callable[[int, int, str], None]
type Question = Callable[[], str]
"""Asks, and returns what came of it."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much one database came to."""

    database: str
    rows: int
    decided: int
    """Rows that hold their decision."""
    cells: int
    took: float
    """Seconds that filling took."""
    bare: float
    """Bytes of the log for a row without its decision, indexes included."""
    whole: float
    """The same with it."""
    cell_bytes: int
    """Of all time series."""


@dataclass(frozen=True, slots=True)
class Took:
    """How long one question took."""

    database: str
    what: str
    came: str
    first: float
    again: float


def run(folder: Path, dsn: str, count: int, *, tell: Tell) -> tuple[list[Size], list[Took]]:
    """Fill every database with so many rows, and ask each all questions."""
    places = {"SQLite": str(folder / "rows.sqlite"), **({"PostgreSQL": dsn} if dsn else {})}
    sizes, taken = list[Size](), list[Took]()
    for name, where in places.items():
        # A piece of the filling may take as long as it likes.
        database = open_database(where, synchronous="NORMAL", busy_ms=600_000)
        try:
            sizes.append(_filled(name, database, count, tell))
            for what, ask in questions(database, count):
                tell(len(taken), 0, f"{name}: {what}")
                taken.append(_timed(name, what, ask))
        finally:
            database.close()
    return sizes, taken


# --- filling -----------------------------------------------------------------------------------------------------


def _filled(name: str, database: Database, count: int, tell: Tell) -> Size:
    begun, done, bare, decision = time.perf_counter(), 0, 0.0, rows.COLUMNS.index("decision")
    undecided = count * (DAYS - months.DECIDED_DAYS) // DAYS
    empty = _bytes(database, "request_logs")
    for some in months.log(count):
        with database.writing() as connection:
            months.put(connection, REQUEST_LOGS, rows.COLUMNS, some)
        done += len(some)
        tell(done, count, f"{name}: rows")
        if some[-1][decision] is None:
            bare = (_bytes(database, "request_logs") - empty) / done
    log = _bytes(database, "request_logs") - empty
    tell(0, 0, f"{name}: time series")
    with database.writing() as connection:
        cells = months.cells(connection, count)
    series = _bytes(database, "series_cells") - (log + empty if name == "SQLite" else 0)
    _settled(database)
    whole = (log - bare * undecided) / (count - undecided)
    took = time.perf_counter() - begun
    return Size(name, count, count - undecided, cells, took, bare, whole, series)


def _bytes(database: Database, table: str) -> int:
    """Return the size of a table with its indexes; of SQLite that of everything."""
    with database.reading() as connection:
        if connection.dialect.name == "sqlite":
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            return int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())
        return int(connection.exec_driver_sql(f"SELECT pg_total_relation_size('{table}')").scalar_one())


def _settled(database: Database) -> None:
    """Let the database know what it holds, as its own upkeep does in the course of a month."""
    with database.writer_connection() as connection:
        raw: Any = connection.connection.dbapi_connection
        if connection.dialect.name == "sqlite":
            raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            raw.autocommit = True  # VACUUM runs in no transaction
            raw.cursor().execute("VACUUM ANALYZE")
            raw.autocommit = False


# --- asking ------------------------------------------------------------------------------------------------------


def questions(database: Database, count: int) -> Iterator[tuple[str, Question]]:
    """Yield what is asked of the log, the time series and the windows."""
    log, middle, hour = RequestLog(database), count // 2, END - DAYS * DAY / 2
    one = partial(_page, log)
    yield "newest page", partial(one, EVERY)
    yield "page in the middle", partial(one, EVERY, middle)
    yield "an hour, its page", partial(one, Filters(since=hour, until=hour + HOUR))
    yield "a day, its page", partial(one, Filters(since=hour, until=hour + DAY))
    yield "a day of one model", partial(one, Filters(since=hour, until=hour + DAY, model="model-3"))
    yield "model", partial(one, Filters(model="model-3"))
    yield "model, in the middle", partial(one, Filters(model="model-3"), middle)
    yield "key", partial(one, Filters(key="key-3"))
    yield "key and 5xx", partial(one, Filters(key="key-3", status=(500, 599)))
    yield "status 5xx", partial(one, Filters(status=(500, 599)))
    yield "status 418, which none has", partial(one, Filters(status=(418, 418)))
    yield "text of errors, frequent", partial(one, Filters(error="context length"))
    yield "text of errors, one in a million", partial(one, Filters(error=NEEDLE))
    yield "the same, to the end of the log", partial(_all, log, Filters(error=NEEDLE))
    yield "tag", partial(one, Filters(tag="team-3"))
    yield "directive", partial(one, Filters(directive="honoured"))
    yield "host, 1 in 4,096", partial(one, Filters(host=RARE))
    yield "text, frequent", partial(one, Filters(q="program-3"))
    yield "text, which nothing has", partial(one, Filters(q="no such text"))
    yield "the same, in the middle", partial(one, Filters(q="no such text"), middle)
    yield "count of all rows", lambda: f"{log.count():,}"
    for what, ask in CURVES:
        yield what, partial(_curves, database, ask)
    yield "all windows of /admin/v1/stats", partial(_windows, database)


def _asked(days: float, step: int, resolution: int, metrics: str, by: str) -> Ask:
    wanted = tuple(METRICS[name] for name in metrics.split(","))
    return Ask(wanted, END - round(days * DAY), END, step, resolution, {}, by)


CURVES: Final = (
    (
        "30 days by hour, each model: cost, tokens",
        _asked(30, HOUR, HOUR, "cost_nanousd,tokens,calls", "model"),
    ),
    (
        "30 days by 6 h: p50, p95, p99",
        _asked(30, 6 * HOUR, HOUR, "latency_p50,latency_p95,latency_p99", ""),
    ),
    ("30 days by 6 h, each key: p95", _asked(30, 6 * HOUR, HOUR, "latency_p95", "key")),
    ("a day by 5 min: p50, p95, p99", _asked(1, 300, MINUTE, "latency_p50,latency_p95,latency_p99", "")),
    ("a day by 5 min, each key: cost, calls", _asked(1, 300, MINUTE, "cost_nanousd,calls", "key")),
    (
        "an hour by 30 s, each model: p95, calls",
        _asked(1 / 24, 30, TEN_SECONDS, "latency_p95,calls", "model"),
    ),
)
"""Questions about time series: the last days, by which step, made of which resolution."""


def windows(connection: Connection) -> dict[str, list[tuple[str, trends.Figures]]]:
    """Return what the longest window came to; the shorter ones are made too, as `/admin/v1/stats` does."""
    until, told = END - 5 * HOUR + 20, dict[str, list[tuple[str, trends.Figures]]]()
    for length in (MINUTE, 300, HOUR, DAY):
        told = trends.window(connection, cover(until - length, until), _SPLITS)
    return told


def _page(log: RequestLog, filters: Filters, before: int | None = None) -> str:
    found = log.page(limit=PAGE, before_seq=before, filters=filters)
    return f"{len(found.items)} rows{'' if found.next is None else ', goes on'}"


def _all(log: RequestLog, filters: Filters) -> str:
    """Read page by page to the end."""
    pages, found, before = 0, 0, None
    while True:
        page = log.page(limit=PAGE, before_seq=before, filters=filters)
        pages, found, before = pages + 1, found + len(page.items), page.next
        if before is None:
            return f"{found} rows in {pages} pages"


def _curves(database: Database, ask: Ask) -> str:
    with database.reading() as connection:
        found = trends.curves(connection, ask)
    return f"{sum(len(one.points) for one in found):,} values"


def _windows(database: Database) -> str:
    with database.reading() as connection:
        return f"{windows(connection)[''][0][1].request_count:,} calls"


def _timed(name: str, what: str, ask: Question) -> Took:
    seconds, came = list[float](), ""
    for _ in range(TIMES):
        begun = time.perf_counter()
        came = ask()
        seconds.append(time.perf_counter() - begun)
    return Took(name, what, came, seconds[0], median(seconds[1:]))


def show(sizes: list[Size], taken: list[Took], console: Console) -> None:
    """Print how large the databases are, and a row for each question."""
    table = Table(title="Size of a million", title_justify="left")
    for heading in (
        "database",
        "rows",
        "filled in",
        "without decision",
        "with decision",
        "time series of all",
    ):
        table.add_column(heading, justify="left" if heading == "database" else "right")
    for one in sizes:
        sized = (f"{one.bare / 2**20 * 1e6:,.0f} MiB", f"{one.whole / 2**20 * 1e6:,.0f} MiB")
        series = f"{one.cells:,} cells, {one.cell_bytes / 2**20:,.0f} MiB"
        table.add_row(one.database, f"{one.rows:,}", f"{one.took:,.0f} s", *sized, series)
    console.print(table)
    table = Table(title="Questions, in seconds", title_justify="left")
    for heading in ("database", "question", "what came"):
        table.add_column(heading)
    for heading in ("first", "again"):
        table.add_column(heading, justify="right")
    for took in taken:
        table.add_row(took.database, took.what, took.came, f"{took.first:.3f}", f"{took.again:.3f}")
    console.print(table)
