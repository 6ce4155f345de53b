"""What the vault does in its transactions, and why it refuses."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault
from tokenhub_core.store import generations
from tokenhub_core.store import vault as rows
from tokenhub_core.store.writer import Work
from tokenhub_core.vault.manifest import SetState, VaultRows


def first(connection: Connection, *, stored: VaultRows, now: float) -> None:
    """Store the first header; refuses where another process was faster, or where entries would be orphaned."""
    there = rows.load(connection)
    if there.header is not None:
        raise second()
    if there.entries:
        raise tampered("the vault has entries but no header: restore the database from a backup")
    assert stored.header is not None
    assert stored.state is not None
    rows.put_header(connection, stored.header, now=now)
    rows.put_state(connection, stored.state)
    generations.counted(connection, generations.VAULT)


def new_header(connection: Connection, *, old: str | None, new: str, now: float) -> None:
    """Store a header in place of `old`; refuses where another process has put one there."""
    if rows.header(connection) != old:
        raise conflict()
    rows.put_header(connection, new, now=now)
    generations.counted(connection, generations.VAULT)


def anew(connection: Connection, *, old: str | None, stored: VaultRows, now: float) -> None:
    """Store the header, the entries and what is known of them, in place of all that there was."""
    if rows.header(connection) != old:
        raise conflict()
    assert stored.header is not None
    assert stored.state is not None
    rows.reseal(connection, stored.header, stored.entries, now=now)
    rows.put_state(connection, stored.state)
    generations.counted(connection, generations.VAULT)


def changed(connection: Connection, *, old: SetState, new: SetState, work: Work[Any] | None) -> None:
    """Do `work` and store what is known of the entries then; refuses where another process has changed them."""
    known = rows.state(connection)
    if known is None or (known.counter, known.removed) != (old.counter, old.removed):
        raise conflict()
    if work is not None:
        work(connection)
    rows.put_state(connection, new)
    generations.counted(connection, generations.VAULT)


def second() -> TokenHubError:
    """Return why a vault is not made twice."""
    return client_fault("the vault has a password already: unlock it instead", cause="vault_initialised")


def conflict() -> TokenHubError:
    """Return why this process cannot change the vault now."""
    return unusable("another process has changed the vault: lock it and unlock it again", "vault_changed")


def tampered(why: object) -> TokenHubError:
    """Return why what is stored is not used."""
    return unusable(str(why), "vault_tampered")


def unusable(message: str, cause: str) -> TokenHubError:
    """Return a fault of ours: 503."""
    return TokenHubError(Fault(Kind.INTERNAL, Blame.US, message, cause=cause, status=503))
