"""PostgreSQL behind the same tables and queries as SQLite; loaded only where `TOKENHUB_DB_DSN` names one.

Every wait is bounded twice. The server ends a statement, a wait for a lock and a transaction that nobody goes on with
by its own clock. Where the server itself does not answer any more (stopped, cut off), the connection is closed on this
side a moment later: a socket whose other end is stopped stays open and silent for as long as anybody would wait.

Transactions that change what others may read and change again take one lock of the whole database first, as SQLite's
write lock: the code above was written for that. Transactions that only add records do not, so several processes
record side by side.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, override

import psycopg
import sqlalchemy
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Connection, Engine, QueuePool, event

from tokenhub_core.errors import ConfigError
from tokenhub_core.store.schema import METADATA
from tokenhub_core.store.spelling import PURPOSE, Purpose
from tokenhub_core.store.tables import WHERE

_LOCK: Final = int.from_bytes(hashlib.sha256(b"tokenhub write lock").digest()[:8], "big", signed=True)
"""The number of the advisory lock; such locks belong to one database of a server."""
_CHANGE: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Each statement sees what was committed before it. A server's or a database's own default may be another one; then a
transaction would go on seeing what was there before it waited for the lock."""
_READ: Final = 30.0
"""Seconds. What is read for a person or a report may take this long, where changes may take less."""
_REST: Final = 600_000
"""Milliseconds that a reader may rest between two pages, while whoever they are for takes them in."""
_UPGRADE: Final = 3600.0
"""Seconds. A migration waits for other processes' migrations, and may rewrite a large table."""
_GRACE: Final = 2.0
"""Seconds that the server has to end a statement itself before the connection is closed here."""
_ASKED: Final = 2.0
"""Seconds that a server which is asked whether it is there has to connect; the driver knows no fewer."""
_OLDEST: Final = 130000
_LOCAL: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})
_SECRET_BYTES: Final = 4096
_log: Final = logging.getLogger(__name__)


class _Bounded(psycopg.Connection[Any]):
    """A connection on which no wait lasts longer than `patience`, whatever the other end does."""

    patience: float = _READ
    """Seconds, set at the beginning of each transaction."""

    @override
    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.patience + _GRACE if timeout is None else timeout)
        except psycopg.OperationalError as error:
            # Without a code the server has not spoken: nobody knows what it is still doing, and it must not be asked.
            if error.sqlstate is None:
                self.close()
            raise


def target(dsn: str) -> dict[str, str]:
    """Return libpq's parameters of a DSN; raises `ConfigError`, which never quotes it: it may hold a password."""
    scheme, _, rest = dsn.partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ConfigError(
            f"TOKENHUB_DB_DSN: {scheme}:// is not known; use postgresql:// or a path for SQLite"
        )
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(f"postgresql://{rest}").items()}
    except psycopg.Error:
        raise ConfigError(
            "TOKENHUB_DB_DSN: not a PostgreSQL URI; characters such as @ / % # in a password are written %40 %2F …"
        ) from None
    hosts = (found.get("host") or found.get("hostaddr") or "").split(",")
    if "PGSSLMODE" not in os.environ and any(host not in _LOCAL and host[0] not in "/@" for host in hosts):
        # libpq's own default falls back to plain text without a word.
        found.setdefault("sslmode", "require")
    return found


def place(parameters: Mapping[str, str]) -> str:
    """Return what a database is called in messages: host, port and name, nothing secret."""
    host = parameters.get("host") or "localhost"
    port = f":{parameters['port']}" if "port" in parameters else ""
    return f"postgresql://{host}{port}/{parameters.get('dbname') or parameters.get('user', '')}"


def engine(parameters: Mapping[str, str], *, timeout: float, durable: bool, password_file: str) -> Engine:
    """Return the pool of connections. `timeout` is in seconds; with `durable` a commit waits for the server's disk.

    The password file is read for each new connection, so that a changed password needs no restart.
    """
    for index in (index for table in METADATA.tables.values() for index in table.indexes):
        if where := index.info.get(WHERE):
            index.dialect_options["postgresql"]["where"] = sqlalchemy.text(where)
    made = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=partial(_connected, dict(parameters), timeout, durable, password_file),
        poolclass=QueuePool,
        pool_size=4,
        max_overflow=4,
        pool_timeout=5,
        pool_pre_ping=True,
        use_native_hstore=False,
    )
    event.listen(made, "begin", partial(_begin, timeout))

    def back(raw: Any, _record: object) -> None:
        if raw is not None:
            raw.patience = timeout

    event.listen(made, "checkin", back)
    return made


def ask(parameters: Mapping[str, str], password_file: str) -> None:
    """Connect, hear something and leave; raises `psycopg.Error`. Waits some four seconds at most."""
    soon = {**parameters, "connect_timeout": str(round(_ASKED))}
    _connected(soon, _ASKED, durable=False, password_file=password_file).close()


def checked(connection: Connection, where: str) -> None:
    """Refuse a server that would not keep what it is told; what is only a risk is logged."""
    names = ("server_version_num", "server_encoding", "fsync", "full_page_writes")
    query = "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
    version, encoding, *safety = connection.exec_driver_sql(query).one()
    if int(version) < _OLDEST:
        raise ConfigError(f"database {where}: PostgreSQL {_OLDEST // 10000} or later is needed")
    if encoding != "UTF8":
        raise ConfigError(f"database {where}: its encoding must be UTF8, not {encoding}")
    if "off" in safety:
        _log.warning("database %s: the server runs with fsync or full_page_writes off", where)


def _connected(
    parameters: Mapping[str, str], timeout: float, durable: bool, password_file: str
) -> psycopg.Connection[Any]:
    milliseconds = round(timeout * 1000)
    ours = {
        # A lock is a part of its statement: whoever waits for one is to hear that it was the lock.
        "statement_timeout": milliseconds + 1000,
        "lock_timeout": milliseconds,
        "idle_in_transaction_session_timeout": 2 * milliseconds,
    }
    options = " ".join(f"-c {name}={value}" for name, value in ours.items())
    given = dict(parameters)
    if password_file:
        given["password"] = _password(password_file)
    given["options"] = f"{options} {given.get('options', '')}".strip()
    given.setdefault("application_name", "tokenhub")
    given.setdefault("connect_timeout", str(max(2, round(timeout))))
    given.setdefault("tcp_user_timeout", str(milliseconds))
    given.setdefault("client_encoding", "utf8")
    connection = _Bounded.connect(make_conninfo("", **given), autocommit=True)
    connection.patience = timeout
    try:
        _promise(connection, durable=durable)
    except psycopg.Error:
        connection.close()
        raise
    return connection


def _promise(connection: psycopg.Connection[Any], *, durable: bool) -> None:
    """Let a commit wait for the disk, or not."""
    # What the server does where nobody asked for more is left alone, unless it is less than was promised.
    if not durable:
        connection.execute("SET synchronous_commit = off")
    else:
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false)"
            " WHERE current_setting('synchronous_commit') = 'off'"
        )


def _begin(timeout: float, connection: Connection) -> None:
    """Begin in one round trip, with the lock where the transaction is to have it."""
    purpose = connection.get_execution_options().get(PURPOSE, Purpose.READ)
    raw: Any = connection.connection.dbapi_connection
    match purpose:
        case Purpose.WRITE:
            raw.patience = timeout
            begin = f"{_CHANGE}; SELECT pg_advisory_xact_lock({_LOCK})"
        case Purpose.UPGRADE:
            raw.patience = _UPGRADE
            begin = (
                f"{_CHANGE}; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;"
                f" SET LOCAL idle_in_transaction_session_timeout = 0; SELECT pg_advisory_xact_lock({_LOCK})"
            )
        case _:
            raw.patience = max(_READ, timeout)
            begin = (
                "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;"
                f" SET LOCAL statement_timeout = {round(raw.patience * 1000)};"
                f" SET LOCAL idle_in_transaction_session_timeout = {_REST}"
            )
    # Whatever the connection is told of how rows are to come: this brings none.
    connection.exec_driver_sql(begin, execution_options={"stream_results": False, "yield_per": None})


def _password(name: str) -> str:
    """Return what a file holds, less one newline at its end; raises `OperationalError`, as a failed connection does."""
    try:
        with Path(name).expanduser().open("rb") as file:
            return file.read(_SECRET_BYTES).decode().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise psycopg.OperationalError(f"TOKENHUB_DB_PASSWORD_FILE {name}: {reason}") from None
