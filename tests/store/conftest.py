"""A database of either kind, and a writer that runs on it for the length of one test.

What takes `database` is the contract of the store: it runs on SQLite, in memory, and on PostgreSQL.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import sqlalchemy
from sqlalchemy import make_url

from tokenhub_core.store.database import MEMORY, Database, open_database
from tokenhub_core.store.writer import Writer


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    where = MEMORY if request.param == "sqlite" else request.getfixturevalue("postgresql")
    database = open_database(where)
    yield database
    database.close()


@pytest.fixture
def schema_of_its_own(postgresql: str) -> Iterator[str]:
    """A place in the shared database with no table in it."""
    engine = sqlalchemy.create_engine(make_url(postgresql).set(drivername="postgresql+psycopg"))
    name = f"s{os.getpid()}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
    yield f"{postgresql}&options=-csearch_path%3D{name}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA {name} CASCADE")
    engine.dispose()


@pytest_asyncio.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    writer = Writer(database)
    writer.start()
    yield writer
    await writer.close()
