"""`tokenhub model`: register, list, change and remove models of the running server."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
from rich.text import Text

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.completion import Names
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Json

_at = click.option(
    "--provider",
    default="",
    help="At which provider, where several serve it.",
    shell_complete=Names("provider"),
)


@click.group()
def model() -> None:
    """Register and list models."""


# The options of `add` and `set` are named as the fields of the API that they fill.


@model.command()
@click.argument("id", shell_complete=Names("model"))
@click.option(
    "--provider", "provider_id", required=True, help="Who serves it.", shell_complete=Names("provider")
)
@click.option("--upstream", default="", help="Its name at the provider, where it has another.")
@click.option("--weight", type=click.IntRange(0, 10), default=5, show_default=True)
@click.option(
    "--context", "max_context_tokens", type=click.IntRange(0), default=0, help="Context window in tokens."
)
@click.option("--input-per-1k", type=float, help="Dollars per thousand input tokens.")
@click.option("--output-per-1k", type=float, help="Dollars per thousand output tokens.")
@click.option("--quirk", "quirks", multiple=True, help="A repair that it needs; may be repeated.")
@as_json
@data_option
def add(*, json: bool, data: Path | None, **fields: Any) -> None:
    """Register model ID. Prices and sizes that are not given come from the price catalogue."""
    added = admin_client(data).post("/admin/v1/models", fields)
    if not shown(added, json=json):
        tell(described(added))


@model.command("set")
@click.argument("id", shell_complete=Names("model"))
@click.option(
    "--provider",
    default="",
    help="At which provider, where several serve it.",
    shell_complete=Names("provider"),
)
@click.option("--weight", type=click.IntRange(0, 10))
@click.option("--enable/--disable", "enabled", default=None, help="Whether it may serve.")
@click.option("--input-per-1k", type=float, help="Dollars per thousand input tokens.")
@click.option("--output-per-1k", type=float, help="Dollars per thousand output tokens.")
@click.option("--quirk", "quirks", multiple=True, help="A repair that it needs, in place of those before.")
@click.option("--no-quirks", is_flag=True, help="It needs no repair any more.")
@as_json
@data_option
def set_(
    *,
    id: str,  # noqa: A002 - the argument's name
    provider: str,
    quirks: tuple[str, ...],
    no_quirks: bool,
    json: bool,
    data: Path | None,
    **fields: Any,
) -> None:
    """Change model ID; what is not named stays."""
    if quirks and no_quirks:
        raise ConfigError("--quirk and --no-quirks exclude each other")
    changes = {name: value for name, value in fields.items() if value is not None}
    if quirks or no_quirks:
        changes["quirks"] = quirks
    if not changes:
        raise ConfigError("nothing to change: name at least one option")
    changed = admin_client(data).patch(_path(id, provider), changes)
    if not shown(changed, json=json):
        tell(described(changed))


@model.command("list")
@as_json
@data_option
def list_(*, json: bool, data: Path | None) -> None:
    """List models."""
    items = admin_client(data).get("/admin/v1/models")["items"]
    if shown(items, json=json):
        return
    if not items:
        tell("no model is registered")
        return
    table = listing(
        "model", "provider", "weight", "context", "$ per million", "on", right=("weight", "context")
    )
    for item in items:
        table.add_row(
            plain(item["id"]),
            plain(item["provider_id"]),
            str(item["weight"]),
            str(item["max_context_tokens"] or "unknown"),
            "unknown" if item["pricing_source"] == "unknown" else " / ".join(_per_million(item)),
            "yes" if item["enabled"] else "no",
        )
    tell(table)


@model.command()
@click.argument("id", shell_complete=Names("model"))
@click.option(
    "--provider",
    default="",
    help="At which provider, where several serve it.",
    shell_complete=Names("provider"),
)
@as_json
@data_option
def remove(*, id: str, provider: str, json: bool, data: Path | None) -> None:  # noqa: A002 - the argument's name
    """Remove model ID."""
    answer = admin_client(data).delete(_path(id, provider))
    if not shown(answer, json=json):
        tell(plain(f"{id} is removed"))


def described(item: Json) -> Text:
    """Return one model in a line."""
    if item["pricing_source"] == "unknown":
        price = "price unknown"
    else:
        price = "${} in, ${} out per million tokens".format(*_per_million(item))
    return plain(f"{item['id']} at {item['provider_id']}: weight {item['weight']}, {price}")


def _path(id_: str, provider: str) -> str:
    query = f"?provider={quote(provider, safe='')}" if provider else ""
    return f"/admin/v1/models/{quote(id_, safe='')}{query}"


def _per_million(item: Json) -> tuple[str, str]:
    return f"{item['input_per_1k'] * 1000:g}", f"{item['output_per_1k'] * 1000:g}"
