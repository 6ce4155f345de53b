"""A database of either kind, and a writer that runs on it for the length of one test.

What takes `database` is the contract of the store: it runs on SQLite, in memory, and on PostgreSQL.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tokenhub_core.store.database import MEMORY, Database, open_database
from tokenhub_core.store.writer import Writer


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    where = MEMORY if request.param == "sqlite" else request.getfixturevalue("postgresql")
    database = open_database(where)
    yield database
    database.close()


@pytest_asyncio.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    writer = Writer(database)
    writer.start()
    yield writer
    await writer.close()
