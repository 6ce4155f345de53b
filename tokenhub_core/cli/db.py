"""`tokenhub db`: whether the database is whole, and copies of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from tokenhub_core.cli.admin import running_client
from tokenhub_core.cli.options import as_json, data_option, plain, shown, tell
from tokenhub_core.cli.place import database_path, opened
from tokenhub_core.errors import ConfigError
from tokenhub_core.store import backup as copies
from tokenhub_core.store import checkup
from tokenhub_core.store.database import is_server, path_of

_BAD: Final = 1
"""The exit code where something is wrong with the database."""


@click.group(short_help="Check, back up and restore the database.")
def db() -> None:
    """Check, back up and restore the database that `tokenhub serve` uses."""


@db.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@as_json
@data_option
def backup(*, file: Path, json: bool, data: Path | None) -> None:
    """Copy the database to FILE, which must not be there yet. The server may go on meanwhile."""
    made = copies.backup(_file(data, "pg_dump --format=custom"), file)
    if not shown({"file": str(made.path), "bytes": made.bytes, "schema": made.revision}, json=json):
        tell(plain(f"{made.path}: {made.bytes} bytes, schema {made.revision}, checked"))


@db.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@as_json
@data_option
def restore(*, file: Path, json: bool, data: Path | None) -> None:
    """Put the copy in FILE in the place of the database, which is kept beside it. TokenHub must not run.

    The vault and the audit log are made to notice an older copy of themselves; `tokenhub vault unlock --accept` and the
    entry that the audit log makes of it say that it was meant.
    """
    place = _file(data, "pg_restore")
    if running_client(data) is not None:
        raise ConfigError("TokenHub is running on this database: stop it first")
    made = copies.restore(file, place)
    if not shown({"database": str(made.path), "bytes": made.bytes, "schema": made.revision}, json=json):
        tell(plain(f"{made.path}: restored from {file}, schema {made.revision}"))


@db.command()
@as_json
@data_option
def check(*, json: bool, data: Path | None) -> None:
    """Read all of the database and say what is wrong with it. Exit code 1: something is.

    It may be in use. One of an older version is brought to this version's schema first, as every command does.
    """
    where = database_path(data)
    if not is_server(where) and not Path(path_of(where)).exists():
        raise ConfigError(f"there is no database {path_of(where)}")
    with opened(data) as database:
        found = checkup.findings(database)
        where = database.where
    if not shown({"database": where, "ok": not found, "findings": found}, json=json):
        for one in found:
            tell(plain(one))
        tell(plain(f"{where}: {'NOT whole' if found else 'whole'}"))
    if found:
        sys.exit(_BAD)


def _file(data: Path | None, instead: str) -> str:
    where = database_path(data)
    if is_server(where):
        raise ConfigError(f"this database is PostgreSQL's: use its own {instead}, as docs/database.md says")
    return path_of(where)
