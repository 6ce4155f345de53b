"""What a database error means."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tokenhub_core.errors import Blame, Kind
from tokenhub_core.store import faults


def _error(result: int, words: str = "") -> OperationalError:
    origin = sqlite3.OperationalError(words)
    origin.sqlite_errorcode = result
    return OperationalError("INSERT", None, origin)


@pytest.mark.parametrize(
    ("result", "cause"),
    [
        (5, "store_locked"),
        (517, "store_locked"),  # SQLITE_BUSY_SNAPSHOT
        (6, "store_locked"),
        (8, "store_readonly"),
        (10, "store_io"),
        (1034, "store_io"),  # SQLITE_IOERR_FSYNC
        (11, "store_corrupt"),
        (13, "store_full"),
        (26, "store_corrupt"),
    ],
)
def test_the_result_code_decides_and_its_extension_does_not(result: int, cause: str) -> None:
    """Every failure of the store is ours, a 503 with a moment to wait, and has a label of a closed set."""
    error = faults.store_fault(_error(result))
    assert error is not None
    assert (error.fault.kind, error.fault.blame, error.fault.cause) == (Kind.INTERNAL, Blame.US, cause)
    assert (error.fault.http_status, error.fault.retry_after) == (503, 1.0)


def test_words_decide_nothing() -> None:
    """An error that says it is locked and is not stays what it is."""
    assert faults.store_fault(_error(1, "database is locked")) is None
    assert faults.store_fault(_error(19, "disk full")) is None
    assert faults.store_fault(ValueError("database is locked")) is None


def test_an_exhausted_pool_is_a_failure_of_the_store() -> None:
    """Waiting for a connection and waiting for a lock look the same to the caller."""
    error = faults.store_fault(PoolTimeout("no connection"))
    assert error is not None
    assert error.fault.cause == "store_locked"
