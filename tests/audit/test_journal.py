"""The audit log on a real database: everything that changes is in it, and whoever edits the file is found."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from tests.audit.conftest import SIGNER, Hands, Opened
from tokenhub_core.audit.chain import START, Report
from tokenhub_core.audit.denials import FIRST, Attempt
from tokenhub_core.audit.entries import Action, Cause, Entry, Head, Result
from tokenhub_core.audit.journal import Audit
from tokenhub_core.errors import TokenHubError
from tokenhub_core.modes import HostMode, Match, Rule
from tokenhub_core.store import catalog, vault
from tokenhub_core.store.anchor import Anchor, beside
from tokenhub_core.store.audit import AuditLog, Filters, shown
from tokenhub_core.store.catalog import RoutingConfig
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import Alias, Dialect, Model, Provider, ProviderType, Sticky, Strategy, Target
from tokenhub_core.vault.manifest import Sealed

WHO = Cause("admin-token", "127.0.0.1", "curl/8", "req_1")
PROVIDER = Provider("p", ProviderType.OPENAI, ("https://api.openai.com",), Dialect.OPENAI_CHAT, True, "none")
KEYS = {"k1": SIGNER.key}


def entries(log: AuditLog) -> list[Entry]:
    return list(log.entries())


def last(log: AuditLog) -> dict[str, Any]:
    return shown(log.page(limit=1).items[0])


async def provider(audit: Audit, name: str = "p", **changes: Any) -> None:
    put = partial(catalog.put_provider, provider=Provider(name, *_fields(changes)), now=1.0)
    await audit.commit(put)


def _fields(changes: dict[str, Any]) -> tuple[Any, ...]:
    names = ("type", "endpoints", "dialect", "enabled", "cred_store")
    return tuple(changes.get(name, getattr(PROVIDER, name)) for name in names)


def sql(database: Database, *statements: str) -> None:
    """Edit the rows as someone who owns the database can."""
    with database.writing() as connection:
        zeros = "zeroblob(32)" if connection.dialect.name == "sqlite" else "decode(repeat('00', 32), 'hex')"
        for statement in statements:
            connection.exec_driver_sql(statement.replace("ZEROS", zeros))


def mode(anchor: Anchor) -> int:
    return Path(str(anchor)).stat().st_mode & 0o777


def put(anchor: Anchor, text: bytes | None) -> None:
    """Replace the file, or take it away."""
    path = Path(str(anchor))
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_bytes(text)


def in_the_way(anchor: Anchor) -> None:
    """Let nothing be written there."""
    Path(str(anchor)).mkdir()


def found(report: Report) -> set[tuple[int, str]]:
    return {(finding.seq, finding.what) for finding in report.findings}


# --- what a transaction changes -----------------------------------------------------------------------------


async def test_what_is_made_changed_and_removed_is_told_with_before_and_after(
    audit: Audit, log: AuditLog
) -> None:
    """Who, from where, with what, on which request; only what is different of what was changed."""
    with audit.by(WHO) as doing:
        await provider(audit)
        await provider(audit, enabled=False)
        await audit.commit(partial(catalog.delete_provider, provider_id="p"))
    made, changed, removed = (shown(entry) for entry in entries(log))

    whole = {
        "id": "p",
        "type": "openai",
        "endpoints": ["https://api.openai.com"],
        "dialect": "openai_chat",
        "enabled": True,
        "cred_store": "none",
        "on_disconnect": "cancel",
    }
    assert (made["action"], made["subject"], made["before"], made["after"]) == (
        "provider.create",
        "p",
        None,
        whole,
    )
    assert (changed["action"], changed["before"], changed["after"]) == (
        "provider.change",
        {"enabled": True},
        {"enabled": False},
    )
    assert (removed["action"], removed["before"], removed["after"]) == (
        "provider.delete",
        {**whole, "enabled": False},
        None,
    )
    for one in (made, changed, removed):
        assert (one["actor"], one["source"], one["program"], one["request_id"], one["outcome"]) == (
            "admin-token",
            "127.0.0.1",
            "curl/8",
            "req_1",
            "done",
        )
    assert doing.entries == 3


async def test_everything_that_can_be_configured_is_watched(audit: Audit, log: AuditLog) -> None:
    """Models with their provider, aliases, routing, the vault; a removed provider takes its models along."""
    await provider(audit)
    header = '{"generation":1,"salt":"c2FsdA==","wrapped":"d3JhcA=="}'
    alias = Alias("fast", (Target("m", 1),), Strategy.WEIGHTED, Sticky.REQUEST, True)

    def everything(connection: Connection) -> None:
        catalog.put_model(connection, Model("m", "p"), now=1.0)
        catalog.put_alias(connection, alias, now=1.0)
        catalog.put_mode(connection, Rule(Match(host="x.example"), HostMode.SHADOW), now=1.0)
        catalog.put_routing_config(connection, RoutingConfig(fallback=False), now=1.0)
        vault.put_header(connection, header, now=1.0)
        vault.put_entry(connection, "secret:a/b", Sealed(b"sealed-bytes", 3), now=1.0)

    await audit.commit(everything)
    await audit.commit(partial(catalog.delete_provider, provider_id="p"))
    told = [(entry.action, entry.subject) for entry in entries(log)]

    assert told == [
        ("provider.create", "p"),
        ("model.create", "m @ p"),
        ("alias.create", "fast"),
        ("mode.create", "x.example @  @ "),
        ("routing.create", ""),
        ("vault.create", ""),
        ("secret.create", "secret:a/b"),
        ("provider.delete", "p"),
        ("model.delete", "m @ p"),
    ]
    text = json.dumps([shown(entry) for entry in entries(log)])
    assert "c2FsdA" not in text
    assert "d3JhcA" not in text
    assert "sealed-bytes" not in text
    digest = sha256(header.encode()).hexdigest()
    assert shown(entries(log)[5])["after"]["header"] == {"generation": 1, "sha256": digest}
    assert shown(entries(log)[6])["after"] == {"name": "secret:a/b", "version": 3}


async def test_a_header_that_is_no_json_is_told_as_it_is(audit: Audit, log: AuditLog) -> None:
    """What someone wrote into the row by hand does not break the telling."""
    await audit.commit(partial(vault.put_header, header="{", now=1.0))
    assert last(log)["after"]["header"] == "{"
    await audit.commit(partial(vault.put_header, header="[]", now=1.0))
    assert last(log)["after"]["header"] == []


async def test_an_entry_stands_or_falls_with_what_it_tells(audit: Audit, log: AuditLog) -> None:
    """A transaction that fails leaves neither; one that changes nothing leaves no entry."""

    def fails(connection: Connection) -> None:
        catalog.put_provider(connection, PROVIDER, now=1.0)
        raise RuntimeError("changed my mind")

    with pytest.raises(RuntimeError):
        await audit.commit(fails)
    await audit.commit(catalog.load)
    assert entries(log) == []


async def test_entries_of_neighbours_in_one_transaction_are_one_chain(audit: Audit, log: AuditLog) -> None:
    """The writer commits them together, and one that fails between them takes no number along."""

    def fails(connection: Connection) -> None:
        raise RuntimeError

    results = await asyncio.gather(
        *(provider(audit, f"p{n}") for n in range(10)),
        audit.commit(fails),
        *(provider(audit, f"q{n}") for n in range(10)),
        return_exceptions=True,
    )
    assert [type(result) for result in results if result is not None] == [RuntimeError]
    assert [entry.seq for entry in entries(log)] == list(range(1, 21))
    assert log.verify(KEYS, (audit.head,)).ok


async def test_who_is_at_work_is_known_to_tasks_and_not_to_others(audit: Audit, log: AuditLog) -> None:
    """A change that goes on in a task of its own is still theirs; outside, it is the service itself."""

    async def both() -> None:
        with audit.by(WHO):
            await asyncio.create_task(audit.note(Action.SESSION_OPEN))

    await asyncio.gather(both(), audit.note(Action.VAULT_LOCK, reason="idle"))
    actors = {entry.action: entry.actor for entry in entries(log)}
    assert actors == {"session.open": "admin-token", "vault.lock": "system"}


async def test_a_store_that_fails_is_told_to_who_wanted_the_entry(audit: Audit, writer: Writer) -> None:
    """What cannot be audited is not done; what is past already is in the log at least."""
    await writer.close()
    with pytest.raises(TokenHubError):
        await audit.note(Action.SECRET_READ, "secret:x")
    await audit.try_note(Action.REQUEST, "x")
    await audit.denied(Attempt("10.0.0.1", "admin_token"))


async def test_every_entry_is_told_to_listeners_and_to_the_log(
    audit: Audit, log: AuditLog, caplog: pytest.LogCaptureFixture
) -> None:
    """With its place and hash, so that whoever collects logs has a head that the disk's owner cannot change."""
    heard: list[Entry] = []
    audit.listen(heard.append)
    with caplog.at_level(logging.INFO, "tokenhub_core.audit.journal"):
        await audit.note(Action.SESSION_OPEN)
    assert heard == entries(log)
    assert f"1:{heard[0].hash.hex()} session.open" in caplog.text


# --- the file beside it ------------------------------------------------------------------------------------


async def test_the_head_is_beside_the_database_when_a_change_is_acknowledged(
    audit: Audit, log: AuditLog, anchor: Anchor
) -> None:
    """Whatever was acknowledged is missed if it is cut off later."""
    for _ in range(3):
        await audit.note(Action.SESSION_OPEN)
        assert anchor.read() == str(log.head()) == str(audit.head)
    assert audit.anchored() == audit.head
    assert mode(anchor) == 0o600


async def test_a_restart_goes_on_where_the_chain_ends(
    audit: Audit, again: Opened, log: AuditLog, anchor: Anchor
) -> None:
    """With the file and without it."""
    await audit.note(Action.SESSION_OPEN)
    later = again()
    assert await later.load() == ()
    assert later.head == audit.head
    put(anchor, None)
    bare = again()
    assert await bare.load() == ()
    assert bare.head == audit.head
    await bare.note(Action.SESSION_CLOSE)
    assert log.verify(KEYS, (bare.head,)).ok


@pytest.mark.parametrize(
    "edit",
    [
        ("DELETE FROM audit WHERE seq > 2",),
        ("DELETE FROM audit",),
        ("UPDATE audit SET hash = ZEROS WHERE seq = 4",),
    ],
    ids=["tail", "everything", "head"],
)
async def test_a_chain_that_was_cut_is_told_at_the_next_start(
    audit: Audit, again: Opened, log: AuditLog, database: Database, edit: tuple[str, ...]
) -> None:
    """An entry says what was known and what was found, so that the next signature does not bless it."""
    for _ in range(4):
        await audit.note(Action.SESSION_OPEN)
    known = audit.head
    sql(database, *edit)
    cut = log.head()
    later = again()
    assert await later.load() == ("the audit log is not what it was: run tokenhub audit verify",)
    told = last(log)

    assert (told["action"], told["actor"], told["outcome"]) == ("audit.broken", "system", "failed")
    assert (told["before"], told["after"]) == ({"head": str(known)}, {"head": str(cut)})
    assert not log.verify(KEYS, (known,)).ok
    assert await again().load() == ()


async def test_a_chain_that_is_cut_while_the_service_runs_is_told_with_the_next_entry(
    audit: Audit, log: AuditLog, database: Database
) -> None:
    """Once; then the chain goes on."""
    for _ in range(3):
        await audit.note(Action.SESSION_OPEN)
    sql(database, "DELETE FROM audit WHERE seq = 3")
    await audit.note(Action.SESSION_CLOSE)
    await audit.note(Action.SESSION_CLOSE)
    assert [entry.action for entry in entries(log)[2:]] == ["audit.broken", "session.close", "session.close"]


async def test_entries_of_another_process_are_no_break(audit: Audit, again: Opened, log: AuditLog) -> None:
    """A command on the same database writes behind ours, and we write behind that."""
    await audit.note(Action.SESSION_OPEN)
    other = again()
    await other.load()
    await other.note(Action.VAULT_LOCK)
    await audit.note(Action.SESSION_CLOSE)
    assert [entry.action for entry in entries(log)] == ["session.open", "vault.lock", "session.close"]
    assert log.verify(KEYS, (audit.head,)).ok


@pytest.mark.parametrize("text", [b"no head", b"\xff"])
async def test_a_head_that_cannot_be_read_is_told(again: Opened, anchor: Anchor, text: bytes) -> None:
    """The service starts; the operator is told."""
    put(anchor, text)
    (warning,) = await again().load()
    assert "head is not known" in warning


async def test_a_head_that_cannot_be_written_stops_nothing(
    audit: Audit, anchor: Anchor, caplog: pytest.LogCaptureFixture
) -> None:
    """The entry is durable; the log says that the file is not."""
    in_the_way(anchor)
    await audit.note(Action.SESSION_OPEN)
    assert "could not be written" in caplog.text


async def test_without_a_file_the_chain_works_as_well(
    database: Database, writer: Writer, clock: Hands
) -> None:
    """A database in memory has none beside it, and no key signs without a vault."""
    audit = Audit(database, writer, clock=clock)
    assert await audit.load() == ()
    await audit.note(Action.SESSION_OPEN)
    assert (audit.anchored(), beside(":memory:", "audit")) == (None, None)
    assert next(AuditLog(database).entries()).mac is None


# --- whoever edits the file --------------------------------------------------------------------------------

_COLUMNS = (
    "at, actor, source, program, request_id, action, subject, outcome, reason, count, before, after, key_id,"
    " previous, hash, mac"
)


@pytest.mark.parametrize(
    ("edit", "wanted"),
    [
        (("UPDATE audit SET actor = 'nobody' WHERE seq = 3",), {(3, "changed")}),
        (("UPDATE audit SET after = '{}' WHERE seq = 3",), {(3, "changed")}),
        (("UPDATE audit SET at = at + 1 WHERE seq = 1",), {(1, "changed")}),
        (("DELETE FROM audit WHERE seq = 3",), {(3, "missing")}),
        (("DELETE FROM audit WHERE seq = 1",), {(1, "missing")}),
        (("DELETE FROM audit WHERE seq > 4",), {(6, "head")}),
        (
            (
                "UPDATE audit SET seq = -2 WHERE seq = 2",
                "UPDATE audit SET seq = 2 WHERE seq = 3",
                "UPDATE audit SET seq = 3 WHERE seq = -2",
            ),
            {(2, "link"), (2, "changed"), (3, "link"), (3, "changed"), (4, "link")},
        ),
        (
            (
                "UPDATE audit SET seq = seq + 100 WHERE seq > 3",
                "UPDATE audit SET seq = seq - 99 WHERE seq > 100",
                f"INSERT INTO audit (seq, {_COLUMNS}) SELECT 4, {_COLUMNS} FROM audit WHERE seq = 3",
            ),
            {(4, "link"), (4, "changed"), (5, "changed"), (6, "changed"), (6, "head"), (7, "changed")},
        ),
        (("UPDATE audit SET mac = ZEROS WHERE seq = 2",), {(2, "mac")}),
        (("UPDATE audit SET mac = NULL WHERE seq = 2",), {(2, "mac")}),
    ],
    ids=[
        *("who", "what", "when", "middle", "front", "tail", "reordered", "inserted", "forged", "unsigned"),
    ],
)
async def test_an_edited_file_is_found(
    audit: Audit, log: AuditLog, database: Database, edit: tuple[str, ...], wanted: set[tuple[int, str]]
) -> None:
    """Changed, removed, cut, reordered, inserted, unsigned: by SQL on the file itself, and told where."""
    await provider(audit)
    for number in range(5):
        await provider(audit, enabled=bool(number % 2))
    known = audit.head
    assert log.verify(KEYS, (known,)) == Report((), 6, 6, 0, 6, known)
    sql(database, *edit)

    assert found(log.verify(KEYS, (known,))) == wanted


# --- who was not let in ------------------------------------------------------------------------------------


async def test_denied_attempts_are_gathered(audit: Audit, log: AuditLog, clock: Hands) -> None:
    """A hundred attempts in a minute are two entries: the first at once, the others with their count."""
    attempt = Attempt("10.0.0.1", "admin_token", "GET /admin/v1/info")
    for _ in range(100):
        await audit.denied(attempt)
    assert len(entries(log)) == 1
    clock.at = FIRST
    await audit.denied(Attempt("10.0.0.2", "bad_host", "GET /admin"))
    told = [(e.actor, e.source, e.reason, e.subject, e.outcome, e.count) for e in entries(log)]

    assert told == [
        ("anonymous", "10.0.0.1", "admin_token", "GET /admin/v1/info", "denied", 1),
        ("anonymous", "10.0.0.1", "admin_token", "GET /admin/v1/info", "denied", 99),
        ("anonymous", "10.0.0.2", "bad_host", "GET /admin", "denied", 1),
    ]


async def test_what_was_gathered_is_written_by_itself_and_at_the_end(
    audit: Audit, log: AuditLog, clock: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without another attempt to set it off."""
    monkeypatch.setattr("tokenhub_core.audit.journal.TICK", 0.0)
    attempt = Attempt("10.0.0.1", "admin_token")
    written = asyncio.Event()
    await audit.denied(attempt)
    await audit.denied(attempt)
    audit.listen(lambda _: written.set())
    clock.at = FIRST
    keeping = asyncio.create_task(audit.keep())
    await written.wait()
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await audit.denied(attempt)
    await audit.denied(attempt)
    await audit.close()
    assert [entry.count for entry in entries(log)] == [1, 1, 1, 1]


# --- reading -----------------------------------------------------------------------------------------------


async def test_entries_are_found_by_what_they_are(audit: Audit, log: AuditLog, clock: Hands) -> None:
    """By action or kind of action, actor, subject, outcome and time, newest first, page by page."""
    with audit.by(WHO):
        await audit.note(Action.VAULT_UNLOCK, outcome=Result.DENIED)
        clock.at = 10
        await audit.note(Action.SECRET_READ, "secret:a")
    clock.at = 20
    await audit.note(Action.VAULT_LOCK)

    def seqs(**wanted: Any) -> list[int]:
        return [entry.seq for entry in log.page(filters=Filters(**wanted)).items]

    at = clock.now()
    assert seqs() == [3, 2, 1]
    assert seqs(action="vault") == [3, 1]
    assert seqs(action="vault.lock") == [3]
    assert seqs(action="vault.l") == []
    assert seqs(actor="admin-token") == [2, 1]
    assert seqs(subject="secret:a") == [2]
    assert seqs(outcome="denied") == [1]
    assert seqs(since=at - 10) == [3, 2]
    assert seqs(until=at) == [2, 1]
    first = log.page(limit=2)
    assert ([entry.seq for entry in first.items], first.next) == ([3, 2], 2)
    assert log.page(limit=2, before=first.next).next is None
    assert [entry.seq for entry in log.after(1, 10)] == [2, 3]
    assert [entry.seq for entry in log.after(0, 2)] == [1, 2]
    for limit in (0, 1001):
        with pytest.raises(TokenHubError, match="limit"):
            log.page(limit=limit)


def test_an_empty_chain_has_the_first_head(log: AuditLog) -> None:
    """Nothing stands at 0."""
    assert log.head() == START == Head(0, bytes(32))


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"\xff")])
def test_a_file_that_is_no_anchor_is_told(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """One line that names it."""
    make(tmp_path / "a")
    with pytest.raises(Exception, match=f"{tmp_path}/a: "):
        Anchor(tmp_path / "a").read()
