"""From any older schema to the newest, in one step or not at all."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import insert, select

from tokenhub_core.store import schema, upgrade
from tokenhub_core.store.database import open_database
from tokenhub_core.store.driver import choose

_RAW: Any = choose().module


def _tables(path: Path) -> set[str]:
    raw = _RAW.connect(str(path))
    found = {row[0] for row in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    raw.close()
    return found - {"sqlite_sequence"}


def test_an_empty_database_gets_every_table_and_the_stamp(tmp_path: Path) -> None:
    """Nothing but the file has to be there."""
    path = tmp_path / "t.sqlite"
    database = open_database(str(path))
    with database.reading() as connection:
        stamp = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    database.close()
    assert stamp == schema.HEAD
    assert _tables(path) == {*schema.METADATA.tables, "alembic_version"}


def test_a_stamped_database_is_left_as_it_is(tmp_path: Path) -> None:
    """Opening twice changes nothing, and asking Alembic again finds nothing to do."""
    path = tmp_path / "t.sqlite"
    database = open_database(str(path))
    with database.writing() as connection:
        connection.execute(insert(schema.SETTINGS).values(key="a", value="b"))
    database.close()
    before = path.read_bytes()
    open_database(str(path)).close()
    assert path.read_bytes() == before
    database = open_database(str(path))
    with database.writing() as connection:
        upgrade.upgrade(connection)
        assert connection.execute(select(schema.SETTINGS.c.value)).scalar_one() == "b"
    database.close()


def test_an_upgrade_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    """Half a schema would never start again: making tables is part of the transaction."""
    path = tmp_path / "t.sqlite"
    raw = _RAW.connect(str(path))
    raw.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
    raw.execute("CREATE TABLE vault_entries (in_the_way INTEGER)")
    raw.commit()
    raw.close()
    with pytest.raises(Exception, match="vault_entries already exists"):
        open_database(str(path))
    assert _tables(path) == {"alembic_version", "vault_entries"}


def test_two_processes_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    """One makes the tables; the other waits for it and finds them."""
    path = tmp_path / "t.sqlite"
    script = f"from tokenhub_core.store.database import open_database; open_database({str(path)!r}).close()"
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(30) for process in both] == [0, 0]
    assert _tables(path) == {*schema.METADATA.tables, "alembic_version"}


def test_logging_stays_as_the_program_set_it(tmp_path: Path) -> None:
    """Alembic's usual environment replaces every handler; ours replaces none."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level, logging.getLogger("tokenhub_core.store").disabled)
    open_database(str(tmp_path / "t.sqlite")).close()
    assert (list(root.handlers), root.level, logging.getLogger("tokenhub_core.store").disabled) == before


def test_the_migrations_are_found_wherever_the_package_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A per cent sign in a path is no reference of the settings' parser."""
    odd = tmp_path / "100%(here)s"
    odd.mkdir()
    (odd / "migrations").symlink_to(Path(upgrade.__file__).with_name("migrations"))
    monkeypatch.setattr(upgrade, "__file__", str(odd / "upgrade.py"))
    engine = sqlalchemy.create_engine("sqlite+pysqlite://", module=_RAW)
    with engine.begin() as connection:
        upgrade.upgrade(connection)
        assert "request_logs" in sqlalchemy.inspect(connection).get_table_names()
    engine.dispose()
