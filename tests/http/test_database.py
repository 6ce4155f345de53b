"""The whole application on PostgreSQL: what it keeps, two of it on one database; and what it says in an outage."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import postgres
from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tests.patience import PATIENCE
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Secret
from tokenhub_core.store.driver import choose
from tokenhub_core.types import Json


@pytest.fixture(scope="module")
def own() -> Iterator[postgres.Server]:
    """A server that may be ill-treated; the test leaves it running."""
    if reason := postgres.missing():
        pytest.skip(reason)
    server = postgres.Server.made()
    server.start()
    yield server
    server.remove()


def known(it: House, secret: str) -> bool:
    try:
        it.app.keys.look_up(secret, 1.0)
    except TokenHubError:
        return False
    return True


async def made(it: House) -> Json:
    return await it.done("POST", "/apikeys", {"name": "n", "scopes": ["chat"]})


async def test_everything_is_kept_as_in_a_file(postgresql: str, tmp_path: Path) -> None:
    """Calls, keys, budgets, sealed secrets, the audit chain: they are there after a restart, and the vault opens."""
    settings = {"DB_DSN": postgresql}
    password = Secret("correct horse battery")
    async with house(tmp_path, simulate=True, settings=settings) as it:
        told = await it.chat(model="*")
        assert told.status == 200, told
        key = await made(it)
        await it.done("POST", "/budgets", {"owner": "all", "period": "day", "unit": "requests", "limit": 100})
        await it.chat(model="*")
        await it.app.vault.init(password)
        await it.app.vault.put("mine", Secret("sk-mine"))
    async with house(tmp_path, simulate=True, settings=settings) as it:
        assert it.app.warnings == ()
        assert known(it, key["key"])
        assert [one["outcome"] for one in it.app.requests.page().items] == ["ok", "ok"]
        assert (await it.done("GET", "/budgets"))["items"][0]["spent"] == 1
        await it.app.vault.unlock(password)
        held = it.app.vault.get("mine")
        assert held is not None
        assert held.reveal() == "sk-mine"
        assert (await it.done("GET", "/audit/verify"))["ok"]
    marks = sorted(path.suffix for path in (tmp_path / "data").glob("postgresql-*"))
    assert marks == [".audit", ".vault"]


async def test_two_servers_on_one_database_agree(postgresql: str, tmp_path: Path) -> None:
    """What one revokes the other stops letting in, by itself; and both write one audit chain."""
    settings = {"DB_DSN": postgresql}
    async with house(tmp_path / "a", settings=settings) as one:
        (tmp_path / "b" / "data").mkdir(mode=0o700, parents=True)
        (tmp_path / "b" / "data" / "salt").write_bytes((tmp_path / "a" / "data" / "salt").read_bytes())
        async with house(tmp_path / "b", settings=settings) as two:
            key = await made(one)
            async with asyncio.timeout(PATIENCE):
                while not known(two, key["key"]):  # noqa: ASYNC110 - who takes over tells nobody
                    await asyncio.sleep(0.01)
                await two.done("DELETE", f"/apikeys/{key['id']}")
                while known(one, key["key"]):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.gather(*(made(it) for it in (one, two) * 5))
            assert (await one.done("GET", "/audit/verify"))["ok"]


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Hold the write lock of a SQLite database, as another program can."""
    raw: Any = choose().module.connect(str(data / "data" / "tokenhub.sqlite"), isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    with closing(raw):
        yield


@contextmanager
def _paused(server: postgres.Server) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def _killed(server: postgres.Server) -> Iterator[None]:
    server.stop(signal.SIGKILL)
    try:
        yield
    finally:
        server.start()


@pytest.mark.parametrize("what", ["locked", "paused", "killed"])
async def test_no_call_is_made_that_cannot_be_recorded(
    request: pytest.FixtureRequest, tmp_path: Path, what: str
) -> None:
    """Not ready, 503 at once and nobody asked for an answer; when the database is back, all goes on by itself."""
    settings, outage = {"DB_TIMEOUT_SECS": "0.5"}, _locked(tmp_path)
    if what != "locked":
        own: postgres.Server = request.getfixturevalue("own")
        settings["DB_DSN"] = own.dsn()
        outage = _paused(own) if what == "paused" else _killed(own)
    async with FakeProvider() as fake, house(tmp_path, settings=settings) as it:
        await it.provider(fake, "p", "gpt-4o")
        assert (await it.chat()).status == 200
        with outage:
            async with asyncio.timeout(PATIENCE):
                # The first may have been sent before anybody knew; it is answered, with an error.
                assert (await it.chat()).status == 503
                asked = len(fake.requests)
                refused = await asyncio.gather(*(it.chat() for _ in range(20)))
                ready = await it.ask("GET", "/readyz")
        assert {told.status for told in refused} == {503}
        assert refused[0].header("retry-after") == "1"
        assert refused[0].header("x-should-retry") != "false"
        assert b"cannot be recorded" in refused[0].body
        assert len(fake.requests) == asked
        assert ready.status == 503
        async with asyncio.timeout(PATIENCE):
            while (await it.ask("GET", "/readyz")).status != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await it.chat()).status == 200
