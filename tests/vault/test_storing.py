"""What the vault writes in one transaction, and when it writes nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import pytest_asyncio
from sqlalchemy import Connection

from tokenhub_core.errors import TokenHubError
from tokenhub_core.store import generations
from tokenhub_core.store import vault as rows
from tokenhub_core.store.writer import Work, Writer
from tokenhub_core.vault import storing
from tokenhub_core.vault.manifest import Sealed, SetState, VaultRows

STATE = SetState(3, 5, {"a": 1}, ("b",), anchored=False, mac=b"m")
NEXT = replace(STATE, counter=4, removed=())
STORED = VaultRows("{}", {"a": Sealed(b"x", 1)}, STATE)


@pytest_asyncio.fixture
async def made(writer: Writer) -> Writer:
    """Return the writer of a database that has a vault."""
    await writer.commit(lambda connection: storing.first(connection, stored=STORED, now=1.0))
    return writer


async def seen(writer: Writer) -> tuple[str | None, SetState | None, int]:
    """Return the header, the state, and how many changes there were."""

    def read(connection: Connection) -> tuple[str | None, SetState | None, int]:
        return (
            rows.header(connection),
            rows.state(connection),
            generations.last(connection, generations.VAULT),
        )

    return await writer.commit(read)


async def refused(writer: Writer, work: Work[None]) -> str:
    with pytest.raises(TokenHubError) as caught:
        await writer.commit(work)
    assert caught.value.fault.http_status == (400 if caught.value.fault.label == "vault_initialised" else 503)
    return caught.value.fault.label


async def test_a_vault_is_made_once(made: Writer) -> None:
    """And not where entries of another one would be orphaned."""
    assert await seen(made) == ("{}", STATE, 1)
    again = await refused(made, lambda one: storing.first(one, stored=STORED, now=2.0))
    assert again == "vault_initialised"
    assert storing.second().fault.message == "the vault has a password already: unlock it instead"
    assert await seen(made) == ("{}", STATE, 1)


async def test_entries_without_a_header_are_not_written_over(writer: Writer) -> None:
    """Somebody took the header away: that is told, and what to do about it."""
    await writer.commit(lambda one: rows.put_entry(one, "a", Sealed(b"x", 1), now=1.0))
    with pytest.raises(TokenHubError) as caught:
        await writer.commit(lambda one: storing.first(one, stored=STORED, now=2.0))
    fault = caught.value.fault
    assert (fault.label, fault.message) == (
        "vault_tampered",
        "the vault has entries but no header: restore the database from a backup",
    )
    assert await seen(writer) == (None, None, 0)


async def test_a_header_takes_the_place_of_the_one_that_was_read(made: Writer) -> None:
    """Of no other one; whoever comes second is told what to do."""
    await made.commit(lambda one: storing.new_header(one, old="{}", new="[]", now=2.0))
    assert await seen(made) == ("[]", STATE, 2)
    with pytest.raises(TokenHubError) as caught:
        await made.commit(lambda one: storing.new_header(one, old="{}", new="x", now=3.0))
    fault = caught.value.fault
    assert (fault.label, fault.message) == (
        "vault_changed",
        "another process has changed the vault: lock it and unlock it again",
    )
    assert await seen(made) == ("[]", STATE, 2)


async def test_all_is_replaced_where_the_header_is_the_one_that_was_read(made: Writer) -> None:
    """Entries and state with it, in one change; an entry that is not among the new ones goes."""
    for name in ("a", "b"):
        await made.commit(partial(rows.put_entry, name=name, entry=Sealed(b"x", 1), now=1.0))
    stored = VaultRows("[]", {"a": Sealed(b"y", 2)}, NEXT)
    await made.commit(lambda one: storing.anew(one, old="{}", stored=stored, now=2.0))
    assert await seen(made) == ("[]", NEXT, 2)
    assert (await made.commit(rows.load)).entries == stored.entries
    assert (
        await refused(made, lambda one: storing.anew(one, old="{}", stored=STORED, now=3.0))
        == "vault_changed"
    )
    assert await seen(made) == ("[]", NEXT, 2)


async def test_entries_change_with_what_is_known_of_them(made: Writer) -> None:
    """Where nobody else has changed either meanwhile: the counter and what was removed are as they were read."""

    def work(connection: Connection) -> None:
        rows.put_entry(connection, "c", Sealed(b"y", 2), now=2.0)

    await made.commit(lambda one: storing.changed(one, old=STATE, new=NEXT, work=work))
    assert await seen(made) == ("{}", NEXT, 2)
    assert (await made.commit(rows.load)).entries.keys() == {"c"}
    await made.commit(lambda one: storing.changed(one, old=NEXT, new=replace(NEXT, counter=5), work=None))
    known = replace(NEXT, counter=5)
    assert await seen(made) == ("{}", known, 3)
    for old in (NEXT, replace(known, removed=("x",))):
        assert await refused(made, partial(storing.changed, old=old, new=NEXT, work=work)) == (
            "vault_changed"
        )
    assert await seen(made) == ("{}", known, 3)


async def test_entries_of_no_vault_do_not_change(writer: Writer) -> None:
    """What was known of them is gone."""
    assert (
        await refused(writer, lambda one: storing.changed(one, old=STATE, new=NEXT, work=None))
        == "vault_changed"
    )
