"""What the scenes of the side server start from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.fakes.browser import browser
from tests.fakes.house import House, house
from tests.fakes.person import Person
from tests.fakes.provider import FakeProvider


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    """A provider on a real socket."""
    async with FakeProvider() as provider:
        yield provider


@pytest_asyncio.fixture
async def it(tmp_path: Path) -> AsyncIterator[House]:
    """The application with nothing configured."""
    async with house(tmp_path) as opened:
        yield opened


@pytest_asyncio.fixture
async def simulated(tmp_path: Path) -> AsyncIterator[House]:
    """The application with the simulator."""
    async with house(tmp_path, simulate=True) as opened:
        yield opened


@pytest_asyncio.fixture
async def ada(it: House, tmp_path: Path) -> AsyncIterator[Person]:
    """Somebody at the admin pages who may do everything; nothing they do makes the browser complain."""
    async with browser(tmp_path) as page:
        person = Person(page)
        await person.arrive(it)
        yield person
        # What is not there yet, as the CA of a server that has no proxy, is no fault of the page.
        assert [one for one in page.complaints if "status of 404" not in one] == []
