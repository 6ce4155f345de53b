"""Opening a database: private, checked, upgraded, or refused in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.store import schema
from tokenhub_core.store.database import MEMORY, Database, open_database
from tokenhub_core.store.driver import Driver, choose

_RAW: Any = choose().module


def _pragma(database: Database, name: str) -> object:
    with database.reading() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_database_is_private_and_at_the_newest_schema(tmp_path: Path) -> None:
    """Directory 0700, file and its companions 0600, every table there."""
    path = tmp_path / "data" / "tokenhub.sqlite"
    database = open_database(str(path))
    with database.writing() as connection:
        connection.execute(insert(schema.SETTINGS).values(key="a", value="b"))
    assert _mode(path.parent) == 0o700
    assert {_mode(file) for file in path.parent.iterdir()} == {0o600}
    assert len(list(path.parent.iterdir())) == 3  # the file, its log, its index
    assert database.checked
    database.close()
    assert [file.name for file in path.parent.iterdir()] == ["tokenhub.sqlite"]


def test_a_file_that_others_could_read_is_taken_back(tmp_path: Path) -> None:
    """It holds who called what."""
    path = tmp_path / "tokenhub.sqlite"
    path.touch(mode=0o644)
    open_database(str(path)).close()
    assert _mode(path) == 0o600


@pytest.mark.parametrize(
    "spelling", ["{}", "sqlite:///{}", "sqlite+pysqlite:///{}", "file:{}", "file:{}?mode=rw"]
)
def test_a_path_may_be_spelt_in_several_ways(tmp_path: Path, spelling: str) -> None:
    """Plain, as SQLAlchemy writes it, as SQLite writes it."""
    path = tmp_path / "odd name %.sqlite"
    open_database(spelling.format(path)).close()
    assert path.exists()


def test_every_connection_has_its_pragmas(tmp_path: Path) -> None:
    """They belong to a connection: the second one of a pool must not lose its foreign keys."""
    database = open_database(str(tmp_path / "t.sqlite"), busy_ms=1234)
    with database.reading() as first, database.reading() as second, database.reading() as third:
        for connection in (first, second, third):
            told = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("foreign_keys", "busy_timeout", "journal_mode", "synchronous")
            ]
            assert told == [1, 1234, "wal", 2]
    database.close()


def test_less_than_full_sync_is_a_choice_and_none_at_all_is_not(tmp_path: Path) -> None:
    """NORMAL may lose the last records to a power cut; OFF may lose the file."""
    database = open_database(str(tmp_path / "t.sqlite"), synchronous="normal")
    assert _pragma(database, "synchronous") == 1
    database.close()
    with pytest.raises(ConfigError, match="TOKENHUB_DB_SYNCHRONOUS"):
        open_database(str(tmp_path / "t.sqlite"), synchronous="OFF")


def test_a_sqlite_with_the_wal_bug_gets_a_rollback_journal(tmp_path: Path) -> None:
    """Slower and durable, even for a file that another build left in WAL mode."""
    path = str(tmp_path / "t.sqlite")
    open_database(path).close()
    database = open_database(path, driver=Driver(_RAW, (3, 40, 1), "truncate"))
    assert _pragma(database, "journal_mode") == "truncate"
    with database.writing() as connection:
        connection.execute(insert(schema.SETTINGS).values(key="a", value="b"))
    database.close()
    database = open_database(path)
    assert _pragma(database, "journal_mode") == "wal"
    database.close()


def test_a_database_in_memory_is_one_for_all_its_connections() -> None:
    """Two of them are not the same one, and each ends with its `Database`."""
    one, two = open_database(MEMORY), open_database(MEMORY)
    with one.writing() as connection:
        connection.execute(insert(schema.SETTINGS).values(key="a", value="b"))
    with one.reading() as first, one.reading() as second:
        assert first.execute(select(schema.SETTINGS.c.value)).scalar() == "b"
        assert second.execute(select(schema.SETTINGS.c.value)).scalar() == "b"
    with two.reading() as connection:
        assert connection.execute(select(schema.SETTINGS.c.value)).scalar() is None
    one.close()
    two.close()


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    """Also what stood before the failure in the same transaction is gone."""
    with pytest.raises(IntegrityError), database.writing() as connection:
        connection.execute(insert(schema.SETTINGS), [{"key": "a", "value": "b"}] * 2)
    with database.reading() as connection:
        assert connection.execute(select(schema.SETTINGS)).all() == []


def test_a_reader_keeps_one_view(tmp_path: Path) -> None:
    """What is committed while someone reads is seen by the next reader, not by this one."""
    database = open_database(str(tmp_path / "t.sqlite"))
    with database.reading() as reader:
        assert reader.execute(select(schema.SETTINGS)).all() == []
        with database.writing() as connection:
            connection.execute(insert(schema.SETTINGS).values(key="a", value="b"))
        assert reader.execute(select(schema.SETTINGS)).all() == []
    with database.reading() as reader:
        assert len(reader.execute(select(schema.SETTINGS)).all()) == 1
    database.close()


def test_waiting_for_another_writer_ends_in_a_typed_error(tmp_path: Path) -> None:
    """The busy timeout bounds it."""
    database = open_database(str(tmp_path / "t.sqlite"), busy_ms=20)
    with (
        database.writing(),
        pytest.raises(TokenHubError) as caught,
        database.writing(),
    ):
        pytest.fail("two writers at once")
    assert caught.value.fault.cause == "store_locked"
    database.close()


# --- what is refused ---------------------------------------------------------------------------------------


def _refused(path: Path | str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        open_database(str(path), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    """An older version must not write what it does not understand."""
    path = tmp_path / "t.sqlite"
    database = open_database(str(path))
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    before = path.read_bytes()
    assert f"written by a newer TokenHub (schema 9999, this version knows {schema.HEAD})" in _refused(path)
    assert path.read_bytes() == before


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A mistyped path must not fill another program's file with our tables."""
    path = tmp_path / "t.sqlite"
    raw = _RAW.connect(str(path))
    raw.execute("CREATE TABLE theirs (x)")
    raw.close()
    assert "not TokenHub's" in _refused(path)


def _with_rows(path: Path, count: int) -> bytearray:
    """Make a database with `count` settings of 500 bytes at `path` and return its content."""
    database = open_database(str(path))
    with database.writing() as connection:
        rows = [{"key": f"{n:08d}", "value": "x" * 500} for n in range(count)]
        connection.execute(insert(schema.SETTINGS), rows)
    database.close()
    return bytearray(path.read_bytes())


@pytest.mark.parametrize("damage", ["header", "page", "order", "text"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    """Serving on with what is left of a ledger would serve with budgets at zero."""
    path = tmp_path / "t.sqlite"
    content = _with_rows(path, 100)
    match damage:
        case "header":
            content[:100] = bytes(100)
        case "page":
            content[4096 : 2 * 4096] = b"\xff" * 4096
        case "order":  # the last page is a full leaf of rows; its first two no longer stand in order
            leaf = content[-4096:]
            leaf[8:12] = leaf[10:12] + leaf[8:10]
            content[-4096:] = leaf
        case _:
            content[:] = b"this is not a database, it is a note to self\n" * 100
    path.write_bytes(content)
    message = _refused(path)
    assert "damaged" in message or "not a SQLite database" in message


def test_whatever_is_flipped_opening_ends_in_order(tmp_path: Path) -> None:
    """A flipped bit may hide in a value, which no check of structure sees; but it never ends in a traceback."""
    path = tmp_path / "t.sqlite"
    content = _with_rows(path, 20)
    refused = []
    for n in range(200):
        flipped = bytearray(content)
        flipped[n * len(content) // 200] ^= 1 << n % 8
        path.write_bytes(flipped)
        try:
            open_database(str(path)).close()
        except ConfigError as error:
            refused.append(str(error))
    assert refused
    assert not any("\n" in message for message in refused)


def test_a_check_that_takes_too_long_is_cut_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Start-up is bounded, and what was not looked at is no secret."""
    path = str(tmp_path / "t.sqlite")
    _with_rows(Path(path), 4000)
    database = open_database(path, check_seconds=0.0)
    assert not database.checked
    assert "checked in part only" in caplog.text
    with database.reading() as connection:  # the limit was the check's and is gone
        assert len(connection.execute(select(schema.SETTINGS)).all()) == 4000
    database.close()
    database = open_database(path)
    assert database.checked
    database.close()


def test_a_place_that_cannot_hold_a_file_is_refused(tmp_path: Path) -> None:
    """A directory, a file in the way, a name that is none."""
    (tmp_path / "file").touch()
    assert "Is a directory" in _refused(tmp_path)
    assert "database" in _refused(tmp_path / "file" / "t.sqlite")
    assert "names no file" in _refused("sqlite:///")
    assert "not known" in _refused("mysql://u:secret@host/db")
    assert "secret" not in _refused("mysql://u:secret@host/db")


def test_a_database_that_is_locked_at_start_is_refused(tmp_path: Path) -> None:
    """A new file that another process holds cannot be set up; waiting is bounded."""
    path = tmp_path / "t.sqlite"
    other = _RAW.connect(str(path), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert "locked by another process" in _refused(path, busy_ms=20)
    other.close()


def test_an_up_to_date_database_opens_without_alembic(tmp_path: Path) -> None:
    """Its import costs more than everything else that opening does."""
    path = tmp_path / "t.sqlite"
    open_database(str(path)).close()
    script = (
        "import sys; from tokenhub_core.store.database import open_database;"
        f"open_database({str(path)!r}).close(); sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
