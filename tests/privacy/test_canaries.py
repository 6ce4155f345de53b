"""Whoever looks for canaries finds them: the scanner itself."""

from __future__ import annotations

import base64
import sqlite3
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.privacy.canaries import Canaries, files, scanned


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text.encode(),
        lambda text: f'{{"a":"x{text}y"}}'.encode(),
        lambda text: quote(text, safe="").encode(),
        lambda text: base64.b64encode(text.encode()),
        lambda text: base64.b64encode(f"user:{text}".encode()),
        lambda text: base64.b64encode(f"us:{text}!".encode()),
        lambda text: text.encode().hex().encode(),
    ],
)
def test_a_planted_canary_is_found(spell: object) -> None:
    """In clear, quoted, in a Basic credential, in hex; and only that one."""
    canaries = Canaries(("one", "two"))
    assert callable(spell)

    assert canaries.found(b"before" + spell(canaries["one"]) + b"after") == ["one"]
    assert canaries.found(spell(canaries["one"]), but=["one"]) == []


def test_a_canary_in_a_database_is_found_in_its_wal(tmp_path: Path) -> None:
    """As long as nothing has brought it into the database proper."""
    canaries = Canaries(("row",))
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE t (a)")
    connection.execute("INSERT INTO t VALUES (?)", (canaries["row"],))
    connection.commit()

    found = scanned(files(tmp_path), canaries, {})

    assert [line.rpartition("/")[2] for line in found] == ["db-wal: row"]
    assert scanned(files(tmp_path), canaries, {str(tmp_path / "db-wal"): {"row"}}) == []
    connection.close()
