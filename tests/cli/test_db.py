"""`tokenhub db`: on the database of a server that is running, and of one that is not."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from tokenhub_core.cli.db import db
from tokenhub_core.errors import ConfigError
from tokenhub_core.store import schema
from tokenhub_core.store.database import open_database


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with a database in it."""
    folder = tmp_path / "data"
    open_database(str(folder / "tokenhub.sqlite")).close()
    return folder


def run(*args: object) -> Result:
    return CliRunner().invoke(db, [str(arg) for arg in args], catch_exceptions=False)


def test_a_copy_is_made_put_back_and_checked(data: Path, tmp_path: Path) -> None:
    """Each says in one line what was done, or in JSON."""
    made = run("backup", tmp_path / "copy", "--data-dir", data)
    assert (made.exit_code, "checked" in made.output) == (0, True)
    again = run("restore", tmp_path / "copy", "--data-dir", data, "--json")
    assert orjson.loads(again.output)["schema"] == schema.HEAD
    whole = run("check", "--data-dir", data, "--json")
    assert orjson.loads(whole.output) == {
        "database": str(data / "tokenhub.sqlite"),
        "ok": True,
        "findings": [],
    }
    assert "whole" in run("check", "--data-dir", data).output


def test_what_is_wrong_is_told_with_exit_code_1(data: Path) -> None:
    """One line each."""
    database = open_database(str(data / "tokenhub.sqlite"))
    with database.writing() as connection:
        connection.exec_driver_sql("DROP TABLE captures")
    database.close()
    result = run("check", "--data-dir", data)
    assert result.exit_code == 1
    assert "table captures is missing" in result.output
    assert "NOT whole" in result.output


def test_what_cannot_be_done_is_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No database, no copy, a file that is there; of PostgreSQL's, what to use instead."""
    nowhere = tmp_path / "nowhere"
    for args in (
        ("backup", tmp_path / "copy", "--data-dir", nowhere),
        ("restore", tmp_path / "copy", "--data-dir", data),
        ("check", "--data-dir", nowhere),
    ):
        with pytest.raises(ConfigError, match="there is no"):
            run(*args)
    assert not nowhere.exists()
    monkeypatch.setenv("TOKENHUB_DB_DSN", "postgresql://u:hunter2@h/d")
    for what, instead in (("backup", "pg_dump"), ("restore", "pg_restore")):
        with pytest.raises(ConfigError, match=instead) as caught:
            run(what, tmp_path / "copy")
        assert "hunter2" not in str(caught.value)
