"""Copies of the database, and whether it is whole."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from tests.fakes import postgres
from tokenhub_core.errors import ConfigError
from tokenhub_core.store import checkup, schema
from tokenhub_core.store.backup import backup, restore
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.driver import choose
from tokenhub_core.store.inserts import Insert
from tokenhub_core.store.writer import Writer

_RAW: Any = choose().module
_PUT = "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"


def _later(connection: Connection) -> None:
    """An entry of the audit log whose forerunners are gone."""
    words = dict.fromkeys(
        ("actor", "source", "program", "request_id", "action", "subject", "outcome", "reason", "key_id"), ""
    )
    values = {**words, "seq": 3, "at": 0, "count": 1, "previous": b"", "hash": b""}
    connection.execute(insert(schema.AUDIT).values(values))


def _run(statement: str) -> Callable[[Connection], Any]:
    return lambda connection: connection.exec_driver_sql(statement)


def made(path: Path, *keys: str) -> Database:
    database = open_database(str(path))
    with database.writing() as connection:
        for key in keys:
            connection.execute(insert(schema.SETTINGS).values(key=key, value="x" * 2000))
    return database


def _all(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def stored(path: Path | str) -> set[str]:
    database = open_database(str(path))
    with database.reading() as connection:
        found = set(connection.execute(select(schema.SETTINGS.c.key)).scalars())
    database.close()
    return found


async def test_a_copy_is_taken_while_the_database_is_written_to(tmp_path: Path) -> None:
    """It holds everything that was committed before it began, nobody waits for it, and no second file belongs to it."""
    database = made(tmp_path / "t.sqlite", *(f"before-{n}" for n in range(200)))
    writer = Writer(database)
    writer.start()
    seen: list[int] = []
    for n in range(3):
        assert await writer.insert(Insert(_PUT, (f"meanwhile-{n}", "")))
        copy = backup(database.where, tmp_path / f"{n}.copy")
        seen.append(len(stored(copy.path)))
        assert copy.path.stat().st_mode & 0o777 == 0o600
        assert copy.revision == schema.HEAD
    assert seen == [201, 202, 203]
    await writer.close()
    database.close()
    assert not [path.name for path in _all(tmp_path) if path.name.startswith(".")]


def test_a_copy_overwrites_nothing(tmp_path: Path) -> None:
    """Neither a file that is there nor, where it fails, anything else."""
    made(tmp_path / "t.sqlite").close()
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(ConfigError, match="already there"):
        backup(str(tmp_path / "t.sqlite"), tmp_path / "kept")
    with pytest.raises(ConfigError, match="no database"):
        backup(str(tmp_path / "nothing"), tmp_path / "copy")
    with pytest.raises(ConfigError, match="No such file"):
        backup(str(tmp_path / "t.sqlite"), tmp_path / "nowhere" / "copy")
    (tmp_path / "damaged.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(ConfigError):
        backup(str(tmp_path / "damaged.sqlite"), tmp_path / "copy")
    assert (tmp_path / "kept").read_text() == "mine"
    assert sorted(path.name for path in _all(tmp_path)) == ["damaged.sqlite", "kept", "t.sqlite"]


def test_a_copy_is_put_back_and_what_was_there_is_kept(tmp_path: Path) -> None:
    """Into the place of a database, or where none is."""
    made(tmp_path / "t.sqlite", "old").close()
    copy = backup(str(tmp_path / "t.sqlite"), tmp_path / "copy")
    made(tmp_path / "t.sqlite", "new").close()
    restore(copy.path, str(tmp_path / "t.sqlite"))
    assert stored(tmp_path / "t.sqlite") == {"old"}
    assert stored(tmp_path / "t.sqlite.before-restore") == {"old", "new"}
    restore(copy.path, str(tmp_path / "elsewhere" / "t.sqlite"))
    assert stored(tmp_path / "elsewhere" / "t.sqlite") == {"old"}
    assert (tmp_path / "elsewhere" / "t.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_damaged_database_is_replaced_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    """A log that stayed behind would be read as the new one's."""
    place = tmp_path / "t.sqlite"
    made(place, "old").close()
    copy = backup(str(place), tmp_path / "copy")
    database = made(place, "new")
    for name in ("t.sqlite-wal", "t.sqlite-shm"):
        shutil.copy(tmp_path / name, tmp_path / f"{name}.kept")
    database.close()
    place.write_bytes(b"\xff" * 8192)
    for name in ("t.sqlite-wal", "t.sqlite-shm"):
        shutil.move(tmp_path / f"{name}.kept", tmp_path / name)
    restore(copy.path, str(place))
    assert stored(place) == {"old"}


def test_a_database_that_is_in_use_is_not_replaced(tmp_path: Path) -> None:
    """Whoever has it open would go on writing into a file that nobody finds any more."""
    database = made(tmp_path / "t.sqlite", "old")
    copy = backup(database.where, tmp_path / "copy")
    with database.reading() as connection:
        connection.execute(select(schema.SETTINGS)).all()
        with pytest.raises(ConfigError, match="in use"):
            restore(copy.path, database.where)
    assert "t.sqlite.before-restore" not in {path.name for path in _all(tmp_path)}
    database.close()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.unlink(), "no file"),
        (lambda path: path.write_bytes(b"\xff" * 8192), "not a database"),
        (lambda path: path.write_bytes(path.read_bytes()[:8192]), "damaged|malformed"),
        (lambda path: sql(path, "DROP TABLE alembic_version"), "not a database of TokenHub's"),
        (lambda path: sql(path, "UPDATE alembic_version SET version_num = '9999'"), "newer TokenHub"),
    ],
)
def test_only_a_whole_copy_is_put_back(tmp_path: Path, spoil: Callable[[Path], Any], why: str) -> None:
    """What is there stays there."""
    database = made(tmp_path / "t.sqlite", "old")
    copy = backup(database.where, tmp_path / "copy")
    database.close()
    spoil(copy.path)
    with pytest.raises(ConfigError, match=why):
        restore(copy.path, str(tmp_path / "t.sqlite"))
    assert stored(tmp_path / "t.sqlite") == {"old"}


def sql(path: Path, statement: str) -> None:
    raw = _RAW.connect(str(path))
    raw.execute(statement)
    raw.commit()
    raw.close()


# --- is it whole ---------------------------------------------------------------------------------------------


def test_a_whole_database_has_no_findings(database: Database) -> None:
    """Every page, table, column, index, and the audit chain."""
    assert checkup.findings(database) == []


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_run("DROP TABLE captures"), "table captures is missing"),
        (_run("DROP INDEX ix_request_logs_at"), "index ix_request_logs_at is missing"),
        (_run("ALTER TABLE parkings DROP COLUMN failures"), "column parkings.failures is missing"),
        (_later, "audit log: entries 1 to 2 are not there"),
    ],
)
def test_what_is_missing_is_found(database: Database, spoil: Callable[[Connection], Any], found: str) -> None:
    """Whoever took it out: a migration by hand, another program, a restore of a part."""
    with database.writing() as connection:
        spoil(connection)
    try:
        assert found in checkup.findings(database)
    finally:
        if database.where.startswith("postgresql"):
            _again(database)


def _again(database: Database) -> None:
    """Make the shared database whole for the next test."""
    with database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM audit")
        connection.exec_driver_sql("DROP TABLE parkings")
        schema.METADATA.create_all(connection)
        for index in schema.REQUEST_LOGS.indexes:
            index.create(connection, checkfirst=True)


def test_rows_that_belong_to_nothing_are_found(tmp_path: Path) -> None:
    """SQLite holds a foreign key only for those who ask it to."""
    made(tmp_path / "t.sqlite").close()
    sql(tmp_path / "t.sqlite", "INSERT INTO credentials VALUES ('nobody', 'k', '', 1, 0, 0)")
    database = open_database(str(tmp_path / "t.sqlite"))
    assert checkup.findings(database) == ["credentials: row 1 belongs to nothing in providers"]
    database.close()


def test_postgresqls_own_copy_is_whole_when_it_is_put_back(postgresql: str, tmp_path: Path) -> None:
    """As docs/database.md says: `pg_dump` while it is in use, `pg_restore` into an empty place, `tokenhub db check`."""
    programs = postgres.programs()
    if programs is None or not (programs / "pg_dump").exists():
        pytest.skip("pg_dump is not installed")
    database = open_database(postgresql)
    with database.writing() as connection:
        connection.execute(insert(schema.SETTINGS).values(key="a", value="b"))
    copy = str(tmp_path / "copy")
    subprocess.run([programs / "pg_dump", "--format=custom", f"--file={copy}", postgresql], check=True)
    with database.writing() as connection:
        connection.execute(schema.SETTINGS.delete())
    options = ("--clean", "--if-exists", "--single-transaction", "--no-owner")
    subprocess.run([programs / "pg_restore", *options, f"--dbname={postgresql}", copy], check=True)
    assert stored(postgresql) == {"a"}
    assert checkup.findings(database) == []
    database.close()
