"""Two `tokenhub serve` on one database: what both together let through, also when one of them is killed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import aiohttp
import orjson
import pytest

from tests.e2e.calling import asked
from tests.e2e.serving import Exit, Serve, eventually, measured, start
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE
from tokenhub_core.admission.leases import LEASE
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.types import Json

pytestmark = pytest.mark.asyncio(loop_scope="session")

CALLERS: Final = 100
LIMIT: Final = 40
"""Requests."""
ROUNDS: Final = int(os.environ.get("ROUNDS", "1000"))
"""How many rounds of a hundred callers the `load` lane plays."""
MODEL: Final = "m-openai"
PROVIDER: Final = "p-openai"


@asynccontextmanager
async def both(folder: Path, *, ttft: float = 0.0) -> AsyncIterator[tuple[Serve, Serve]]:
    """Run two with data directories of their own and one database; the second knows what the first one registered."""
    settings = {
        "TOKENHUB_DB_DSN": str(folder / "shared.sqlite"),
        "TOKENHUB_ALLOW_PRIVATE": "localhost",
        "TOKENHUB_ADMIN_TOKEN": "t" * 32,
    }
    async with FakeProvider(profile=Profile(ttft=ttft)) as fake, aiohttp.ClientSession() as session:
        running: list[Serve] = []
        try:
            for name in ("one", "two"):
                serve = await start(folder / name, settings=settings, session=session)
                assert not isinstance(serve, Exit), serve
                running.append(serve)
                if name == "one":
                    await admin(serve, "POST", "/providers", id=PROVIDER, type="openai", base_url=fake.url)
                    prices = {"input_per_1k": 0.002, "output_per_1k": 0.008}
                    await admin(serve, "POST", "/models", id=MODEL, provider_id=PROVIDER, **prices)
            yield running[0], running[1]
        finally:
            for serve in running:
                await serve.kill()


async def admin(serve: Serve, method: str, path: str, **body: object) -> Json:
    """Ask the admin API of one of them."""
    url = f"{serve.info.side_url}/admin/v1{path}"
    headers = {"authorization": f"Bearer {'t' * 32}"}
    async with serve.session.request(method, url, json=body or None, headers=headers) as response:
        data: Json = orjson.loads(await response.read() or b"{}")
        assert response.status < 300, (path, response.status, data)
        return data


async def budget(serve: Serve, **more: object) -> str:
    made = await admin(
        serve, "POST", "/budgets", **{"owner": "all", "period": "total", "unit": "requests", **more}
    )
    return str(made["id"])


async def spent(serve: Serve) -> list[int]:
    return [one["spent"] for one in (await admin(serve, "GET", "/budgets"))["items"]]


async def call(session: aiohttp.ClientSession, serve: Serve) -> int:
    """Call one of them; 0 where it is gone."""
    url = f"{serve.info.side_url}/v1/chat/completions"
    with suppress(aiohttp.ClientError, ConnectionError):
        async with session.post(
            url, json=asked("openai", MODEL, stream=False) | {"max_tokens": 9}
        ) as response:
            await response.read()
            return response.status
    return 0


async def crowd(serves: Sequence[Serve]) -> list[int]:
    """Call all of them at once, a hundred times in all."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.timeout(PATIENCE):
        return await asyncio.gather(
            *(call(session, serves[number % len(serves)]) for number in range(CALLERS))
        )


async def known_to(serve: Serve, expected: list[int]) -> None:
    """Return when one of them says that so much is spent."""

    async def known() -> bool:
        return await spent(serve) == expected

    await eventually(known)


async def test_a_hundred_callers_of_two_processes_overspend_nothing(tmp_path: Path) -> None:
    """Of forty requests no more than forty are answered, and both count them alike; the others read a 402."""
    async with both(tmp_path) as (one, two):
        await budget(one, limit=LIMIT)
        await eventually(lambda: spent(two))
        told = await crowd([one, two])
        served = told.count(200)
        assert set(told) == {200, 402}, told
        assert 0 < served <= LIMIT
        for serve in (one, two):
            await known_to(serve, [served])
        measured(f"{CALLERS} callers of two processes, {served} of {LIMIT} requests served, 0 overspent")


async def test_a_limit_that_is_changed_on_one_holds_on_the_other_within_a_second(tmp_path: Path) -> None:
    """Without a restart and without a call."""
    async with both(tmp_path) as (one, two):
        name = await budget(one, limit=1_000)
        await eventually(lambda: spent(two))
        assert await call(two.session, two) == 200
        await admin(one, "PATCH", f"/budgets/{name}", limit=0)

        async def known() -> bool:
            return bool((await admin(two, "GET", f"/budgets/{name}"))["limit"] == 0)

        await eventually(known)
        assert await call(two.session, two) == 402


async def test_a_process_that_is_killed_keeps_nothing_from_the_other(tmp_path: Path) -> None:
    """What it had at hand comes back when its lease is over; what its records say is spent, and no more than that."""
    async with both(tmp_path, ttft=0.2) as (one, two):
        await budget(one, limit=LIMIT)
        await eventually(lambda: spent(two))
        calling = asyncio.create_task(crowd([one, two]))
        await asyncio.sleep(0.3)
        await one.kill()
        first = (await calling).count(200)
        served = first

        async def over() -> bool:
            nonlocal served
            served += await call(two.session, two) == 200
            await asyncio.sleep(0.1)  # refusals are rows too, and the last page has a thousand
            return await spent(two) == [LIMIT]

        await eventually(over, within=3 * LEASE + PATIENCE)
        # Records that were stored and whose answers died with their process are spent, and nobody read them.
        assert first <= served <= LIMIT
        assert await call(two.session, two) == 402
        logged = (await admin(two, "GET", "/logs?limit=1000"))["logs"]
        assert sum(bool(row["attempts"]) for row in logged) == LIMIT
        measured(f"killed one of two: {first} of {LIMIT} served before, {served} in all, 0 overspent")


@pytest.mark.load
@pytest.mark.timeout(7200)
async def test_two_processes_overspend_nothing_in_a_thousand_rounds(tmp_path: Path) -> None:
    """The first scene over and over, with a budget that begins anew; `ROUNDS` says how often."""
    await rounds(tmp_path, ROUNDS)


async def test_two_processes_overspend_nothing_in_a_few_rounds(tmp_path: Path) -> None:
    """The same for the default lane."""
    await rounds(tmp_path, 5)


async def rounds(folder: Path, number: int) -> None:
    """Let a crowd in, so many times; after each the count begins anew."""
    async with both(folder) as (one, two):
        name = await budget(one, limit=LIMIT)
        least, whole = CALLERS, 0
        for turn in range(number):
            await known_to(two, [0])
            told = await crowd([one, two])
            served = told.count(200)
            assert set(told) <= {200, 402}, (turn, told)
            assert 0 < served <= LIMIT, (turn, served)
            least, whole = min(least, served), whole + served
            for serve in (one, two):
                await known_to(serve, [served])
            await admin((one, two)[turn % 2], "POST", f"/budgets/{name}/paid")
            await known_to((one, two)[turn % 2], [0])
            await known_to((two, one)[turn % 2], [0])
        measured(
            f"{number} rounds of {CALLERS} callers: never more than {LIMIT} served, at least {least}, "
            f"{whole / number:.1f} on average"
        )
