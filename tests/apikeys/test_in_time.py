"""Clients' keys as time goes by: uses stored, ends and rotations told of, a keeper that goes on."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.apikeys.process import Process, again
from tests.patience import PATIENCE
from tokenhub_core import apikeys, following
from tokenhub_core.admission.apikeys import DAY
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import KeyBook
from tokenhub_core.store import apikeys as rows


async def test_when_a_key_was_used_is_gathered_and_then_stored(one: Process, two: Process) -> None:
    """A look-up writes nothing; what is shown here knows it at once, and what is stored is the latest."""
    key, secret = await one.made()
    idle, _ = await one.made()
    assert (await one.keys.one(key)).last_used_at == 0
    before = one.writer.counts
    for one.clock.at in (1.0, 3.0):
        one.keys.look_up(secret, one.clock.now())
    assert one.writer.counts == before
    used = round(one.clock.now() * 1e6)
    assert (await one.keys.one(key)).last_used_at == used
    assert (await two.keys.one(key)).last_used_at == 0
    await one.keys.save()
    await one.keys.save()
    assert one.writer.counts.committed == before.committed + 1
    assert (await two.keys.one(key)).last_used_at == used
    assert [kept.last_used_at for kept in (await two.keys.page(limit=9)).items if kept.key.id == idle] == [0]
    two.keys._used[key] = one.clock.now() - 2
    assert (await two.keys.one(key)).last_used_at == used


async def test_a_key_that_is_known_by_its_id_is_used_too(one: Process) -> None:
    """Its secret and its id lead to one key, and either is a use of it."""
    book: KeyBook = one.keys
    key, secret = await one.made()
    shown = book.look_up(secret, one.clock.now())
    one.clock.at = 7.0
    assert book.named(key, one.clock.now()) == shown
    assert (await one.keys.one(key)).last_used_at == round(one.clock.now() * 1e6)


async def test_a_refused_secret_counts_as_no_use(one: Process) -> None:
    """Whoever holds a dead key does not make it look alive, and no more does its id."""
    key, secret = await one.made(enabled=False)
    assert one.cause(secret) == "key_disabled"
    with pytest.raises(TokenHubError, match=r"^this API key is disabled$"):
        one.keys.named(key, one.clock.now())
    await one.keys.save()
    assert (await one.keys.one(key)).last_used_at == 0


async def test_the_last_uses_are_stored_at_the_end_or_are_logged(
    one: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """A store that is gone keeps nobody from ending."""
    key, secret = await one.made()
    one.keys.look_up(secret, one.clock.now())
    await one.keys.close()
    with one.database.reading() as connection:
        found = rows.find(connection, key)
    assert found is not None
    assert found.last_used_at == round(one.clock.now() * 1e6)
    one.clock.at = 5.0
    one.keys.look_up(secret, one.clock.now())
    await one.writer.close()
    await one.keys.close()
    assert "could not be saved" in caplog.text
    assert one.keys._used == {key: one.clock.now()}


async def test_a_use_in_the_meantime_is_not_taken_back_by_a_saving_that_failed(one: Process) -> None:
    """The later time stays."""
    key, secret = await one.made()
    one.keys.look_up(secret, one.clock.now())
    await one.writer.close()
    saving = asyncio.ensure_future(one.keys.save())
    await asyncio.sleep(0)
    one.clock.at = 9.0
    with pytest.raises(TokenHubError):
        await saving
    one.keys.look_up(secret, one.clock.now())
    assert one.keys._used == {key: one.clock.now()}


async def test_a_key_that_is_due_is_told_of_once(one: Process, two: Process, path: Path) -> None:
    """By an event, an entry and the log: in one process, and not again after a restart. It goes on working."""
    key, secret = await one.made(rotation_days=1)
    await two.keys.refresh()
    await one.keys.warn()
    assert one.entries("apikey.warn") == []
    one.clock.at = float(DAY)
    await one.keys.warn()
    await one.keys.warn()
    await two.keys.warn()
    data = {
        "key_id": key,
        "name": "n",
        "prefix": secret[:17],
        "rotate_at": one.clock.now(),
        "expires_at": None,
    }
    (entry,) = one.entries("apikey.warn")
    assert (entry["subject"], entry["reason"], entry["after"], entry["actor"]) == (
        key,
        "rotation_due",
        data,
        "system",
    )
    assert one.events() == [("apikey_rotation_due", {"timestamp": one.clock.now(), **data})]
    assert two.events() == []
    started, _ = await again(one, path)
    await started.keys.warn()
    assert len(one.entries("apikey.warn")) == 1
    assert (one.cause(secret), started.cause(secret)) == ("", "")
    await started.close()
    await one.keys.rotate(key)
    await one.keys.warn()
    one.clock.at = 2.0 * DAY
    await one.keys.warn()
    assert len(one.entries("apikey.warn")) == 2


async def test_a_key_that_is_about_to_end_is_told_of(one: Process, caplog: pytest.LogCaptureFixture) -> None:
    """Both warnings, where both are due; each is a line of the log."""
    key, _ = await one.made(rotation_days=1, expires_in="5d")
    one.clock.at = 4.5 * DAY
    with caplog.at_level(logging.WARNING):
        await one.keys.warn()
    assert [event for event, _ in one.events()] == ["apikey_rotation_due", "apikey_expiring"]
    assert [entry["reason"] for entry in one.entries("apikey.warn")] == ["rotation_due", "expiring"]
    assert [record.message for record in caplog.records if "API key" in record.message] == [
        f"API key {key} (n): rotation_due",
        f"API key {key} (n): expiring",
    ]


async def test_the_keeper_does_all_three_in_their_turns(
    one: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look each turn, a saving every tenth, warnings with the first and every 120th; the time between is `POLL`."""
    done: list[str] = []
    enough = asyncio.Event()
    slept: list[float] = []

    def noting(name: str) -> Any:
        async def note() -> None:
            done.append(name)

        return note

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 242:
            enough.set()
            await asyncio.Event().wait()

    for name in ("refresh", "save", "warn"):
        monkeypatch.setattr(one.keys, name, noting(name))
    monkeypatch.setattr("tokenhub_core.apikeys.asyncio.sleep", sleep)
    keeper = asyncio.create_task(one.keys.keep())
    async with asyncio.timeout(PATIENCE):
        await enough.wait()
    keeper.cancel()
    assert set(slept) == {following.POLL}
    assert [done.count(name) for name in ("refresh", "save", "warn")] == [241, 24, 3]
    assert done[:2] == ["refresh", "warn"]
    assert done.index("save") == 11
    assert apikeys.SAVE_TURNS * following.POLL == 5
    assert apikeys.WARN_TURNS * following.POLL == 60


async def test_while_the_store_fails_known_keys_go_on_and_it_is_said_once(
    one: Process, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for each time that it begins."""
    _, secret = await one.made()
    outcomes = iter([False, False, True, False, True])
    ended = asyncio.Event()

    async def refresh() -> None:
        well = next(outcomes, None)
        if well is None:
            ended.set()
            await asyncio.Event().wait()
        if not well:
            raise TokenHubError(apikeys._unknown("x").fault)

    monkeypatch.setattr(one.keys, "refresh", refresh)
    keeper = asyncio.create_task(one.keys.keep(0.0))
    async with asyncio.timeout(PATIENCE):
        await ended.wait()
    keeper.cancel()
    assert one.cause(secret) == ""
    assert [record.message for record in caplog.records].count(
        "API keys are not followed for now: there is no API key 'x'"
    ) == 2


async def test_pages_say_where_the_next_one_begins(one: Process) -> None:
    """None at the end, also where the last page is full."""
    made = []
    for one.clock.at in (1.0, 2.0, 3.0, 4.0):
        made.append((await one.made())[0])
    first = await one.keys.page(limit=2)
    assert ([kept.key.id for kept in first.items], first.total) == (made[:1:-1], 4)
    assert first.next == (first.items[-1].key.created_at, made[2])
    second = await one.keys.page(limit=2, before=first.next)
    assert ([kept.key.id for kept in second.items], second.next) == (made[1::-1], None)
    assert (await one.keys.page(limit=2, before=(0, ""))).items == ()
