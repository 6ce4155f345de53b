"""`tokenhub ca`: what the certificate authority may vouch for, a new one, and the hosts that are opened."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from tokenhub_core import envfile
from tokenhub_core.audit.journal import Audit
from tokenhub_core.cli.options import as_json, data_option, plain, tell
from tokenhub_core.cli.options import shown as printed
from tokenhub_core.cli.place import alone
from tokenhub_core.config import Settings
from tokenhub_core.errors import ConfigError
from tokenhub_core.interception import Interception, Shown, shown
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.launch.serveinfo import serving as is_serving
from tokenhub_core.recognise import bare_host
from tokenhub_core.types import Dialect

_ALARM: Final = 1
"""The exit code where something about the authority is not as it should be."""


@click.group(short_help="Show and change what is intercepted, and the CA for it.")
def ca() -> None:
    """Show and change which hosts are intercepted, and the certificate authority that vouches for them."""


@ca.command()
@as_json
@data_option
def show(*, json: bool, data: Path | None) -> None:
    """Show the root: fingerprint, end, hosts, files. Exit code 1: it ends soon, or others can read it."""
    settings = _settings(data)
    found = shown(settings.data_dir, settings.extra_hosts, time.time())
    if not printed(found.told(), json=json):
        _tell(found)
    if found.alarms:
        sys.exit(_ALARM)


@ca.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@data_option
def rotate(*, yes: bool, json: bool, data: Path | None) -> None:
    """Make a new root with a new key. Programs that trust the old one do not trust the new one."""
    settings = _settings(data)
    if not yes:
        click.confirm(
            "Programs that run behind TokenHub will fail until they are started again. Go on?",
            abort=True,
            err=True,
        )
    made = alone(settings.data_dir, lambda audit: _interception(settings, audit).rotate())
    if printed({"file": str(made.facts.file), "sha256": made.facts.sha256}, json=json):
        return
    tell(plain(f"the new root is {made.facts.file}, SHA-256 {made.facts.sha256}"))
    tell("start programs again with `tokenhub run`, and import the file anew wherever it was imported")
    _tell_server(settings)


@ca.command("add-host")
@click.argument("host")
@click.argument("dialect", type=click.Choice([one.value for one in Dialect]))
@as_json
@data_option
def add_host(*, host: str, dialect: str, json: bool, data: Path | None) -> None:
    """Intercept HOST; its calls speak DIALECT. '*.' stands for one label."""
    settings = _settings(data)
    alone(settings.data_dir, lambda audit: _interception(settings, audit).add(host, Dialect(dialect)))
    if printed({"host": bare_host(host), "dialect": dialect}, json=json):
        return
    tell(plain(f"{bare_host(host)}: intercepted, {dialect}"))
    _tell_server(settings)


@ca.command("remove-host")
@click.argument("host")
@as_json
@data_option
def remove_host(*, host: str, json: bool, data: Path | None) -> None:
    """Leave HOST alone, if it was added with `add-host`."""
    settings = _settings(data)
    alone(settings.data_dir, lambda audit: _interception(settings, audit).remove(host))
    if printed({"host": bare_host(host)}, json=json):
        return
    tell(plain(f"{bare_host(host)}: left alone"))
    _tell_server(settings)


def _interception(settings: Settings, audit: Audit) -> Interception:
    return Interception(settings.data_dir, settings.extra_hosts, audit, time.time)


def _tell_server(settings: Settings) -> None:
    try:
        is_serving(settings.data_dir)
    except ConfigError:
        return  # nobody is
    tell("a server is running: it follows within a second, for connections that begin then")


def _settings(data: Path | None) -> Settings:
    return envfile.settings(os.environ, data or data_dir(os.environ))


def _tell(about: Shown) -> None:
    found, days = about.facts, about.days
    until = datetime.fromtimestamp(found.expires_at, UTC)
    for line in (
        f"subject      {found.subject}",
        f"SHA-256      {found.sha256}",
        f"ends         {until:%Y-%m-%d %H:%M} UTC, in {days:.0f} days",
        f"file         {found.file}",
        f"vouches for  {', '.join(found.permitted)}",
        f"intercepted  {', '.join(about.hosts)}",
        *(f"mode         {mode} {name}" for name, mode in found.modes),
        *(f"ALARM        {alarm}" for alarm in about.alarms),
    ):
        tell(plain(line))
