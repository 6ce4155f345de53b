"""The tables: portable, complete, and the same whether read here or made by the migrations."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Text, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.schema import CreateTable

from tokenhub_core.store import schema
from tokenhub_core.store.database import MEMORY, Database, open_database
from tokenhub_core.store.driver import choose
from tokenhub_core.store.rows import COLUMNS
from tokenhub_core.store.upgrade import configuration


def _definitions(connection: Connection) -> set[str]:
    found = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").scalars()
    # A column that was added stands on the line of the one before it.
    return {" ".join(sql.split()) for sql in found if "alembic_version" not in sql}


def test_the_migrations_end_at_the_tables_of_the_schema(database: Database) -> None:
    """What the migrations make and what the queries believe are the same thing."""
    with database.reading() as migrated:
        context = MigrationContext.configure(migrated, opts={"compare_server_default": True})
        assert compare_metadata(context, schema.METADATA) == []


def test_sqlite_reads_the_tables_as_the_schema_spells_them() -> None:
    """Word for word: there a table cannot be changed in every way, and its text is what is left of how it was made."""
    database = open_database(MEMORY)
    engine = create_engine("sqlite+pysqlite://", module=choose().module)
    with engine.begin() as fresh, database.reading() as migrated:
        schema.METADATA.create_all(fresh)
        assert _definitions(migrated) == _definitions(fresh)
    engine.dispose()
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
