"""The vault's rows."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, select

from tokenhub_core.store import vault
from tokenhub_core.store.database import Database
from tokenhub_core.store.schema import VAULT_ENTRIES
from tokenhub_core.vault.manifest import Sealed, SetState, VaultRows

OLD = Sealed(b"\x00old", 1)


def test_a_vault_that_was_never_made_is_empty(database: Database) -> None:
    """No header, no entry, nothing known of them, and nobody has guessed."""
    with database.reading() as connection:
        assert vault.load(connection) == VaultRows(None, {}, None)
        assert vault.failures(connection) == (0, 0.0)


def test_what_was_stored_comes_back(database: Database) -> None:
    """The last one stored wins."""
    state = SetState(7, 9, {"a/b": 3}, ("gone",), True, b"mac")
    with database.writing() as connection:
        for header in ("1", "2"):
            vault.put_header(connection, header, now=1.0)
        vault.put_entry(connection, "a/b", OLD, now=1.0)
        vault.put_entry(connection, "a/b", Sealed(b"new", 3), now=2.0)
        vault.put_state(connection, SetState(1, 1, {}, (), anchored=False))
        vault.put_state(connection, state)
        vault.put_failures(connection, 4, now=5.0)
        vault.put_failures(connection, 5, now=6.5)
        assert vault.load(connection) == VaultRows("2", {"a/b": Sealed(b"new", 3)}, state)
        assert vault.failures(connection) == (5, 6.5)
        assert vault.delete_entry(connection, "a/b")
        assert not vault.delete_entry(connection, "a/b")


def test_the_vault_is_sealed_anew_as_a_whole(database: Database) -> None:
    """A new header, new ciphertexts, none of what is not named; when an entry was put there stays."""
    with database.writing() as connection:
        vault.put_header(connection, "old", now=1.0)
        vault.put_entry(connection, "kept", OLD, now=1.0)
        vault.put_entry(connection, "gone", OLD, now=1.0)
        vault.reseal(connection, "new", {"kept": Sealed(b"new", 2)}, now=2.0)
        assert vault.header(connection) == "new"
        assert vault.load(connection).entries == {"kept": Sealed(b"new", 2)}
        assert connection.execute(select(VAULT_ENTRIES.c.updated_at)).scalar_one() == 1_000_000


def test_a_sealing_that_fails_midway_leaves_the_old_vault(database: Database) -> None:
    """Old keys beside new secrets would open nothing, ever again."""

    def fails(connection: Connection) -> None:
        vault.reseal(connection, "new", {"openai": Sealed(b"new", 2)}, now=2.0)
        raise LookupError

    with database.writing() as connection:
        vault.put_header(connection, "old", now=1.0)
        vault.put_entry(connection, "openai", OLD, now=1.0)
    with pytest.raises(LookupError), database.writing() as connection:
        fails(connection)
    with database.reading() as connection:
        assert vault.load(connection) == VaultRows("old", {"openai": OLD}, None)
