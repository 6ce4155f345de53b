"""`tokenhub model`: register, list, change and remove models of the running server."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click
from rich.console import Console
from rich.table import Table

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.options import as_json, data_option, shown
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Json


@click.group()
def model() -> None:
    """Register and list models."""


@model.command()
@click.argument("id")
@click.option("--provider", required=True, help="Who serves it.")
@click.option("--upstream", default="", help="Its name at the provider, where it has another.")
@click.option("--weight", type=click.IntRange(0, 10), default=5, show_default=True)
@click.option("--context", type=click.IntRange(0), default=0, help="Context window in tokens.")
@click.option("--input-per-1k", type=float, help="Dollars per thousand input tokens.")
@click.option("--output-per-1k", type=float, help="Dollars per thousand output tokens.")
@data_option
def add(  # noqa: PLR0913 - one parameter a flag
    *,
    id: str,  # noqa: A002 - the argument's name in the help text
    provider: str,
    upstream: str,
    weight: int,
    context: int,
    input_per_1k: float | None,
    output_per_1k: float | None,
    data: Path | None,
) -> None:
    """Register model ID. Prices and sizes that are not given come from the price catalogue."""
    body: Json = {
        "id": id,
        "provider_id": provider,
        "upstream": upstream,
        "weight": weight,
        "max_context_tokens": context,
        "input_per_1k": input_per_1k,
        "output_per_1k": output_per_1k,
    }
    added = admin_client(data).post("/admin/v1/models", body)
    click.echo(f"{added['id']} at {added['provider_id']}: weight {added['weight']}, {_price(added)}")


@model.command("set")
@click.argument("id")
@click.option("--provider", default="", help="At which provider, where several serve it.")
@click.option("--weight", type=click.IntRange(0, 10))
@click.option("--enable/--disable", default=None)
@click.option("--input-per-1k", type=float)
@click.option("--output-per-1k", type=float)
@data_option
def set_(
    *,
    id: str,  # noqa: A002 - the argument's name in the help text
    provider: str,
    weight: int | None,
    enable: bool | None,
    input_per_1k: float | None,
    output_per_1k: float | None,
    data: Path | None,
) -> None:
    """Change model ID; what is not named stays."""
    wishes = {
        "weight": weight,
        "enabled": enable,
        "input_per_1k": input_per_1k,
        "output_per_1k": output_per_1k,
    }
    changes = {name: value for name, value in wishes.items() if value is not None}
    if not changes:
        raise ConfigError("nothing to change: name at least one option")
    changed = admin_client(data).patch(_path(id, provider), changes)
    click.echo(f"{changed['id']} at {changed['provider_id']}: weight {changed['weight']}, {_price(changed)}")


@model.command("list")
@as_json
@data_option
def list_(*, json: bool, data: Path | None) -> None:
    """List models."""
    items = admin_client(data).get("/admin/v1/models")["items"]
    if shown(items, json=json):
        return
    table = Table("model", "provider", "weight", "context", "price", "enabled")
    for item in items:
        size = str(item["max_context_tokens"] or "unknown")
        enabled = "yes" if item["enabled"] else "no"
        table.add_row(item["id"], item["provider_id"], str(item["weight"]), size, _price(item), enabled)
    Console().print(table)


@model.command()
@click.argument("id")
@click.option("--provider", default="", help="At which provider, where several serve it.")
@data_option
def remove(*, id: str, provider: str, data: Path | None) -> None:  # noqa: A002 - the argument's name
    """Remove model ID."""
    admin_client(data).delete(_path(id, provider))
    click.echo(f"{id} is removed")


def _path(id_: str, provider: str) -> str:
    return f"/admin/v1/models/{quote(id_)}" + (f"?provider={quote(provider)}" if provider else "")


def _price(item: Json) -> str:
    if item["pricing_source"] == "unknown":
        return "price unknown"
    return f"${item['input_per_1k'] * 1000:g} / ${item['output_per_1k'] * 1000:g} per million"
