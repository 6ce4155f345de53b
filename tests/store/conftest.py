"""A database in memory, and a writer that runs on it for the length of one test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tokenhub_core.store.database import MEMORY, Database, open_database
from tokenhub_core.store.writer import Writer


@pytest.fixture
def database() -> Iterator[Database]:
    database = open_database(MEMORY)
    yield database
    database.close()


@pytest_asyncio.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    writer = Writer(database)
    writer.start()
    yield writer
    await writer.close()
