"""An empty PostgreSQL database for each test, as quickly as can be: made once, emptied in between."""

from __future__ import annotations

from typing import Final, Self

from sqlalchemy import Connection, create_engine, make_url, text

from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.schema import METADATA

_ALONE: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


class Shared:
    """One database of a worker on the server that all share."""

    def __init__(self, server: str) -> None:
        address = make_url(server).set(drivername="postgresql+psycopg")
        outside = create_engine(address)
        with outside.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            name = _new(connection)
        outside.dispose()
        self._address = make_url(server).set(database=name).render_as_string(hide_password=False)
        open_database(self._address).close()
        self._engine = create_engine(address.set(database=name))
        with self._engine.connect() as connection:
            counters = connection.execute(text("SELECT sequencename FROM pg_sequences")).scalars().all()
        deletes = [f"DELETE FROM {table.name}" for table in reversed(METADATA.sorted_tables)]
        self._empty = ";".join([_ALONE, *deletes, *(f"SELECT setval('{one}', 1, false)" for one in counters)])

    def emptied(self) -> str:
        """Return its address; nothing is in it. What the test before has left open is closed."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql(self._empty)
        return self._address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()


def plan(database: Database, query: str) -> str:
    """Return how the database reads what `query` asks for, of a table that is too large to be read whole."""
    with database.reading() as connection:
        if connection.dialect.name == "sqlite":
            return "\n".join(row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}"))
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        return "\n".join(connection.exec_driver_sql(f"EXPLAIN {query}").scalars())


def _new(connection: Connection) -> str:
    """Make a database, and return its name."""
    number = connection.execute(text("SELECT count(*) FROM pg_database")).scalar_one()
    name = f"t{number}_{connection.execute(text('SELECT pg_backend_pid()')).scalar_one()}"
    connection.execute(text(f"CREATE DATABASE {name}"))
    return name
