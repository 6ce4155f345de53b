"""`tokenhub mode`: what is done with the calls to a host, of a caller, or for an alias."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import click

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.modes import HostMode
from tokenhub_core.types import Json

_MODES: Final = "/admin/v1/modes"


def _narrowed(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that make a rule one for fewer calls."""
    for option in (
        click.option("--alias", default="", metavar="NAME", help="Only calls that ask for this alias."),
        click.option("--user", default="", metavar="NAME", help="Only calls of this proxy user."),
    ):
        command = option(command)
    return command


@click.group()
def mode() -> None:
    """Say what is done with calls: routed, shadow, observed, off."""


@mode.command("list")
@as_json
@data_option
def list_(*, json: bool, data: Path | None) -> None:
    """List the rules. Of those that match a call the first one decides; without one it is routed."""
    items = admin_client(data).get(_MODES)["items"]
    if shown(items, json=json):
        return
    if not items:
        tell("every call is routed")
        return
    table = listing("host", "user", "alias", "mode", "from")
    for item in items:
        table.add_row(*(plain(item[name] or "any") for name in ("host", "user", "alias", "mode", "source")))
    tell(table)


@mode.command("set")
@click.argument("host")
@click.argument("mode_", metavar="MODE", type=click.Choice([one.value for one in HostMode]))
@_narrowed
@as_json
@data_option
def set_(*, host: str, mode_: str, user: str, alias: str, json: bool, data: Path | None) -> None:
    """Let calls to HOST be handled by MODE from now on; HOST '*' is every host.

    MODE: route (the engine answers), shadow (pass untouched, and record what the engine would have done), observe
    (pass untouched, metered) or off (do not open the connection).
    """
    body = {"host": host, "mode": mode_, "user": user, "alias": alias}
    told = admin_client(data).put(_MODES, body)
    if not shown(told, json=json):
        tell(plain(f"{_calls(told)}: {told['mode']}"))


@mode.command()
@click.argument("host")
@_narrowed
@as_json
@data_option
def clear(*, host: str, user: str, alias: str, json: bool, data: Path | None) -> None:
    """Forget the mode that was set for HOST; the next rule decides, or TOKENHUB_HOST_MODES."""
    match = {"host": host, "user": user, "alias": alias}
    told = admin_client(data).delete(f"{_MODES}?{urlencode(match)}")
    if not shown(told, json=json):
        tell(plain(f"{_calls(match)}: cleared"))


def _calls(match: Json) -> str:
    narrowed = [f"{name} {match[name]}" for name in ("user", "alias") if match[name]]
    return ", ".join([match["host"], *narrowed])
