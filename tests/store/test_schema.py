"""The tables: portable, complete, and the same whether read here or made by the migrations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Text, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.schema import CreateTable

from tokenhub_core.store import schema, upgrade
from tokenhub_core.store.database import Database, is_server, open_database
from tokenhub_core.store.driver import choose
from tokenhub_core.store.rows import COLUMNS
from tokenhub_core.store.upgrade import configuration


@pytest.fixture
def empty(dsn: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return a database with nothing in it, of the same kind as `dsn`."""
    if is_server(dsn):
        address = request.getfixturevalue("schema_of_its_own")
        engine = create_engine(make_url(address).set(drivername="postgresql+psycopg"))
    else:
        engine = create_engine(f"sqlite+pysqlite:///{tmp_path / 'empty.sqlite'}", module=choose().module)
    yield engine
    engine.dispose()


_COLUMNS: Final = (
    "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity"
    " FROM information_schema.columns WHERE table_schema = current_schema()"
)
_CONSTRAINTS: Final = (
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = current_schema()::regnamespace"
)
_INDEXES: Final = (
    "SELECT tablename, indexname, split_part(indexdef, ' USING ', 2) FROM pg_indexes"
    " WHERE schemaname = current_schema()"
)


def _definitions(connection: Connection) -> set[object]:
    """Return all that a database knows of its tables; SQLite keeps the very words."""
    if connection.dialect.name == "sqlite":
        found = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").scalars()
        # A column that was added stands on the line of the one before it.
        return {" ".join(sql.split()) for sql in found}
    return {
        tuple(row)
        for query in (_COLUMNS, _CONSTRAINTS, _INDEXES)
        for row in connection.exec_driver_sql(query)
    }


def _stamp(connection: Connection) -> list[str]:
    return list(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalars())


def test_the_migrations_end_at_the_tables_of_a_new_database(empty: Engine, dsn: str) -> None:
    """Whichever way it was made, what is there is the same, and what the queries believe."""
    database = open_database(dsn)
    with empty.begin() as migrated, database.reading() as new:
        upgrade.upgrade(migrated)
        for connection in (migrated, new):
            context = MigrationContext.configure(connection, opts={"compare_server_default": True})
            assert compare_metadata(context, schema.METADATA) == []
        assert _definitions(migrated) == _definitions(new) != set()
        assert _stamp(migrated) == _stamp(new) == [schema.HEAD]
    database.close()


def test_the_known_revisions_are_those_on_disk(database: Database) -> None:
    """A migration that is not listed would make its own database look like a newer version's."""
    with database.reading() as connection:
        script = ScriptDirectory.from_config(configuration(connection))
    assert tuple(reversed([step.revision for step in script.walk_revisions()])) == schema.REVISIONS
    assert script.get_current_head() == schema.HEAD


def test_every_time_is_an_integer() -> None:
    """Text times compare wrongly as soon as two writers spell them differently."""
    for table in schema.METADATA.tables.values():
        for column in table.columns:
            if column.name == "at" or column.name.endswith("_at"):
                assert column.type.python_type is int, f"{table.name}.{column.name}"


def test_no_column_could_hold_a_prompt_or_a_completion() -> None:
    """The text columns of the log are a closed list, so that a body never slips in unseen."""
    texts = {column.name for column in schema.REQUEST_LOGS.columns if isinstance(column.type, Text)}
    assert texts == {
        *(
            "id",
            "outcome",
            "method",
            "path",
            "dialect",
            "lane",
            "client_mode",
            "peer",
            "program",
            "proxy_user",
        ),
        *("origin_host", "client_request_id", "requested_model", "model_id", "provider_id", "mode", "reason"),
        *("alias", "variant"),
        *("directive", "tags", "error_class", "message", "losses", "stop_reason", "attempts", "decision"),
        *("shadow", "key_id", "project", "composition"),
    }


def test_rows_fill_every_column_but_the_one_the_database_counts() -> None:
    """The order of a row's values is the order of the columns."""
    assert ["seq", *COLUMNS] == [column.name for column in schema.REQUEST_LOGS.columns]


def test_every_table_can_be_made_in_postgresql() -> None:
    """Only types that both databases share are used, and a sequence there has 64 bits."""
    dialect = make_url("postgresql://").get_dialect()()
    for table in schema.METADATA.tables.values():
        assert str(CreateTable(table).compile(dialect=dialect))
    assert "BIGSERIAL" in str(CreateTable(schema.REQUEST_LOGS).compile(dialect=dialect))
