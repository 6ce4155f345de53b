"""Whether a database is what this version believes it is: every page, every table, every entry of the audit chain."""

from __future__ import annotations

from typing import Final

import sqlalchemy
from sqlalchemy import Connection

from tokenhub_core.store import schema
from tokenhub_core.store.audit import AuditLog
from tokenhub_core.store.database import Database

_INVALID: Final = (
    "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
    " WHERE NOT indisvalid AND relnamespace = current_schema()::regnamespace"
)
_LOOSE: Final = (
    "SELECT conname FROM pg_constraint"
    " WHERE NOT convalidated AND connamespace = current_schema()::regnamespace"
)


def findings(database: Database) -> list[str]:
    """Return what is wrong, one line each; nothing where all is well. Reads everything, which takes its time."""
    with database.reading() as connection:
        sqlite = connection.dialect.name == "sqlite"
        found = [*(_pages(connection) if sqlite else _catalogue(connection)), *_tables(connection)]
    report = AuditLog(database).verify({})
    return [*found, *(f"audit log: {one.text}" for one in report.findings)]


def _pages(connection: Connection) -> list[str]:
    found = connection.exec_driver_sql("PRAGMA integrity_check(20)").scalars().all()
    loose = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    return [
        *(" ".join(str(one).split()) for one in found if one != "ok"),
        *(f"{row[0]}: row {row[1]} belongs to nothing in {row[2]}" for row in loose[:20]),
    ]


def _catalogue(connection: Connection) -> list[str]:
    """Return which indexes and constraints the server itself does not trust."""
    return [
        *(
            f"index {name} is not valid: REINDEX it"
            for name in connection.exec_driver_sql(_INVALID).scalars()
        ),
        *(f"constraint {name} was not validated" for name in connection.exec_driver_sql(_LOOSE).scalars()),
    ]


def _tables(connection: Connection) -> list[str]:
    inspector = sqlalchemy.inspect(connection)
    there = set(inspector.get_table_names())
    found = []
    for table in schema.METADATA.sorted_tables:
        if table.name not in there:
            found.append(f"table {table.name} is missing")
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        found += [
            f"column {table.name}.{one.name} is missing" for one in table.columns if one.name not in columns
        ]
        indexes = {index["name"] for index in inspector.get_indexes(table.name)}
        found += [f"index {one.name} is missing" for one in table.indexes if one.name not in indexes]
    return sorted(found)
