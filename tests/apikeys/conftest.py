"""What every scene of this folder starts from: one process with its keys, or two."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.apikeys.process import Process
from tests.audit.conftest import Hands


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.sqlite"


@pytest_asyncio.fixture
async def one(path: Path, clock: Hands) -> AsyncIterator[Process]:
    process = Process(path, clock, 1)
    assert await process.keys.load() == ()
    yield process
    await process.close()


@pytest_asyncio.fixture
async def two(path: Path, clock: Hands, one: Process) -> AsyncIterator[Process]:
    process = Process(path, clock, 2)
    assert await process.keys.load() == ()
    yield process
    await process.close()
