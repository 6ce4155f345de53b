"""The benchmark of the write path: every record is there, and what is told of it is what was done."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from scripts.benchmark import writes
from tokenhub_core.store.database import open_database


def ignore(done: int, total: int, what: str) -> None:
    del done, total, what


def test_every_record_that_is_counted_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One caller has commits to itself, several share them."""
    monkeypatch.setattr(writes, "CALLERS", (1, 8))
    alone, several = found = writes.run(tmp_path, "", seconds=0.05, tell=ignore)
    assert alone.batch == 1
    assert several.batch > 1
    assert 0 < several.p50 <= several.p99
    database = open_database(str(tmp_path / "writes.sqlite"))
    try:
        with database.reading() as connection:
            rows = connection.exec_driver_sql("SELECT count(*) FROM request_logs").scalar_one()
    finally:
        database.close()
    assert rows == alone.records + several.records

    console = Console(record=True, width=110)
    writes.show(found, console)
    assert f"{alone.rate:,.0f}" in console.export_text()
