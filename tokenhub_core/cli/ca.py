"""`tokenhub ca`: what the certificate authority may vouch for, a new one, and the hosts that are opened."""

from __future__ import annotations

import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from tokenhub_core import config, hostlist
from tokenhub_core.ca import CertificateAuthority, Facts, facts
from tokenhub_core.cli.options import as_json, data_option, plain, shown, tell
from tokenhub_core.config import Settings
from tokenhub_core.errors import ConfigError
from tokenhub_core.launch.paths import data_dir
from tokenhub_core.launch.serveinfo import serving as is_serving
from tokenhub_core.recognise import Recogniser, bare_host, extra_hosts
from tokenhub_core.types import Dialect

ALARM_DAYS: Final = 14
"""A root that ends so soon was not renewed when it should have been: a third of its life before."""
_LABEL: Final = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z)(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_DAY: Final = 86_400.0
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
    found = facts(settings.data_dir / "ca")
    days = (found.expires_at - time.time()) / _DAY
    alarms = list(found.loose)
    if days < ALARM_DAYS:
        alarms.append(f"the root ends in {days:.0f} days: start `tokenhub serve`, which renews it")
    told = {
        "subject": found.subject,
        "sha256": found.sha256,
        "not_before": found.begins_at,
        "not_after": found.expires_at,
        "permitted": list(found.permitted),
        "hosts": _hosts(settings),
        "added": list(hostlist.read(settings.data_dir)),
        "file": str(found.file),
        "modes": dict(found.modes),
        "alarms": alarms,
    }
    if not shown(told, json=json):
        _tell(found, days, _hosts(settings), alarms)
    if alarms:
        sys.exit(_ALARM)


@ca.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@data_option
def rotate(*, yes: bool, data: Path | None) -> None:
    """Make a new root with a new key. Programs that trust the old one do not trust the new one."""
    settings = _settings(data)
    if not yes:
        click.confirm(
            "Programs that run behind TokenHub will fail until they are started again. Go on?", abort=True
        )
    made = CertificateAuthority.rotate(settings.data_dir / "ca", _hosts(settings), now=time.time)
    tell(plain(f"the new root is {made.certificate_file}, SHA-256 {facts(settings.data_dir / 'ca').sha256}"))
    tell("start programs again with `tokenhub run`, and import the file anew wherever it was imported")
    _tell_server(settings, "it uses the new root for connections it hands off; restart it for all others")


@ca.command("add-host")
@click.argument("host")
@click.argument("dialect", type=click.Choice([one.value for one in Dialect]))
@data_option
def add_host(*, host: str, dialect: str, data: Path | None) -> None:
    """Intercept HOST from the next start on; its calls speak DIALECT. '*.' stands for one label."""
    settings = _settings(data)
    if not _HOST.fullmatch(bare_host(host)):
        raise ConfigError(f"{host!r} is not a host name (write one in other letters as xn--…)")
    item = f"{bare_host(host)}={dialect}"
    kept = hostlist.read(settings.data_dir)
    _write(settings, (*(one for one in kept if _name(one) != bare_host(host)), item))
    tell(plain(f"{bare_host(host)}: intercepted, {dialect}"))


@ca.command("remove-host")
@click.argument("host")
@data_option
def remove_host(*, host: str, data: Path | None) -> None:
    """Leave HOST alone from the next start on, if it was added with `add-host`."""
    settings = _settings(data)
    kept = hostlist.read(settings.data_dir)
    left = tuple(one for one in kept if _name(one) != bare_host(host))
    if left == kept:
        raise ConfigError(
            f"{host} was not added here; `tokenhub mode set {host} off` leaves a listed host alone"
        )
    _write(settings, left)
    tell(plain(f"{bare_host(host)}: left alone"))


def _write(settings: Settings, items: tuple[str, ...]) -> None:
    """Keep the list and re-issue the root for it; nothing is kept where it cannot be issued."""
    hosts = Recogniser(extra_hosts((*settings.extra_hosts, *items))).hosts
    CertificateAuthority.open(settings.data_dir / "ca", hosts, now=time.time)
    hostlist.write(settings.data_dir, items)
    _tell_server(settings, "restart it to follow")


def _tell_server(settings: Settings, what: str) -> None:
    try:
        is_serving(settings.data_dir)
    except ConfigError:
        return  # nobody is
    tell(f"a server is running: {what}")


def _settings(data: Path | None) -> Settings:
    return config.parse(os.environ, data_dir=data or data_dir(os.environ))


def _hosts(settings: Settings) -> tuple[str, ...]:
    return Recogniser(extra_hosts(hostlist.merged(settings).extra_hosts)).hosts


def _name(item: str) -> str:
    return bare_host(item.partition("=")[0])


def _tell(found: Facts, days: float, hosts: tuple[str, ...], alarms: list[str]) -> None:
    until = datetime.fromtimestamp(found.expires_at, UTC)
    for line in (
        f"subject      {found.subject}",
        f"SHA-256      {found.sha256}",
        f"ends         {until:%Y-%m-%d %H:%M} UTC, in {days:.0f} days",
        f"file         {found.file}",
        f"vouches for  {', '.join(found.permitted)}",
        f"intercepted  {', '.join(hosts)}",
        *(f"mode         {mode} {name}" for name, mode in found.modes),
        *(f"ALARM        {alarm}" for alarm in alarms),
    ):
        tell(plain(line))
