"""Which SQLite: the first build at hand that may keep a write-ahead log, else one without (ADR 0002)."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from tokenhub_core.errors import ConfigError

BUILDS: Final = ("pysqlite3.dbapi2", "sqlite3")
"""The wheel that brings its own SQLite, then whatever this Python was linked with."""

_FIXED: Final = (3, 51, 3)
_BACKPORTS: Final = {(3, 44): 6, (3, 50): 7}
"""Minor release → the first patch that carries the fix."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A DB-API module and the journal mode that it is trusted with."""

    module: ModuleType
    version: tuple[int, int, int]
    journal: str
    """`wal` or `truncate`."""


def wal_safe(version: tuple[int, int, int]) -> bool:
    """Say whether this SQLite is outside the range of the WAL-reset bug (3.7.0 to 3.51.2, less the backports).

    Two connections that checkpoint and commit at the same moment can make it skip committed pages:
    https://www.sqlite.org/wal.html#walresetbug.
    """
    patch = _BACKPORTS.get(version[:2])
    return version >= _FIXED or (patch is not None and version[2] >= patch)


def choose(builds: Sequence[str] = BUILDS) -> Driver:
    """Return the best of `builds` that can be imported; raises `ConfigError` where there is none."""
    found: list[Driver] = []
    for name in builds:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        version = _version(module.sqlite_version)
        if wal_safe(version):
            return Driver(module, version, "wal")
        found.append(Driver(module, version, "truncate"))
    if not found:
        raise ConfigError(f"no SQLite module can be imported (tried {', '.join(builds)})")
    return found[0]


def _version(spelt: str) -> tuple[int, int, int]:
    major, minor, patch = (int(part) for part in spelt.split(".")[:3])
    return major, minor, patch
