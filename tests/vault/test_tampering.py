"""What was done to the vault's rows behind its back, and what it finds when it opens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, update

from tests.vault.conftest import Start
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Secret
from tokenhub_core.store import vault as store
from tokenhub_core.store.audit import AuditLog
from tokenhub_core.store.database import Database
from tokenhub_core.store.schema import VAULT_STATE
from tokenhub_core.vault.manifest import Sealed, VaultRows
from tokenhub_core.vault.sealing import manifest_mac
from tokenhub_core.vault.vault import State, Vault

PASSWORD = Secret("correct horse battery")
NAME = "provider:openai:api_key"

OLDER = "an older copy of it was put back"
GONE = "it was removed"
OTHER = "the vault's entry {!r} is not what was stored under that name"
BESIDE = "the file beside the database that knows how far the vault had come"

type Edit = Callable[[Connection, VaultRows, VaultRows], None]
"""Changes rows, given what they were before the last change, and what they are."""


def rows(database: Database) -> VaultRows:
    with database.reading() as connection:
        return store.load(connection)


def anchor(database: Database) -> Path:
    return Path(f"{database.where}.vault")


def put_back(connection: Connection, old: VaultRows) -> None:
    """Put a whole older vault in place of this one."""
    assert old.header is not None
    assert old.state is not None
    store.reseal(connection, old.header, {}, now=0.0)
    for name, entry in old.entries.items():
        store.put_entry(connection, name, entry, now=0.0)
    store.put_state(connection, old.state)


def swapped(connection: Connection, _: VaultRows, now: VaultRows) -> None:
    store.put_entry(connection, NAME, now.entries["b"], now=0.0)
    store.put_entry(connection, "b", now.entries[NAME], now=0.0)


def swapped_bytes(connection: Connection, _: VaultRows, now: VaultRows) -> None:
    one, other = now.entries[NAME], now.entries["b"]
    store.put_entry(connection, NAME, Sealed(other.sealed, one.version), now=0.0)
    store.put_entry(connection, "b", Sealed(one.sealed, other.version), now=0.0)


def moved(connection: Connection, _: VaultRows, now: VaultRows) -> None:
    store.put_entry(connection, "b", now.entries[NAME], now=0.0)
    store.delete_entry(connection, NAME)


def older(connection: Connection, old: VaultRows, _: VaultRows) -> None:
    store.put_entry(connection, NAME, old.entries[NAME], now=0.0)


def older_as_newer(connection: Connection, old: VaultRows, now: VaultRows) -> None:
    entry = Sealed(old.entries[NAME].sealed, now.entries[NAME].version)
    store.put_entry(connection, NAME, entry, now=0.0)


def flipped(connection: Connection, _: VaultRows, now: VaultRows) -> None:
    entry = now.entries[NAME]
    changed = entry.sealed[:-1] + bytes([entry.sealed[-1] ^ 1])
    store.put_entry(connection, NAME, Sealed(changed, entry.version), now=0.0)


def cut(connection: Connection, _: VaultRows, now: VaultRows) -> None:
    store.put_entry(connection, NAME, Sealed(b"", now.entries[NAME].version), now=0.0)


def removed(connection: Connection, _: VaultRows, __: VaultRows) -> None:
    store.delete_entry(connection, NAME)


def added(connection: Connection, _: VaultRows, now: VaultRows) -> None:
    store.put_entry(connection, "c", now.entries["b"], now=0.0)


@pytest.mark.parametrize(
    ("edit", "bad"),
    [
        (swapped, {NAME: OLDER, "b": OLDER}),
        (swapped_bytes, {NAME: OTHER, "b": OTHER}),
        (moved, {NAME: GONE, "b": OLDER}),
        (older, {NAME: OLDER}),
        (older_as_newer, {NAME: OTHER}),
        (flipped, {NAME: OTHER}),
        (cut, {NAME: OTHER}),
        (removed, {NAME: GONE}),
        (added, {"c": "the vault did not put it there"}),
    ],
)
async def test_an_entry_that_is_not_what_was_stored_is_found_and_refused(
    vault: Vault, start: Start, database: Database, edit: Edit, bad: dict[str, str]
) -> None:
    """The vault opens, names it, writes it down, and gives nothing out for it; the others serve."""
    await vault.put("b", Secret("sk-b"))
    await vault.put("whole", Secret("sk-whole"))
    old = rows(database)
    await vault.put(NAME, Secret("sk-newer"))
    with database.writing() as connection:
        edit(connection, old, rows(database))
    before, later = rows(database), await start()
    await later.unlock(PASSWORD)

    assert later.bad == {name: why.format(name) for name, why in bad.items()}
    for name in bad:
        assert not later.has(name)
        with pytest.raises(TokenHubError) as caught:
            later.get(name)
        assert (caught.value.fault.http_status, caught.value.fault.cause) == (503, "vault_tampered")
        assert "sk-" not in str(caught.value)
    whole = later.get("whole")
    assert whole is not None
    assert whole.reveal() == "sk-whole"
    assert rows(database) == before
    noted = [entry for entry in AuditLog(database).entries() if entry.action == "vault.tampered"]
    assert {entry.subject for entry in noted} == bad.keys()
    with pytest.raises(TokenHubError, match="cannot be trusted"):
        await later.rotate(PASSWORD)


async def test_an_entry_that_is_read_before_anybody_judged_it_is_refused_all_the_same(
    vault: Vault, database: Database
) -> None:
    """The rows are there a moment before what is wrong with them is known."""
    with database.writing() as connection:
        flipped(connection, rows(database), rows(database))
    await vault.load()
    assert vault.bad == {}
    with pytest.raises(TokenHubError) as caught:
        vault.get(NAME)
    fault = caught.value.fault
    assert (fault.http_status, fault.cause, fault.message) == (503, "vault_tampered", OTHER.format(NAME))


async def test_what_is_known_of_the_entries_is_signed_with_a_key_that_nobody_else_has(
    vault: Vault, database: Database
) -> None:
    """HMAC with the root's own key for it: the vault's id, which stands in the header, makes no such one."""
    keys, state = vault._ring.keys, rows(database).state
    assert keys is not None
    assert state is not None
    known: dict[str, Any] = {"counter": state.counter, "seals": state.seals, "manifest": state.manifest}
    assert state.mac == manifest_mac(keys.manifest, keys.vault_id, **known)
    assert state.mac != manifest_mac(keys.vault_id, bytes(keys.manifest), **known)


async def test_a_bad_entry_is_healed_by_a_new_value_or_by_removing_it(
    vault: Vault, start: Start, database: Database
) -> None:
    """Whatever was done to it; the next start finds nothing."""
    await vault.put("b", Secret("sk-b"))
    await vault.put("c", Secret("sk-c"))
    with database.writing() as connection:
        for name in (NAME, "b", "c"):
            store.delete_entry(connection, name)
        store.put_entry(connection, "b", Sealed(b"x", 1), now=0.0)
    later = await start()
    await later.unlock(PASSWORD)
    await later.put(NAME, Secret("sk-again"))
    assert await later.delete("b")
    assert not await later.delete("c")
    assert not await later.delete("d")
    assert later.bad == {}
    healed = await start()
    await healed.unlock(PASSWORD)
    assert (healed.bad, healed.names()) == ({}, [NAME])


async def test_what_was_removed_while_locked_is_no_tampering(
    vault: Vault, start: Start, database: Database
) -> None:
    """The vault remembers which names went, and forgets it when it opens."""
    await vault.put("b", Secret("sk-b"))
    vault.lock()
    assert await vault.delete(NAME)
    state = rows(database).state
    assert state is not None
    assert (state.removed, sorted(state.manifest)) == ((NAME,), ["b", NAME])
    later = await start()
    await later.unlock(PASSWORD)
    state = rows(database).state
    assert state is not None
    assert (later.bad, later.names(), dict(state.manifest), state.removed) == ({}, ["b"], {"b": 2}, ())


def changed_state(**values: Any) -> Callable[[Connection, VaultRows, VaultRows], None]:
    def change(connection: Connection, _: VaultRows, __: VaultRows) -> None:
        connection.execute(update(VAULT_STATE).values(**values))

    return change


def no_state(connection: Connection, _: VaultRows, __: VaultRows) -> None:
    connection.execute(VAULT_STATE.delete())


def whole_table(connection: Connection, old: VaultRows, _: VaultRows) -> None:
    put_back(connection, old)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (no_state, "what the vault knew of its entries is gone"),
        (changed_state(counter=9), "what the vault knew of its entries was changed"),
        (changed_state(seals=0), "what the vault knew of its entries was changed"),
        (changed_state(manifest="{}"), "what the vault knew of its entries was changed"),
        (changed_state(mac=bytes(32)), "what the vault knew of its entries was changed"),
        (whole_table, "an older copy of the vault was put back"),
    ],
    ids=["none", "counter", "seals", "manifest", "mac", "rollback"],
)
async def test_a_vault_that_cannot_be_trusted_stays_shut_until_it_is_accepted(
    vault: Vault, start: Start, database: Database, edit: Edit, words: str
) -> None:
    """The right password does not open it; who takes what is left gets it sealed under a new root."""
    old = rows(database)
    await vault.put("later", Secret("sk-later"))
    with database.writing() as connection:
        edit(connection, old, rows(database))
    later = await start()
    with pytest.raises(TokenHubError) as caught:
        await later.unlock(PASSWORD)
    assert (caught.value.fault.http_status, caught.value.fault.cause) == (503, "vault_tampered")
    assert caught.value.fault.message == f"the vault cannot be trusted: {words}"
    assert later.state is State.LOCKED
    assert [e.reason for e in AuditLog(database).entries() if e.action == "vault.tampered"] == [words]

    await later.unlock(PASSWORD, accept=True)
    secret = later.get(NAME)
    assert secret is not None
    assert secret.reveal() == "sk-the-key"
    again = await start()
    await again.unlock(PASSWORD)
    assert (again.bad, again.names()) == ({}, later.names())
    state = rows(database).state
    assert state is not None
    assert state.counter > 2


async def test_what_cannot_be_opened_is_gone_after_accepting(
    vault: Vault, start: Start, database: Database
) -> None:
    """The operator said so; what can be opened stays."""
    await vault.put("b", Secret("sk-b"))
    with database.writing() as connection:
        store.put_entry(connection, "b", Sealed(b"x" * 40, 2), now=0.0)
        no_state(connection, rows(database), rows(database))
    later = await start()
    await later.unlock(PASSWORD, accept=True)
    assert later.names() == [NAME]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, f"{BESIDE} is gone"),
        (b"", f"{BESIDE} is of another vault"),
        (b"\xff", f"{BESIDE} is of another vault"),
        (b"00:1", f"{BESIDE} is of another vault"),
        (b"{id}:x", f"{BESIDE} is of another vault"),
        (b"{id}:\xc2\xb2", f"{BESIDE} is of another vault"),
        (b"{id}:" + b"9" * 5000, f"{BESIDE} is of another vault"),
        (b"{id}:999", "an older copy of the vault was put back"),
    ],
)
async def test_an_anchor_that_does_not_go_with_the_database_is_told(
    vault: Vault, start: Start, database: Database, text: bytes | None, words: str
) -> None:
    """Gone, unreadable, of another vault, or ahead of the database; who accepts it goes on behind what it knew."""
    assert vault._ring.keys is not None
    anchor(database).unlink()
    if text is not None:
        anchor(database).write_bytes(text.replace(b"{id}", vault._ring.keys.vault_id.hex().encode()))
    later = await start()
    with pytest.raises(TokenHubError) as caught:
        await later.unlock(PASSWORD)
    assert caught.value.fault.message == f"the vault cannot be trusted: {words}"
    await later.unlock(PASSWORD, accept=True)
    state = rows(database).state
    assert state is not None
    assert state.counter == (1000 if "older" in words else 2)
    assert anchor(database).read_text().endswith(f":{state.counter}\n")


async def test_the_database_may_be_ahead_of_its_anchor(
    vault: Vault, start: Start, database: Database
) -> None:
    """A crash between the two leaves that, and it is no harm."""
    old = anchor(database).read_bytes()
    await vault.put("b", Secret("sk-b"))
    assert anchor(database).read_bytes() == old.replace(b":1", b":2")
    anchor(database).write_bytes(old)
    later = await start()
    await later.unlock(PASSWORD)
    assert later.names() == ["b", NAME]


async def test_a_look_at_the_rows_brings_the_file_beside_them_up_to_date(
    vault: Vault, start: Start, database: Database
) -> None:
    """Another process may have one of its own: what this one has seen, it knows after a crash."""
    old = anchor(database).read_bytes()
    other = await start()
    await other.unlock(PASSWORD)
    await other.put("b", Secret("sk-b"))
    anchor(database).write_bytes(old)
    await vault.refresh()
    assert anchor(database).read_bytes() == old.replace(b":1", b":2")


async def test_the_whole_place_put_back_is_not_found(
    vault: Vault, start: Start, database: Database, tmp_path: Path
) -> None:
    """Database and anchor together are as valid as they were: what sees that has to be elsewhere."""
    shutil.copy(anchor(database), tmp_path / "kept")
    old = rows(database)
    await vault.put(NAME, Secret("sk-newer"))
    with database.writing() as connection:
        put_back(connection, old)
    shutil.copy(tmp_path / "kept", anchor(database))
    later = await start()
    await later.unlock(PASSWORD)
    assert later.bad == {}


async def test_an_anchor_that_cannot_be_written_stops_nothing(
    start: Start, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The vault works without it and says so; as soon as it can be written, it counts."""
    anchor(database).mkdir()
    vault = await start()
    await vault.init(PASSWORD)
    await vault.put(NAME, Secret("sk"))
    state = rows(database).state
    assert state is not None
    assert not state.anchored
    assert "could not be written" in caplog.text
    anchor(database).rmdir()
    await vault.put(NAME, Secret("sk-2"))
    state = rows(database).state
    assert state is not None
    assert state.anchored
    later = await start()
    await later.unlock(PASSWORD)
    assert later.open


async def test_what_another_process_did_is_not_written_over(
    vault: Vault, start: Start, database: Database
) -> None:
    """Whoever comes second is told; locking and unlocking shows the vault as it is."""
    other = await start()
    await other.unlock(PASSWORD)
    await other.put("theirs", Secret("sk-theirs"))
    for change in (vault.put("ours", Secret("sk-ours")), vault.delete(NAME)):
        with pytest.raises(TokenHubError, match="another process") as caught:
            await change
        assert caught.value.fault.cause == "vault_changed"
    assert rows(database).entries.keys() == {NAME, "theirs"}
    vault.lock()
    await vault.unlock(PASSWORD)
    await vault.put("ours", Secret("sk-ours"))
    assert vault.names() == ["ours", NAME, "theirs"]


async def test_what_another_process_put_is_not_lost_when_the_key_is_replaced(
    vault: Vault, start: Start, database: Database
) -> None:
    """The rows are read again before they are sealed anew; and the file beside them knows of it at once."""
    other = await start()
    await other.unlock(PASSWORD)
    await other.put("theirs", Secret("sk-theirs"))
    await vault.rotate(PASSWORD)
    secret, state = vault.get("theirs"), rows(database).state
    assert secret is not None
    assert secret.reveal() == "sk-theirs"
    assert state is not None
    assert anchor(database).read_text().strip().endswith(f":{state.counter}")


async def test_a_password_that_another_process_changed_is_told(vault: Vault, start: Start) -> None:
    """The header that was read is not the one that is there."""
    locked, other = await start(), await start()
    await other.change_password(PASSWORD, Secret("another password"))
    with pytest.raises(TokenHubError, match="another process"):
        await vault.change_password(PASSWORD, Secret("a third password"))
    for change in (vault.rotate(PASSWORD), locked.unlock(PASSWORD)):
        with pytest.raises(TokenHubError, match="another process"):
            await change
    await locked.unlock(Secret("another password"))
    assert locked.open
