"""`tokenhub alias`: names that stand for models of the running server, and what came of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.completion import Names
from tokenhub_core.cli.options import ago, as_json, data_option, listing, plain, shown, tell
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Form, Json, Sticky, Strategy

_ALIASES: Final = "/admin/v1/aliases"


@click.group()
def alias() -> None:
    """Let names stand for models: experiments and pools."""


@alias.command()
@click.argument("name", shell_complete=Names("alias"))
@click.argument("variants", nargs=-1, required=True, metavar="MODEL[=WEIGHT]...")
@click.option(
    "--strategy", type=click.Choice([one.value for one in Strategy]), default="weighted", show_default=True
)
@click.option(
    "--sticky",
    "sticky_by",
    type=click.Choice([one.value for one in Sticky]),
    default="request",
    show_default=True,
)
@click.option(
    "--output-format",
    type=click.Choice([one.value for one in Form]),
    help="Form of the answers where a call asks for none.",
)
@click.option("--strip-think", is_flag=True, help="Take thoughts between tags out of the answers.")
@click.option("--disabled", is_flag=True, help="Keep it, and do not use it yet.")
@as_json
@data_option
def add(
    *,
    name: str,
    variants: tuple[str, ...],
    strategy: str,
    sticky_by: str,
    disabled: bool,
    json: bool,
    data: Path | None,
    **shape: Any,
) -> None:
    """Let NAME stand for models, each with its weight; or, with --strategy pool, for those that patterns match.

    An alias of this name is replaced. NAME '*' is for calls that leave the choice to the router.
    """
    body = {
        "name": name,
        "variants": [variant(text) for text in variants],
        "strategy": strategy,
        "sticky_by": sticky_by,
        "enabled": not disabled,
        **shape,
    }
    added = admin_client(data).post(_ALIASES, body)
    if not shown(added, json=json):
        tell(plain(_line(added)))


@alias.command("list")
@as_json
@data_option
def list_(*, json: bool, data: Path | None) -> None:
    """List aliases."""
    items = admin_client(data).get(_ALIASES)["items"]
    if shown(items, json=json):
        return
    if not items:
        tell("no alias is registered")
        return
    table = listing("alias", "strategy", "sticky by", "models", "on")
    for item in items:
        on = "shadowed" if item["shadowed"] else "yes" if item["enabled"] else "no"
        table.add_row(plain(item["name"]), item["strategy"], item["sticky_by"], plain(_variants(item)), on)
    tell(table)


@alias.command()
@click.argument("name", shell_complete=Names("alias"))
@as_json
@data_option
def show(*, name: str, json: bool, data: Path | None) -> None:
    """Show what NAME stands for, and what is wrong with it."""
    item = admin_client(data).get(_path(name))
    if shown(item, json=json):
        return
    tell(plain(_line(item)))
    for one in item["variants"]:
        if one["missing"]:
            tell(plain(f"{one['model_id']} {one['missing']} and is left out"))
    if item["shadowed"]:
        tell(plain(f"{item['name']} is a model's id too, and the model comes first"))
    if "models" in item:
        tell(plain(f"{len(item['models'])} models: {', '.join(item['models'])}"))


@alias.command()
@click.argument("name", shell_complete=Names("alias"))
@as_json
@data_option
def remove(*, name: str, json: bool, data: Path | None) -> None:
    """Remove alias NAME; its calls stay in the log, and in its report."""
    answer = admin_client(data).delete(_path(name))
    if not shown(answer, json=json):
        tell(plain(f"{name} is removed"))


@alias.command()
@click.argument("name", shell_complete=Names("alias"))
@click.option("--since", default="", metavar="AGO", help="Only calls since then: 90m, 12h, 7d.")
@as_json
@data_option
def report(*, name: str, since: str, json: bool, data: Path | None) -> None:
    """Compare the variants of NAME. Every interval is one of 95 %."""
    query = f"?since={time.time() - ago(since):.0f}" if since else ""
    found = admin_client(data).get(f"{_path(name)}/report{query}")
    if shown(found, json=json):
        return
    for one in found["variants"]:
        tell(plain(f"{one['model_id'] or 'no model was tried'}: {_counts(one)}"))
        table = listing("figure", "value", "from", "to", right=("value", "from", "to"))
        for title, key, scale, digits in _FIGURES:
            if (figure := one[key]) is not None:
                table.add_row(title, *(_cell(figure[part], scale, digits) for part in _PARTS))
        tell(table)
    if not found["complete"]:
        tell(f"of the newest {found['requests']} calls")


_PARTS: Final = ("value", "low", "high")
_FIGURES: Final = (
    ("share of calls, %", "share", 100, 1),
    ("success, %", "success_rate", 100, 1),
    ("cost of a call, $", "cost_usd", 1, 6),
    ("latency, mean ms", "latency_ms", 1, 0),
    ("latency, median ms", "latency_p50_ms", 1, 0),
    ("latency, 95 % below, ms", "latency_p95_ms", 1, 0),
    ("first content, mean ms", "ttft_ms", 1, 0),
    ("input tokens, mean", "input_tokens", 1, 1),
    ("output tokens, mean", "output_tokens", 1, 1),
)


def _counts(one: Json) -> str:
    names = {"failed": "failed", "cancelled": "cancelled", "failed_over": "answered by another model"}
    told = [f"{one['requests']} calls", *(f"{one[key]} {text}" for key, text in names.items() if one[key])]
    return ", ".join(told)


def _cell(value: float | None, scale: int, digits: int) -> str:
    return "?" if value is None else f"{value * scale:.{digits}f}"


def variant(text: str) -> dict[str, Any]:
    """Return a target as the API takes it, from `MODEL` or `MODEL=WEIGHT`."""
    model, mark, weight = text.rpartition("=")
    if not mark:
        return {"model_id": text}
    if not weight.isascii() or not weight.isdigit() or len(weight) > 9:
        raise ConfigError(f"{text}: a weight is a whole number")
    return {"model_id": model, "weight": int(weight)}


def _line(item: Json) -> str:
    how = item["strategy"] + (f", sticky by {item['sticky_by']}" if item["sticky_by"] != "request" else "")
    how += f", as {item['output_format']}" if item["output_format"] else ""
    how += ", without thoughts" if item["strip_think"] else ""
    off = "" if item["enabled"] else ", disabled"
    return f"{item['name']} ({how}{off}): {_variants(item)}"


def _variants(item: Json) -> str:
    """Return the models with their weights; a pool's patterns are only in or out."""
    told = []
    for one in item["variants"]:
        weight = "" if "models" in item and one["weight"] else f"={one['weight']}"
        told.append(f"{one['model_id']}{weight}" + (" (missing)" if one["missing"] else ""))
    return ", ".join(told)


def _path(name: str) -> str:
    return f"{_ALIASES}/{quote(name, safe='')}"
