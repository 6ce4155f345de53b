"""What is open by a key while keys change: in the process that changes them, and in every other one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest_asyncio

from tests.admission.test_apikeys import body
from tests.apikeys.process import Process
from tests.audit.conftest import Hands
from tests.patience import PATIENCE
from tokenhub_core.admission.tenures import Tenures
from tokenhub_core.ports import Secret

type Pair = tuple[Process, Process]


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Two processes on one database."""
    clock = Hands()
    processes = Process(tmp_path / "t.sqlite", clock, 1), Process(tmp_path / "t.sqlite", clock, 2)
    for one in processes:
        await one.keys.load()
    yield processes
    for one in processes:
        await one.close()


async def test_what_is_open_by_a_key_is_looked_at_at_once_and_by_every_other_process(
    pair: Pair,
) -> None:
    """A change here is looked after when it returns; elsewhere within one look at what others have changed."""
    one, two = pair
    key_id, secret = await one.made()
    await two.keys.refresh()
    ended: dict[str, asyncio.Event] = {"one": asyncio.Event(), "two": asyncio.Event()}
    for name, process in (("one", one), ("two", two)):
        tenures = Tenures(process.keys)
        tenures.hold(ended[name].set, Secret(secret))
        process.keys.watched(tenures.look)
    keeper = asyncio.create_task(two.keys.keep(0.001))
    await one.keys.change(key_id, body(name="still good"))
    assert not ended["one"].is_set()
    await one.keys.change(key_id, body(enabled=False))
    assert ended["one"].is_set()
    async with asyncio.timeout(PATIENCE):
        await ended["two"].wait()
    keeper.cancel()
    with suppress(asyncio.CancelledError):
        await keeper


async def test_what_is_open_by_a_key_that_expires_ends_though_nobody_changes_anything(pair: Pair) -> None:
    """And while the store cannot be read."""
    one, _ = pair
    _, secret = await one.made(expires_in="60s")
    over = asyncio.Event()
    tenures = Tenures(one.keys)
    tenures.hold(over.set, Secret(secret))
    one.keys.watched(tenures.look)
    one.database.close()
    one.clock.at += 61
    keeper = asyncio.create_task(one.keys.keep(0.001))
    async with asyncio.timeout(PATIENCE):
        await over.wait()
    keeper.cancel()
    with suppress(asyncio.CancelledError):
        await keeper
