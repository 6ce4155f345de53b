"""What a database error means, read from SQLite's result code and never from its words. Pure.

Codes: https://www.sqlite.org/rescode.html. The low byte is the primary code; the rest says more of the same.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError

LOCKED: Final = "store_locked"
"""Another process held the write lock for longer than the busy timeout."""
CLOSED: Final = "store_closed"
"""The writer no longer takes work."""

INTERRUPTED: Final = 9
"""SQLITE_INTERRUPT: we stopped the statement ourselves."""

_CAUSES: Final[dict[int, tuple[str, str]]] = {
    3: ("store_readonly", "the database may not be opened"),
    5: (LOCKED, "the database is locked by another process"),
    6: (LOCKED, "the database is locked by another process"),
    8: ("store_readonly", "the database is read-only"),
    10: ("store_io", "the disk reported an error"),
    11: ("store_corrupt", "the database is damaged"),
    13: ("store_full", "the disk is full"),
    14: ("store_missing", "the database cannot be opened"),
    26: ("store_corrupt", "the file is not a SQLite database"),
}


def code(error: BaseException) -> int:
    """Return SQLite's primary result code, 0 where the error carries none."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    found = getattr(origin, "sqlite_errorcode", 0)
    return found & 0xFF if isinstance(found, int) else 0


def words(error: BaseException) -> str:
    """Return the operator's words for a failure of the store, empty where it is none."""
    return _CAUSES.get(code(error), ("", ""))[1]


def store_fault(error: BaseException) -> TokenHubError | None:
    """Return the typed failure of the store that `error` is; None where the statement itself was wrong."""
    if isinstance(error, PoolTimeout):
        return unavailable("every connection to the database is in use", LOCKED)
    cause, message = _CAUSES.get(code(error), ("", ""))
    return unavailable(message, cause) if cause else None


def unavailable(message: str, cause: str = "store_unavailable") -> TokenHubError:
    """Return the error for a store that cannot be used now: 503, come back in a second."""
    return TokenHubError(Fault(Kind.INTERNAL, Blame.US, message, cause=cause, status=503, retry_after=1.0))
