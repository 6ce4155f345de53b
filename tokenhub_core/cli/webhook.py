"""`tokenhub webhook`: who is told of events over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.telemetry.kinds import KINDS
from tokenhub_core.webhooks.values import CHOICE

_HOOKS: Final = "/admin/v1/webhooks"

_hook = click.argument("hook", metavar="ID")
_on = click.option("--on", "kinds", multiple=True, required=True, type=click.Choice(CHOICE), help="A kind.")


@click.group()
def webhook() -> None:
    """Tell others of events over HTTP, signed."""


@webhook.command()
@as_json
def kinds(*, json: bool) -> None:
    """List the kinds of events."""
    if shown({name: KINDS[name] for name in CHOICE}, json=json):
        return
    for name in CHOICE:
        tell(f"{name}: {KINDS[name]}")


@webhook.command()
@click.argument("url")
@_on
@as_json
@data_option
def add(*, url: str, kinds: tuple[str, ...], json: bool, data: Path | None) -> None:
    """Tell URL of events of these kinds. Prints the secret that signs them, this once."""
    told = admin_client(data).post(_HOOKS, {"url": url, "kinds": list(kinds)})
    if not shown(told, json=json):
        tell(plain(f"{told['id']} is told of {', '.join(told['kinds'])}"))
        click.echo(told["secret"])


@webhook.command(name="list")
@as_json
@data_option
def list_(*, json: bool, data: Path | None) -> None:
    """List who is told of what."""
    items = admin_client(data).get(_HOOKS)["items"]
    if shown(items, json=json):
        return
    if not items:
        tell("nobody is told")
        return
    table = listing("id", "url", "kinds")
    for one in items:
        state = "" if one["enabled"] else " (disabled)"
        table.add_row(plain(one["id"] + state), plain(one["url"]), plain(", ".join(one["kinds"])))
    tell(table)


@webhook.command()
@_hook
@as_json
@data_option
def remove(*, hook: str, json: bool, data: Path | None) -> None:
    """Tell somebody no more; what waits is not told."""
    admin_client(data).delete(_at(hook))
    if not shown({"removed": hook}, json=json):
        tell(plain(f"removed {hook}"))


@webhook.command()
@_hook
@as_json
@data_option
def enable(*, hook: str, json: bool, data: Path | None) -> None:
    """Tell somebody again."""
    told = admin_client(data).patch(_at(hook), {"enabled": True})
    if not shown(told, json=json):
        tell(plain(f"enabled {hook}"))


@webhook.command()
@_hook
@as_json
@data_option
def disable(*, hook: str, json: bool, data: Path | None) -> None:
    """Tell somebody nothing for now; what waits, waits on."""
    told = admin_client(data).patch(_at(hook), {"enabled": False})
    if not shown(told, json=json):
        tell(plain(f"disabled {hook}"))


@webhook.command()
@_hook
@as_json
@data_option
def secret(*, hook: str, json: bool, data: Path | None) -> None:
    """Sign with another secret from now on, and print it."""
    told = admin_client(data).post(f"{_at(hook)}/secret")
    if not shown(told, json=json):
        click.echo(told["secret"])


@webhook.command()
@_hook
@as_json
@data_option
def test(*, hook: str, json: bool, data: Path | None) -> None:
    """Send an event of the kind `test` now."""
    told = admin_client(data).post(f"{_at(hook)}/test")
    if not shown(told, json=json):
        tell(
            "it was taken" if told["told"] else plain(f"it was not taken: {told['cause'] or told['status']}")
        )


@webhook.command()
@_hook
@click.option("--dead", is_flag=True, help="Those that were given up, instead of those that wait.")
@as_json
@data_option
def deliveries(*, hook: str, dead: bool, json: bool, data: Path | None) -> None:
    """List the newest events that somebody is still to be told of."""
    items = admin_client(data).get(f"{_at(hook)}/deliveries?state={'dead' if dead else 'waiting'}")["items"]
    if shown(items, json=json):
        return
    if not items:
        tell("none")
        return
    table = listing("time", "event", "kind", "tries", "why", right=("tries",))
    for one in items:
        when = datetime.fromtimestamp(one["made_at"], UTC).astimezone()
        table.add_row(
            f"{when:%m-%d %H:%M:%S}",
            plain(one["event_id"]),
            plain(one["kind"]),
            str(one["attempts"]),
            plain(one["cause"]),
        )
    tell(table)


@webhook.command()
@_hook
@as_json
@data_option
def retry(*, hook: str, json: bool, data: Path | None) -> None:
    """Try anew what was given up."""
    told = admin_client(data).post(f"{_at(hook)}/retry")
    if not shown(told, json=json):
        tell(f"{told['retried']} events are tried anew")


def _at(hook: str) -> str:
    return f"{_HOOKS}/{quote(hook, safe='')}"
