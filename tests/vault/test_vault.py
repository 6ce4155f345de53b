"""The vault in its store: what it opens, what it refuses, what it forgets."""

from __future__ import annotations

import asyncio
import pickle
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.patience import PATIENCE
from tests.vault.conftest import Hands, Start
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import Blame, Kind, TokenHubError
from tokenhub_core.ports import Secret
from tokenhub_core.store import vault as store
from tokenhub_core.store.anchor import beside
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Writer
from tokenhub_core.vault import sealing
from tokenhub_core.vault.manifest import Sealed
from tokenhub_core.vault.passwords import MAX_PASSWORD
from tokenhub_core.vault.sealing import Header, Params, Place
from tokenhub_core.vault.turn import QUEUE
from tokenhub_core.vault.vault import Custody, State, Vault

PASSWORD = Secret("correct horse battery")
WRONG = Secret("incorrect horse battery")
NAME = "provider:openai:api_key"
KEY = "sk-the-key"


def rows(database: Database) -> tuple[str | None, dict[str, bytes]]:
    with database.reading() as connection:
        found = store.load(connection)
        return found.header, {name: entry.sealed for name, entry in found.entries.items()}


def edit(database: Database, entries: dict[str, bytes], header: str | None = None) -> None:
    """Change rows behind the vault's back, as someone who owns the disk can."""
    with database.writing() as connection:
        found = store.load(connection).entries
        if header is not None:
            store.put_header(connection, header, now=0.0)
        for name, sealed in entries.items():
            version = found[name].version if name in found else 1
            store.put_entry(connection, name, Sealed(sealed, version), now=0.0)


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def revealed(vault: Vault, name: str) -> str | None:
    secret = vault.get(name)
    return None if secret is None else secret.reveal()


# --- its life ----------------------------------------------------------------------------------------------


async def test_a_vault_begins_without_a_password(start: Start, database: Database, writer: Writer) -> None:
    """Nothing can be read or stored, and it says what it is; before its rows were read, too."""
    vault = await start()
    unread = Vault(
        database, Audit(database, writer, clock=Hands()), clock=Hands(), entropy=secrets.token_bytes
    )

    assert (unread.state, unread.names()) == (State.UNINITIALISED, [])
    assert (vault.state, vault.open, vault.initialised) == (State.UNINITIALISED, False, False)
    assert vault.names() == []
    assert not vault.has(NAME)
    with pytest.raises(TokenHubError) as caught:
        vault.get(NAME)
    assert (caught.value.fault.http_status, caught.value.fault.cause) == (503, "vault_locked")
    assert caught.value.fault.message == "the vault is uninitialised: make it first"
    with pytest.raises(TokenHubError) as caught:
        await vault.unlock(PASSWORD)
    assert (caught.value.fault.kind, caught.value.fault.cause) == (Kind.INVALID, "vault_uninitialised")


async def test_init_leaves_it_open(start: Start) -> None:
    """The one who chose the password need not type it again."""
    vault = await start()
    await vault.init(PASSWORD)

    assert (vault.state, vault.open, vault.initialised) == (State.UNLOCKED, True, True)
    assert vault.get(NAME) is None


async def test_a_secret_comes_back(vault: Vault) -> None:
    """As a `Secret`, with the text that was put in; the last one put wins."""
    assert revealed(vault, NAME) == KEY
    await vault.put(NAME, Secret("sk-newer ✓"))

    assert revealed(vault, NAME) == "sk-newer ✓"
    assert vault.has(NAME)
    assert vault.names() == [NAME]


async def test_names_are_in_order(vault: Vault) -> None:
    """Whatever order they came in, locked or not."""
    await vault.put("a", Secret("1"))
    vault.lock()

    assert vault.names() == ["a", NAME]


async def test_a_restart_keeps_everything_but_the_key(vault: Vault, start: Start) -> None:
    """The next process finds it locked and opens it with the password."""
    del vault
    later = await start()
    assert (later.state, later.names(), later.has(NAME)) == (State.LOCKED, [NAME], False)

    await later.unlock(PASSWORD)

    assert later.open
    assert revealed(later, NAME) == KEY


async def test_a_deleted_secret_is_gone(vault: Vault, start: Start) -> None:
    """From memory and from the store; a second time there is nothing to delete."""
    assert await vault.delete(NAME)
    assert vault.get(NAME) is None
    assert not vault.has(NAME)
    assert not await vault.delete(NAME)
    assert (await start()).names() == []


async def test_a_secret_can_be_deleted_while_locked(vault: Vault, database: Database) -> None:
    """So that a provider that is removed leaves no secret behind for its successor."""
    vault.lock()

    assert await vault.delete(NAME)
    assert rows(database)[1] == {}


async def test_the_real_costs_are_the_default(database: Database, writer: Writer, clock: Hands) -> None:
    """A vault made without cheap parameters asks for 64 MiB and three passes."""
    audit = Audit(database, writer, clock=clock)
    vault = Vault(database, audit, clock=clock, entropy=secrets.token_bytes)
    await vault.init(PASSWORD)
    stored = rows(database)[0]

    assert stored is not None
    assert Header.from_json(stored).params == Params(65536, 3, 1)
    assert Header.from_json(stored).created_at == clock.now()


# --- passwords ---------------------------------------------------------------------------------------------


async def test_a_second_init_is_refused(vault: Vault, database: Database) -> None:
    """It would make every secret unreadable."""
    before = rows(database)
    with pytest.raises(TokenHubError, match="already") as caught:
        await vault.init(Secret("another password"))

    assert (caught.value.fault.kind, caught.value.fault.cause) == (Kind.INVALID, "vault_initialised")
    assert rows(database) == before
    assert revealed(vault, NAME) == KEY


async def test_of_two_inits_at_once_one_wins(start: Start, database: Database) -> None:
    """In one process or in two: the store decides, and the loser changes nothing."""
    one, other = await start(), await start()
    results = await asyncio.gather(
        one.init(PASSWORD), one.init(WRONG), other.init(WRONG), return_exceptions=True
    )

    refused = [result for result in results if isinstance(result, TokenHubError)]
    assert [error.fault.cause for error in refused] == ["vault_initialised"] * 2
    assert sorted([one.open, other.open]) == [False, True]
    text = rows(database)[0]
    assert text is not None
    assert text in {one._rows.header, other._rows.header}


async def test_init_keeps_out_of_a_vault_that_lost_its_header(start: Start, database: Database) -> None:
    """Entries without a header are a damaged vault, not a new one: a backup may still open them."""
    edit(database, {"lost": b"sealed under a key that nobody has"})
    with pytest.raises(TokenHubError, match="backup") as caught:
        await (await start()).init(PASSWORD)

    assert caught.value.fault.cause == "vault_tampered"
    assert rows(database)[0] is None


@pytest.mark.parametrize("password", ["", "short", "elevenchars"])
async def test_a_short_password_makes_no_vault(start: Start, database: Database, password: str) -> None:
    """Twelve characters at least, and the message says so."""
    vault = await start()
    with pytest.raises(TokenHubError, match="at least 12 characters") as caught:
        await vault.init(Secret(password))

    assert (caught.value.fault.kind, caught.value.fault.blame) == (Kind.INVALID, Blame.CLIENT)
    assert vault.state is State.UNINITIALISED
    assert rows(database) == (None, {})


@pytest.mark.parametrize("password", ["x" * (MAX_PASSWORD + 1), "twelve chars \udcff"])
async def test_a_password_that_is_no_password_is_refused(start: Start, password: str) -> None:
    """Too long, or no Unicode text: a fault for the caller, no crash."""
    vault = await start()
    with pytest.raises(TokenHubError) as caught:
        await vault.init(Secret(password))

    assert caught.value.fault.kind is Kind.INVALID
    assert not vault.initialised


async def test_a_password_is_the_same_however_it_is_typed(start: Start) -> None:
    """Composed and decomposed letters are one."""
    vault = await start()
    await vault.init(Secret("caf\u00e9 au lait, s'il"))
    vault.lock()
    await vault.unlock(Secret("cafe\u0301 au lait, s'il"))

    assert vault.open


async def test_a_wrong_password_opens_and_changes_nothing(
    vault: Vault, start: Start, database: Database
) -> None:
    """A locked vault stays locked, an open one open, and every row stays as it was."""
    locked, before = await start(), rows(database)
    for one, state in ((locked, State.LOCKED), (vault, State.UNLOCKED)):
        for _ in range(2):
            with pytest.raises(TokenHubError) as caught:
                await one.unlock(WRONG)
            fault = caught.value.fault
            assert (fault.kind, fault.blame, fault.cause) == (Kind.AUTH, Blame.CLIENT, "wrong_password")
            assert fault.message == "this is not the vault's password"
            assert "horse" not in repr(caught.value)
        assert one.state is state

    assert rows(database) == before
    assert revealed(vault, NAME) == KEY
    await locked.unlock(PASSWORD)
    assert revealed(locked, NAME) == KEY


async def test_unlocking_an_open_vault_is_no_event(vault: Vault) -> None:
    """The right password again: still open, the same secrets."""
    await vault.unlock(PASSWORD)

    assert revealed(vault, NAME) == KEY


async def test_a_vault_opens_with_the_parameters_it_was_made_with(
    vault: Vault, database: Database, writer: Writer, clock: Hands
) -> None:
    """The header's costs count, not those of the process that reads it."""
    del vault
    dearer = Vault(
        database,
        Audit(database, writer, clock=clock),
        clock=clock,
        entropy=secrets.token_bytes,
        params=Params(memory_kib=64, passes=2),
        custody=Custody(anchor=beside(database.where, "vault")),
    )
    await dearer.load()
    await dearer.unlock(PASSWORD)

    assert revealed(dearer, NAME) == KEY


# --- what others did to the rows ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda header: replace(header, salt=bytes(16)), "wrong_password"),
        (lambda header: replace(header, params=Params(memory_kib=16, passes=1)), "wrong_password"),
        (lambda header: replace(header, params=Params(memory_kib=1 << 30)), "vault_tampered"),
        (lambda header: replace(header, wrapped=b""), "vault_tampered"),
    ],
    ids=["salt", "costs", "impossible", "no root"],
)
async def test_an_edited_header_never_opens(
    vault: Vault, start: Start, database: Database, change: Callable[[Header], Header], cause: str
) -> None:
    """The right password does not open it, and trying writes nothing."""
    del vault
    text = rows(database)[0]
    assert text is not None
    edit(database, {}, change(Header.from_json(text)).to_json())
    before, later = rows(database), await start()
    with pytest.raises(TokenHubError) as caught:
        await later.unlock(PASSWORD)

    assert caught.value.fault.cause == cause
    assert later.state is State.LOCKED
    assert rows(database) == before


async def test_a_damaged_header_is_no_missing_one(vault: Vault, start: Start, database: Database) -> None:
    """A vault that cannot be read is locked, so that nobody makes a new one over it."""
    del vault
    edit(database, {}, "{}")
    later = await start()

    assert later.state is State.LOCKED
    with pytest.raises(TokenHubError, match="header") as caught:
        await later.unlock(PASSWORD)
    assert (caught.value.fault.http_status, caught.value.fault.cause) == (503, "vault_tampered")
    with pytest.raises(TokenHubError, match="already"):
        await later.init(PASSWORD)


async def test_swapped_entries_are_refused(vault: Vault, start: Start, database: Database) -> None:
    """One provider's key under another one's name does not open; the untouched entry still does."""
    await vault.put("other", Secret("sk-other"))
    await vault.put("third", Secret("sk-third"))
    sealed = rows(database)[1]
    edit(database, {NAME: sealed["other"], "other": sealed[NAME]})
    later = await start()
    await later.unlock(PASSWORD)

    for name in (NAME, "other"):
        with pytest.raises(TokenHubError) as caught:
            later.get(name)
        assert (caught.value.fault.http_status, caught.value.fault.cause) == (503, "vault_tampered")
        assert "sk-" not in str(caught.value)
    assert revealed(later, "third") == "sk-third"


async def test_an_entry_of_another_vault_is_refused(vault: Vault, start: Start, database: Database) -> None:
    """The same name and the same password, but another root."""
    del vault
    key, place = sealing.subkey(bytes(32), sealing.ENTRIES), Place(bytes(16), NAME, 1)
    foreign = sealing.seal(key, place, b"sk-evil", bytes(12))
    edit(database, {NAME: foreign})
    later = await start()
    await later.unlock(PASSWORD)

    with pytest.raises(TokenHubError, match="not what was stored"):
        later.get(NAME)


# --- what it forgets and does not show ---------------------------------------------------------------------


async def test_a_locked_vault_has_forgotten_its_key(vault: Vault) -> None:
    """The key's buffer is overwritten, and nothing is read or stored until someone unlocks."""
    keys = vault._ring.keys
    assert keys is not None
    buffers = [keys.entries, keys.manifest, keys.audit, keys.kept]
    assert all(map(any, buffers))
    assert vault.lock()
    assert not vault.lock()

    assert buffers == [bytes(32)] * 4
    assert (vault.state, vault.has(NAME)) == (State.LOCKED, False)
    for name in (NAME, "nothing"):
        with pytest.raises(TokenHubError) as caught:
            vault.get(name)
        assert (caught.value.fault.http_status, caught.value.fault.cause) == (503, "vault_locked")
    with pytest.raises(TokenHubError) as caught:
        await vault.put(NAME, Secret("sk-new"))
    assert caught.value.fault.cause == "vault_locked"
    assert caught.value.fault.message == "the vault is locked: unlock it first"


async def test_a_lock_in_between_wins(vault: Vault) -> None:
    """An unlock that was asked for before `lock` does not open the vault after it."""
    unlocking = asyncio.create_task(vault.unlock(PASSWORD))
    await asyncio.sleep(0)
    vault.lock()

    with pytest.raises(TokenHubError, match="in the meantime"):
        await unlocking
    assert vault.state is State.LOCKED


async def test_locking_a_vault_that_is_not_open_changes_nothing(start: Start) -> None:
    """It may be called twice."""
    vault = await start()
    assert not vault.lock()

    assert vault.state is State.UNINITIALISED


async def test_nothing_shows_a_secret(vault: Vault) -> None:
    """Neither the vault's own repr nor that of what it returns."""
    secret = vault.get(NAME)

    assert repr(vault) == "Vault(unlocked, 1 entries)"
    assert KEY not in f"{secret!r} {secret}"
    assert KEY.encode() not in pickle.dumps(secret)


async def test_no_plaintext_reaches_the_disk(vault: Vault, tmp_path: Path) -> None:
    """Neither secrets nor the password stand in the database, its log or anything else that was written."""
    canary = "sk-canary-" + secrets.token_hex(16)
    await vault.put("canary", Secret(canary))
    await vault.put("canary", Secret(canary + "!"))
    written = files(tmp_path)

    assert any(name.startswith("tokenhub.sqlite") and b"canary" in data for name, data in written.items())
    for data in written.values():
        assert canary.encode() not in data
        assert PASSWORD.reveal().encode() not in data
        assert vault._ring.keys is not None
        assert bytes(vault._ring.keys.entries) not in data


async def test_the_same_secret_is_sealed_anew_each_time(vault: Vault, database: Database) -> None:
    """A fresh nonce every time, so that equal secrets cannot be told from their ciphertexts."""
    seen = set()
    for _ in range(10):
        await vault.put(NAME, Secret(KEY))
        seen.add(rows(database)[1][NAME][:12])

    assert len(seen) == 10


@pytest.mark.parametrize("name", ["", "new\nline", "x" * 201])
async def test_a_name_is_a_visible_one(vault: Vault, name: str) -> None:
    """One to two hundred characters."""
    with pytest.raises(TokenHubError) as caught:
        await vault.put(name, Secret("value"))
    assert caught.value.fault.message == "a vault entry's name is 1 to 200 visible characters"
    await vault.put("x" * 200, Secret("value"))
    assert vault.has("x" * 200)


@pytest.mark.parametrize("value", ["", "\ud800"])
async def test_a_secret_is_some_text(vault: Vault, value: str) -> None:
    """An empty one never replaces a working credential."""
    with pytest.raises(TokenHubError):
        await vault.put(NAME, Secret(value))

    assert revealed(vault, NAME) == KEY


# --- many at once ------------------------------------------------------------------------------------------


async def test_passwords_are_tried_one_after_the_other(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """One runs, four wait, and the sixth is told to come back: a flood costs 64 MiB, not all memory."""
    running, most = 0, 0
    guard, derive = threading.Lock(), sealing.open_root

    def watched(header: Header, password: bytes) -> bytearray:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        try:
            return derive(header, password)
        finally:
            with guard:
                running -= 1

    monkeypatch.setattr(sealing, "open_root", watched)
    results = await asyncio.gather(*(vault.unlock(PASSWORD) for _ in range(8)), return_exceptions=True)

    assert results[: QUEUE + 1] == [None] * (QUEUE + 1)
    refused = [result.fault for result in results if isinstance(result, TokenHubError)]
    assert [(fault.http_status, fault.cause) for fault in refused] == [(429, "vault_busy")] * 3
    assert most == 1
    await vault.unlock(PASSWORD)


async def test_who_leaves_keeps_the_turn_until_the_thread_has_ended(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connecting and leaving again and again does not pile up threads, and opens nothing."""
    vault.lock()
    entered, leave = threading.Event(), threading.Event()
    order: list[str] = []
    derive = sealing.open_root

    def held(header: Header, password: bytes) -> bytearray:
        entered.set()
        leave.wait(PATIENCE)
        order.append("ended")
        return derive(header, password)

    monkeypatch.setattr(sealing, "open_root", held)
    first = asyncio.create_task(vault.unlock(PASSWORD))
    await asyncio.to_thread(entered.wait, PATIENCE)
    first.cancel()
    entered.clear()
    second = asyncio.create_task(vault.unlock(WRONG))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not entered.is_set()

    leave.set()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert isinstance(results[1], TokenHubError)
    assert order == ["ended", "ended"]
    assert vault.state is State.LOCKED


async def test_what_was_stored_is_seen_although_its_caller_left(vault: Vault, database: Database) -> None:
    """Memory follows the rows: a caller that is cancelled while the store commits leaves no difference."""
    putting = asyncio.create_task(vault.put(NAME, Secret("sk-newer")))
    await asyncio.sleep(0)
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    assert putting.cancelled()
    await vault.put("later", Secret("x"))

    sealed = {name: entry.sealed for name, entry in vault._rows.entries.items()}
    assert sealed == rows(database)[1]
    assert revealed(vault, NAME) == "sk-newer"


async def test_a_failed_write_changes_nothing(vault: Vault, writer: Writer) -> None:
    """Where the store refuses, memory keeps what the rows hold."""
    await writer.close()
    with pytest.raises(TokenHubError):
        await vault.put(NAME, Secret("sk-newer"))
    with pytest.raises(TokenHubError):
        await vault.delete(NAME)

    assert revealed(vault, NAME) == KEY
