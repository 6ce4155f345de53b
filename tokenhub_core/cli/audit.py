"""`tokenhub audit`: who changed what, and the proof that nobody changed the telling."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import click
import orjson

from tokenhub_core.audit import chain
from tokenhub_core.audit.entries import Head
from tokenhub_core.audit.journal import Audit
from tokenhub_core.cli.admin import running_client
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.cli.place import alone, database_path, variable
from tokenhub_core.errors import ConfigError
from tokenhub_core.http.audit import PATH, report_json
from tokenhub_core.store.audit import AuditLog, Filters
from tokenhub_core.store.audit import shown as entry_json

_BROKEN: Final = 1
"""The exit code where the chain is not what was written."""


@click.group(short_help="Show who changed what, and prove it.")
def audit() -> None:
    """Show who changed what, and prove it. Works on the running server, or on the database where there is none."""


@audit.command(name="list")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--action", default="", help="One action, or all of a kind: vault, provider.change.")
@click.option("--actor", default="", help="Who did it.")
@click.option("--subject", default="", help="What it was done to.")
@click.option("--outcome", type=click.Choice(["done", "denied", "refused", "failed"]), help="How it ended.")
@as_json
@data_option
def list_(*, limit: int, json: bool, data: Path | None, **wanted: str | None) -> None:
    """List the latest entries, newest first."""
    filters = {name: value for name, value in wanted.items() if value}
    client = running_client(data)
    if client is not None:
        query = urlencode({"limit": limit, **filters})
        items = client.get(f"{PATH}?{query}")["entries"]
    else:
        page = _offline(data, lambda log, _: log.page(limit=limit, filters=_filters(filters)))
        items = [entry_json(entry) for entry in page.items]
    if shown(items, json=json):
        return
    if not items:
        tell("nothing was written")
        return
    table = listing("seq", "time", "what", "who", "outcome", right=("seq",))
    for item in items:
        when = datetime.fromtimestamp(item["at"], UTC).astimezone()
        times = f" x{item['count']}" if item["count"] > 1 else ""
        table.add_row(
            str(item["seq"]),
            f"{when:%m-%d %H:%M:%S}",
            plain(f"{item['action']} {item['subject']}"),
            plain(f"{item['actor']} {item['source']}".strip()),
            plain(f"{item['outcome']} {item['reason']}".strip() + times),
        )
    tell(table)


@audit.command()
@click.option("--head", "known", metavar="SEQ:HASH", help="A head that was noted elsewhere.")
@as_json
@data_option
def verify(*, known: str | None, json: bool, data: Path | None) -> None:
    """Check every entry against the next one, and the end against every head that is known. Exit code 1: it is broken.

    The MACs are checked by a running server whose vault is open.
    """
    heads = []
    if known is not None:
        try:
            heads.append(chain.head_of(known))
        except ValueError:
            raise ConfigError("--head must be SEQ:HASH, as `tokenhub audit head` prints it") from None
    client = running_client(data)
    if client is not None:
        told = client.get(f"{PATH}/verify" + (f"?{urlencode({'head': known})}" if known else ""))
    else:
        told = report_json(_offline(data, lambda log, audit: _checked(log, audit, heads)))
    if not shown(told, json=json):
        for finding in told["findings"]:
            tell(plain(finding["text"]))
        tell(
            f"{told['entries']} entries, {told['signed']} signed"
            + (
                f", {told['unchecked']} signed and not checked: the vault is locked"
                if told["unchecked"]
                else ""
            )
        )
        tell(plain(f"head {told['head']}"))
        tell("the chain is whole" if told["ok"] else "THE CHAIN IS BROKEN")
    if not told["ok"]:
        sys.exit(_BROKEN)


@audit.command()
@as_json
@data_option
def head(*, json: bool, data: Path | None) -> None:
    """Print where the chain ends, to be kept elsewhere: what is cut off behind it will be missed."""
    client = running_client(data)
    end = (
        str(client.get(f"{PATH}?limit=1")["head"])
        if client is not None
        else str(_offline(data, lambda log, _: log.head()))
    )
    if not shown({"head": end}, json=json):
        click.echo(end)


@audit.command()
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Default: -")
@data_option
def export(*, output: Path | None, data: Path | None) -> None:
    """Write every entry as a line of JSON, oldest first, with all that its hash is made of."""
    client = running_client(data)
    lines = client.lines(f"{PATH}/export") if client is not None else _exported(data)
    try:
        with click.open_file(str(output or "-"), "wb") as file:
            for line in lines:
                file.write(line)
    except OSError as error:
        raise ConfigError(f"{output}: {error.strerror}") from None


def _exported(data: Path | None) -> Iterator[bytes]:
    return iter(
        _offline(data, lambda log, _: [orjson.dumps(entry_json(entry)) + b"\n" for entry in log.entries()])
    )


def _checked(log: AuditLog, audit: Audit, heads: list[Head]) -> chain.Report:
    anchored = audit.anchored()
    return log.verify({}, (*heads, *([anchored] if anchored else [])))


def _filters(wanted: Mapping[str, str]) -> Filters:
    return Filters(
        wanted.get("action", ""),
        wanted.get("actor", ""),
        wanted.get("subject", ""),
        wanted.get("outcome", ""),
    )


def _offline(data: Path | None, read: Any) -> Any:
    if not variable("DB_DSN") and not Path(database_path(data)).exists():
        raise ConfigError(f"there is no database {database_path(data)}")

    async def run(audit: Audit) -> Any:
        return read(AuditLog(audit.database), audit)

    return alone(data, run)
