"""Clients' keys at work: durable first, then in force; at once here, and soon in another process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from tests.admission.test_apikeys import body
from tests.apikeys.process import Process, again
from tests.patience import PATIENCE
from tokenhub_core import apikeys, following
from tokenhub_core.admission.apikeys import DAY, Kept
from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.ports import KeyBook, Secret
from tokenhub_core.store import apikeys as rows

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
