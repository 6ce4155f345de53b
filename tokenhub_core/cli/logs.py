"""`tokenhub logs` and `tokenhub explain`: what happened, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import click
from rich.console import Console
from rich.table import Table

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.decision import decision_table
from tokenhub_core.cli.options import as_json, data_option, shown


@click.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--model", default="", help="Served or asked for.")
@click.option("--provider", default="")
@click.option("--outcome", type=click.Choice(["ok", "error", "cancelled", "passed"]))
@as_json
@data_option
def logs(
    *, limit: int, model: str, provider: str, outcome: str | None, json: bool, data: Path | None
) -> None:
    """List the latest calls."""
    query = {"limit": limit, "model": model, "provider": provider, "outcome": outcome or ""}
    path = "/admin/v1/logs?" + urlencode({name: value for name, value in query.items() if value})
    items = admin_client(data).get(path)["logs"]
    if shown(items, json=json):
        return
    table = Table("time", "id", "asked for", "served by", "why", "tokens", "cost", "ms", "outcome")
    for item in items:
        when = datetime.fromtimestamp(item["at"], UTC).astimezone().strftime("%H:%M:%S")
        served = f"{item['model_id']} @ {item['provider_id']}" if item["model_id"] else ""
        tokens = str(item["input_tokens"] + item["output_tokens"] or "")
        cost = f"${item['cost_nanousd'] / 1e9:.6f}" if item["cost_nanousd"] else ""
        why = item["error_class"] or item["reason"]
        table.add_row(
            when,
            item["id"],
            item["requested_model"],
            served,
            why,
            tokens,
            cost,
            f"{item['total_ms']:.0f}",
            item["outcome"],
        )
    Console().print(table)


@click.command()
@click.argument("id")
@as_json
@data_option
def explain(*, id: str, json: bool, data: Path | None) -> None:  # noqa: A002 - the argument's name
    """Show how one call was routed.

    ID is in the x-request-id header of its reply.
    """
    row = admin_client(data).get(f"/admin/v1/logs/{quote(id)}")
    if not shown(row, json=json):
        Console().print(decision_table(row))
