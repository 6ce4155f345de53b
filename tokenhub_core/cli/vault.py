"""`tokenhub vault`: make the vault, open it, close it, look at it."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import click

from tokenhub_core.cli.admin import admin_client, running_client
from tokenhub_core.cli.options import data_option
from tokenhub_core.clock import SystemClock
from tokenhub_core.config import PREFIX
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.ports import Secret
from tokenhub_core.store.database import open_database
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import Json
from tokenhub_core.vault.vault import MAX_PASSWORD, State, Vault, password_from

_API: Final = "/admin/v1/vault"

type _Command = Callable[..., None]

_PASSWORD: Final = (
    click.option(
        "--password-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Read the password from a file that only you can read.",
    ),
    click.option("--password-stdin", is_flag=True, help="Read the password from standard input."),
    data_option,
)


def _password_options(command: _Command) -> _Command:
    for option in reversed(_PASSWORD):
        command = option(command)
    return command


@click.group(short_help="Keep credentials sealed.")
def vault() -> None:
    """Keep credentials sealed.

    The password is asked for, or comes from --password-file, --password-stdin, TOKENHUB_VAULT_PASSWORD or
    TOKENHUB_VAULT_PASSWORD_FILE, in this order. It is never an argument: arguments are seen by everyone on the machine.
    """


@vault.command(short_help="Give the vault its password; done once.")
@_password_options
def init(*, password_file: Path | None, password_stdin: bool, data: Path | None) -> None:
    """Give the vault its password, of at least 12 characters. Nobody can recover it.

    A running server has its vault open afterwards; without one it stays locked.
    """
    client = running_client(data)
    password = _password(password_file, stdin=password_stdin, new=True)
    if client is not None:
        _show(client.post(f"{_API}/init", {"admin_password": password.reveal()}))
        return

    async def make(vault: Vault) -> None:
        await vault.init(password)
        vault.lock()

    _show(_alone(data, make))


@vault.command(short_help="Open the vault of the running server.")
@_password_options
def unlock(*, password_file: Path | None, password_stdin: bool, data: Path | None) -> None:
    """Open the vault of the running server, until `lock` or its end."""
    client = admin_client(data)
    password = _password(password_file, stdin=password_stdin, new=False)
    _show(client.post(f"{_API}/unlock", {"admin_password": password.reveal()}))


@vault.command(short_help="Close the vault of the running server.")
@data_option
def lock(*, data: Path | None) -> None:
    """Close the vault of the running server: calls that need its credentials are refused from now on."""
    _show(admin_client(data).post(f"{_API}/lock", {}))


@vault.command(short_help="Say what state the vault is in.")
@data_option
def status(*, data: Path | None) -> None:
    """Say what state the vault is in and how many secrets it holds."""
    client = running_client(data)
    if client is not None:
        _show(client.get(_API))
    elif not _variable("DB_DSN") and not Path(_where(data)).exists():
        _show({"state": State.UNINITIALISED.value, "entries": 0})  # looking makes no database
    else:
        _show(_alone(data, _look))


def _show(told: Json) -> None:
    count = told["entries"]
    click.echo(f"the vault is {told['state']}, {count} {'entry' if count == 1 else 'entries'}")


def _alone(data: Path | None, work: Callable[[Vault], Awaitable[None]]) -> Json:
    """Do `work` on the vault in the database itself, where no server has it; return what its status is then."""

    async def run() -> Json:
        database = open_database(_where(data))
        try:
            writer = Writer(database)
            writer.start()
            try:
                vault = Vault(database, writer, clock=SystemClock(), entropy=secrets.token_bytes)
                await vault.load()
                await work(vault)
                return {"state": vault.state.value, "entries": len(vault.names())}
            finally:
                await writer.close()
        finally:
            database.close()

    try:
        return asyncio.run(run())
    except TokenHubError as error:
        raise ConfigError(error.fault.message) from None


async def _look(vault: Vault) -> None:
    """Leave everything as it is."""
    del vault


def _where(data: Path | None) -> str:
    """Return the database that `tokenhub serve` would open."""
    return _variable("DB_DSN") or os.fspath((data or data_dir(os.environ)) / "tokenhub.sqlite")


def _variable(name: str) -> str:
    """Return a setting of the environment, stripped as the server strips it."""
    return os.environ.get(PREFIX + name, "").strip()


def _password(file: Path | None, *, stdin: bool, new: bool) -> Secret:
    """Return the password from where the flags, else the environment, else a person at a terminal gives it."""
    if file is not None and stdin:
        raise ConfigError("--password-file and --password-stdin exclude each other")
    if stdin:
        return _piped()
    flagged = password_from(Secret(""), os.fspath(file) if file else "")
    named = flagged or password_from(Secret(_variable("VAULT_PASSWORD")), _variable("VAULT_PASSWORD_FILE"))
    return named or _asked(twice=new)


def _piped() -> Secret:
    try:
        text = sys.stdin.buffer.read(MAX_PASSWORD * 4 + 3).decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigError("the password on standard input is not UTF-8 text") from None
    if not text:
        raise ConfigError("no password came on standard input")
    return Secret(text)


def _asked(*, twice: bool) -> Secret:
    # Without a terminal, Python would read the password from standard input and show it.
    if not sys.stdin.isatty():
        raise ConfigError(
            "no terminal to ask for the password: use --password-stdin, --password-file or TOKENHUB_VAULT_PASSWORD"
        )
    return Secret(
        click.prompt(
            "New vault password" if twice else "Vault password",
            hide_input=True,
            confirmation_prompt=twice,
            err=True,
        )
    )
