"""How the database, the vault and the pool of random bytes are opened: the first steps of a start."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping

from tokenhub_core.config import Settings
from tokenhub_core.datadir import admin_token, close_to_others, salt
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.vault.passwords import password_from
from tokenhub_core.vault.vault import Vault


def prepare(settings: Settings) -> None:
    """Make what several that start at once would each make: files, and the newest schema. Raises `ConfigError`."""
    close_to_others(settings.data_dir)
    database(settings).close()
    salt(settings)
    admin_token(settings)


def entropy(size: int) -> Callable[[], bytes]:
    """Return what gives `size` random bytes at a time: the kernel is asked for a thousand such at once."""
    pool = bytearray()

    def drawn() -> bytes:
        if not pool:
            pool.extend(secrets.token_bytes(1000 * size))
        piece = bytes(pool[-size:])
        del pool[-size:]
        return piece

    return drawn


def database(settings: Settings) -> Database:
    """Open the database that the settings name, in the newest schema; raises `ConfigError`."""
    return open_database(
        settings.db_dsn.reveal() or os.fspath(settings.data_dir / "tokenhub.sqlite"),
        synchronous=settings.db_synchronous,
        busy_ms=round(settings.db_timeout_secs * 1000),
        password_file=settings.db_password_file,
    )


async def unlock(vault: Vault, settings: Settings, environ: Mapping[str, str]) -> None:
    """Open the vault where the settings hold its password, making it on first use; raises `ConfigError`."""
    if not settings.vault_enabled:
        return
    password = password_from(
        settings.vault_password, settings.vault_password_file, settings.vault_password_fd, environ
    )
    if password is None:
        return
    try:
        # Whoever can start the server has the database too, and need not ask us which password is right.
        await (vault.unlock(password, throttled=False) if vault.initialised else vault.init(password))
    except TokenHubError as error:
        raise ConfigError(f"the vault's password: {error.fault.message}") from None
