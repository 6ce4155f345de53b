"""Clients' API keys as rows, and the digests of their secrets; a secret itself has no column.

A change is made on what stands in the row, under the write lock, and touches nothing that it does not mean: that a key
was used is written by itself and takes no other column along.

Every change counts up a number in the same transaction, and leaves it in the row that was changed. Whoever holds keys
in memory sees by it that another process has changed some, and which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson
from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, tuple_, update

from tokenhub_core.admission.apikeys import Kept, Known
from tokenhub_core.store import generations
from tokenhub_core.store.rows import dumps
from tokenhub_core.store.schema import API_KEY_SECRETS, API_KEYS
from tokenhub_core.types import ApiKey, KeyLimits, Privacy, Scope, Trust

_LISTS: Final = ("models", "providers", "hosts", "tags")
_PLAIN: Final = ("name", "prefix", "enabled", "project", "created_at", "expires_at", "rotate_at")
_BESIDE: Final = ("rotation_days", "updated_at", "rotation_told", "expiry_told")
_SCOPES: Final = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Changes:
    """What was changed since, and what there is now."""

    kept: list[Kept]
    ids: frozenset[str]
    """Of all keys."""
    number: int
    """Of the last change."""


def changes(connection: Connection, *, since: int = 0) -> Changes:
    """Return what was changed after the change of this number; every key for 0, or for one that is not reached here."""
    number = generation(connection)
    fresh = API_KEYS.c.change > (since if since <= number else 0)
    found = connection.execute(select(API_KEYS).where(fresh).order_by(API_KEYS.c.id)).all()
    chosen = API_KEY_SECRETS.c.key_id.in_(select(API_KEYS.c.id).where(fresh))
    secrets = _secrets(connection.execute(select(API_KEY_SECRETS).where(chosen).order_by(*_NEWEST)))
    ids = frozenset(connection.execute(select(API_KEYS.c.id)).scalars())
    return Changes([_kept(row, secrets.get(row.id, ())) for row in found], ids, number)


def find(connection: Connection, key_id: str) -> Kept | None:
    """Return one key, None where there is none of this id."""
    row = connection.execute(select(API_KEYS).where(API_KEYS.c.id == key_id)).first()
    return None if row is None else _together(connection, [row])[0]


def page(connection: Connection, *, limit: int, before: tuple[int, str] | None) -> list[Kept]:
    """Return at most `limit` keys, the newest first; `before`, a (`created_at`, id), leaves out those up to it."""
    place = tuple_(API_KEYS.c.created_at, API_KEYS.c.id)
    query = select(API_KEYS).order_by(API_KEYS.c.created_at.desc(), API_KEYS.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(place < tuple_(*before))
    return _together(connection, connection.execute(query).all())


def count(connection: Connection) -> int:
    """Return how many keys there are."""
    return connection.execute(select(func.count()).select_from(API_KEYS)).scalar_one()


def put(connection: Connection, kept: Kept) -> int:
    """Store a key, new or replacing one, and return the number of this change. When it was used is left as it is."""
    key, number = kept.key, generations.counted(connection, generations.API_KEYS)
    values = {
        "change": number,
        **{name: getattr(key, name) for name in _PLAIN},
        **{name: dumps(list(getattr(key, name))) for name in _LISTS},
        **{name: getattr(kept, name) for name in _BESIDE},
        "scopes": dumps(sorted(key.scopes)),
        "limits": msgspec.json.encode(key.limits).decode(),
        "trust": msgspec.json.encode(key.trust, order="deterministic").decode(),
        "privacy": msgspec.json.encode(key.privacy).decode(),
    }
    if not connection.execute(update(API_KEYS).where(API_KEYS.c.id == key.id).values(**values)).rowcount:
        connection.execute(insert(API_KEYS).values(id=key.id, last_used_at=kept.last_used_at, **values))
    connection.execute(delete(API_KEY_SECRETS).where(API_KEY_SECRETS.c.key_id == key.id))
    rows = [{"key_id": key.id, **msgspec.structs.asdict(one)} for one in kept.secrets]
    connection.execute(insert(API_KEY_SECRETS), rows)
    return number


def remove(connection: Connection, key_id: str) -> int:
    """Remove a key and its secrets, and return the number of this change."""
    connection.execute(delete(API_KEYS).where(API_KEYS.c.id == key_id))
    return generations.counted(connection, generations.API_KEYS)


def note_used(connection: Connection, used: Mapping[str, int]) -> None:
    """Note when keys were used last, by id; an earlier time changes nothing, and no change is counted."""
    statement = (
        update(API_KEYS)
        .where(API_KEYS.c.id == bindparam("key"), API_KEYS.c.last_used_at < bindparam("at"))
        .values(last_used_at=bindparam("at"))
    )
    connection.execute(statement, [{"key": key, "at": at} for key, at in used.items()])


def generation(connection: Connection) -> int:
    """Return the number of the last change, 0 where nothing was ever changed."""
    return generations.last(connection, generations.API_KEYS)


_NEWEST: Final = (API_KEY_SECRETS.c.created_at.desc(), API_KEY_SECRETS.c.expires_at)
"""Of several secrets of one key that came in the same moment, the one without an end is the newest."""


def _together(connection: Connection, found: Iterable[Row[Any]]) -> list[Kept]:
    rows = list(found)
    chosen = API_KEY_SECRETS.c.key_id.in_([row.id for row in rows])
    secrets = _secrets(connection.execute(select(API_KEY_SECRETS).where(chosen).order_by(*_NEWEST)))
    return [_kept(row, secrets.get(row.id, ())) for row in rows]


def _secrets(found: Iterable[Row[Any]]) -> dict[str, tuple[Known, ...]]:
    secrets: dict[str, tuple[Known, ...]] = {}
    for row in found:
        one = Known(bytes(row.digest), row.prefix, row.created_at, row.expires_at, row.pepper)
        secrets[row.key_id] = (*secrets.get(row.key_id, ()), one)
    return secrets


def _kept(row: Row[Any], secrets: tuple[Known, ...]) -> Kept:
    """Return the key of a row; a scope that only a newer version knows is none."""
    values = dict(row._mapping)
    same: dict[str, Any] = {name: values[name] for name in _PLAIN}
    same.update((name, tuple(orjson.loads(values[name]))) for name in _LISTS)
    key = ApiKey(
        id=row.id,
        scopes=frozenset(Scope(one) for one in orjson.loads(row.scopes) if one in _SCOPES),
        limits=msgspec.json.decode(row.limits, type=KeyLimits),
        trust=msgspec.json.decode(row.trust, type=Trust),
        privacy=msgspec.json.decode(row.privacy, type=Privacy),
        **same,
    )
    beside = {name: values[name] for name in _BESIDE}
    return Kept(key, secrets, last_used_at=row.last_used_at, **beside)
