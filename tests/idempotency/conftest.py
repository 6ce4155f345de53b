"""What every scene of this folder starts from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tokenhub_core.store.database import MEMORY, Database, open_database


@pytest.fixture
def database() -> Iterator[Database]:
    database = open_database(MEMORY)
    yield database
    database.close()
