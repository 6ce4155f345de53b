"""`tokenhub provider key`: the credentials of a provider, which are never shown."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from tokenhub_core.cli.admin import AdminClient, admin_client
from tokenhub_core.cli.completion import Names
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import DEFAULT_CREDENTIAL, Json

_LOWEST: Final = 3
"""Windows that a list shows of one credential, those with the least left."""


@click.group()
def key() -> None:
    """Give a provider several credentials, and see what is left of each."""


_name = click.argument("name", default=DEFAULT_CREDENTIAL)
_provider = click.argument("provider", shell_complete=Names("provider"))


@key.command()
@_provider
@_name
@click.option("--api-key-stdin", "stdin", is_flag=True, help="Read the key from standard input.")
@click.option(
    "--api-key-env",
    "variable",
    metavar="NAME",
    help="Let the server read the key from its own environment.",
)
@click.option("--memory", is_flag=True, help="Keep the key until the server stops, not in the vault.")
@as_json
@data_option
def add(*, provider: str, name: str, json: bool, data: Path | None, **more: Any) -> None:
    """Give PROVIDER another credential called NAME, or give that one a new key.

    Without a name it is the provider's own credential.
    """
    fields = credential_fields(**more)
    if not fields:
        raise ConfigError("give the key with --api-key-stdin or --api-key-env")
    client = admin_client(data)
    if name == DEFAULT_CREDENTIAL:
        client.patch(_path(provider), fields)
        added = _one(client, provider, name)
    else:
        added = client.post(f"{_path(provider)}/credentials", {"name": name, **fields})
    if not shown(added, json=json):
        tell(plain(f"{provider}/{name}: {added['cred_store']}, {_state(added)}"))


@key.command("list")
@_provider
@as_json
@data_option
def list_(*, provider: str, json: bool, data: Path | None) -> None:
    """List the credentials of PROVIDER: where each is read, whether it can be used, what is left of its limits."""
    items = admin_client(data).get(f"{_path(provider)}/credentials")["items"]
    if shown(items, json=json):
        return
    if not items:
        tell(plain(f"{provider} has no credential"))
        return
    table = listing("name", "where", "state", "left")
    for item in items:
        table.add_row(plain(item["name"]), plain(item["cred_store"]), plain(_state(item)), plain(_left(item)))
    tell(table)


@key.command()
@_provider
@_name
@as_json
@data_option
def disable(*, provider: str, name: str, json: bool, data: Path | None) -> None:
    """Keep a credential and send no call with it."""
    _switch(provider, name, json=json, data=data, on=False)


@key.command()
@_provider
@_name
@as_json
@data_option
def enable(*, provider: str, name: str, json: bool, data: Path | None) -> None:
    """Let calls be sent with a credential again."""
    _switch(provider, name, json=json, data=data, on=True)


@key.command()
@_provider
@_name
@as_json
@data_option
def remove(*, provider: str, name: str, json: bool, data: Path | None) -> None:
    """Remove a credential, out of the vault too. The provider stays."""
    client = admin_client(data)
    if name == DEFAULT_CREDENTIAL:
        answer = client.patch(_path(provider), {"cred_store": "none"})
    else:
        answer = client.delete(_path(provider, name))
    if not shown(answer, json=json):
        tell(plain(f"{provider}/{name} is removed"))


@key.command()
@_provider
@_name
@as_json
@data_option
def unpark(*, provider: str, name: str, json: bool, data: Path | None) -> None:
    """Use a parked credential again at once: its balance was filled up, or its limit raised."""
    answer = admin_client(data).post(f"{_path(provider, name)}/unpark")
    if not shown(answer, json=json):
        tell(plain(f"{provider}/{name}: {_state(answer)}"))


@key.command()
@_provider
@as_json
@data_option
def history(*, provider: str, json: bool, data: Path | None) -> None:
    """Show when credentials of PROVIDER were parked and unparked, by whom and why; the newest first."""
    items = admin_client(data).get(f"{_path(provider)}/parkings")["items"]
    if shown(items, json=json):
        return
    if not items:
        tell("nothing was ever parked")
        return
    for item in items:
        model = f" for {item['model']}" if item["model"] else ""
        until = f" until {_when(item['until'])}" if item["action"] == "parked" else ""
        tell(
            plain(
                f"{_when(item['at'])} {item['credential']}{model} {item['action']}{until}, {item['by']}: {item['why']}"
            )
        )


def credential_fields(*, stdin: bool, variable: str | None, memory: bool) -> Json:
    """Return what the flags say of the credential, in the fields of the API."""
    if variable and (stdin or memory):
        raise ConfigError("--api-key-env names where the key is: it goes with no other key option")
    if memory and not stdin:
        raise ConfigError("--memory keeps a key: give it with --api-key-stdin")
    if variable:
        return {"cred_store": f"env:{variable}"}
    if not stdin:
        return {}
    return {"api_key": _key(), **({"cred_store": "memory"} if memory else {})}


def _key() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("API key", hide_input=True))
    key = sys.stdin.readline().strip()
    if not key:
        raise ConfigError("no key on standard input")
    return key


def _path(provider: str, name: str = "") -> str:
    path = f"/admin/v1/providers/{quote(provider, safe='')}"
    return f"{path}/credentials/{quote(name, safe='')}" if name else path


def _one(client: AdminClient, provider: str, name: str) -> Json:
    items = client.get(f"{_path(provider)}/credentials")["items"]
    return next(item for item in items if item["name"] == name)


def _switch(provider: str, name: str, *, json: bool, data: Path | None, on: bool) -> None:
    answer = admin_client(data).patch(_path(provider, name), {"enabled": on})
    if not shown(answer, json=json):
        tell(plain(f"{provider}/{name}: {_state(answer)}"))


def _state(item: Json) -> str:
    state = str(item["state"])
    if state == "parked":
        reason = next(one["reason"] for one in item["parkings"] if not one["model"])
        return f"parked until {_when(item['parked_until'])} ({reason})"
    models = sum(bool(one["model"]) for one in item["parkings"])
    return f"{state}, parked for {models} model{'s' if models > 1 else ''}" if models else state


def _left(item: Json) -> str:
    """Return the windows with the least left, relatively."""

    def share(one: Json) -> float:
        return float(one["remaining"] / one["limit"]) if one["limit"] else 1.0

    lowest = sorted(item["limits"], key=share)[:_LOWEST]
    return ", ".join(f"{_few(one)} {one['metric']}{_of(one)}" for one in lowest)


def _few(one: Json) -> str:
    of = f"/{one['limit']:g}" if one["limit"] is not None else ""
    return f"{one['remaining']:g}{of}"


def _of(one: Json) -> str:
    return f" ({one['model']})" if one["model"] else ""


def _when(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M}Z"
