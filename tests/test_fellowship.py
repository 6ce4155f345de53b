"""Several processes that share Redis: what one has seen the others know, and what happens at one all can hear."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from unittest import mock

import pytest

from tests.e2e.serving import eventually, measured
from tests.fakes import redis as fake
from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core import hearsay
from tokenhub_core.launch.files import write_atomic

MODEL: Final = "m"
EJECTED_AFTER: Final = 5


@asynccontextmanager
async def two(folder: Path, url: str, provider: FakeProvider) -> AsyncIterator[tuple[House, House]]:
    """Run two servers with one database and one Redis, and a provider that both know."""
    settings = {
        "DB_DSN": str(folder / "shared.sqlite"),
        "REDIS_URL": url,
        "ALLOW_PRIVATE": "localhost",
        "ADMIN_TOKEN": "t" * 32,
    }
    for name in ("one", "two"):
        (folder / name / "data").mkdir(parents=True, mode=0o700)
        write_atomic(folder / name / "data" / "salt", bytes(32))
    async with (
        house(folder / "one", settings=settings) as first,
        house(folder / "two", settings=settings) as second,
    ):
        await first.provider(provider, "p", MODEL, cred_store="none", api_key="")
        await eventually(lambda: known(second))
        yield first, second


async def known(it: House) -> bool:
    return bool((await it.done("GET", "/models"))["total"])


async def state(it: House) -> str:
    (one,) = (await it.done("GET", "/health"))["providers"]
    return str(one["state"])


async def becomes(it: House, wanted: str) -> None:
    """Return when the provider is in that state there."""

    async def there() -> bool:
        return await state(it) == wanted

    await eventually(there)


async def test_what_one_has_ejected_the_other_leaves_alone_and_a_change_forgets_it_at_both(
    tmp_path: Path,
) -> None:
    """The second has not made one call; the provider's own change says that it is another one now."""
    if why := fake.missing():
        pytest.skip(why)
    with fake.redis(tmp_path) as server:
        async with FakeProvider() as provider, two(tmp_path, server.url, provider) as (first, second):
            provider.script("*", ("status:500",))
            for _ in range(EJECTED_AFTER):
                await first.chat(MODEL)
            assert await state(first) == "down"
            begun = time.monotonic()
            await becomes(second, "down")
            measured(f"an ejection is known elsewhere {time.monotonic() - begun:.3f} s after it was seen")
            asked = len(provider.requests)

            await first.done("DELETE", "/providers/p")
            await first.provider(provider, "p", MODEL, cred_store="none", api_key="")

            await becomes(first, "healthy")
            await becomes(second, "healthy")
            assert len(provider.requests) == asked


async def test_without_redis_each_is_on_its_own_and_hears_the_rest_when_it_is_back(tmp_path: Path) -> None:
    """What holds is told again: nobody has to have been there when it began."""
    if why := fake.missing():
        pytest.skip(why)
    with fake.redis(tmp_path) as server, mock.patch.object(hearsay, "AGAIN", 0.2):
        async with FakeProvider() as provider, two(tmp_path, server.url, provider) as (first, second):
            server.stop()
            provider.script("*", ("status:500",))
            for _ in range(EJECTED_AFTER):
                await first.chat(MODEL)
            assert await state(first) == "down"
            assert await state(second) == "healthy"

            server.start()
            await becomes(second, "down")
