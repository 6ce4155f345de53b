"""Which SQLite is trusted with a write-ahead log."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from tokenhub_core.errors import ConfigError
from tokenhub_core.store.driver import choose, wal_safe


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), False),
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 49, 9), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 0), False),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 4), True),
        ((4, 0, 0), True),
    ],
)
def test_the_wal_reset_bug_has_exact_limits(version: tuple[int, int, int], safe: bool) -> None:
    """3.7.0 to 3.51.2 may lose committed pages, except where the fix was carried back."""
    assert wal_safe(version) is safe


def _build(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> ModuleType:
    module = ModuleType(name)
    module.__dict__["sqlite_version"] = version
    monkeypatch.setitem(sys.modules, name, module)
    return module


def test_the_build_that_is_installed_here_may_use_wal() -> None:
    """The lock brings a build outside the range on every platform that has its wheel."""
    driver = choose()
    assert driver.journal == "wal"
    assert driver.module.__name__ == "pysqlite3.dbapi2"


def test_a_safe_build_is_preferred_to_an_earlier_unsafe_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is a preference; safety outranks it."""
    _build(monkeypatch, "old_sqlite", "3.40.1")
    new = _build(monkeypatch, "new_sqlite", "3.51.3")
    assert choose(("missing_sqlite", "old_sqlite", "new_sqlite")).module is new


def test_with_unsafe_builds_only_there_is_no_wal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollback journal is slower, and outside the bug."""
    old = _build(monkeypatch, "old_sqlite", "3.40.1")
    driver = choose(("missing_sqlite", "old_sqlite"))
    assert (driver.module, driver.version, driver.journal) == (old, (3, 40, 1), "truncate")


def test_without_any_build_the_operator_is_told() -> None:
    """One line, naming what was looked for."""
    with pytest.raises(ConfigError, match="no SQLite module can be imported"):
        choose(("missing_sqlite",))
