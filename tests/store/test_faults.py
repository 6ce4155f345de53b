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


class _Server(Exception):  # noqa: N818 -- named as what it stands for
    """As psycopg's: a class of its own for each kind, and the server's code where the server has spoken."""

    def __init__(self, sqlstate: str | None) -> None:
        self.sqlstate = sqlstate


_Gone: type[_Server] = type("OperationalError", (_Server,), {})


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("08006", "store_lost"),
        ("57P01", "store_lost"),  # the server is stopping
        ("57P03", "store_lost"),  # the server is starting
        ("57014", "store_slow"),
        ("55P03", "store_locked"),
        ("40P01", "store_busy"),
        ("53100", "store_full"),
        ("53300", "store_exhausted"),
        ("25006", "store_readonly"),
        ("28P01", "store_refused"),
        ("58030", "store_io"),
        ("XX001", "store_corrupt"),
    ],
)
def test_the_code_of_a_server_decides(state: str, cause: str) -> None:
    """Of PostgreSQL it has five characters, of which the first two name a class."""
    error = faults.store_fault(OperationalError("INSERT", None, _Server(state)))
    assert error is not None
    assert (error.fault.cause, error.fault.http_status) == (cause, 503)


def test_a_server_that_says_nothing_is_gone() -> None:
    """Where the driver itself speaks, only an error of operation means that; any other is the statement's."""
    error = faults.store_fault(_Gone(None))
    assert error is not None
    assert error.fault.cause == "store_lost"
    assert faults.store_fault(_Server(None)) is None
    assert faults.store_fault(_Server("23505")) is None  # a row that is there already


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
