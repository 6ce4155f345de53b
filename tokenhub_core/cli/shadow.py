"""`tokenhub shadow`: what calls in shadow cost, and what they would have cost and lost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import click

from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.options import ago, as_json, data_option, listing, plain, shown, tell
from tokenhub_core.types import Json

_COUNTS: Final = (
    ("answered", "answered"),
    ("failed", "failed"),
    ("cancelled", "given up"),
    ("unchanged", "would have stayed where they were"),
    ("compared", "compared"),
    ("estimated", "of these with estimated tokens"),
)


@click.group()
def shadow() -> None:
    """Show what calls in shadow cost, and would have cost.

    Such calls pass untouched while what we would have done with them is recorded; see `tokenhub mode`.
    """


@shadow.command()
@click.option("--host", default="", help="Only calls to this host.")
@click.option("--user", default="", metavar="NAME", help="Only calls of this proxy user.")
@click.option("--alias", default="", metavar="NAME", help="Only calls that this alias would have stood in.")
@click.option("--since", default="", metavar="AGO", help="Only calls since then: 90m, 12h, 7d.")
@as_json
@data_option
def report(*, host: str, user: str, alias: str, since: str, json: bool, data: Path | None) -> None:
    """Compare what calls in shadow cost with what they would have cost. Every interval is one of 95 %."""
    query = {"host": host, "user": user, "alias": alias}
    if since:
        query["since"] = f"{time.time() - ago(since):.0f}"
    path = "/admin/v1/shadow/report?" + urlencode({name: value for name, value in query.items() if value})
    found = admin_client(data).get(path)
    if shown(found, json=json):
        return
    if not found["calls"]:
        tell("no call was in shadow")
        return
    _summary(found)
    _lists(found)
    tell("taken for granted:")
    for line in found["assumptions"]:
        tell(plain(f"- {line}"))


def _summary(found: Json) -> None:
    counts = [f"{found[name]} {words}" for name, words in _COUNTS if found[name] or name == "compared"]
    tell(plain(f"{found['calls']} calls: {', '.join(counts)}"))
    for reason, count in found["unpriced"].items():
        tell(plain(f"{count} not compared: {reason}"))
    money, time_ = found["cost"], found["latency"]
    if money is not None:
        share = "" if money["saved_share"] is None else f" ({money['saved_share'] * 100:.1f} %)"
        tell(
            f"paid ${money['paid']:.6f}, would have paid ${money['would']:.6f}, saved ${money['saved']:.6f}{share}"
        )
    table = listing("saved by a call, mean", "value", "from", "to", right=("value", "from", "to"))
    for title, figure, digits in (
        ("dollars", money and money["saved_each"], 6),
        ("milliseconds", time_["saved_each"], 0),
    ):
        if figure is None:
            table.add_row(title, "unknown", "", "")
        else:
            cells = (figure[part] for part in ("value", "low", "high"))
            table.add_row(title, *("none" if cell is None else f"{cell:.{digits}f}" for cell in cells))
    tell(table)
    tell(plain(f"interval: {found['interval']}"))
    if time_["unknown"]:
        tell(f"the time at the candidate is unknown for {time_['unknown']} calls")
    if not found["complete"]:
        tell(f"of the newest {found['calls']} calls")


def _lists(found: Json) -> None:
    if found["models"]:
        table = listing("asked", "would go to", "calls", "paid, $", "would, $", right=("calls",))
        for one in found["models"]:
            asked, goes = f"{one['asked']} @ {one['host']}", f"{one['model']} @ {one['provider']}"
            money = (f"{one[name]:.6f}" for name in ("paid", "would"))
            table.add_row(plain(asked), plain(goes), str(one["calls"]), *money)
        tell(table)
    for one in found["refusals"]:
        words = (
            f"{one['calls']} would have been refused with {one['status']} {one['fault']}: {one['message']}"
        )
        tell(plain(words))
    for name, count in found["losses"].items():
        tell(plain(f"{count} would have lost {name}"))
    for title, name in (("paid", "paid_prices"), ("would", "would_prices")):
        told = ", ".join(f"{source} ({count} calls)" for source, count in found[name].items())
        tell(plain(f"prices, {title}: {told or 'none'}"))
