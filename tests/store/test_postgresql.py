"""What is PostgreSQL's own: its migrations, its lock among processes, its TLS; and two of ours on one database."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, LargeBinary, Text, make_url, select

from tests.fakes import postgres
from tests.fakes.certificates import authority, server_context
from tests.patience import PROGRAM_PATIENCE
from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.errors import Blame, ConfigError, TokenHubError
from tokenhub_core.ports import Charge
from tokenhub_core.store import budgets, catalog, schema, upgrade
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.inserts import Insert
from tokenhub_core.store.schema import SPENDS
from tokenhub_core.store.writer import Writer

_PUT = "INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"


# --- the tables ----------------------------------------------------------------------------------------------


def _filled(connection: Connection) -> dict[str, int]:
    """Put a row into every table, whatever its columns are; return how many rows each has."""
    found = sqlalchemy.MetaData()
    found.reflect(connection)
    counts = {}
    for table in found.sorted_tables:
        if table.name == "alembic_version":
            continue
        values: dict[str, Any] = {}
        for column in table.columns:
            kind = column.type
            if column.name in {"id", "seq"} and not isinstance(kind, Text | LargeBinary):
                values[column.name] = 1
            elif isinstance(kind, sqlalchemy.Boolean):
                values[column.name] = True
            elif isinstance(kind, LargeBinary):
                values[column.name] = b"\x00\xff"
            elif isinstance(kind, Text | sqlalchemy.String):
                values[column.name] = "p" if column.name.endswith("id") else "[]"
            else:
                values[column.name] = 7
        connection.execute(table.insert().values(values))
        counts[table.name] = 1
    return counts


@pytest.mark.parametrize("revision", schema.REVISIONS[:-1])
def test_every_older_schema_comes_up_to_date(schema_of_its_own: str, revision: str) -> None:
    """With its rows, and to the same tables as a new database has."""
    address = make_url(schema_of_its_own).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(address)
    with engine.begin() as connection:
        command.upgrade(upgrade.configuration(connection), revision)
        counts = _filled(connection)
    engine.dispose()
    database = open_database(schema_of_its_own)
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == schema.HEAD
        assert compare_metadata(MigrationContext.configure(connection), schema.METADATA) == []
        for name, count in counts.items():
            assert connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar() == count, name
    database.close()


def test_many_processes_may_open_a_new_database_at_once(schema_of_its_own: str) -> None:
    """One makes the tables under the lock; the others wait for it and find them."""
    script = f"from tokenhub_core.store.database import open_database; open_database({schema_of_its_own!r}).close()"
    all_ = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [process.wait(PROGRAM_PATIENCE) for process in all_] == [0, 0, 0]
    database = open_database(schema_of_its_own)
    with database.reading() as connection:
        found = set(sqlalchemy.inspect(connection).get_table_names())
    database.close()
    assert found == {*schema.METADATA.tables, "alembic_version"}


def test_what_is_not_ours_is_left_alone(schema_of_its_own: str) -> None:
    """Another program's tables, or a newer version's."""
    engine = sqlalchemy.create_engine(make_url(schema_of_its_own).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (x integer)")
    with pytest.raises(ConfigError, match="not TokenHub's"):
        open_database(schema_of_its_own)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE theirs")
    open_database(schema_of_its_own).close()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match="written by a newer TokenHub"):
        open_database(schema_of_its_own)
    engine.dispose()


# --- two processes -------------------------------------------------------------------------------------------


async def _both(postgresql: str, work: Callable[[Writer], Any]) -> Database:
    """Do `work` with two writers on one database at the same time; return a third view of it."""
    # On a busy machine each may have to wait for the other's turn for long.
    databases = [open_database(postgresql, busy_ms=60_000) for _ in range(2)]
    writers = [Writer(database) for database in databases]
    for writer in writers:
        writer.start()
    await asyncio.gather(*(work(writer) for writer in writers))
    for writer, database in zip(writers, databases, strict=True):
        assert (writer.counts.failed, writer.counts.lost) == (0, 0)
        await writer.close()
        database.close()
    return open_database(postgresql)


async def test_whoever_changes_something_sees_what_was_changed(postgresql: str) -> None:
    """Reading, deciding and writing is one step, as behind SQLite's lock: no change is built on an old one."""

    def counted(connection: Connection) -> None:
        number = int(catalog.setting(connection, "n") or 0)
        catalog.put_setting(connection, "n", str(number + 1))

    async def work(writer: Writer) -> None:
        for _ in range(50):
            await writer.commit(counted)

    database = await _both(postgresql, work)
    with database.reading() as connection:
        assert catalog.setting(connection, "n") == "100"
    database.close()


async def test_records_that_add_to_the_same_counts_stand_in_no_others_way(postgresql: str) -> None:
    """Two processes lock the same rows in the same order: neither waits for the other for ever, and no cent is lost."""
    kept = [Budget(name, f"key:{name}", Period.TOTAL, Unit.USD, 10**15) for name in "abc"]
    database = open_database(postgresql)
    with database.writing() as connection:
        for one in kept:
            budgets.save(connection, one)
    database.close()

    async def work(writer: Writer) -> None:
        async def record(n: int) -> None:
            names = "abc" if n % 2 else "cba"
            charges = tuple(budgets.charge(Charge(name, 0, 1)) for name in names)
            await writer.insert(Insert(_PUT, (f"{id(writer)}-{n}", ""), charges))

        for start in range(0, 300, 30):
            await asyncio.gather(*(record(n) for n in range(start, start + 30)))

    database = await _both(postgresql, work)
    with database.reading() as connection:
        assert {row.spent for row in connection.execute(select(SPENDS))} == {600}
    database.close()


async def test_a_row_that_both_add_is_new_for_one(postgresql: str) -> None:
    """And what goes with it goes once."""
    new: list[bool] = []
    more = Insert(
        "INSERT INTO settings (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = settings.value || excluded.value",
        ("counted", "x"),
    )

    async def work(writer: Writer) -> None:
        new.extend([await writer.insert(Insert(_PUT, (str(n), ""), (more,))) for n in range(40)])

    database = await _both(postgresql, work)
    with database.reading() as connection:
        assert catalog.setting(connection, "counted") == "x" * 40
    assert sorted(new) == [False] * 40 + [True] * 40
    database.close()


# --- what is kept and shown ----------------------------------------------------------------------------------


def test_a_commit_waits_for_the_disk_unless_less_was_asked_for(postgresql: str) -> None:
    """Also where the server's own default is less; what is more than that is left as it is."""
    for given, synchronous, then in [
        ("off", "FULL", "on"),
        ("on", "FULL", "on"),
        ("remote_apply", "FULL", "remote_apply"),
        ("on", "NORMAL", "off"),
    ]:
        database = open_database(
            f"{postgresql}&options=-csynchronous_commit%3D{given}", synchronous=synchronous
        )
        with database.reading() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == then
        database.close()


async def test_values_that_only_one_database_would_take_are_refused_as_values(postgresql: str) -> None:
    """PostgreSQL's text holds no NUL: that is the fault of who brought it and not the store's."""
    database = open_database(postgresql)
    writer = Writer(database)
    writer.start()
    with pytest.raises(TokenHubError) as caught:
        await writer.commit(partial(catalog.put_setting, key="a\0b", value=""))
    assert (caught.value.fault.blame, caught.value.fault.http_status) == (Blame.CLIENT, 400)
    assert writer.able
    await writer.commit(partial(catalog.put_setting, key="a", value=""))
    await writer.close()
    database.close()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[postgres.Server, Path]]:
    """A server that speaks TLS, and the certificate to trust."""
    if reason := postgres.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("tls")
    ca = authority(folder)
    server_context(folder, ca, address="127.0.0.1", names=("db.example",))
    leaf = (folder / "leaf.pem").read_bytes()
    server = postgres.Server.made(ssl="on", ssl_cert_file="server.crt", ssl_key_file="server.key")
    server.put("server.crt", leaf)
    server.put("server.key", leaf)
    server.start()
    yield server, ca[2]
    server.remove()


def test_plain_text_stays_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the operator says otherwise, in the address or in libpq's own variable."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    server = importlib.import_module("tokenhub_core.store.postgresql")
    for place, mode in {
        "postgresql://u@db.example/d": "require",
        "postgres://u@10.0.0.1,localhost/d": "require",
        "postgresql+psycopg://u@db.example/d?sslmode=disable": "disable",
        "postgresql://u@db.example/d?sslmode=verify-full": "verify-full",
        "postgresql://u@localhost/d": None,
        "postgresql://u@/d?host=/run/postgresql": None,
    }.items():
        assert server.target(place).get("sslmode") == mode
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert "sslmode" not in server.target("postgresql://u@db.example/d")


def test_the_way_to_another_machine_is_encrypted(
    secured: tuple[postgres.Server, Path], tmp_path: Path
) -> None:
    """With `verify-full` it is who it says; a certificate that nobody vouches for is refused, in one line."""
    server, root = secured
    file = tmp_path / "password"
    file.write_text(postgres.PASSWORD)
    place = f"postgresql://tokenhub@127.0.0.1:{server.port}/postgres"
    opened = partial(open_database, password_file=str(file))
    database = opened(f"{place}?sslmode=verify-full&sslrootcert={root}")
    with database.reading() as connection:
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert connection.exec_driver_sql(query).scalar() is True
    database.close()
    with pytest.raises(ConfigError, match="certificate verify failed"):
        opened(f"{place}?sslmode=verify-full&sslrootcert=system")
    with pytest.raises(ConfigError, match="does not match host name"):
        opened(f"{place.replace('127.0.0.1', 'localhost')}?sslmode=verify-full&sslrootcert={root}")
