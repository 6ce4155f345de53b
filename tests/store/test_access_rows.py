"""Failed logins as rows: few enough, whoever makes up names."""

from __future__ import annotations

import pytest

from tokenhub_core.store import access as rows
from tokenhub_core.store.database import Database

NOW = 1_700_000_000_000_000


def test_counts_are_kept_apart_and_forgotten(database: Database) -> None:
    """Each mark has its own; 0 takes it out, and after a day it counts no more."""
    with database.writing() as connection:
        rows.put_attempts(connection, b"a", 3, NOW)
        rows.put_attempts(connection, b"b", 4, NOW + 1)
        rows.put_attempts(connection, b"b", 5, NOW + 2)
        assert rows.attempts(connection, [b"b", b"c", b"a"], NOW + 2) == [(5, NOW + 2), (0, 0), (3, NOW)]
        assert rows.attempts(connection, [b"a", b"b"], NOW + rows.FORGOTTEN) == [(0, 0), (5, NOW + 2)]
        rows.put_attempts(connection, b"b", 0, NOW + 3)
        assert rows.attempts(connection, [b"a", b"b"], NOW + 3) == [(3, NOW), (0, 0)]
        rows.put_attempts(connection, b"c", 1, NOW + rows.FORGOTTEN)
        assert rows.attempts(connection, [b"a"], NOW) == [(0, 0)]


def test_names_that_strangers_make_up_fill_no_disk(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the most, the oldest rows go."""
    monkeypatch.setattr(rows, "MOST_ATTEMPTS", 10)
    with database.writing() as connection:
        for number in range(15):
            rows.put_attempts(connection, bytes([number]), 1, NOW + number)
        found = rows.attempts(connection, [bytes([number]) for number in range(15)], NOW)
        assert [failures for failures, _ in found] == [0] * 5 + [1] * 10
