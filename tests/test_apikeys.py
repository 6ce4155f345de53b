"""Clients' keys at work: durable first, then in force; at once here, and soon in another process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection

from tests.admission.test_apikeys import body
from tests.audit.conftest import Hands
from tests.patience import PATIENCE
from tokenhub_core import apikeys, following
from tokenhub_core.admission.apikeys import DAY, Kept
from tokenhub_core.apikeys import ApiKeys
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.ports import KeyBook, Secret
from tokenhub_core.store import apikeys as rows
from tokenhub_core.store.audit import AuditLog, shown
from tokenhub_core.store.database import open_database
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.types import Json


class Process:
    """A database opened, and everything that a process has on it."""

    def __init__(self, path: Path, clock: Hands, number: int, salt: bytes = b"salt") -> None:
        self.clock = clock
        self.database = open_database(str(path))
        self.writer = Writer(self.database)
        self.writer.start()
        self.bus = Bus()
        self.audit = Audit(self.database, self.writer, clock=clock)
        thrown = count(number, 2)  # no two processes throw the same
        self.keys = ApiKeys(
            self.audit,
            self.writer,
            self.bus,
            clock,
            salt=salt,
            entropy=lambda size: blake2b(next(thrown).to_bytes(4), digest_size=size).digest(),
        )

    async def close(self) -> None:
        await self.writer.close()
        self.database.close()

    async def made(self, **fields: Any) -> tuple[str, str]:
        """Make a key and return its id and its secret."""
        kept, secret = await self.keys.create(body(**{"name": "n", **fields}))
        return kept.key.id, secret.reveal()

    def cause(self, secret: str) -> str:
        """Return why a secret is refused, empty where it is not."""
        try:
            self.keys.look_up(secret, self.clock.now())
        except TokenHubError as error:
            return error.fault.cause
        return ""

    def entries(self, action: str = "apikey") -> list[Json]:
        found = [shown(entry) for entry in AuditLog(self.database).entries()]
        return [one for one in found if one["action"].startswith(action)]

    def events(self) -> list[tuple[str, Any]]:
        return [(event.type, event.told) for event in self.bus._recent]


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.sqlite"


@pytest_asyncio.fixture
async def one(path: Path, clock: Hands) -> AsyncIterator[Process]:
    process = Process(path, clock, 1)
    assert await process.keys.load() == ()
    yield process
    await process.close()


@pytest_asyncio.fixture
async def two(path: Path, clock: Hands, one: Process) -> AsyncIterator[Process]:
    process = Process(path, clock, 2)
    assert await process.keys.load() == ()
    yield process
    await process.close()


async def again(process: Process, path: Path, salt: bytes = b"salt") -> tuple[Process, tuple[str, ...]]:
    """Return what a start after this finds, and what the operator is told."""
    started = Process(path, process.clock, 1, salt)
    return started, await started.keys.load()


# --- in this process -----------------------------------------------------------------------------------------


async def test_a_key_is_known_when_it_was_made_and_after_a_restart(one: Process, path: Path) -> None:
    """Its secret is a secret, with an id that has nothing of it; the book is the port that doors ask."""
    book: KeyBook = one.keys
    kept, secret = await one.keys.create(body(name="nightly", models=["a"]))
    assert isinstance(secret, Secret)
    assert book.look_up(secret.reveal(), 0.0) == kept.key
    assert kept.key.id not in secret.reveal()
    assert secret.reveal()[9:] not in kept.key.id
    assert kept.key.created_at == kept.updated_at == round(one.clock.now() * 1e6)
    started, warnings = await again(one, path)
    assert (started.keys.look_up(secret.reveal(), 0.0), warnings) == (kept.key, ())
    await started.close()


async def test_two_keys_have_nothing_in_common(one: Process) -> None:
    """Neither secret nor id."""
    (first, secret), (second, another) = await one.made(), await one.made()
    assert first != second
    assert secret != another
    assert one.keys.look_up(another, 0.0).id == second


async def test_what_is_changed_holds_when_the_change_returns(one: Process) -> None:
    """Disabled, enabled, revoked: the very next call sees it, with no time between."""
    key, secret = await one.made()
    await one.keys.change(key, body(enabled=False))
    assert one.cause(secret) == "key_disabled"
    changed = await one.keys.change(key, body(enabled=True, scopes=["embeddings"]))
    assert one.keys.look_up(secret, 0.0) == changed.key
    await one.keys.revoke(key)
    assert one.cause(secret) == "key_unknown"
    with pytest.raises(TokenHubError) as gone:
        await one.keys.one(key)
    assert (gone.value.fault.kind, gone.value.fault.param) == (Kind.NOT_FOUND, "id")


async def test_a_rotated_key_lets_both_in_and_then_one(one: Process, path: Path) -> None:
    """For a day where nothing else is said, after a restart too; with no overlap at once."""
    key, old = await one.made()
    kept, secret = await one.keys.rotate(key)
    new = secret.reveal()
    assert new != old
    assert one.keys.look_up(old, one.clock.now()) == one.keys.look_up(new, one.clock.now()) == kept.key
    started, _ = await again(one, path)
    one.clock.at = DAY - 0.001
    assert (one.cause(old), started.cause(old)) == ("", "")
    one.clock.at = DAY
    assert (one.cause(old), started.cause(old), one.cause(new)) == ("key_expired", "key_expired", "")
    await started.close()
    _, last = await one.keys.rotate(key, overlap=0)
    assert (one.cause(new), one.cause(last.reveal())) == ("key_expired", "")


@pytest.mark.parametrize("how", ["change", "rotate", "revoke"])
async def test_a_key_that_is_not_there_cannot_be_changed(one: Process, how: str) -> None:
    """Nothing is stored and nothing is told."""
    work: dict[str, Callable[[], Awaitable[object]]] = {
        "change": lambda: one.keys.change("key_x", body(name="y")),
        "rotate": lambda: one.keys.rotate("key_x"),
        "revoke": lambda: one.keys.revoke("key_x"),
    }
    with pytest.raises(TokenHubError, match="there is no API key 'key_x'"):
        await work[how]()
    assert one.entries() == []


async def test_what_cannot_be_stored_does_not_hold(one: Process) -> None:
    """A revocation that is not durable is told as a failure, and the key goes on until it is one."""
    key, secret = await one.made()
    await one.writer.close()
    for work in (
        one.keys.revoke(key),
        one.keys.change(key, body(enabled=False)),
        one.keys.create(body(name="x")),
    ):
        with pytest.raises(TokenHubError):
            await work
    assert one.cause(secret) == ""


async def test_a_change_is_finished_when_whoever_asked_leaves(
    one: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is durable holds: a client that hangs up does not leave a revoked key at work."""
    key, secret = await one.made()
    committed, go_on = asyncio.Event(), asyncio.Event()
    commit = one.audit.commit_telling

    async def slowly(work: Any) -> Any:
        result = await commit(work)
        committed.set()
        await go_on.wait()
        return result

    monkeypatch.setattr(one.audit, "commit_telling", slowly)
    asked = asyncio.create_task(one.keys.revoke(key))
    async with asyncio.timeout(PATIENCE):
        await committed.wait()
        asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked
        (change,) = [task for task in asyncio.all_tasks() if task.get_name() == "api key change"]
        go_on.set()
        await change
    assert one.cause(secret) == "key_unknown"


async def test_changes_at_once_undo_nothing_of_each_other(one: Process) -> None:
    """Each is made on what stands when its turn has come, not on what stood when it was asked for."""
    key, secret = await one.made()
    await asyncio.gather(
        one.keys.change(key, body(tags=["a"])),
        one.keys.rotate(key),
        one.keys.change(key, body(enabled=False)),
        one.keys.change(key, body(project="p")),
        *(one.made() for _ in range(5)),
    )
    found = (await one.keys.one(key)).key
    assert (found.tags, found.enabled, found.project) == (("a",), False, "p")
    assert one.keys._book.kept[key].key == found
    assert one.cause(secret) == "key_disabled"


async def test_a_change_that_changes_nothing_is_no_change(one: Process, two: Process) -> None:
    """No entry, no new number; it may still find what another process did."""
    key, secret = await one.made()
    before = one.keys._generation
    await one.keys.change(key, body(name="n"))
    assert [entry["action"] for entry in one.entries()] == ["apikey.create"]
    assert one.keys._generation == before
    await two.keys.refresh()
    await two.keys.revoke(key)
    other, _ = await two.made()
    await one.keys.change(other, body(name="n"))
    await one.keys.refresh()
    assert one.cause(secret) == "key_unknown"


# --- audit ---------------------------------------------------------------------------------------------------


async def test_each_change_is_told_with_before_and_after(one: Process) -> None:
    """What is different, and never a secret or a digest."""
    key, secret = await one.made(tags=["a"])
    await one.keys.change(key, body(tags=["b"], enabled=False))
    kept, new = await one.keys.rotate(key, overlap=60)
    await one.keys.revoke(key)
    made, changed, rotated, revoked = one.entries()
    assert [entry["action"] for entry in (made, changed, rotated, revoked)] == [
        *("apikey.create", "apikey.update", "apikey.rotate", "apikey.revoke")
    ]
    assert {entry["subject"] for entry in one.entries()} == {key}
    assert (made["before"], made["after"]["tags"], made["after"]["name"]) == (None, ["a"], "n")
    assert (changed["before"], changed["after"]) == (
        {"tags": ["a"], "enabled": True},
        {"tags": ["b"], "enabled": False},
    )
    assert rotated["before"] == {"prefix": secret[:17], "previous": []}
    ends = one.clock.now() + 60
    assert rotated["after"] == {
        "prefix": new.reveal()[:17],
        "previous": [{"prefix": secret[:17], "expires_at": ends}],
    }
    assert (revoked["before"]["prefix"], revoked["after"]) == (new.reveal()[:17], None)
    told = repr(one.entries())
    for hidden in (secret[17:], new.reveal()[17:], *(found.digest.hex() for found in kept.secrets)):
        assert hidden not in told


async def test_a_change_and_its_entry_are_one_transaction(
    one: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be told is not done."""
    key, secret = await one.made()

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no entry")

    monkeypatch.setattr(apikeys, "Draft", fails)
    for work in (
        one.keys.revoke(key),
        one.keys.change(key, body(enabled=False)),
        one.keys.create(body(name="x")),
    ):
        with pytest.raises(RuntimeError):
            await work
    assert one.cause(secret) == ""
    with one.database.reading() as connection:
        assert rows.count(connection) == 1


# --- several processes ---------------------------------------------------------------------------------------


async def test_a_key_that_another_process_revokes_ends_here_too(one: Process, two: Process) -> None:
    """So do a disabled one, a rotated one's old secret; a new key of the other's is let in."""
    (key, secret), (off, disabled), (turned, old) = [await one.made() for _ in range(3)]
    assert two.cause(secret) == "key_unknown"
    await two.keys.refresh()
    assert (two.cause(secret), two.cause(disabled), two.cause(old)) == ("", "", "")
    await one.keys.revoke(key)
    await one.keys.change(off, body(enabled=False))
    _, new = await one.keys.rotate(turned, overlap=0)
    assert two.cause(secret) == ""
    await two.keys.refresh()
    assert (two.cause(secret), two.cause(disabled), two.cause(old)) == (
        "key_unknown",
        "key_disabled",
        "key_expired",
    )
    assert two.cause(new.reveal()) == ""


async def test_the_keeper_takes_over_what_another_process_did(
    one: Process, two: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By itself, in turns that are shorter than a second."""
    assert following.POLL < 1
    key, secret = await one.made()
    filled: asyncio.Queue[str] = asyncio.Queue()
    follow = two.keys._book.follow

    def noting(changed: list[Kept], ids: frozenset[str]) -> None:
        follow(changed, ids)
        filled.put_nowait(two.cause(secret))

    monkeypatch.setattr(two.keys._book, "follow", noting)
    keeper = asyncio.create_task(two.keys.keep(0.001))
    async with asyncio.timeout(PATIENCE):
        assert await filled.get() == ""
        await one.keys.revoke(key)
        assert await filled.get() == "key_unknown"
    keeper.cancel()


async def test_a_change_of_ones_own_does_not_hide_anothers(one: Process, two: Process) -> None:
    """Where somebody was in between, the next look finds it."""
    key, secret = await one.made()
    await two.keys.refresh()
    await one.keys.revoke(key)
    mine, own = await two.made()
    await two.keys.refresh()
    assert two.cause(secret) == "key_unknown"
    assert two.keys.look_up(own, 0.0).id == mine
    await one.keys.refresh()
    assert one.cause(own) == ""


async def test_two_processes_change_one_key_and_both_changes_stay(one: Process, two: Process) -> None:
    """The one that has read the older row writes no old value over the newer."""
    key, secret = await one.made()
    await two.keys.refresh()
    await one.keys.change(key, body(enabled=False))
    await two.keys.change(key, body(tags=["t"]))
    assert two.cause(secret) == "key_disabled"
    found = (await one.keys.one(key)).key
    assert (found.enabled, found.tags) == (False, ("t",))


async def test_nothing_is_read_again_where_nothing_has_changed(
    one: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a look, nor after a change of one's own; that keys are used is no change."""
    reads: list[Connection] = []
    changes = rows.changes

    def noting(connection: Connection, *, since: int) -> Any:
        reads.append(connection)
        return changes(connection, since=since)

    monkeypatch.setattr(rows, "changes", noting)
    key, secret = await one.made()
    await one.keys.change(key, body(tags=["t"]))
    one.keys.look_up(secret, one.clock.now())
    await one.keys.save()
    await one.keys.rotate(key)
    await one.keys.revoke(key)
    await one.keys.refresh()
    assert reads == []


async def test_an_older_database_put_back_is_read_too(one: Process) -> None:
    """The number of changes is another one, not only a higher one."""
    _, secret = await one.made()
    with one.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM api_keys")
        connection.exec_driver_sql("UPDATE settings SET value = '0' WHERE key = 'api_keys.generation'")
    await one.keys.refresh()
    assert one.cause(secret) == "key_unknown"


async def test_only_what_another_process_changed_is_read(
    one: Process, two: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand keys are not read again for one."""
    (key, _), _, (gone, dead) = [await one.made() for _ in range(3)]
    await two.keys.refresh()
    await one.keys.change(key, body(tags=["t"]))
    await one.keys.revoke(gone)
    changed: list[str] = []
    follow = two.keys._book.follow

    def noting(several: list[Kept], ids: frozenset[str]) -> None:
        changed.extend(kept.key.id for kept in several)
        follow(several, ids)

    monkeypatch.setattr(two.keys._book, "follow", noting)
    await two.keys.refresh()
    assert changed == [key]
    assert two.keys._book.kept == one.keys._book.kept
    assert two.cause(dead) == "key_unknown"


async def test_a_restart_with_another_salt_says_so(one: Process, path: Path) -> None:
    """No key is known then; the ones that are rotated are good again."""
    (first, secret), _ = await one.made(), await one.made()
    started, warnings = await again(one, path, b"other")
    assert warnings == ("2 API keys were made with another salt file: put that back, or rotate them",)
    assert started.cause(secret) == "key_unknown"
    _, new = await started.keys.rotate(first)
    assert started.cause(new.reveal()) == ""
    await started.close()
    started, warnings = await again(one, path, b"other")
    assert warnings == ("1 API key was made with another salt file: put that back, or rotate them",)
    await started.close()


# --- in time -------------------------------------------------------------------------------------------------


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


async def test_a_refused_secret_counts_as_no_use(one: Process) -> None:
    """Whoever holds a dead key does not make it look alive."""
    key, secret = await one.made(enabled=False)
    assert one.cause(secret) == "key_disabled"
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
