"""Nothing that was acknowledged is lost, however the process ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tokenhub_core.store.database import open_database
from tokenhub_core.store.log import RequestLog

_PROGRAM = Path(__file__).with_name("crashing.py")


def _killed(path: Path, rounds: int, *options: str) -> tuple[list[str], list[str]]:
    """Return the ids that were acknowledged, and of those the ones that are not stored."""
    open_database(str(path)).close()
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


def test_every_acknowledged_record_survives_kill_nine(tmp_path: Path) -> None:
    """Thirty kills at random moments of one database's life: each id that was told is there, once."""
    acknowledged, missing = _killed(tmp_path / "t.sqlite", 30)
    assert missing == []
    assert len(set(acknowledged)) == len(acknowledged)
    assert len({record_id.partition("-")[0] for record_id in acknowledged}) >= 24, (
        "only a start may be silent"
    )


def test_the_crash_test_notices_a_writer_that_acknowledges_too_early(tmp_path: Path) -> None:
    """The same program with the promise broken on purpose loses records, and the test can tell."""
    acknowledged, missing = _killed(tmp_path / "t.sqlite", 5, "early")
    assert acknowledged
    assert missing
