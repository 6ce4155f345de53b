"""From any older schema to the newest, in one step or not at all."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic import command
from sqlalchemy import insert, select

from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.store import catalog, schema, upgrade
from tokenhub_core.store.database import open_database
from tokenhub_core.store.driver import choose
from tokenhub_core.types import Model, Need, Prices

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


def test_a_database_of_the_first_schema_keeps_its_models(tmp_path: Path) -> None:
    """Each gets an empty list of quirks; the provider still takes them along, and nothing else has changed."""
    path = tmp_path / "t.sqlite"
    engine = sqlalchemy.create_engine(f"sqlite+pysqlite:///{path}", module=_RAW)
    provider = "('p', 'openai', '[]', 'openai_chat', 1, 'none', 1, 2)"
    model = "('m', 'p', 'u', 7, 8, 9, 1.5, 2.5, NULL, 0.5, 'manual', {on}, '[\"vision\"]', 3, 4)"
    with engine.begin() as connection:
        command.upgrade(upgrade.configuration(connection), "0001")
        connection.exec_driver_sql(f"INSERT INTO providers VALUES {provider}")
        connection.exec_driver_sql(f"INSERT INTO models VALUES {model.format(on=1)}")
        connection.exec_driver_sql(f"INSERT INTO models VALUES {model.format(on=0).replace('m', 'n', 1)}")
    engine.dispose()
    kept = Model("m", "p", "u", 7, 8, 9, Prices(1.5, 2.5, None, 0.5), lacks=frozenset({Need.VISION}))
    database = open_database(str(path))
    with database.reading() as connection:
        stock = catalog.load(connection)
        times = connection.execute(select(schema.MODELS.c.created_at, schema.MODELS.c.updated_at)).all()
    with database.writing() as connection:
        assert catalog.delete_provider(connection, "p")
        assert catalog.load(connection).models == ()
    database.close()
    assert stock.models == (kept, replace(kept, id="n", enabled=False))
    assert [tuple(row) for row in times] == [(3, 4), (3, 4)]


def test_two_processes_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    """One makes the tables; the other waits for it and finds them."""
    path = tmp_path / "t.sqlite"
    script = f"from tokenhub_core.store.database import open_database; open_database({str(path)!r}).close()"
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(PROGRAM_PATIENCE) for process in both] == [0, 0]
    assert _tables(path) == {*schema.METADATA.tables, "alembic_version"}


def test_logging_stays_as_the_program_set_it(tmp_path: Path) -> None:
    """Alembic's usual environment replaces every handler; ours replaces none."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level, logging.getLogger("tokenhub_core.store").disabled)
    engine = sqlalchemy.create_engine(f"sqlite+pysqlite:///{tmp_path / 't.sqlite'}", module=_RAW)
    with engine.begin() as connection:
        upgrade.upgrade(connection)
    engine.dispose()
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
