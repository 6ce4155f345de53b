"""`tokenhub worker`: makes durable calls for servers elsewhere, and serves nobody itself."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import click

from tokenhub_core import envfile
from tokenhub_core.app import running
from tokenhub_core.cli.options import data_option, plain, tell
from tokenhub_core.config import Settings
from tokenhub_core.launch.hardening import harden
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.telemetry import logs


@click.command()
@click.option(
    "--vault-password-fd",
    type=click.IntRange(0),
    help="Open file descriptor that the vault password comes from.",
)
@data_option
def worker(*, vault_password_fd: int | None, data: Path | None) -> None:
    """Make durable calls for servers elsewhere.

    Settings come from TOKENHUB_* variables. The database, the data directory's salt and the vault's password are
    those of the servers. It works until it is asked to stop.
    """
    harden()
    flags = {"temporal_enabled": True, "temporal_worker": True, "vault_password_fd": vault_password_fd}
    settings = envfile.settings(os.environ, data or data_dir(os.environ), flags)
    logs.configure(settings.log_level)
    asyncio.run(_work(settings))


async def _work(settings: Settings) -> None:
    leave = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leave.set)
    async with running(settings, os.environ) as app:
        for warning in app.warnings:
            tell(plain(f"note: {warning}"))
        if not app.vault.open:
            tell("note: the vault is not open; durable calls need a key in it")
        tell(plain(f"working for {settings.temporal_host}, queue {settings.temporal_task_queue}"))
        await leave.wait()
        tell("leaving: waiting for attempts to end")
