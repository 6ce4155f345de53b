"""`tokenhub vault`: make the vault, open it, close it, look at it, and keep secrets in it."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from tokenhub_core.audit.entries import Action
from tokenhub_core.audit.journal import Audit
from tokenhub_core.cli.admin import admin_client, running_client
from tokenhub_core.cli.options import as_json, data_option, plain, shown, tell
from tokenhub_core.cli.place import alone, database_path, variable
from tokenhub_core.clock import SystemClock
from tokenhub_core.credentials import SECRETS
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.ports import Secret
from tokenhub_core.store.anchor import beside
from tokenhub_core.types import Json
from tokenhub_core.vault.keys import KeyHolder
from tokenhub_core.vault.passwords import MAX_PASSWORD, password_from, password_in
from tokenhub_core.vault.vault import Custody, State, Vault

_API: Final = "/admin/v1/vault"
_SECRETS: Final = f"{_API}/secrets"
_MAX_SECRET: Final = 64 * 1024

type _Command = Callable[..., None]

_PASSWORD: Final = (
    click.option(
        "--password-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Read the password from a file that only you can read.",
    ),
    click.option(
        "--password-fd", type=click.IntRange(0), metavar="N", help="Read it from an open file descriptor."
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

    The password is asked for, or comes from --password-file, --password-fd, --password-stdin, TOKENHUB_VAULT_PASSWORD,
    TOKENHUB_VAULT_PASSWORD_FILE or the systemd credential tokenhub-vault-password, in this order. It is never an
    argument: arguments are seen by everyone on the machine.
    """


@vault.command(short_help="Give the vault its password; done once.")
@_password_options
@as_json
def init(*, data: Path | None, json: bool, **given: Any) -> None:
    """Give the vault its password, of at least 12 characters. Nobody can recover it.

    A running server has its vault open afterwards; without one it stays locked.
    """
    client = running_client(data)
    password = _password(new=True, **given)
    if client is not None:
        _show(client.post(f"{_API}/init", {"admin_password": password.reveal()}), json=json)
        return

    async def make(vault: Vault) -> None:
        await vault.init(password)
        vault.lock()

    _show(_alone(data, make), json=json)


@vault.command(short_help="Open the vault of the running server.")
@_password_options
@click.option(
    "--accept",
    is_flag=True,
    help="Take what can still be opened of a vault that cannot be trusted: after a backup was put back.",
)
@as_json
def unlock(*, data: Path | None, json: bool, accept: bool, **given: Any) -> None:
    """Open the vault of the running server, until `lock` or its end."""
    client = admin_client(data)
    password = _password(new=False, **given)
    _show(client.post(f"{_API}/unlock", {"admin_password": password.reveal(), "accept": accept}), json=json)


@vault.command(short_help="Close the vault of the running server.")
@data_option
@as_json
def lock(*, data: Path | None, json: bool) -> None:
    """Close the vault of the running server: calls that need its credentials are refused from now on."""
    _show(admin_client(data).post(f"{_API}/lock", {}), json=json)


@vault.command(short_help="Say what state the vault is in.")
@data_option
@as_json
def status(*, data: Path | None, json: bool) -> None:
    """Say what state the vault is in and how many secrets it holds."""
    client = running_client(data)
    if client is not None:
        _show(client.get(_API), json=json)
    elif not variable("DB_DSN") and not Path(database_path(data)).exists():
        # Looking makes no database.
        _show({"state": State.UNINITIALISED.value, "entries": 0}, json=json)
    else:
        _show(_alone(data, _look), json=json)


@vault.command(short_help="Give the vault another password.")
@_password_options
@click.option(
    "--new-password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Read the new password from a file that only you can read.",
)
@click.option(
    "--new-password-fd", type=click.IntRange(0), metavar="N", help="Read it from a file descriptor."
)
@as_json
def password(
    *,
    data: Path | None,
    json: bool,
    new_password_file: Path | None,
    new_password_fd: int | None,
    **given: Any,
) -> None:
    """Give the vault another password. One row changes, at once or not at all; an open vault stays open."""
    client = running_client(data)
    old = _password(new=False, **given)
    flagged = password_from(
        Secret(""), os.fspath(new_password_file) if new_password_file else "", new_password_fd
    )
    fresh = flagged or _asked(twice=True)
    if client is not None:
        body = {"old_password": old.reveal(), "new_password": fresh.reveal()}
        _show(client.post(f"{_API}/password", body), json=json)
    else:
        _show(_alone(data, lambda vault: vault.change_password(old, fresh)), json=json)


@vault.command(short_help="Replace the vault's key, and seal everything anew.")
@_password_options
@as_json
def rotate(*, data: Path | None, json: bool, **given: Any) -> None:
    """Replace the vault's key, and seal everything anew, at once or not at all. The password stays the same."""
    client = running_client(data)
    known = _password(new=False, **given)
    if client is not None:
        _show(client.post(f"{_API}/rotate", {"admin_password": known.reveal()}), json=json)
    else:
        _show(_alone(data, lambda vault: vault.rotate(known)), json=json)


# --- secrets -----------------------------------------------------------------------------------------------


@vault.group(short_help="Keep secrets of your own in the vault.")
def secret() -> None:
    """Keep secrets of your own in the vault. Their names are not secret, and may have slashes.

    With a running server its vault has to be open; without one the password is asked for. Reading one is written in
    the audit log first.
    """


@secret.command(name="set")
@click.argument("name")
@click.option(
    "--value-fd", type=click.IntRange(0), metavar="N", help="Read the value from a file descriptor."
)
@_password_options
@as_json
def put(*, name: str, value_fd: int | None, data: Path | None, json: bool, **given: Any) -> None:
    """Store a secret, in place of one of the same name.

    The value comes from a prompt, from standard input or from a descriptor.
    """
    client = running_client(data)
    value = _value(value_fd, from_stdin=not given["password_stdin"])
    if client is not None:
        client.put(f"{_SECRETS}/{quote(name, safe='')}", {"value": value.reveal()})
        shown({"name": name}, json=json)
        return
    known = _password(new=False, **given)

    async def stored(vault: Vault) -> None:
        await vault.unlock(known, throttled=False)
        await vault.put(SECRETS + name, value)
        vault.lock()

    _alone(data, stored)
    shown({"name": name}, json=json)


@secret.command()
@click.argument("name")
@_password_options
@as_json
def get(*, name: str, data: Path | None, json: bool, **given: Any) -> None:
    """Print a secret."""
    client = running_client(data)
    if client is not None:
        _reveal(name, client.get(f"{_SECRETS}/{quote(name, safe='')}")["value"], json=json)
        return
    known = _password(new=False, **given)
    found: list[Secret | None] = []

    async def read(vault: Vault, audit: Audit) -> None:
        await vault.unlock(known, throttled=False)
        found.append(vault.get(SECRETS + name))
        vault.lock()
        if found[0] is not None:
            await audit.note(Action.SECRET_READ, SECRETS + name)

    _with_audit(data, read)
    if found[0] is None:
        raise ConfigError(f"there is no secret {name!r}")
    _reveal(name, found[0].reveal(), json=json)


@secret.command(name="list")
@as_json
@data_option
def list_(*, json: bool, data: Path | None) -> None:
    """List the names of secrets."""
    client = running_client(data)
    if client is not None:
        names = [item["name"] for item in client.get(_SECRETS)["items"]]
    else:
        names = []

        async def look(vault: Vault) -> None:
            names.extend(one.removeprefix(SECRETS) for one in vault.names() if one.startswith(SECRETS))

        _alone(data, look)
    if not shown({"items": [{"name": name} for name in names], "total": len(names)}, json=json):
        for name in names:
            tell(plain(name))


@secret.command()
@click.argument("name")
@data_option
@as_json
def remove(*, name: str, data: Path | None, json: bool) -> None:
    """Remove a secret for good. Needs no password."""
    client = running_client(data)
    if client is not None:
        client.delete(f"{_SECRETS}/{quote(name, safe='')}")
        shown({"name": name}, json=json)
        return

    async def gone(vault: Vault) -> None:
        if not await vault.delete(SECRETS + name):
            raise ConfigError(f"there is no secret {name!r}")

    _alone(data, gone)
    shown({"name": name}, json=json)


# --- inside ------------------------------------------------------------------------------------------------


def _reveal(name: str, value: str, *, json: bool) -> None:
    if not shown({"name": name, "value": value}, json=json):
        click.echo(value)


def _show(told: Json, *, json: bool) -> None:
    if shown(told, json=json):
        return
    count = told["entries"]
    click.echo(f"the vault is {told['state']}, {count} {'entry' if count == 1 else 'entries'}")
    for one in told.get("bad", ()):
        tell(plain(f"{one['name']}: {one['why']}"))


def _alone(data: Path | None, work: Callable[[Vault], Awaitable[None]]) -> Json:
    """Do `work` on the vault in the database itself, where no server has it; return what its status is then."""

    async def both(vault: Vault, audit: Audit) -> None:
        del audit
        await work(vault)

    return _with_audit(data, both)


def _with_audit(data: Path | None, work: Callable[[Vault, Audit], Awaitable[None]]) -> Json:
    keyring = KeyHolder()

    async def run(audit: Audit) -> Json:
        database = audit.database
        vault = Vault(
            database,
            audit,
            clock=SystemClock(),
            entropy=secrets.token_bytes,
            custody=Custody(keyring, beside(database.where, "vault", data or data_dir(os.environ))),
        )
        await audit.load()
        await vault.load()
        await work(vault, audit)
        return {"state": vault.state.value, "entries": len(vault.names())}

    return alone(data, run, signer=keyring.signer)


async def _look(vault: Vault) -> None:
    """Leave everything as it is."""
    del vault


def _password(
    *, new: bool, password_file: Path | None, password_fd: int | None, password_stdin: bool
) -> Secret:
    """Return the password from where the flags, else the environment, else a person at a terminal gives it."""
    if sum([password_file is not None, password_fd is not None, password_stdin]) > 1:
        raise ConfigError("--password-file, --password-fd and --password-stdin exclude each other")
    if password_stdin:
        return _piped()
    flagged = password_from(Secret(""), os.fspath(password_file) if password_file else "", password_fd)
    named = flagged or password_from(
        Secret(variable("VAULT_PASSWORD")), variable("VAULT_PASSWORD_FILE"), None, os.environ
    )
    return named or _asked(twice=new)


def _value(descriptor: int | None, *, from_stdin: bool) -> Secret:
    """Return a secret's value; one newline at its end is not part of it."""
    if descriptor is not None:
        return password_in(descriptor, "value", _MAX_SECRET)
    if sys.stdin.isatty():
        return Secret(click.prompt("Value", hide_input=True, err=True))
    if not from_stdin:
        raise ConfigError("standard input holds the password: give the value with --value-fd")
    return _read(_MAX_SECRET, "value")


def _piped() -> Secret:
    return _read(MAX_PASSWORD * 4 + 2, "password")


def _read(most: int, what: str) -> Secret:
    try:
        text = sys.stdin.buffer.read(most + 1).decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"the {what} on standard input is not UTF-8 text") from None
    if not text:
        raise ConfigError(f"no {what} came on standard input")
    if len(text) > most:
        raise ConfigError(f"the {what} on standard input is too long")
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
