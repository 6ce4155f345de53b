"""`tokenhub logs` and `tokenhub explain`: what happened, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import click
from rich.text import Text

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.completion import Names
from tokenhub_core.cli.decision import explained
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.types import Json


@click.group(invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--model", default="", help="Served or asked for.", shell_complete=Names("model"))
@click.option("--provider", default="", help="Who served it.", shell_complete=Names("provider"))
@click.option("--key", default="", help="The id of the client's key.", shell_complete=Names("key"))
@click.option("--outcome", type=click.Choice(["ok", "error", "cancelled", "passed"]), help="How they ended.")
@as_json
@data_option
@click.pass_context
def logs(
    ctx: click.Context, /, *, outcome: str | None, json: bool, data: Path | None, **query: str | int
) -> None:
    """List the latest calls."""
    if ctx.invoked_subcommand is not None:
        return
    query["outcome"] = outcome or ""
    path = "/admin/v1/logs?" + urlencode({name: value for name, value in query.items() if value})
    items = admin_client(data).get(path)["logs"]
    if shown(items, json=json):
        return
    if not items:
        tell("no call was recorded")
        return
    today = datetime.now(UTC).astimezone().date()
    table = listing("time", "call", "why", "tokens, cost", right=("tokens, cost",))
    table.columns[1].min_width = 36  # an id in one piece, to be copied
    for item in items:
        when = datetime.fromtimestamp(item["at"], UTC).astimezone()
        table.add_row(
            _lines(f"{when:%H:%M:%S}" if when.date() == today else f"{when:%m-%d %H:%M}", _millis(item)),
            _lines(_call(item), " ".join(filter(None, (item["id"], item["key_id"], item["project"])))),
            _lines(item["error_class"] or item["reason"], item["outcome"]),
            _lines(str(item["input_tokens"] + item["output_tokens"] or ""), _cost(item)),
        )
    tell(table)


@logs.command()
@click.argument("id")
@as_json
@data_option
def body(*, id: str, json: bool, data: Path | None) -> None:  # noqa: A002 - the argument's name
    """Show what one call said, where that was kept.

    The audit log says that it was read.
    """
    told = admin_client(data).get(f"/admin/v1/logs/{quote(id, safe='')}/body")
    if shown(told, json=json):
        return
    until = datetime.fromtimestamp(told["until"], UTC).astimezone()
    for side in ("request", "answer"):
        text = told[side]
        rest = "" if text["whole"] else f", cut from {text['size']} bytes"
        tell(Text(f"{side} ({told['mode']}{rest}, until {until:%Y-%m-%d %H:%M})", style="bold"))
        for line in text["text"].splitlines():
            tell(plain(line))


@click.command()
@click.argument("id")
@as_json
@data_option
def explain(*, id: str, json: bool, data: Path | None) -> None:  # noqa: A002 - the argument's name
    """Show how one call was routed.

    ID is in the x-tokenhub-decision header of its reply.
    """
    told = admin_client(data).get(f"/admin/v1/decisions/{quote(id, safe='')}")
    if not shown(told, json=json):
        tell(explained(told))


def _lines(first: str, second: str) -> Text:
    return plain(first).append("\n").append(plain(second))


def _call(item: Json) -> str:
    served = f"{item['model_id']} @ {item['provider_id']}" if item["model_id"] else ""
    asked = item["requested_model"] or f"{item['method']} {item['path']}"
    if not served or asked == item["model_id"]:
        return served or asked
    return f"{asked} → {served}"


def _millis(item: Json) -> str:
    return f"{item['total_ms']:.0f} ms"


def _cost(item: Json) -> str:
    return f"${item['cost_nanousd'] / 1e9:.6f}" if item["cost_nanousd"] else ""
