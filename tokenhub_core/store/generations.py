"""Numbers that count changes of what processes hold in memory, each counted up in the transaction of the change.

By a number that has moved on a process sees that another one has changed something.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from tokenhub_core.store import catalog

_END: Final = ".generation"
ACCESS: Final = f"access{_END}"
API_KEYS: Final = f"api_keys{_END}"
BUDGETS: Final = f"budgets{_END}"
CATALOG: Final = f"catalog{_END}"
LEARNED: Final = f"learned{_END}"
VAULT: Final = f"vault{_END}"


def last(connection: Connection, name: str) -> int:
    """Return the number of the last change, 0 where nothing was ever changed."""
    return int(catalog.setting(connection, name) or 0)


def every(connection: Connection) -> dict[str, int]:
    """Return the number of the last change of each kind that was ever changed."""
    return {name: int(number) for name, number in catalog.settings(connection).items() if name.endswith(_END)}


def counted(connection: Connection, name: str) -> int:
    """Count a change, and return its number."""
    number = last(connection, name) + 1
    catalog.put_setting(connection, name, str(number))
    return number
