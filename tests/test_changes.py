"""Two processes on one database: what is changed at one holds at the other within a second."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from unittest import mock

from tests.e2e.serving import eventually
from tests.fakes.access import cheap_passwords
from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core.launch.files import write_atomic
from tokenhub_core.store import generations
from tokenhub_core.types import Json

PASSWORD: Final = "correct horse battery"


@asynccontextmanager
async def both(folder: Path) -> AsyncIterator[tuple[House, House]]:
    """Run two with directories of their own, as on two machines."""
    settings = {
        "DB_DSN": str(folder / "shared.sqlite"),
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
        yield one, two


async def known(it: House, path: str, fits: Callable[[Json], bool]) -> None:
    """Return when the other process tells so."""

    async def look() -> bool:
        return fits(await it.done("GET", path))

    await eventually(look)


async def test_a_provider_and_a_model_are_served_elsewhere_and_no_more_when_they_are_gone(
    tmp_path: Path,
) -> None:
    """Neither needs a restart; an alias, a mode and a routing default go the same way."""
    async with both(tmp_path) as (one, two), FakeProvider() as fake:
        body = {"id": "p", "type": "openai", "base_url": fake.url, "cred_store": "none"}
        await one.done("POST", "/providers", body)
        await one.done(
            "POST", "/models", {"id": "m", "provider_id": "p", "input_per_1k": 0.1, "output_per_1k": 0.1}
        )
        await served(two, "m", 200)

        await one.done("POST", "/aliases", {"name": "a", "variants": [{"model_id": "m", "weight": 1}]})
        await served(two, "a", 200)

        await one.done("PUT", "/routing-config", {"default_mode": "cheap"})
        await known(two, "/routing-config", lambda told: told["default_mode"] == "cheap")

        await one.done("DELETE", "/providers/p")
        await served(two, "m", 404)


async def served(it: House, model: str, status: int) -> None:
    async def call() -> bool:
        return (await it.chat(model)).status == status

    await eventually(call)


async def test_what_others_change_is_read_once_for_each_change(tmp_path: Path) -> None:
    """A look reads one small table; nothing is read again while no number has moved on."""
    async with both(tmp_path) as (one, two):
        await one.done("PUT", "/routing-config", {"default_mode": "cheap"})
        await known(two, "/routing-config", lambda told: told["default_mode"] == "cheap")
        version = two.app.catalog.fleet.version
        looks = mock.Mock(wraps=generations.every)
        with mock.patch.object(generations, "every", looks):
            await eventually(_done(lambda: looks.call_count >= 4))

        assert two.app.catalog.fleet.version == version


def _done(look: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def done() -> bool:
        return look()

    return done


async def test_a_user_who_is_removed_at_one_is_nobody_at_the_other(tmp_path: Path) -> None:
    """A session that was opened at one machine is good at the next, until its user is gone."""
    with cheap_passwords():
        async with both(tmp_path) as (one, two):
            user = await one.done("POST", "/users", {"name": "ada", "role": "viewer", "password": PASSWORD})
            await known(two, "/users", lambda told: [it["name"] for it in told["items"]] == ["ada"])

            await one.done("DELETE", f"/users/{user['id']}")
            await known(two, "/users", lambda told: told["items"] == [])


async def test_an_open_vault_sees_what_another_process_stores_and_closes_when_its_root_is_replaced(
    tmp_path: Path,
) -> None:
    """An entry is read with the keys that are there; a new root has others, which nobody has sent."""
    async with both(tmp_path) as (one, two):
        await one.done("POST", "/vault/init", {"admin_password": PASSWORD})
        await known(two, "/vault", lambda told: told["state"] == "locked")
        await two.done("POST", "/vault/unlock", {"admin_password": PASSWORD})

        await one.done("PUT", "/vault/secrets/s", {"value": "very secret"})
        await known(two, "/vault/secrets", lambda told: told["total"] == 1)
        assert (await two.done("GET", "/vault/secrets/s"))["value"] == "very secret"
        await two.done("PUT", "/vault/secrets/s", {"value": "another one"})

        async def rotated() -> bool:
            return (await one.admin("POST", "/vault/rotate", {"admin_password": PASSWORD})).status == 200

        await eventually(rotated)
        await known(two, "/vault", lambda told: told["state"] == "locked")
        await two.done("POST", "/vault/unlock", {"admin_password": PASSWORD})
        assert (await two.done("GET", "/vault/secrets/s"))["value"] == "another one"
