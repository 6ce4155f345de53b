"""`tokenhub directive`: sign what a program writes into a prompt."""

from __future__ import annotations

import binascii
import secrets
import time
from base64 import urlsafe_b64decode
from pathlib import Path

import click

from tokenhub_core import directives, signing
from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.options import as_json, data_option, shown
from tokenhub_core.errors import ConfigError
from tokenhub_core.http.directives import PATH

_LONGEST_SECRET = 200


@click.group()
def directive() -> None:
    """Sign directives, so that only who holds a key's secret directs."""


@directive.command()
@click.argument("key_id", metavar="KEY")
@as_json
@data_option
def secret(*, key_id: str, json: bool, data: Path | None) -> None:
    """Print what the client's key with the id KEY signs directives with. It is in the audit log."""
    told = _asked(data, key_id)
    if not shown({"key_id": key_id, "secret": told}, json=json):
        click.echo(told)


@directive.command()
@click.argument("key_id", metavar="KEY")
@click.argument("wishes", metavar="WISHES")
@click.option(
    "--seconds",
    type=click.IntRange(1, signing.MAX_SECONDS),
    default=300,
    show_default=True,
    help="How long it is good.",
)
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="What `directive secret` printed; without it the running server is asked.",
)
@as_json
@data_option
def sign(
    *, key_id: str, wishes: str, seconds: int, secret_file: Path | None, json: bool, data: Path | None
) -> None:
    """Print the signed directive of WISHES, such as 'mode=cheap budget=0.01', for calls made with KEY."""
    found = directives.scan(f"{directives.MARKER} {wishes}")
    if "\n" in wishes or len(found) != 1 or found[0].fault is not None:
        fault = found[0].fault if found else None
        raise ConfigError(f"{wishes!r} is no directive: {fault.message if fault else 'it must be one line'}")
    text = _file(secret_file) if secret_file is not None else _asked(data, key_id)
    try:
        tag = signing.sign(
            _decoded(text),
            wishes,
            key_id=key_id,
            nonce=secrets.token_urlsafe(16),
            expires=int(time.time()) + seconds,
        )
    except ValueError:
        raise ConfigError(f"{key_id!r} is no id of a key") from None
    signed = f"{directives.MARKER}[{tag}] {wishes}"
    if not shown({"directive": signed}, json=json):
        click.echo(signed)


def _asked(data: Path | None, key_id: str) -> str:
    if not signing.is_key_id(key_id):
        raise ConfigError(f"{key_id!r} is no id of a key")
    return str(admin_client(data).get(f"{PATH}/{key_id}")["secret"])


def _file(path: Path) -> str:
    try:
        with path.open() as file:
            return file.read(_LONGEST_SECRET).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def _decoded(text: str) -> bytes:
    try:
        found = urlsafe_b64decode(text)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != signing.SECRET_BYTES:
        raise ConfigError("that is not what `tokenhub directive secret` printed")
    return found
