"""`tokenhub workflow`: durable calls, as Temporal knows them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

import click

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.workflows.way import STATUSES

_PATH: Final = "/admin/v1/workflows"


@click.group()
def workflow() -> None:
    """List, show and end durable calls.

    ID is `chat-` and the id of the request.
    """


@workflow.command("list")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@click.option("--status", type=click.Choice(STATUSES), help="Only those.")
@as_json
@data_option
def list_(*, limit: int, status: str | None, json: bool, data: Path | None) -> None:
    """List the latest ones."""
    query = {"limit": limit} | ({"status": status} if status else {})
    told = admin_client(data).get(f"{_PATH}?{urlencode(query)}")
    if shown(told, json=json):
        return
    if not told["temporal_enabled"]:
        tell("no call is durable: TOKENHUB_TEMPORAL_ENABLED is off")
        return
    if not told["workflows"]:
        tell("there is no durable call")
        return
    table = listing("begun", "id", "status", "took", right=("took",))
    for one in told["workflows"]:
        took = "" if one["duration_ms"] is None else f"{one['duration_ms']:.0f} ms"
        table.add_row(_moment(one["start_time"]), plain(one["workflow_id"]), one["status"], took)
    tell(table)


@workflow.command()
@click.argument("id")
@as_json
@data_option
def show(*, id: str, json: bool, data: Path | None) -> None:  # noqa: A002 - the argument's name
    """Show what happened in one."""
    client, path = admin_client(data), f"{_PATH}/{quote(id, safe='')}"
    told = {**client.get(path), "events": client.get(f"{path}/history")["events"]}
    if shown(told, json=json):
        return
    tell(plain(f"{told['workflow_id']}: {told['status']}"))
    table = listing("time", "event")
    for event in told["events"]:
        table.add_row(_moment(event["timestamp"]), plain(event["event_type"]))
    tell(table)


@workflow.command()
@click.argument("id")
@as_json
@data_option
def cancel(*, id: str, json: bool, data: Path | None) -> None:  # noqa: A002 - the argument's name
    """End one, as if its caller had left."""
    told = admin_client(data).post(f"{_PATH}/{quote(id, safe='')}/cancel")
    if not shown(told, json=json):
        tell(plain(f"{id} was asked to end"))


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%m-%d %H:%M:%S}"
