"""The first steps of a start: what rests on disk is opened, and the vault where its password is here."""

from __future__ import annotations

import asyncio
import os
import secrets
import ssl
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tokenhub_core.audit.journal import Audit
from tokenhub_core.changes import Changes
from tokenhub_core.clock import SystemClock
from tokenhub_core.config import Settings
from tokenhub_core.credentials import Credentials
from tokenhub_core.datadir import admin_token, close_to_others, salt
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.leading import Lead, leading
from tokenhub_core.ports import Clock
from tokenhub_core.providers import catalogue
from tokenhub_core.providers.catalogue import Catalogue
from tokenhub_core.providers.transport import tls_context
from tokenhub_core.renewals import Renewals
from tokenhub_core.rolling import Roller, rolling
from tokenhub_core.sharing import Sharing
from tokenhub_core.siblings import Siblings
from tokenhub_core.store.anchor import beside
from tokenhub_core.store.database import Database, open_database
from tokenhub_core.store.silence import Silence
from tokenhub_core.store.writer import Writer
from tokenhub_core.vault.keys import KeyHolder
from tokenhub_core.vault.passwords import password_from
from tokenhub_core.vault.vault import Custody, Vault


@dataclass(frozen=True, slots=True)
class Kept:
    """What rests on disk, opened, and what everything shares."""

    settings: Settings
    clock: Clock
    prices: Catalogue
    database: Database
    writer: Writer
    audit: Audit
    vault: Vault
    credentials: Credentials
    holder: KeyHolder
    warnings: tuple[str, ...]
    siblings: Siblings
    changes: Changes
    roller: Roller
    lead: Lead
    environ: Mapping[str, str]
    tls: ssl.SSLContext
    """Whom everybody trusts that connects to somebody."""
    renewals: Renewals = field(default_factory=Renewals)
    """How the parts follow other settings."""


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


async def opened(
    stack: AsyncExitStack, settings: Settings, environ: Mapping[str, str], siblings: Siblings
) -> Kept:
    """Open everything; `stack` closes it. Raises `ConfigError` where it cannot be opened."""
    clock = SystemClock()
    prices, found, tls = await asyncio.gather(
        asyncio.to_thread(catalogue.load),
        asyncio.to_thread(database, settings),
        asyncio.to_thread(_trust, settings.ca_file),
    )
    stack.callback(found.close)
    writer = Writer(found)
    writer.start()
    stack.push_async_callback(writer.close)
    if found.ask is not None:
        watching = asyncio.create_task(Silence(writer, found.ask).keep(), name="database watcher")
        stack.push_async_callback(cancelled, watching)
    holder = KeyHolder()
    home = settings.data_dir
    audit = Audit(found, writer, clock=clock, signer=holder.signer, anchor=beside(found.where, "audit", home))
    warnings = await audit.load()
    stack.push_async_callback(audit.close)
    gatherer = asyncio.create_task(audit.keep(), name="audit gatherer")
    stack.push_async_callback(cancelled, gatherer)
    custody = Custody(holder, beside(found.where, "vault", home), settings.vault_auto_lock_secs)
    vault = Vault(found, audit, clock=clock, entropy=secrets.token_bytes, custody=custody)
    stack.callback(vault.lock)
    credentials = Credentials(vault, environ)
    changes, sharing = Changes(found, siblings), Sharing(siblings, vault, credentials)
    stack.callback(sharing.leave)
    await changes.begin()
    await vault.load()
    if not await sharing.join():
        await unlock(vault, settings, environ)
    locker = asyncio.create_task(vault.keep(), name="vault locker")
    stack.push_async_callback(cancelled, locker)
    if settings.capture != "none" and not vault.open:
        warnings += ("TOKENHUB_CAPTURE keeps nothing until the vault is open",)
    lead = await stack.enter_async_context(leading(settings, writer, clock))
    roller = await stack.enter_async_context(rolling(settings, found, writer, clock, lead.turn))
    return Kept(
        settings,
        clock,
        prices,
        found,
        writer,
        audit,
        vault,
        credentials,
        holder,
        warnings,
        siblings,
        changes,
        roller,
        lead,
        environ,
        tls,
    )


def _trust(ca_file: str) -> ssl.SSLContext:
    return tls_context(Path(ca_file).expanduser() if ca_file else None)


async def cancelled(task: asyncio.Task[None]) -> None:
    """End a task, and return when it has ended."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
