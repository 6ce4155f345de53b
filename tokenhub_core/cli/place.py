"""The database itself, for commands that work where no server is running."""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenhub_core import __version__
from tokenhub_core.audit.chain import Signer
from tokenhub_core.audit.entries import Cause
from tokenhub_core.audit.journal import Audit
from tokenhub_core.clock import SystemClock
from tokenhub_core.config import PREFIX
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.store.anchor import beside
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.writer import Writer


def alone[T](
    data: Path | None,
    work: Callable[[Audit], Awaitable[T]],
    *,
    signer: Callable[[], Signer | None] = lambda: None,
) -> T:
    """Do `work` on the database that `tokenhub serve` would open; what it changes is audited as this user's."""

    async def run() -> T:
        with opened(data) as database:
            writer = Writer(database)
            writer.start()
            try:
                audit = Audit(
                    database,
                    writer,
                    clock=SystemClock(),
                    signer=signer,
                    anchor=beside(database.where, "audit", data or data_dir(os.environ)),
                    cause=Cause(f"cli:{_user()}", program=f"tokenhub-cli/{__version__}"),
                )
                return await work(audit)
            finally:
                await writer.close()

    try:
        return asyncio.run(run())
    except TokenHubError as error:
        raise ConfigError(error.fault.message) from None


@contextmanager
def opened(data: Path | None) -> Iterator[Database]:
    """Hold the database that `tokenhub serve` would open."""
    database = open_database(database_path(data), password_file=variable("DB_PASSWORD_FILE"))
    try:
        yield database
    finally:
        database.close()


def database_path(data: Path | None) -> str:
    """Return the database that `tokenhub serve` would open."""
    return variable("DB_DSN") or os.fspath((data or data_dir(os.environ)) / "tokenhub.sqlite")


def variable(name: str) -> str:
    """Return a setting of the environment, stripped as the server strips it."""
    return os.environ.get(PREFIX + name, "").strip()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
