"""`tokenhub stats`: what the last minute, five minutes, hour and day came to."""

from __future__ import annotations

from pathlib import Path

import click

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.types import Json

_WINDOWS = ("1m", "5m", "1h", "24h")
_SPLITS = {
    "model": "by_model",
    "provider": "by_provider",
    "key": "by_api_key",
    "project": "by_project",
    "host": "by_host",
    "program": "by_program",
    "mode": "by_mode",
}
_RIGHT = ("calls", "failed", "cost", "tokens", "p50", "p95", "first token")


@click.command()
@click.option("--by", type=click.Choice(list(_SPLITS)), help="Each of these by itself.")
@click.option("--window", type=click.Choice(_WINDOWS), default="24h", show_default=True, help="With --by.")
@as_json
@data_option
def stats(*, by: str | None, window: str, json: bool, data: Path | None) -> None:
    """Show what the last minute, hour and day came to."""
    found = admin_client(data).get("/admin/v1/stats")
    if shown(found, json=json):
        return
    if by is None:
        rows = [(one["window"], one) for one in found["global"]]
    else:
        rows = [(one[by] or "none", one) for one in found[_SPLITS[by]].get(window, ())]
    if not rows:
        tell(f"no call in the last {window}")
        return
    table = listing(by or "window", *_RIGHT, right=_RIGHT)
    for name, one in rows:
        table.add_row(plain(name), *_cells(one))
    tell(table)
    if found["other_calls"]:
        tell(
            f"{found['other_calls']} calls were of more series than a day may have, and are counted as other"
        )
    if not found["complete"]:
        tell("the log is still being counted: this is less than there was")


def _cells(one: Json) -> tuple[str, ...]:
    return (
        f"{one['request_count']:,}",
        f"{one['error_rate'] * 100:.1f} %" if one["request_count"] else "",
        f"${one['total_cost_usd']:.4f}" if one["total_cost_usd"] else "",
        f"{one['total_tokens']:,}",
        *(_millis(one[f"{name}_ms"]) for name in ("p50_latency", "p95_latency", "p50_ttft")),
    )


def _millis(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f} ms"
