"""Nothing that was acknowledged is lost, however the process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sqlalchemy import func, select

from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.store import budgets
from tokenhub_core.store.database import open_database
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.schema import REQUEST_LOGS, SPENDS

_PROGRAM = Path(__file__).with_name("crashing.py")


BUDGETS = [Budget(unit.value, "all", Period.TOTAL, unit, 10**15) for unit in Unit]


def _killed(path: Path, rounds: int, *options: str) -> tuple[list[str], list[str]]:
    """Return the ids that were acknowledged, and of those the ones that are not stored."""
    database = open_database(str(path))
    with database.writing() as connection:
        for budget in BUDGETS:
            budgets.save(connection, budget)
    database.close()
    done = subprocess.run(
        [sys.executable, str(_PROGRAM), str(path), str(rounds), *options],
        check=True,
        capture_output=True,
        text=True,
    )
    acknowledged = done.stdout.split()
    database = open_database(str(path))
    assert database.checked
    log = RequestLog(database)
    missing = [record_id for record_id in acknowledged if log.get(record_id) is None]
    database.close()
    return acknowledged, missing


def _counted(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Return what is counted of each budget, and what the records say."""
    database = open_database(str(path))
    table = REQUEST_LOGS.c
    tokens = table.input_tokens + table.output_tokens
    sums = select(func.sum(table.cost_nanousd), func.sum(tokens), func.count().filter(tokens > 0))
    with database.reading() as connection:
        counted = {row.budget_id: row.spent for row in connection.execute(select(SPENDS))}
        said = dict(zip(("usd", "tokens", "requests"), connection.execute(sums).one(), strict=True))
    database.close()
    return counted, said


def test_every_acknowledged_record_survives_kill_nine(tmp_path: Path) -> None:
    """Thirty kills at random moments of one database's life: each id that was told is there, once.

    And what is counted of every budget is the sum over the records, to the last token.
    """
    acknowledged, missing = _killed(tmp_path / "t.sqlite", 30)
    counted, said = _counted(tmp_path / "t.sqlite")
    assert counted == said
    assert min(counted.values()) > 0
    assert missing == []
    assert len(set(acknowledged)) == len(acknowledged)
    assert len({record_id.partition("-")[0] for record_id in acknowledged}) >= 24, (
        "only a start may be silent"
    )


def test_the_crash_test_notices_a_count_that_is_stored_apart(tmp_path: Path) -> None:
    """The same program with each record's share of the budgets in a transaction of its own loses shares."""
    _killed(tmp_path / "t.sqlite", 10, "apart")
    counted, said = _counted(tmp_path / "t.sqlite")
    assert counted != said


def test_the_crash_test_notices_a_writer_that_acknowledges_too_early(tmp_path: Path) -> None:
    """The same program with the promise broken on purpose loses records, and the test can tell."""
    acknowledged, missing = _killed(tmp_path / "t.sqlite", 5, "early")
    assert acknowledged
    assert missing
