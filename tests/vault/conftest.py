"""A database on disk, its writer, and a way to open the vault on it as often as a program starts."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.house import House, house
from tokenhub_core.audit.journal import Audit
from tokenhub_core.ports import Secret
from tokenhub_core.store.anchor import beside
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.writer import Writer
from tokenhub_core.vault.keys import KeyHolder
from tokenhub_core.vault.sealing import Params
from tokenhub_core.vault.vault import Custody, Vault

type Start = Callable[[], Awaitable[Vault]]


class Hands:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return 1_700_000_000.0 + self.at

    def monotonic(self) -> float:
        return self.at


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
def clock() -> Hands:
    return Hands()


@pytest.fixture
def start(database: Database, writer: Writer, clock: Hands) -> Start:
    """Return what makes and loads a vault whose password is cheap to try."""

    async def made() -> Vault:
        keyring = KeyHolder()
        vault = Vault(
            database,
            Audit(database, writer, clock=clock, signer=keyring.signer),
            clock=clock,
            entropy=secrets.token_bytes,
            params=Params(memory_kib=8, passes=1),
            custody=Custody(keyring, beside(database.where, "vault")),
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


@pytest_asyncio.fixture
async def it(tmp_path: Path) -> AsyncIterator[House]:
    """The application with nothing configured."""
    async with house(tmp_path) as opened:
        yield opened
