"""Which process does what only one of several has to do, as a row with an end.

A row and no lock of a session: a session ends without a word where a pooler or a failover lies between, and SQLite has
none. Times are in seconds since the epoch, by the clocks of the processes.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from tokenhub_core.store import catalog

_KEY: Final = "leader.upkeep"


def claim(connection: Connection, process: str, *, now: float, until: float) -> bool:
    """Take the lead, or keep it, `until` then; False where another process has it."""
    holder, _, end = (catalog.setting(connection, _KEY) or " 0").partition(" ")
    if holder != process and float(end) > now:
        return False
    catalog.put_setting(connection, _KEY, f"{process} {until:.3f}")
    return True


def leave(connection: Connection, process: str) -> None:
    """Let go of the lead, where this process has it."""
    if (catalog.setting(connection, _KEY) or "").startswith(f"{process} "):
        catalog.delete_setting(connection, _KEY)
