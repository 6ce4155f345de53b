"""Two servers under load whose PostgreSQL or Redis is stopped, or cut off: who is answered what, and how soon.

scripts/test load tests/test_partitions.py -s
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from tests.e2e.serving import eventually, measured
from tests.fakes import postgres
from tests.fakes import redis as fake
from tests.fakes.cable import Cable, cable
from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core.launch.files import write_atomic

pytestmark = [pytest.mark.load, pytest.mark.timeout(300)]

CALLERS: Final = 8
WELL: Final = 2.0
BROKEN: Final = 4.0
MODEL: Final = "m"

type Break = Callable[[], AbstractContextManager[None]]


class Load:
    """Calls both servers without a pause, and remembers what came of it."""

    def __init__(self, houses: list[House]) -> None:
        self._houses = houses
        self._tasks: list[asyncio.Task[None]] = []
        self.phase = "before"
        self.told: dict[str, list[tuple[int, float]]] = {}
        self.served: list[str] = []

    async def _call(self, it: House) -> None:
        while self.phase != "end":
            phase, begun = self.phase, time.monotonic()
            told = await it.chat(MODEL)
            self.told.setdefault(phase, []).append((told.status, time.monotonic() - begun))
            if told.status == 200:
                self.served.append(told.header("x-request-id"))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._tasks = [
            asyncio.create_task(self._call(self._houses[number % len(self._houses)]))
            for number in range(CALLERS)
        ]
        try:
            yield
        finally:
            self.phase = "end"
            await asyncio.gather(*self._tasks)

    def figures(self, what: str) -> None:
        for phase, told in self.told.items():
            counts = dict(Counter(status for status, _ in told))
            longest = max(seconds for _, seconds in told)
            measured(f"{what}, {phase}: {len(told)} calls {counts}, the longest {longest:.2f} s")


@contextmanager
def paused(server: fake.Server | postgres.Server, how: str, line: Cable) -> Iterator[None]:
    """Stop a server, or cut the way to it, for as long as the block lasts."""
    if how == "stopped":
        server.pause()
    else:
        line.cut()
    try:
        yield
    finally:
        if how == "stopped":
            server.resume()
        else:
            line.mend()


@asynccontextmanager
async def both(folder: Path, how: str, what: str) -> AsyncIterator[tuple[list[House], Break]]:
    """Run two servers that share PostgreSQL and Redis, and return what breaks one of them."""
    if why := fake.missing() or postgres.missing():
        pytest.skip(why)
    database = postgres.Server.made()
    database.start()
    try:
        with fake.redis(folder) as server:
            async with (
                FakeProvider() as provider,
                cable(database.port) as to_database,
                cable(server.port) as to_redis,
            ):
                dsn = (
                    f"postgresql://tokenhub:{quote(postgres.PASSWORD, safe='')}@127.0.0.1:{to_database.port}"
                )
                settings = {
                    "DB_DSN": f"{dsn}/postgres",
                    "DB_TIMEOUT_SECS": "2",
                    "REDIS_URL": f"redis://127.0.0.1:{to_redis.port}/0",
                    "ALLOW_PRIVATE": "localhost",
                    "ADMIN_TOKEN": "t" * 32,
                }
                for name in ("one", "two"):
                    (folder / name / "data").mkdir(parents=True, mode=0o700)
                    write_atomic(folder / name / "data" / "salt", bytes(32))
                async with (
                    house(folder / "one", settings=settings) as one,
                    house(folder / "two", settings=settings) as two,
                ):
                    await one.provider(provider, "p", MODEL, cred_store="none", api_key="")
                    await eventually(partial(known, two))
                    line, victim = (to_redis, server) if what == "redis" else (to_database, database)
                    yield [one, two], partial(paused, victim, how, line)
    finally:
        database.remove()


async def known(it: House) -> bool:
    return bool((await it.done("GET", "/models"))["total"])


async def well(it: House) -> bool:
    return (await it.chat(MODEL)).status == 200


@pytest.mark.parametrize("how", ["stopped", "cut off"])
@pytest.mark.parametrize("what", ["redis", "postgresql"])
async def test_what_is_gone_for_a_while_costs_no_stuck_call_and_nothing_that_was_acknowledged(
    tmp_path: Path, how: str, what: str
) -> None:
    """Without Redis every call is served; without PostgreSQL they are refused in time, and served when it is back."""
    async with both(tmp_path, how, what) as (houses, broken):
        load = Load(houses)
        async with load.running():
            await asyncio.sleep(WELL)
            load.phase = "gone"
            with broken():
                await asyncio.sleep(BROKEN)
            load.phase = "back"
            for it in houses:
                await eventually(partial(well, it))
            load.phase = "after"
            await asyncio.sleep(WELL)
        load.figures(f"{what} {how}")
        statuses = {status for told in load.told.values() for status, _ in told}
        assert statuses == ({200} if what == "redis" else {200, 503})
        assert {status for status, _ in load.told["after"]} == {200}
        # The limit of a change, its grace, and what a busy machine adds.
        assert max(seconds for told in load.told.values() for _, seconds in told) < 10
        for request_id in load.served[:: max(len(load.served) // 200, 1)]:
            assert (await houses[0].admin("GET", f"/logs/{request_id}")).status == 200
