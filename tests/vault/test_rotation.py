"""Other passwords, other keys, the first format, idleness: what changes, what stays, and what a crash leaves."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vault.conftest import Hands, Start
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Secret
from tokenhub_core.store import vault as store
from tokenhub_core.store.anchor import beside
from tokenhub_core.store.audit import AuditLog
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.writer import Writer
from tokenhub_core.vault import sealing
from tokenhub_core.vault.keys import KeyHolder
from tokenhub_core.vault.manifest import Sealed, VaultRows
from tokenhub_core.vault.sealing import Header, Params, Place
from tokenhub_core.vault.vault import Custody, State, Vault

OLD, NEW = Secret("correct horse battery"), Secret("another password")
NAME = "provider:openai:api_key"


def rows(database: Database) -> VaultRows:
    with database.reading() as connection:
        return store.load(connection)


def header(database: Database) -> Header:
    text = rows(database).header
    assert text is not None
    return Header.from_json(text)


def revealed(vault: Vault, name: str = NAME) -> str:
    secret = vault.get(name)
    assert secret is not None
    return secret.reveal()


# --- another password --------------------------------------------------------------------------------------


async def test_another_password_changes_one_row(vault: Vault, start: Start, database: Database) -> None:
    """The entries stay sealed as they were, the vault stays open, and only the new password opens it then."""
    before, was = rows(database), header(database)
    await vault.change_password(OLD, NEW)
    after, now = rows(database), header(database)

    assert revealed(vault) == "sk-the-key"
    assert (after.entries, after.state) == (before.entries, before.state)
    assert (now.vault_id, now.generation, now.created_at) == (was.vault_id, was.generation, was.created_at)
    assert now.salt != was.salt
    later = await start()
    with pytest.raises(TokenHubError, match="not the vault's password"):
        await later.unlock(OLD)
    await later.unlock(NEW)
    assert revealed(later) == "sk-the-key"


async def test_a_locked_vault_stays_locked_with_another_password(vault: Vault) -> None:
    """It is asked for, so nothing has to be open."""
    vault.lock()
    await vault.change_password(OLD, NEW)
    assert vault.state is State.LOCKED
    await vault.rotate(NEW)
    assert vault.state is State.LOCKED
    await vault.unlock(NEW)
    assert revealed(vault) == "sk-the-key"


async def test_another_password_is_held_to_the_same_rules(vault: Vault, database: Database) -> None:
    """Long enough, and the old one has to be right; nothing changes otherwise."""
    before = rows(database)
    with pytest.raises(TokenHubError, match="at least 12"):
        await vault.change_password(OLD, Secret("short"))
    with pytest.raises(TokenHubError, match="not the vault's password"):
        await vault.change_password(NEW, NEW)
    assert rows(database) == before


# --- another key -------------------------------------------------------------------------------------------


async def test_another_key_seals_everything_anew(vault: Vault, start: Start, database: Database) -> None:
    """No ciphertext stays, nothing is lost, the count of uses begins again, and the password is the same."""
    for number in range(5):
        await vault.put(f"secret:{number}", Secret(f"value-{number}"))
    before = rows(database)
    await vault.rotate(OLD)
    after = rows(database)

    assert after.entries.keys() == before.entries.keys()
    assert not {e.sealed for e in after.entries.values()} & {e.sealed for e in before.entries.values()}
    assert before.state is not None
    assert after.state is not None
    assert (before.state.seals, after.state.seals, vault.seals) == (6, 6, 6)
    assert after.state.counter == before.state.counter + 1
    assert header(database).generation == 1
    await vault.put("secret:5", Secret("value-5"))
    for opened in (vault, await start()):
        await opened.unlock(OLD)
        assert [revealed(opened, f"secret:{number}") for number in range(6)] == [
            f"value-{n}" for n in range(6)
        ]
        assert opened.bad == {}


async def test_who_looks_at_the_rows_meanwhile_finds_them_with_their_key(vault: Vault) -> None:
    """A look that was waiting for its turn while the key was replaced sees both new: the vault stays open."""
    rotating = asyncio.create_task(vault.rotate(OLD))
    while not vault._changing.locked():  # noqa: ASYNC110 - the vault tells nobody
        await asyncio.sleep(0)
    looks = [asyncio.create_task(vault.refresh()) for _ in range(5)]
    await asyncio.gather(rotating, *looks)
    assert vault.state is State.UNLOCKED
    assert revealed(vault) == "sk-the-key"


async def test_an_old_ciphertext_does_not_open_under_another_key(
    vault: Vault, start: Start, database: Database
) -> None:
    """Although its name and version are right."""
    old = rows(database).entries[NAME]
    await vault.rotate(OLD)
    with database.writing() as connection:
        store.put_entry(connection, NAME, old, now=0.0)
    later = await start()
    await later.unlock(OLD)
    assert list(later.bad) == [NAME]


async def test_the_audit_log_can_be_checked_over_every_key(vault: Vault, database: Database) -> None:
    """The keys that signed before are sealed in the header, also those before a change of the password."""
    log = AuditLog(database)
    await vault.rotate(OLD)
    await vault.change_password(OLD, NEW)
    await vault.rotate(NEW)
    await vault.put("b", Secret("x"))
    keys = vault._ring.verifiers()
    report = log.verify(keys, ())

    assert len(keys) == len(header(database).kept) + 1 == 3
    assert len({entry.key_id for entry in log.entries() if entry.key_id}) == 3
    assert report.ok
    # The vault was made before there was a key.
    assert (report.signed, report.unchecked, report.covered) == (report.entries - 1, 0, report.entries)
    vault.lock()
    assert vault._ring.verifiers() == {}
    assert vault._ring.signer() is None


async def test_every_step_is_in_the_audit_log(vault: Vault, database: Database) -> None:
    """With what is no secret of it."""
    vault.lock()
    with pytest.raises(TokenHubError):
        await vault.unlock(NEW)
    await vault.unlock(OLD)
    await vault.change_password(OLD, NEW)
    await vault.rotate(NEW)
    await vault.delete(NAME)
    told = [(e.action, e.subject, e.outcome, e.reason) for e in AuditLog(database).entries()]

    assert told == [
        ("vault.create", "", "done", ""),
        ("secret.create", NAME, "done", ""),
        ("vault.unlock", "", "denied", "wrong_password"),
        ("vault.unlock", "", "done", ""),
        ("vault.change", "", "done", ""),
        ("vault.change", "", "done", ""),
        ("secret.delete", NAME, "done", ""),
    ]
    changes = [e.after for e in AuditLog(database).entries() if e.action == "vault.change"]
    assert [json.loads(after or "")["header"]["generation"] for after in changes] == [0, 1]


async def test_a_key_is_not_used_for_ever(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit nothing is sealed until the key is replaced; reading goes on."""
    monkeypatch.setattr(sealing, "MAX_SEALS", 3)
    await vault.put("a", Secret("1"))
    await vault.put("a", Secret("2"))
    with pytest.raises(TokenHubError, match="tokenhub vault rotate") as caught:
        await vault.put("a", Secret("3"))
    assert caught.value.fault.cause == "vault_worn"
    assert revealed(vault, "a") == "2"
    await vault.rotate(OLD)
    await vault.put("a", Secret("3"))
    assert revealed(vault, "a") == "3"


async def test_a_header_whose_kept_keys_were_changed_does_not_open(
    vault: Vault, start: Start, database: Database
) -> None:
    """Nobody can slip in a key that would bless what they wrote."""
    await vault.rotate(OLD)
    kept = {key_id: sealed[:-1] + bytes([sealed[-1] ^ 1]) for key_id, sealed in header(database).kept.items()}
    with database.writing() as connection:
        store.put_header(connection, replace(header(database), kept=kept).to_json(), now=0.0)
    later = await start()
    with pytest.raises(TokenHubError, match="a key in it was changed"):
        await later.unlock(OLD)
    assert not later.open


async def test_a_vault_that_is_locked_while_its_key_is_replaced_stays_locked(vault: Vault) -> None:
    """The new key is forgotten too."""
    rotating = asyncio.create_task(vault.rotate(OLD))
    await asyncio.sleep(0)
    vault.lock()
    await rotating
    assert vault.state is State.LOCKED
    await vault.unlock(OLD)
    assert revealed(vault) == "sk-the-key"


async def test_an_unlocking_that_cannot_be_written_down_opens_nothing(vault: Vault, writer: Writer) -> None:
    """What cannot be audited is not done."""
    await writer.close()
    with pytest.raises(TokenHubError):
        await vault.unlock(OLD, throttled=False)
    assert not vault.open


# --- the first format --------------------------------------------------------------------------------------


def first_format(database: Database, *, damaged: bool = False) -> None:
    """Store a vault as the first version made it."""
    root, params = bytes(range(32)), Params(memory_kib=8, passes=1)
    salt, nonce = b"s" * 16, b"n" * 12
    key = sealing._derived(OLD.reveal().encode(), salt, params)
    wrapped = sealing._sealed(key, b"1|root|", root, nonce)
    entries = sealing.subkey(root, sealing.ENTRIES, version=1)
    with database.writing() as connection:
        text = Header(salt, wrapped, 1.0, params, version=1).to_json()
        store.put_header(connection, text, now=1.0)
        for name, value in ((NAME, b"sk-old"), ("other", b"sk-other")):
            sealed = sealing.seal(entries, Place(b"", name, 0), value, name[:12].encode().ljust(12))
            store.put_entry(connection, name, Sealed(sealed[: 20 if damaged else None], 0), now=1.0)


async def test_a_vault_of_the_first_format_becomes_one_of_this(start: Start, database: Database) -> None:
    """When it is unlocked; a wrong password changes nothing."""
    first_format(database)
    before, vault = rows(database), await start()
    with pytest.raises(TokenHubError):
        await vault.unlock(NEW)
    assert rows(database) == before
    await vault.unlock(OLD)
    assert (revealed(vault), revealed(vault, "other")) == ("sk-old", "sk-other")
    assert (header(database).version, header(database).created_at) == (2, 1.0)
    assert {entry.version for entry in rows(database).entries.values()} == {1, 2}
    later = await start()
    await later.unlock(OLD)
    assert (revealed(later), later.bad) == ("sk-old", {})


@pytest.mark.parametrize("how", ["rotate", "password", "delete"])
async def test_a_vault_of_the_first_format_can_be_worked_on(
    start: Start, database: Database, how: str
) -> None:
    """Replacing its key is the same as bringing it up to date; its entries can be removed while it is locked."""
    first_format(database)
    vault = await start()
    password = OLD
    if how == "rotate":
        await vault.rotate(OLD)
    elif how == "password":
        await vault.change_password(OLD, NEW)
        password = NEW
    else:
        assert await vault.delete("other")
    assert vault.state is State.LOCKED
    await vault.unlock(password)
    assert revealed(vault) == "sk-old"
    assert vault.names() == ([NAME] if how == "delete" else ["other", NAME])


async def test_a_damaged_vault_of_the_first_format_is_left_as_it_is(start: Start, database: Database) -> None:
    """Until the operator takes what is left of it."""
    first_format(database, damaged=True)
    before, vault = rows(database), await start()
    with pytest.raises(TokenHubError, match="not what was stored"):
        await vault.unlock(OLD)
    assert rows(database) == before
    await vault.unlock(OLD, accept=True)
    assert vault.names() == []


# --- idleness ----------------------------------------------------------------------------------------------


async def idle(database: Database, writer: Writer, clock: Hands, seconds: float) -> Vault:
    ring = KeyHolder()
    vault = Vault(
        database,
        Audit(database, writer, clock=clock, signer=ring.signer),
        clock=clock,
        entropy=lambda size: bytes(range(size)),
        params=Params(memory_kib=8, passes=1),
        custody=Custody(ring, None, seconds),
    )
    await vault.load()
    return vault


async def test_an_idle_vault_locks_by_itself(database: Database, writer: Writer, clock: Hands) -> None:
    """So long after it was last used, by a call or by an operator; the audit log says why."""
    vault = await idle(database, writer, clock, 60)
    await vault.init(OLD)
    assert vault._ring.keys is not None
    key = vault._ring.keys.entries
    await vault.put(NAME, Secret("sk"))
    for _ in range(2):
        clock.at += 59
        assert not await vault.lock_if_idle()
        assert revealed(vault) == "sk"
    clock.at += 59
    await vault.put(NAME, Secret("sk"))
    clock.at += 60
    assert await vault.lock_if_idle()
    assert (vault.state, key) == (State.LOCKED, bytearray(32))
    assert not await vault.lock_if_idle()
    last = list(AuditLog(database).entries())[-1]
    assert (last.action, last.actor, last.reason) == ("vault.lock", "system", "idle")


async def test_a_vault_without_that_setting_never_locks_by_itself(
    database: Database, writer: Writer, clock: Hands
) -> None:
    """It is off by default; what would look after it ends at once."""
    vault = await idle(database, writer, clock, 0)
    await vault.init(OLD)
    clock.at += 10**9
    assert not await vault.lock_if_idle()
    await vault.keep()
    assert vault.open


async def test_somebody_looks_after_it(database: Database, writer: Writer, clock: Hands) -> None:
    """Nobody has to ask."""
    vault = await idle(database, writer, clock, 0.01)
    locked = asyncio.Event()
    vault._audit.listen(lambda entry: locked.set() if entry.action == "vault.lock" else None)
    await vault.init(OLD)
    clock.at += 1
    keeping = asyncio.create_task(vault.keep())
    await locked.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert not vault.open


async def test_a_vault_that_is_locked_is_not_looked_at_all_the_time(
    database: Database, writer: Writer, clock: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left to be in time for: a look in a quarter of the time that it may be idle is enough."""
    vault, slept = await idle(database, writer, clock, 60), list[float]()
    await vault.init(OLD)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.at += seconds
        if len(slept) == 8:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        await vault.keep()
    assert not vault.open
    assert slept == [15.0] * 8


# --- crashes -----------------------------------------------------------------------------------------------


def killed(place: Path, what: str) -> list[Path]:
    """Return what processes left that were killed at each step, in the order of steps."""
    program = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("crashing.py")), str(place), what],
        capture_output=True,
        text=True,
        check=False,
    )
    assert program.returncode == 0, program.stderr
    return sorted(place.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["password", "rotate", "put", "upgrade"])
async def test_a_crash_at_any_step_leaves_a_whole_vault(
    tmp_path: Path, database: Database, start: Start, what: str
) -> None:
    """Killed before each statement, each commit and each file that is written: one of the passwords opens everything.

    The killed process is a fork for each step; this one looks at what it left.
    """
    if what == "upgrade":
        first_format(database)
    else:
        vault = await start()
        await vault.init(OLD)
        for name in (NAME, "other"):
            await vault.put(name, Secret(f"sk-{name}"))
    database.close()
    steps = killed(tmp_path, what)
    assert len(steps) > 8
    ended = [await _opened(step, what) for step in steps]

    # Both kinds of end were seen, and never the new state before the old one.
    assert ended[0] == "before"
    assert ended[-1] == "after"
    assert ended == sorted(ended, reverse=True)


async def _opened(place: Path, what: str) -> str:
    """Open what a killed process left, check that it is whole, and say whether the change had been made."""
    database = open_database(str(place / "tokenhub.sqlite"))
    writer = Writer(database)
    writer.start()
    ring = KeyHolder()
    clock = Hands()
    clock.at = 10_000.0
    audit = Audit(database, writer, clock=clock, signer=ring.signer, anchor=beside(database.where, "audit"))
    assert await audit.load() == ()
    vault = Vault(
        database,
        audit,
        clock=clock,
        entropy=lambda size: b"\x05" * size,
        params=Params(memory_kib=8, passes=1),
        custody=Custody(ring, beside(database.where, "vault")),
    )
    await vault.load()
    was = rows(database)
    after = _changed(was, what)
    await vault.unlock(NEW if after and what == "password" else OLD)
    sealed = "sk-old" if what == "upgrade" else f"sk-{NAME}"
    assert revealed(vault) == sealed
    assert revealed(vault, "other") == "sk-other"
    assert vault.bad == {}
    assert AuditLog(database).verify(ring.verifiers(), (audit.head,)).ok
    await writer.close()
    database.close()
    return "after" if after else "before"


def _changed(was: VaultRows, what: str) -> bool:
    assert was.header is not None
    found = Header.from_json(was.header)
    if what == "put":
        return "new" in was.entries
    if what == "password":
        return found.password_at != found.created_at
    return found.version == 2 if what == "upgrade" else found.generation == 1
