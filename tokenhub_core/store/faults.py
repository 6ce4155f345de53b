"""What a database error means, read from the code that SQLite or PostgreSQL gives it, never from its words. Pure.

SQLite's codes: https://www.sqlite.org/rescode.html. The low byte is the primary code; the rest says more of the same.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault

LOCKED: Final = "store_locked"
"""Another process held the write lock for longer than the busy timeout."""
SLOW: Final = "store_slow"
"""A statement took longer than it may."""
BUSY: Final = "store_busy"
"""Another process's change was in the way; the same again may pass at once."""
LOST: Final = "store_lost"
"""The server of the database does not answer, or has closed the connection."""
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


_STATES: Final[dict[str, tuple[str, str]]] = {
    "25006": ("store_readonly", "the database takes no changes: it is a standby"),
    "25P03": (LOST, "the database ended a transaction that took too long"),
    "28": ("store_refused", "the database refuses the login"),
    "3D000": ("store_missing", "there is no such database"),
    "40001": (BUSY, "the database is busy with another change"),
    "40P01": (BUSY, "the database is busy with another change"),
    "42501": ("store_refused", "the database forbids it to this user"),
    "53100": ("store_full", "the database's disk is full"),
    "53": ("store_exhausted", "the database has no more connections or memory"),
    "55P03": (LOCKED, "the database is locked by another process"),
    "57014": (SLOW, "the database took too long"),
    "57": (LOST, "the database is stopping or starting"),
    "58": ("store_io", "the database's disk reported an error"),
    "08": (LOST, "the database cannot be reached"),
    "XX001": ("store_corrupt", "the database is damaged"),
    "XX002": ("store_corrupt", "the database is damaged"),
    "XX": ("store_failed", "the database reported an error of its own"),
}
"""PostgreSQL's SQLSTATE, or the class that its first two characters name → cause, words.

Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html.
"""
_UNSPOKEN: Final = (LOST, "the database cannot be reached")
_NOTHING: Final = ("", "")


def code(error: BaseException) -> int:
    """Return SQLite's primary result code, 0 where the error carries none."""
    found = getattr(_origin(error), "sqlite_errorcode", 0)
    return found & 0xFF if isinstance(found, int) else 0


def cause(error: BaseException) -> str:
    """Return the label of a failure of the store, empty where it is none."""
    return _meant(error)[0]


def words(error: BaseException) -> str:
    """Return the operator's words for a failure of the store, empty where it is none."""
    return _meant(error)[1]


def store_fault(error: BaseException) -> TokenHubError | None:
    """Return the typed failure of the store that `error` is; None where the statement itself was wrong."""
    if isinstance(error, PoolTimeout):
        return unavailable("every connection to the database is in use", LOCKED)
    cause, message = _meant(error)
    return unavailable(message, cause) if cause else None


def heard(error: Exception) -> Exception:
    """Return `error` as whoever brought the work is to hear it: a value that the database cannot hold is theirs."""
    if isinstance(error, DataError):
        return client_fault("text with a NUL in it, or a number beyond 64 bits, cannot be stored")
    return error


def unavailable(message: str, cause: str = "store_unavailable") -> TokenHubError:
    """Return the error for a store that cannot be used now: 503, come back in a second."""
    return TokenHubError(Fault(Kind.INTERNAL, Blame.US, message, cause=cause, status=503, retry_after=1.0))


def _meant(error: BaseException) -> tuple[str, str]:
    origin = _origin(error)
    if not hasattr(origin, "sqlstate"):
        return _CAUSES.get(code(error), _NOTHING)
    state = origin.sqlstate
    if state is None:
        # Of the driver's own errors only this kind says that the server is gone; the others are the statement's.
        gone = any(kind.__name__ in {"OperationalError", "InterfaceError"} for kind in type(origin).__mro__)
        return _UNSPOKEN if gone else _NOTHING
    return _STATES.get(state) or _STATES.get(state[:2], _NOTHING)


def _origin(error: BaseException) -> BaseException:
    return error.orig or error if isinstance(error, DBAPIError) else error
