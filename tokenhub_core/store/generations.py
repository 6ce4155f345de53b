"""Numbers that count changes of what processes hold in memory, each counted up in the transaction of the change.

By a number that has moved on a process sees that another one has changed something.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from tokenhub_core.store import catalog

API_KEYS: Final = "api_keys.generation"
BUDGETS: Final = "budgets.generation"


def last(connection: Connection, name: str) -> int:
    """Return the number of the last change, 0 where nothing was ever changed."""
    return int(catalog.setting(connection, name) or 0)


def counted(connection: Connection, name: str) -> int:
    """Count a change, and return its number."""
    number = last(connection, name) + 1
    catalog.put_setting(connection, name, str(number))
    return number
