"""Opening the database: made private, checked, brought to the newest schema, or refused in one line.

It is a file of SQLite's, or a database of PostgreSQL's behind a URI, which `store.postgresql` speaks to.

SQLite's pragmas belong to a connection and not to the file, so a hook sets them on each one: a pool that opens a second
connection must not lose its foreign keys. Transactions are begun by us and not by the driver: a writing one takes the
write lock first (`BEGIN IMMEDIATE`), so waiting for another process happens there and nowhere else.
"""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import sqlalchemy
from sqlalchemy import Connection, Engine, QueuePool, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from tokenhub_core.errors import ConfigError
from tokenhub_core.health.breaker import Breaker
from tokenhub_core.store import faults, schema
from tokenhub_core.store.creation import create
from tokenhub_core.store.driver import Driver, choose
from tokenhub_core.store.spelling import POSTGRESQL, PURPOSE, SQLITE, Purpose, Spelling

MEMORY: Final = ":memory:"
"""A database that ends with its `Database`."""

_SYNCHRONOUS: Final = ("FULL", "EXTRA", "NORMAL")
_SAID: Final = 300
_REST: Final = 0.25
"""Seconds. Shorter than the writer's time between two looks, so that each of them may."""
_CHECK_STEPS: Final = 10_000
_log: Final = logging.getLogger(__name__)


class Database:
    """An open database. Connections are pooled; each is used by one thread at a time."""

    def __init__(
        self,
        engine: Engine,
        where: str,
        *,
        checked: bool,
        spelling: Spelling = SQLITE,
        patience: float = 5.0,
        ask: Callable[[], None] | None = None,
    ) -> None:
        self._engine = engine
        self.ask = ask
        """Returns or raises when the server has said something, in its own connection; None for a file."""
        self.where = where
        """The file's path, `:memory:`, or the URI of a PostgreSQL without what is secret in it."""
        self.spelling = spelling
        self.patience = patience
        """Seconds that a change waits for the database, or for whoever holds it."""
        self.breaker = Breaker(failures=1, rest=_REST)
        """Open while it is known to fail; whoever writes moves it."""
        self.checked = checked
        """Whether the check at start reached the end of the file within its time."""
        # The last connection to a database in memory takes it along when it closes.
        self._anchor = engine.connect() if where == MEMORY else None

    @property
    def lost(self) -> bool:
        """Whether its server is known to be gone."""
        return self.breaker.why == faults.LOST

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Hold one consistent view of the database; raises `TokenHubError` where the store fails.

        A server that is known to be gone is not asked: a thread would wait for each connection that cannot be made.
        """
        if self.lost:
            raise faults.unavailable("the database cannot be reached", faults.LOST)
        with _typed(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Hold the write lock for one transaction, for commands that run without the writer thread."""
        with _typed(), self.writer_connection() as connection, connection.begin():
            yield connection

    def writer_connection(self, purpose: Purpose = Purpose.WRITE) -> Connection:
        """Return a connection whose transactions take the write lock, but for reading; its caller closes it."""
        return self._engine.execution_options(**{PURPOSE: purpose}).connect()

    def close(self) -> None:
        """Close every pooled connection."""
        if self._anchor is not None:
            self._anchor.close()
        self._engine.dispose()


def open_database(
    path_or_url: str,
    *,
    synchronous: str = "FULL",
    busy_ms: int = 5000,
    check_seconds: float = 1.0,
    driver: Driver | None = None,
    password_file: str = "",
) -> Database:
    """Open a database, made and upgraded where needed; raises `ConfigError` with one line for the operator.

    `path_or_url` is a path, `sqlite:///path`, `file:path`, `:memory:` or `postgresql://…`. With less than FULL for
    `synchronous` a power cut may take the last records along. `busy_ms` bounds the wait for another process's lock, and
    of PostgreSQL each statement of a change. The check of a file stops after `check_seconds`, which is then logged.
    `driver` chooses the SQLite build. PostgreSQL's password may stand in `password_file`.
    """
    if synchronous.upper() not in _SYNCHRONOUS:
        raise ConfigError(
            f"TOKENHUB_DB_SYNCHRONOUS must be one of {', '.join(_SYNCHRONOUS)}, not {synchronous!r}"
        )
    if is_server(path_or_url):
        return _open_server(
            path_or_url, busy_ms / 1000, durable=synchronous.upper() != "NORMAL", password_file=password_file
        )
    driver = driver or choose()
    where = path_of(path_or_url)
    if where != MEMORY:
        _make_private(Path(where))
    engine = _engine(where, driver, {"busy_timeout": busy_ms, "synchronous": synchronous.upper()})

    def check(connection: Connection) -> bool:
        return _check(connection, where, check_seconds)

    database = _opened(Database(engine, where, checked=True, patience=busy_ms / 1000), check)
    if not database.checked:
        _log.warning("database %s: checked in part only, %s s were not enough", where, check_seconds)
    return database


def _open_server(dsn: str, seconds: float, *, durable: bool, password_file: str) -> Database:
    try:
        server = importlib.import_module("tokenhub_core.store.postgresql")
    except ImportError as error:
        raise ConfigError(
            f"TOKENHUB_DB_DSN: PostgreSQL needs {error.name}; install tokenhub[postgresql]"
        ) from None
    parameters = server.target(dsn)
    where = server.place(parameters)
    engine = server.engine(parameters, timeout=seconds, durable=durable, password_file=password_file)
    ask = partial(server.ask, parameters, password_file)

    def check(connection: Connection) -> bool:
        server.checked(connection, where)
        return True

    made = Database(engine, where, checked=True, spelling=POSTGRESQL, patience=seconds, ask=ask)
    return _opened(made, check)


def _opened(database: Database, check: Callable[[Connection], bool]) -> Database:
    """Check the database and bring it to the newest schema; where that cannot be, close it and say so in one line."""
    where = database.where
    try:
        with database.writer_connection(Purpose.READ) as connection:
            database.checked = check(connection)
            revision = _revision(connection, where)
        if revision != schema.HEAD:
            with database.writer_connection(Purpose.UPGRADE) as connection, connection.begin():
                # Under the lock, for another process may have been faster; Alembic reads the stamp again, too.
                if sqlalchemy.inspect(connection).get_table_names():
                    _upgrade(connection)
                else:
                    create(connection)
    except DBAPIError as error:
        database.close()
        words, said = faults.words(error), " ".join(str(error.orig).split())[:_SAID]
        # Why there is no connection has no code, and is what the operator has to know.
        lost = faults.cause(error) == faults.LOST
        raise ConfigError(f"database {where}: {f'{words}: {said}' if lost else words or said}") from error
    except UnicodeDecodeError as error:
        # SQLite's own message quotes what it read.
        database.close()
        raise ConfigError(f"database {where}: the file is damaged; restore a backup") from error
    except ConfigError:
        database.close()
        raise
    return database


def _upgrade(connection: Connection) -> None:
    """Run the migrations. Loaded here and not above: Alembic costs 100 ms, and most starts need none of it."""
    importlib.import_module("tokenhub_core.store.upgrade").upgrade(connection)


def _revision(connection: Connection, where: str) -> str | None:
    """Return the stored revision, None for a new database; a foreign or newer one is a `ConfigError`."""
    tables = set(sqlalchemy.inspect(connection).get_table_names())
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise ConfigError(f"database {where}: holds tables that are not TokenHub's; name another file")
    revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    if revision is not None and revision not in schema.REVISIONS:
        raise ConfigError(
            f"database {where}: written by a newer TokenHub (schema {revision}, this version knows {schema.HEAD})"
        )
    return revision


def _check(connection: Connection, where: str, seconds: float) -> bool:
    """Look for damage for at most `seconds`; return whether the whole file was read."""
    raw: Any = connection.connection.dbapi_connection
    deadline = time.monotonic() + seconds
    raw.set_progress_handler(lambda: time.monotonic() >= deadline, _CHECK_STEPS)
    try:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    except DBAPIError as error:
        if faults.code(error) != faults.INTERRUPTED:
            raise
        return False
    finally:
        raw.set_progress_handler(None, _CHECK_STEPS)
    if found != "ok":
        raise ConfigError(
            f"database {where}: the file is damaged; restore a backup ({' '.join(str(found).split())})"
        )
    return True


def _engine(where: str, driver: Driver, pragmas: dict[str, object]) -> Engine:
    connect: Callable[..., Any] = driver.module.connect
    # A named database of the memdb VFS is seen by every connection of the process, as a file is.
    target = f"file:/tokenhub-{secrets.token_hex(8)}?vfs=memdb" if where == MEMORY else where
    engine = sqlalchemy.create_engine(
        "sqlite+pysqlite://",
        module=driver.module,
        creator=partial(connect, target, uri=where == MEMORY, isolation_level=None, check_same_thread=False),
        poolclass=QueuePool,
        pool_size=4,
        max_overflow=4,
        pool_timeout=5,
    )
    journal = "memory" if where == MEMORY else driver.journal

    def prepare(raw: Any, _record: object) -> None:
        for name, value in pragmas.items():
            raw.execute(f"PRAGMA {name} = {value}")
        raw.execute("PRAGMA foreign_keys = ON")
        mode = _journalled(raw, journal, driver, seconds=float(str(pragmas["busy_timeout"])) / 1000)
        if mode != journal:
            raise ConfigError(f"database {where}: this file system gives journal mode {mode}, not {journal}")

    def begin(connection: Connection) -> None:
        purpose = connection.get_execution_options().get(PURPOSE, Purpose.READ)
        connection.exec_driver_sql("BEGIN" if purpose is Purpose.READ else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


def _journalled(raw: Any, journal: str, driver: Driver, *, seconds: float) -> str:
    """Set the journal mode and return the one that holds then.

    The first change of it needs the file for itself, and SQLite's busy timeout does not wait for that: another
    process that is making the same database is waited for here.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return str(raw.execute(f"PRAGMA journal_mode = {journal}").fetchone()[0])
        except driver.module.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.02)


def is_server(path_or_url: str) -> bool:
    """Tell whether this names a database of PostgreSQL, and not a file."""
    return path_or_url.startswith("postgres") and "://" in path_or_url


def path_of(path_or_url: str) -> str:
    """Return the file that is named, `:memory:` for none; raises `ConfigError`."""
    if path_or_url in {MEMORY, "sqlite://", f"sqlite:///{MEMORY}"}:
        return MEMORY
    scheme, mark, rest = path_or_url.partition(":///")
    if mark and scheme in {"sqlite", "sqlite+pysqlite"}:
        path = rest
    elif "://" in path_or_url:
        raise ConfigError(
            f"TOKENHUB_DB_DSN: {scheme.partition(':')[0]}:// is not known; use postgresql:// or a path for SQLite"
        )
    else:
        path = (
            path_or_url.removeprefix("file:").partition("?")[0]
            if path_or_url.startswith("file:")
            else path_or_url
        )
    if not path:
        raise ConfigError("TOKENHUB_DB_DSN: names no file")
    return str(Path(path).expanduser())


def _make_private(path: Path) -> None:
    """Make the file (0600) and its directory (0700) where missing; take a file of ours back from other users."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise ConfigError(f"database {path}: {error.strerror}") from error


@contextmanager
def _typed() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        fault = faults.store_fault(error)
        if fault is None:
            raise
        raise fault from error
