"""The audit log in SQL: what a transaction changed of what is configured, and the chain that tells of it.

What is watched is what an operator can change. What a transaction changes is found by comparing the rows before it and
after it, so that nobody who changes something has to say so too, and nobody can forget to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, Select, Table, insert, select

from tokenhub_core.audit import chain
from tokenhub_core.audit.chain import Signer
from tokenhub_core.audit.entries import Action, Cause, Draft, Entry, Head, Result
from tokenhub_core.errors import client_fault
from tokenhub_core.store.database import Database
from tokenhub_core.store.rows import micros
from tokenhub_core.store.schema import (
    ADMIN_TOKENS,
    ADMIN_USERS,
    ALIASES,
    AUDIT,
    BUDGETS,
    CREDENTIALS,
    HOST_MODES,
    MODELS,
    PROVIDERS,
    ROUTING_CONFIG,
    VAULT_ENTRIES,
    VAULT_HEADER,
    WEBHOOKS,
)
from tokenhub_core.types import Json

PAGE_MAX: Final = 1000
"""The longest page."""
_BATCH: Final = 500

type State = dict[tuple[str, str], dict[str, Any]]
"""Noun and subject → the row's values."""


@dataclass(frozen=True, slots=True)
class _Watched:
    """A table, what its rows are called, and the columns that name one of them."""

    table: Table
    noun: str
    key: tuple[str, ...]
    unseen: frozenset[str] = frozenset()
    """Columns that are not even read: ciphertexts, hashes, and what is no change of anything."""
    packed: frozenset[str] = frozenset()
    """Columns that hold JSON text."""


_WATCHED: Final = (
    _Watched(PROVIDERS, "provider", ("id",), packed=frozenset({"endpoints"})),
    _Watched(CREDENTIALS, "credential", ("name", "provider_id")),
    _Watched(MODELS, "model", ("id", "provider_id"), packed=frozenset({"price_tiers", "lacks", "quirks"})),
    _Watched(ALIASES, "alias", ("name",), packed=frozenset({"targets"})),
    _Watched(HOST_MODES, "mode", ("host", "proxy_user", "alias")),
    _Watched(ROUTING_CONFIG, "routing", ()),
    _Watched(BUDGETS, "budget", ("id",), packed=frozenset({"thresholds"})),
    _Watched(WEBHOOKS, "webhook", ("id",), packed=frozenset({"kinds"})),
    _Watched(ADMIN_USERS, "user", ("name",), unseen=frozenset({"password", "last_login_at"})),
    _Watched(ADMIN_TOKENS, "token", ("name",), unseen=frozenset({"mark"})),
    _Watched(VAULT_HEADER, "vault", (), packed=frozenset({"header"})),
    _Watched(VAULT_ENTRIES, "secret", ("name",), unseen=frozenset({"sealed"})),
)
_TIMES: Final = frozenset({"created_at", "updated_at"})
_SEALED: Final = frozenset({"salt", "wrapped", "kept"})
"""Members of the vault's header that say nothing to a reader; a digest of all stands for them."""


@dataclass(frozen=True, slots=True)
class Filters:
    """Which entries; empty fields choose all. Times are seconds since the epoch, `since` included, `until` not."""

    action: str = ""
    """One of them, or all that begin with it: `vault` for all of the vault's."""
    actor: str = ""
    subject: str = ""
    outcome: str = ""
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, newest first. `next` goes into `before` for the page after this one; None at the end."""

    items: tuple[Entry, ...]
    next: int | None


def state(connection: Connection) -> State:
    """Return everything that is watched, as it stands now."""
    found: State = {}
    for watched in _WATCHED:
        columns = [column for column in watched.table.columns if column.name not in watched.unseen]
        for row in connection.execute(select(*columns)).mappings():
            values = {str(name): _value(name, value, watched) for name, value in row.items()}
            subject = " @ ".join(str(values[name]) for name in watched.key)
            found[watched.noun, subject] = values
    return found


def differences(before: State, after: State) -> list[Draft]:
    """Return what was done between the two, in the order of nouns and subjects."""
    drafts: list[Draft] = []
    for noun, subject in dict.fromkeys([*before, *after]):
        old, new = before.get((noun, subject)), after.get((noun, subject))
        if old is None:
            drafts.append(Draft(Action(f"{noun}.create"), subject, after=_shown(new or {})))
        elif new is None:
            drafts.append(Draft(Action(f"{noun}.delete"), subject, before=_shown(old)))
        elif old != new:
            was, now = _shown(old), _shown(new)
            names = [name for name in now if was.get(name) != now[name]]
            drafts.append(
                Draft(
                    Action(f"{noun}.change"),
                    subject,
                    before={name: was.get(name) for name in names},
                    after={name: now[name] for name in names},
                )
            )
    return drafts


def head(connection: Connection) -> Head:
    """Return where the chain ends."""
    found = connection.execute(
        select(AUDIT.c.seq, AUDIT.c.hash).order_by(AUDIT.c.seq.desc()).limit(1)
    ).first()
    return Head(found.seq, bytes(found.hash)) if found else chain.START


def holds(connection: Connection, known: Head) -> bool:
    """Tell whether the chain still leads over a place that it was known to lead over."""
    if not known.seq:
        return True
    found = connection.execute(select(AUDIT.c.hash).where(AUDIT.c.seq == known.seq)).scalar()
    if found is None:
        return after_trim(known, trimmed(connection, Action.AUDIT_TRIM))
    return bytes(found) == known.hash


def after_trim(known: Head, trimmed: Head) -> bool:
    """Tell whether a place that is not there any more went with the beginning of its chain."""
    return known.seq < trimmed.seq or known == trimmed


def trim_entry(connection: Connection, action: Action) -> Entry | None:
    """Return the last entry that says where a chain begins now, None where it begins with its first one."""
    query = select(AUDIT).where(AUDIT.c.action == action.value, AUDIT.c.outcome == Result.DONE.value)
    row = connection.execute(query.order_by(AUDIT.c.seq.desc()).limit(1)).first()
    return _entry(row) if row else None


def trimmed(connection: Connection, action: Action, table: Table = AUDIT) -> Head:
    """Return the last entry of the chain in `table` that is not there any more because its time was over.

    Of a chain that begins with a signed entry an unsigned one cannot say so: anybody could have added it.
    """
    found = trim_entry(connection, action)
    if found is None:
        return chain.START
    first = connection.execute(select(table.c.key_id).order_by(table.c.seq).limit(1)).scalar()
    if first and not found.key_id:
        return chain.START
    try:
        return chain.head_of(orjson.loads(found.after or "")["through"])
    except (ValueError, KeyError, TypeError):
        # What was damaged proves nothing, and is found to be damaged.
        return chain.START


def append(
    connection: Connection, drafts: Sequence[Draft], cause: Cause, *, now: float, signer: Signer | None
) -> list[Entry]:
    """Add entries at the end of the chain and return them. The write lock keeps others out meanwhile."""
    at, entries = head(connection), []
    for draft in drafts:
        entry = chain.linked(draft, cause, at=micros(now), head=at, signer=signer)
        entries.append(entry)
        at = Head(entry.seq, entry.hash)
    if entries:
        connection.execute(insert(AUDIT), [_row(entry) for entry in entries])
    return entries


class AuditLog:
    """Reads the chain. Reads take a connection of their own in the calling thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, *, limit: int = 100, before: int | None = None, filters: Filters = Filters()) -> Page:
        """Return at most `limit` (1 to 1,000) entries older than `before`."""
        if not 1 <= limit <= PAGE_MAX:
            raise client_fault(f"limit must be between 1 and {PAGE_MAX}", param="limit")
        query = _filtered(select(AUDIT), filters).order_by(AUDIT.c.seq.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(AUDIT.c.seq < before)
        with self._database.reading() as connection:
            found = [_entry(row) for row in connection.execute(query)]
        return Page(tuple(found[:limit]), found[limit - 1].seq if len(found) > limit else None)

    def head(self) -> Head:
        """Return where the chain ends."""
        with self._database.reading() as connection:
            return head(connection)

    def after(self, seq: int, limit: int) -> list[Entry]:
        """Return at most `limit` entries behind `seq`, in order."""
        query = select(AUDIT).where(AUDIT.c.seq > seq).order_by(AUDIT.c.seq).limit(limit)
        with self._database.reading() as connection:
            return [_entry(row) for row in connection.execute(query)]

    def entries(self) -> Iterator[Entry]:
        """Yield every entry in order, from one consistent view."""
        with self._database.reading() as connection:
            yield from _all(connection)

    def verify(self, keys: Mapping[str, bytes], heads: tuple[Head, ...] = ()) -> chain.Report:
        """Look at every entry; see `chain.Verifier`."""
        with self._database.reading() as connection:
            verifier = chain.Verifier(keys, heads, trimmed=trimmed(connection, Action.AUDIT_TRIM))
            for entry in _all(connection):
                verifier.feed(entry)
        return verifier.report()


def _all(connection: Connection) -> Iterator[Entry]:
    query = select(AUDIT).order_by(AUDIT.c.seq).execution_options(yield_per=_BATCH)
    # The result too is closed, for those who read no further: a server keeps it open else.
    with connection.execute(query) as found:
        for row in found:
            yield _entry(row)


def shown(entry: Entry) -> Json:
    """Return an entry as the admin API and exports show it: everything that its hash is made of."""
    return {
        "seq": entry.seq,
        "at": entry.at / 1e6,
        "at_us": entry.at,
        "actor": entry.actor,
        "source": entry.source,
        "program": entry.program,
        "request_id": entry.request_id,
        "action": entry.action,
        "subject": entry.subject,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "count": entry.count,
        "before": None if entry.before is None else orjson.loads(entry.before),
        "after": None if entry.after is None else orjson.loads(entry.after),
        "key_id": entry.key_id,
        "previous": entry.previous.hex(),
        "hash": entry.hash.hex(),
        "mac": entry.mac.hex() if entry.mac else None,
    }


def _value(name: str, value: Any, watched: _Watched) -> Any:
    if name not in watched.packed:
        return value
    try:
        read = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    if watched.table is VAULT_HEADER and isinstance(read, dict):
        told = {key: inner for key, inner in read.items() if key not in _SEALED}
        return {**told, "sha256": sha256(value.encode()).hexdigest()}
    return read


def _shown(values: Mapping[str, Any]) -> Json:
    return {name: value for name, value in values.items() if name not in _TIMES}


def _filtered[S: Select[Any]](query: S, filters: Filters) -> S:
    table = AUDIT.c
    if filters.action:
        whole = table.action == filters.action
        query = query.where(whole | table.action.startswith(f"{filters.action}.", autoescape=True))
    for column, wanted in ((table.actor, filters.actor), (table.subject, filters.subject)):
        if wanted:
            query = query.where(column == wanted)
    if filters.outcome:
        query = query.where(table.outcome == filters.outcome)
    if filters.since is not None:
        query = query.where(table.at >= micros(filters.since))
    if filters.until is not None:
        query = query.where(table.at < micros(filters.until))
    return query


def _row(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__struct_fields__}


def _entry(row: Row[Any]) -> Entry:
    values = dict(row._mapping)
    mac = values["mac"]
    return Entry(
        **{
            **values,
            "previous": bytes(values["previous"]),
            "hash": bytes(values["hash"]),
            "mac": None if mac is None else bytes(mac),
        }
    )
