"""A month of synthetic calls, as the benchmark of a large log fills it in."""

from __future__ import annotations

from itertools import chain
from typing import Final

from scripts.benchmark import months, rows
from scripts.benchmark.months import DAYS, END, NEEDLE, RARE
from tokenhub_core.store.database import Database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.rows import COLUMNS, MICROS
from tokenhub_core.store.schema import REQUEST_LOGS
from tokenhub_core.store.search import Filters
from tokenhub_core.telemetry.rollups import DAY

COUNT: Final = 1_500
KINDS: Final = 100


def made() -> list[months.Row]:
    return [*chain.from_iterable(months.log(COUNT, different=KINDS))]


def test_a_month_is_the_same_each_time_and_in_the_order_of_time() -> None:
    """It lies between its ends, no id comes twice, and the last tenth holds decisions."""
    month = made()
    assert month == made()
    at = [row[COLUMNS.index("at")] / MICROS for row in month]
    assert at == sorted(at)
    assert END - DAYS * DAY <= at[0] < at[-1] < END
    assert len({row[COLUMNS.index("id")] for row in month}) == COUNT
    decided = [row[COLUMNS.index("decision")] is not None for row in month]
    assert decided == [False] * (COUNT - COUNT // 10) + [True] * (COUNT // 10)


async def test_a_month_is_a_log_that_is_read_as_any_other(database: Database) -> None:
    """On either database, added in bulk; what is rare in it is there, and every question has an answer."""
    with database.writing() as connection:
        months.put(connection, REQUEST_LOGS, COLUMNS, made())
    log = RequestLog(database)
    (needle,) = log.page(filters=Filters(error=NEEDLE)).items
    assert (needle["seq"], needle["status"]) == (1, 504)
    assert 0 < log.count(Filters(host=RARE)) < COUNT / KINDS * 3
    assert log.count() == COUNT
    told = {what: ask() for what, ask in rows.questions(database, COUNT)}
    assert told["newest page"] == "100 rows, goes on"
    assert told["text of errors, one in a million"] == "1 rows"
    assert told["status 418, which none has"] == "0 rows"
