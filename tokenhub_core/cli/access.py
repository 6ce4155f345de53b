"""`tokenhub admin`: users, tokens, and a link that signs a browser in."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from tokenhub_core.access.roles import Role
from tokenhub_core.cli.admin import AdminClient, admin_client
from tokenhub_core.cli.options import ago, as_json, data_option, listing, plain, shown, tell
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.launch.serveinfo import serving
from tokenhub_core.types import Json

_API: Final = "/admin/v1"
_ROLES: Final = tuple(role.value for role in Role)

_role: Final = click.option(
    "--role",
    type=click.Choice(_ROLES),
    required=True,
    help="viewer reads, operator also acts on what is registered, admin does everything.",
)
_stdin: Final = click.option(
    "--password-stdin", "stdin", is_flag=True, help="Read the password from standard input."
)


@click.group()
def admin() -> None:
    """Say who may use the admin API, and sign in.

    The live page belongs to it. These commands use the admin token of the installation, or the one in
    TOKENHUB_ADMIN_TOKEN.
    """


@admin.command()
@as_json
@data_option
def login(*, json: bool, data: Path | None) -> None:
    """Print a link that signs a browser in, once and within ten minutes."""
    answer = admin_client(data).post(f"{_API}/login-links")
    link = f"{serving(data or data_dir(os.environ)).side_url}/login#{answer['ticket']}"
    if not shown({"url": link, "expires_in_secs": answer["expires_in_secs"]}, json=json):
        # A terminal that breaks it in two would break it.
        click.echo(link)


@admin.group()
def user() -> None:
    """Users have a name, a password and a role."""


@user.command("add")
@click.argument("name")
@_role
@_stdin
@as_json
@data_option
def add_user(*, name: str, role: str, stdin: bool, json: bool, data: Path | None) -> None:
    """Add the user NAME. The password has at least 12 characters; it is asked for, and never an argument."""
    client = admin_client(data)
    body = {"name": name, "role": role, "password": _password(stdin=stdin)}
    _tell_user(client.post(f"{_API}/users", body), json=json)


@user.command("list")
@as_json
@data_option
def list_users(*, json: bool, data: Path | None) -> None:
    """List the users."""
    items = admin_client(data).get(f"{_API}/users")["items"]
    if shown(items, json=json):
        return
    if not items:
        tell("there are no users: only the admin token and login links let anybody in")
        return
    table = listing("name", "role", "enabled", "last login")
    for item in items:
        last = _when(item["last_login_at"]) if item["last_login_at"] else "never"
        table.add_row(plain(item["name"]), item["role"], "yes" if item["enabled"] else "no", last)
    tell(table)


@user.command("role")
@click.argument("name")
@click.argument("role", type=click.Choice(_ROLES))
@as_json
@data_option
def change_role(*, name: str, role: str, json: bool, data: Path | None) -> None:
    """Give the user NAME another ROLE; their sessions end."""
    client = admin_client(data)
    _tell_user(client.patch(_one(client, "users", name), {"role": role}), json=json)


@user.command()
@click.argument("name")
@as_json
@data_option
def disable(*, name: str, json: bool, data: Path | None) -> None:
    """Keep the user NAME and let them in no more; their sessions end."""
    client = admin_client(data)
    _tell_user(client.patch(_one(client, "users", name), {"enabled": False}), json=json)


@user.command()
@click.argument("name")
@as_json
@data_option
def enable(*, name: str, json: bool, data: Path | None) -> None:
    """Let the user NAME in again."""
    client = admin_client(data)
    _tell_user(client.patch(_one(client, "users", name), {"enabled": True}), json=json)


@user.command()
@click.argument("name")
@_stdin
@as_json
@data_option
def passwd(*, name: str, stdin: bool, json: bool, data: Path | None) -> None:
    """Give the user NAME another password; their sessions end, and a lock after wrong passwords too."""
    client = admin_client(data)
    path = _one(client, "users", name)
    answer = client.post(f"{path}/password", {"new_password": _password(stdin=stdin)})
    client.post(f"{path}/unlock")
    _tell_user(answer, json=json)


@user.command("remove")
@click.argument("name")
@as_json
@data_option
def remove_user(*, name: str, json: bool, data: Path | None) -> None:
    """Remove the user NAME; their sessions end."""
    client = admin_client(data)
    answer = client.delete(_one(client, "users", name))
    if not shown(answer, json=json):
        tell(plain(f"{name} is removed"))


@admin.group()
def token() -> None:
    """Tokens are for programs: each has a name, a role and, if you want, an end."""


@token.command("create")
@click.argument("name")
@_role
@click.option("--expires", metavar="AGE", help="After how long it ends: 90m, 12h, 30d. Default: never.")
@as_json
@data_option
def create_token(*, name: str, role: str, expires: str | None, json: bool, data: Path | None) -> None:
    """Make a token and print it. It is shown this once."""
    seconds = int(ago(expires, "--expires")) if expires else 0
    body = {"name": name, "role": role, "expires_in_secs": seconds}
    answer = admin_client(data).post(f"{_API}/tokens", body)
    if not shown(answer, json=json):
        click.echo(answer["token"])


@token.command("list")
@as_json
@data_option
def list_tokens(*, json: bool, data: Path | None) -> None:
    """List the tokens, by what they begin with."""
    items = admin_client(data).get(f"{_API}/tokens")["items"]
    if shown(items, json=json):
        return
    if not items:
        tell("there are no tokens but the installation's own")
        return
    table = listing("name", "role", "token", "made by", "ends")
    for item in items:
        ends = _when(item["expires_at"]) if item["expires_at"] else "never"
        table.add_row(
            plain(item["name"]), item["role"], f"{item['prefix']}…", plain(item["created_by"]), ends
        )
    tell(table)


@token.command()
@click.argument("name")
@as_json
@data_option
def revoke(*, name: str, json: bool, data: Path | None) -> None:
    """Let the token NAME open nothing any more, from now on."""
    client = admin_client(data)
    answer = client.delete(_one(client, "tokens", name))
    if not shown(answer, json=json):
        tell(plain(f"{name} is revoked"))


def _one(client: AdminClient, kind: str, name: str) -> str:
    """Return the path of the user or token with this name."""
    for item in client.get(f"{_API}/{kind}")["items"]:
        if item["name"] == name:
            return f"{_API}/{kind}/{item['id']}"
    raise ConfigError(f"there is no {kind.removesuffix('s')} {name!r}")


def _password(*, stdin: bool) -> str:
    if not stdin and sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    if not stdin:
        raise ConfigError("this is no terminal: give the password with --password-stdin")
    password = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    if not password:
        raise ConfigError("no password on standard input")
    return password


def _tell_user(answer: Json, *, json: bool) -> None:
    if not shown(answer, json=json):
        off = "" if answer["enabled"] else ", disabled"
        tell(plain(f"{answer['name']}: {answer['role']}{off}"))


def _when(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M}Z"
