"""A database on disk, its writer, and a way to open the vault on it as often as a program starts."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tokenhub_core.ports import Secret
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.writer import Writer
from tokenhub_core.vault.sealing import Params
from tokenhub_core.vault.vault import Vault

type Start = Callable[[], Awaitable[Vault]]


class Stopped:
    """A clock that stands still."""

    def now(self) -> float:
        return 1_700_000_000.0

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(str(tmp_path / "tokenhub.sqlite"))
    yield database
    database.close()


@pytest_asyncio.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    writer = Writer(database)
    writer.start()
    yield writer
    await writer.close()


@pytest.fixture
def start(database: Database, writer: Writer) -> Start:
    """Return what makes and loads a vault whose password is cheap to try."""

    async def made() -> Vault:
        vault = Vault(
            database,
            writer,
            clock=Stopped(),
            entropy=secrets.token_bytes,
            params=Params(memory_kib=8, passes=1),
        )
        await vault.load()
        return vault

    return made


@pytest_asyncio.fixture
async def vault(start: Start) -> Vault:
    """Return an open vault with one secret in it."""
    vault = await start()
    await vault.init(Secret("correct horse battery"))
    await vault.put("provider:openai:api_key", Secret("sk-the-key"))
    return vault
