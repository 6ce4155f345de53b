"""A copy of a SQLite database that is whole, taken while it is written to, and how it is put back.

A copy by `cp` is none: what was committed last stands in a second file, and pages change while they are read. SQLite's
own backup reads one view of the database (https://www.sqlite.org/backup.html).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenhub_core.errors import ConfigError
from tokenhub_core.store import faults, schema
from tokenhub_core.store.driver import choose

_PAGES: Final = 1000
"""Pages that are read under one lock where a reader keeps the writer out."""
_WAIT: Final = 10.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Copy:
    """What was copied."""

    path: Path
    bytes: int
    revision: str
    """Of its schema."""


def backup(source: str, target: Path) -> Copy:
    """Copy the database at `source` to `target`, which must not be there yet; raises `ConfigError`.

    The copy is one file, readable by its owner only, checked from end to end and durable on return.
    """
    if not Path(source).exists():
        raise ConfigError(f"there is no database {source}")
    if target.exists():
        raise ConfigError(f"{target} is already there")
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    module: Any = choose().module
    try:
        os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with _said(source, module), closing(module.connect(source, timeout=_WAIT)) as original:
            wal = original.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
            with closing(module.connect(str(beside))) as copy:
                original.backup(copy, pages=-1 if wal else _PAGES)
                copy.execute("PRAGMA journal_mode = DELETE")
        revision = checked(beside)
        _settled(beside)
        beside.rename(target)
        _settled(target.parent)
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
    return Copy(target, target.stat().st_size, revision)


def restore(source: Path, target: str) -> Copy:
    """Put the copy at `source` in the place of the database at `target`; raises `ConfigError`, having done nothing.

    Nobody may have the database open. What was there is kept beside it, as `….before-restore`.
    """
    revision = checked(source)
    place = Path(target)
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    module: Any = choose().module
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        shutil.copyfile(source, beside)
        _settled(beside)
        if place.exists():
            _alone(place, module)
            _set_aside(place)
        beside.rename(place)
        _settled(place.parent)
    except OSError as error:
        raise ConfigError(f"{target}: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
    return Copy(place, place.stat().st_size, revision)


def checked(path: Path) -> str:
    """Return the revision of the copy at `path`; raises `ConfigError` where it is none of ours, or damaged."""
    module: Any = choose().module
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    # `immutable`: a copy is not changed by being looked at, not even by files beside it.
    address = f"{path.absolute().as_uri()}?immutable=1"
    with _said(str(path), module), closing(module.connect(address, uri=True)) as raw:
        found = raw.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise ConfigError(f"{path}: damaged ({' '.join(str(found).split())})")
        try:
            revision = raw.execute("SELECT version_num FROM alembic_version").fetchone()
        except module.OperationalError:
            raise ConfigError(f"{path}: not a database of TokenHub's") from None
    if revision is None or revision[0] not in schema.REVISIONS:
        raise ConfigError(f"{path}: written by a newer TokenHub (this version knows {schema.HEAD})")
    return str(revision[0])


def _set_aside(path: Path) -> None:
    """Rename a database and all that belongs to it: a log of the old one beside the new one would ruin it."""
    for companion in ("", "-wal", "-shm", "-journal"):
        one = path.with_name(path.name + companion)
        if one.exists():
            one.replace(path.with_name(f"{path.name}.before-restore{companion}"))


def _alone(path: Path, module: Any) -> None:
    """Make sure that nobody has the database open, and bring all of it into its one file."""
    try:
        with closing(module.connect(str(path), timeout=0.2)) as raw:
            # Leaving the write-ahead log needs the file for itself, and so does an exclusive transaction without one.
            raw.execute("PRAGMA journal_mode = DELETE")
            raw.execute("BEGIN EXCLUSIVE")
    except module.DatabaseError as error:
        if faults.cause(error) == faults.LOCKED:
            raise ConfigError(f"database {path} is in use: stop TokenHub first") from None
        # Else it is damaged, which is why it is restored.


@contextmanager
def _said(where: str, module: Any) -> Iterator[None]:
    """Let what SQLite raises be one line for the operator."""
    try:
        yield
    except (module.Error, UnicodeDecodeError) as error:
        reason = "damaged" if isinstance(error, UnicodeDecodeError) else " ".join(str(error).split())
        raise ConfigError(f"{where}: {reason}") from error


def _settled(path: Path) -> None:
    """Make a file, or the names in a directory, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
