"""The beginning of a chain can go when its time is over, and nobody can make it go unseen."""

from __future__ import annotations

from functools import partial

import orjson
import pytest

from tests.audit.conftest import SIGNER, Hands, Opened
from tests.audit.test_journal import KEYS, entries, sql
from tokenhub_core.audit.entries import Action, Head
from tokenhub_core.audit.journal import Audit
from tokenhub_core.proof.entries import Draft as ProofDraft
from tokenhub_core.proof.entries import Received
from tokenhub_core.store import proofs, retention
from tokenhub_core.store.audit import AuditLog
from tokenhub_core.store.database import Database
from tokenhub_core.store.proofs import ProofLog
from tokenhub_core.store.retention import DAY
from tokenhub_core.store.writer import Writer
from tokenhub_core.sweeper import Retention, Sweeper

PROOF = ProofDraft("r", Received("p", "m", 1, "openai_chat", "key", 3, "00", True, True, ()))


async def written(audit: Audit, clock: Hands, *days: float) -> None:
    for day in days:
        clock.at = day * DAY
        await audit.note(Action.LOGIN_LINK, f"day {day}")


def sweeper(writer: Writer, journal: Audit, clock: Hands, **kept: int) -> Sweeper:
    return Sweeper(writer, clock, Retention(**kept), audit=journal)


def whats(log: AuditLog, *heads: Head) -> list[tuple[int, str]]:
    """Return what a verification finds."""
    return [(one.seq, one.what) for one in log.verify(KEYS, heads).findings]


async def test_what_is_left_is_verified_from_where_it_begins(
    audit: Audit, log: AuditLog, writer: Writer, clock: Hands
) -> None:
    """An entry says up to which hash the log was cut off; it is signed like all others."""
    await written(audit, clock, 0, 1, 2, 50, 60)
    cut = entries(log)[2]
    assert await sweeper(writer, audit, clock, audit=30).sweep() == 3
    left = entries(log)
    assert [one.seq for one in left] == [4, 5, 6]
    told = orjson.loads(left[-1].after or "")
    begun = cut.at / 1e6 - 2 * DAY
    assert (left[-1].action, left[-1].actor, left[-1].key_id) == ("audit.trim", "system", "k1")
    assert told == {"through": f"3:{cut.hash.hex()}", "entries": 3, "from": begun, "to": cut.at / 1e6}
    report = log.verify(KEYS, (audit.head,))
    assert (report.ok, report.entries, report.signed) == (True, 3, 3)
    assert whats(log, Head(3, cut.hash)) == []
    assert whats(log, Head(3, bytes(32))) == [(3, "head")]
    assert await sweeper(writer, audit, clock, audit=30).sweep() == 0


async def test_it_is_cut_again_and_again(audit: Audit, log: AuditLog, writer: Writer, clock: Hands) -> None:
    """The last entry about it counts; those before it go like all others. The end of the log always stays."""
    await written(audit, clock, 0, 1, 50, 60, 100)
    for _ in range(2):
        await sweeper(writer, audit, clock, audit=30).sweep()
    assert whats(log, audit.head) == []
    clock.at = 500 * DAY
    await sweeper(writer, audit, clock, audit=30).sweep()
    assert (whats(log, audit.head), len(entries(log))) == ([], 2)


async def test_little_is_not_cut_off(audit: Audit, log: AuditLog, writer: Writer, clock: Hands) -> None:
    """Only a day's worth and more, so that the entries about it do not fill the log."""
    await written(audit, clock, 0, 0.5, 1)
    clock.at = 30.9 * DAY
    assert await sweeper(writer, audit, clock, audit=30).sweep() == 0
    clock.at = 31.1 * DAY
    assert await sweeper(writer, audit, clock, audit=30).sweep() == 2
    assert whats(log, audit.head) == []


async def test_a_process_that_knows_an_old_end_raises_no_alarm(
    audit: Audit, again: Opened, log: AuditLog, writer: Writer, clock: Hands
) -> None:
    """What it knew went with the beginning; a new process goes by the file beside the database."""
    await written(audit, clock, 0)
    other = again()
    await other.load()
    await written(audit, clock, 1, 50, 60)
    await sweeper(writer, audit, clock, audit=30).sweep()
    await written(other, clock, 61)
    assert [one.action for one in entries(log)][-1] == "login.link"
    assert await again().load() == ()
    assert "audit.broken" not in [one.action for one in entries(log)]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit WHERE seq <= 4",
        "DELETE FROM audit WHERE seq <= 5",
        "UPDATE audit SET after = replace(after, '3:', '4:') WHERE action = 'audit.trim'",
        "DELETE FROM audit WHERE action = 'audit.trim'",
    ],
)
async def test_more_than_was_said_is_found_to_be_missing(
    audit: Audit, log: AuditLog, writer: Writer, clock: Hands, database: Database, statement: str
) -> None:
    """Deleted by hand, or with an entry that was changed to fit."""
    await written(audit, clock, 0, 1, 2, 50, 60)
    await sweeper(writer, audit, clock, audit=30).sweep()
    sql(database, statement)
    assert whats(log, audit.head) != []


async def test_nobody_without_the_key_says_where_a_signed_log_begins(
    audit: Audit, log: AuditLog, writer: Writer, clock: Hands, database: Database
) -> None:
    """An entry that is added without it links up, and counts for nothing. Nor does the service cut without it."""
    await written(audit, clock, 0, 1, 2, 50)
    cut = entries(log)[2]
    locked = Audit(database, writer, clock=clock)
    await locked.load()
    assert await sweeper(writer, locked, clock, audit=30).sweep() == 0
    await locked.note(Action.AUDIT_TRIM, after={"through": f"3:{cut.hash.hex()}"})
    sql(database, "DELETE FROM audit WHERE seq <= 3")
    assert (1, "missing") in whats(log)


async def test_where_nothing_is_signed_a_log_is_cut_all_the_same(
    log: AuditLog, writer: Writer, clock: Hands, database: Database
) -> None:
    """A service without a vault has no key."""
    bare = Audit(database, writer, clock=clock)
    await written(bare, clock, 0, 1, 50)
    assert await sweeper(writer, bare, clock, audit=30).sweep() == 2
    report = log.verify({}, (bare.head,))
    assert (report.ok, report.entries) == (True, 2)


async def test_proofs_are_cut_off_and_the_audit_log_says_so(
    audit: Audit,
    log: AuditLog,
    writer: Writer,
    clock: Hands,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when that entry's own time is over: it is written anew before it goes."""
    monkeypatch.setattr(retention, "CHAIN_PIECE", 2)
    monkeypatch.setattr("tokenhub_core.sweeper.CHAIN_PIECE", 2)
    for day in (0, 1, 2, 50):
        append = partial(proofs.append, drafts=[PROOF], now=clock.now() + day * DAY, signer=SIGNER)
        await writer.commit(append)
    clock.at = 60 * DAY
    assert await sweeper(writer, audit, clock, proofs=30).sweep() == 3
    chain = ProofLog(database)
    head = chain.head()
    assert (chain.verify(KEYS, (head,)).ok, head.seq, len(list(chain.entries()))) == (True, 4, 1)
    with database.reading() as connection:
        assert proofs.holds(connection, Head(2, bytes(32)))
    await written(audit, clock, 61, 62, 63)
    clock.at = 150 * DAY
    await sweeper(writer, audit, clock, audit=30).sweep()
    assert (chain.verify(KEYS, (head,)).ok, whats(log, audit.head)) == (True, [])
    sql(database, "DELETE FROM audit WHERE action = 'proof.trim'")
    assert not chain.verify(KEYS, (head,)).ok
