"""`tokenhub logs` and `tokenhub explain`: what happened, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

import click
import orjson
from rich.text import Text

from tokenhub_core.cli import exports
from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.completion import Names
from tokenhub_core.cli.decision import explained
from tokenhub_core.cli.following import followed
from tokenhub_core.cli.options import ago, as_json, data_option, listing, plain, shown, tell
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Json

_FILTERS: Final = (
    click.option("--since", metavar="TIME", help="90m, 12h, 7d ago, or a time such as 2030-01-31T12:00."),
    click.option("--until", metavar="TIME", help="Like --since."),
    click.option("--model", default="", help="Served or asked for.", shell_complete=Names("model")),
    click.option("--provider", default="", help="Who served it.", shell_complete=Names("provider")),
    click.option("--key", default="", help="The id of the client's key.", shell_complete=Names("key")),
    click.option("--project", default=""),
    click.option("--host", default="", help="That the call was meant for."),
    click.option("--program", default="", help="The client program."),
    click.option(
        "--outcome", type=click.Choice(["ok", "error", "cancelled", "passed"]), help="How they ended."
    ),
    click.option("--status", default="", help="One such as 404, or a class of them: 5xx."),
    click.option("--mode", default=""),
    click.option("--directive", default="", help="What became of it: honoured, denied, invalid, ignored."),
    click.option("--tag", default=""),
    click.option("--error", default="", help="A piece of an error's label or text."),
    click.option(
        "--search", "q", default="", help="A piece of an id, model, host, program, path or message."
    ),
)


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which calls."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--follow", is_flag=True, help="Go on with those that come, until interrupted.")
@_filtered
@as_json
@data_option
@click.pass_context
def logs(
    ctx: click.Context,
    /,
    *,
    limit: int,
    follow: bool,
    json: bool,
    data: Path | None,
    **wanted: str | None,
) -> None:
    """List the latest calls."""
    if ctx.invoked_subcommand is not None:
        return
    query = _query(wanted)
    client = admin_client(data)
    if follow:
        for item in followed(client, query, begin=limit):
            _print_one(item, json=json)
        return
    items, before = list[Json](), dict[str, object]()
    while len(items) < limit:
        # A page may be short where there are more.
        page = client.get("/admin/v1/logs?" + urlencode({"limit": limit - len(items), **query, **before}))
        items += page["logs"]
        if page["next"] is None:
            break
        before = {"before": page["next"]}
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
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--format", "kind", type=click.Choice(["jsonl", "csv"]), help="Default: by the file's name.")
@click.option("--resume", is_flag=True, help="Go on with a file that was cut short.")
@_filtered
@data_option
def export(*, file: Path, kind: str | None, resume: bool, data: Path | None, **wanted: str | None) -> None:
    """Write calls into FILE, oldest first: CSV or JSON lines, packed where its name ends in .gz or .zst.

    Until it is whole the file is called FILE.part.
    """
    asked = exports.Asked(file, exports.kind_of(file, kind), _query(wanted))
    count = exports.run(admin_client(data), asked, resume=resume)
    tell(plain(f"{file}: {count} calls"))


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


def _query(wanted: Mapping[str, str | None]) -> dict[str, str]:
    """Return filters as the admin API takes them."""
    query = {name: value for name, value in wanted.items() if value}
    for name in ("since", "until"):
        if name in query:
            query[name] = str(_moment(query[name], f"--{name}"))
    return query


def _moment(text: str, option: str) -> float:
    """Return seconds since the epoch of so long ago, or of a time of this machine where it names no other zone."""
    if text[-1:] in {"m", "h", "d"}:
        return datetime.now(UTC).timestamp() - ago(text, option)
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise ConfigError(f"{option} {text}: 90m, 12h, 7d, or a time such as 2030-01-31T12:00") from None


def _print_one(item: Json, *, json: bool) -> None:
    """Print a call in one line, at once."""
    if json:
        click.echo(orjson.dumps(item))
        return
    when = datetime.fromtimestamp(item["at"], UTC).astimezone()
    why = item["error_class"] or item["reason"]
    words = (f"{when:%H:%M:%S}", item["id"], item["outcome"], _call(item), why, _millis(item), _cost(item))
    click.echo(plain("  ".join(filter(None, words))).plain)


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
