"""A database of either kind, and the audit log over its writer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.house import House, house
from tokenhub_core.audit.chain import Signer
from tokenhub_core.audit.journal import Audit
from tokenhub_core.store.anchor import Anchor, beside
from tokenhub_core.store.audit import AuditLog
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.writer import Writer

type Opened = Callable[[], Audit]

SIGNER = Signer("k1", bytes(range(32)))


class Hands:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return 1_700_000_000.0 + self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def database(dsn: str) -> Iterator[Database]:
    database = open_database(dsn)
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
def anchor(database: Database, tmp_path: Path) -> Anchor:
    found = beside(database.where, "audit", tmp_path)
    assert found is not None
    return found


@pytest.fixture
def again(database: Database, writer: Writer, clock: Hands, anchor: Anchor) -> Opened:
    """Return what makes an audit log as a new process would, before it is loaded."""
    return lambda: Audit(database, writer, clock=clock, signer=lambda: SIGNER, anchor=anchor)


@pytest_asyncio.fixture
async def audit(again: Opened) -> Audit:
    audit = again()
    assert await audit.load() == ()
    return audit


@pytest.fixture
def log(database: Database) -> AuditLog:
    return AuditLog(database)


@pytest_asyncio.fixture
async def it(tmp_path: Path) -> AsyncIterator[House]:
    """The application with nothing configured."""
    async with house(tmp_path) as opened:
        yield opened
