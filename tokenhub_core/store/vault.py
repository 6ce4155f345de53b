"""The vault's rows: its header, its sealed entries, what it knows of them, and wrong passwords.

Every function works on a connection that its caller holds. `now` is in seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Table, delete, insert, select, update

from tokenhub_core.store.rows import MICROS, micros
from tokenhub_core.store.schema import VAULT_ATTEMPTS, VAULT_ENTRIES, VAULT_HEADER, VAULT_STATE
from tokenhub_core.vault.manifest import Sealed, SetState, VaultRows

_SINGLE: Final = 1


def load(connection: Connection) -> VaultRows:
    """Return the vault as stored."""
    table = VAULT_ENTRIES.c
    found = connection.execute(select(table.name, table.sealed, table.version))
    entries = {row.name: Sealed(bytes(row.sealed), row.version) for row in found}
    return VaultRows(header(connection), entries, state(connection))


def header(connection: Connection) -> str | None:
    """Return the header's JSON text, None where no vault was made."""
    return connection.execute(select(VAULT_HEADER.c.header)).scalar()


def put_header(connection: Connection, header: str, *, now: float) -> None:
    """Store the header and leave the entries as they are."""
    _put(connection, VAULT_HEADER, {"header": header, "updated_at": micros(now)})


def put_entry(connection: Connection, name: str, entry: Sealed, *, now: float) -> None:
    """Store one sealed secret."""
    values = {"sealed": entry.sealed, "version": entry.version, "updated_at": micros(now)}
    table = VAULT_ENTRIES
    if not connection.execute(update(table).where(table.c.name == name).values(**values)).rowcount:
        connection.execute(insert(table).values(name=name, **values))


def delete_entry(connection: Connection, name: str) -> bool:
    """Remove one sealed secret; False where there was none."""
    return connection.execute(delete(VAULT_ENTRIES).where(VAULT_ENTRIES.c.name == name)).rowcount > 0


def reseal(connection: Connection, header: str, entries: Mapping[str, Sealed], *, now: float) -> None:
    """Replace the header and every ciphertext; what each entry is stays. Entries that are not named go.

    In one transaction, so that no crash leaves old keys beside new secrets.
    """
    put_header(connection, header, now=now)
    for name in load(connection).entries:
        if name not in entries:
            delete_entry(connection, name)
    for name, entry in entries.items():
        values = {"sealed": entry.sealed, "version": entry.version}
        connection.execute(update(VAULT_ENTRIES).where(VAULT_ENTRIES.c.name == name).values(**values))


def state(connection: Connection) -> SetState | None:
    """Return what the vault knows of its entries, None where it never stored that."""
    row = connection.execute(select(VAULT_STATE)).first()
    if row is None:
        return None
    return SetState(
        row.counter,
        row.seals,
        orjson.loads(row.manifest),
        tuple(orjson.loads(row.removed)),
        row.anchored,
        bytes(row.mac),
    )


def put_state(connection: Connection, state: SetState) -> None:
    """Store what the vault knows of its entries."""
    values = {
        "counter": state.counter,
        "seals": state.seals,
        "manifest": orjson.dumps(dict(state.manifest)).decode(),
        "removed": orjson.dumps(list(state.removed)).decode(),
        "anchored": state.anchored,
        "mac": state.mac,
    }
    _put(connection, VAULT_STATE, values)


def failures(connection: Connection) -> tuple[int, float]:
    """Return how many passwords were wrong since the last right one, and when the last of them was."""
    row = connection.execute(select(VAULT_ATTEMPTS)).first()
    return (row.failures, row.failed_at / MICROS) if row else (0, 0.0)


def put_failures(connection: Connection, count: int, *, now: float) -> None:
    """Store how many passwords were wrong."""
    _put(connection, VAULT_ATTEMPTS, {"failures": count, "failed_at": micros(now)})


def _put(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    if not connection.execute(update(table).where(table.c.id == _SINGLE).values(**values)).rowcount:
        connection.execute(insert(table).values(id=_SINGLE, **values))
