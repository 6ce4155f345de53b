"""`tokenhub provider`: register, list and remove providers of the running server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final
from urllib.parse import quote

import click
from rich.console import Console
from rich.table import Table

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.options import as_json, data_option, shown
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Json, ProviderType

_WELL_KNOWN: Final = {
    "openai": (ProviderType.OPENAI, "https://api.openai.com"),
    "anthropic": (ProviderType.ANTHROPIC, "https://api.anthropic.com"),
}
_TYPES: Final = [t.value for t in ProviderType if t not in {ProviderType.ORIGIN, ProviderType.SIMULATOR}]


@click.group()
def provider() -> None:
    """Register and list providers."""


@provider.command()
@click.argument("id")
@click.option("--type", "type_", type=click.Choice(_TYPES), help="Default: openai, or what the id says.")
@click.option("--base-url", multiple=True, help="Endpoint; repeat it for several of the same provider.")
@click.option("--api-key-stdin", is_flag=True, help="Read the key from standard input.")
@click.option("--api-key-env", metavar="NAME", help="Let the server read the key from its own environment.")
@click.option("--memory", is_flag=True, help="Keep the key until the server stops, not in the vault.")
@click.option("--model", "models", multiple=True, help="Register this model too; may be repeated.")
@data_option
def add(  # noqa: PLR0913 - one parameter a flag
    *,
    id: str,  # noqa: A002 - the argument's name in the help text
    type_: str | None,
    base_url: tuple[str, ...],
    api_key_stdin: bool,
    api_key_env: str | None,
    memory: bool,
    models: tuple[str, ...],
    data: Path | None,
) -> None:
    """Register provider ID, or change it. `openai` and `anthropic` need no --type and no --base-url.

    Without --model, the well-known two get every model that their price list names.
    """
    client = admin_client(data)
    known_type, known_url = _WELL_KNOWN.get(id, (ProviderType.OPENAI, ""))
    body: Json = {"id": id, "type": type_ or known_type.value, "endpoints": list(base_url) or [known_url]}
    if not base_url and not known_url:
        raise ConfigError("--base-url is required")
    if api_key_stdin:
        body["api_key"] = _key()
    if api_key_env:
        body["cred_store"] = f"env:{api_key_env}"
    elif memory:
        body["cred_store"] = "memory"
    added = client.post("/admin/v1/providers", body)
    click.echo(f"{added['id']}: {added['type']} at {', '.join(added['endpoints'])}")
    if models:
        for name in models:
            model = client.post("/admin/v1/models", {"id": name, "provider_id": id})
            click.echo(f"{name}: {_price(model)}")
    elif id in _WELL_KNOWN:
        listed = client.post(f"/admin/v1/providers/{quote(id)}/catalogue", {})
        click.echo(f"{listed['added']} models registered from the price catalogue")


@provider.command("list")
@as_json
@data_option
def list_(*, json: bool, data: Path | None) -> None:
    """List providers."""
    items = admin_client(data).get("/admin/v1/providers")["items"]
    if shown(items, json=json):
        return
    table = Table("id", "type", "endpoints", "credential", "models", "enabled")
    for item in items:
        credential = item["cred_store"] + (
            "" if item["credential"] or item["cred_store"] == "none" else " (missing)"
        )
        endpoints = "\n".join(item["endpoints"])
        enabled = "yes" if item["enabled"] else "no"
        table.add_row(item["id"], item["type"], endpoints, credential, str(item["models"]), enabled)
    Console().print(table)


@provider.command()
@click.argument("id")
@data_option
def remove(*, id: str, data: Path | None) -> None:  # noqa: A002 - the argument's name in the help text
    """Remove provider ID, its models and its credential."""
    admin_client(data).delete(f"/admin/v1/providers/{quote(id)}")
    click.echo(f"{id} is removed")


def _key() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("API key", hide_input=True))
    key = sys.stdin.readline().strip()
    if not key:
        raise ConfigError("no key on standard input")
    return key


def _price(model: Json) -> str:
    if model["pricing_source"] == "unknown":
        return "price unknown"
    return f"${model['input_per_1k'] * 1000:g} in, ${model['output_per_1k'] * 1000:g} out per million tokens"
