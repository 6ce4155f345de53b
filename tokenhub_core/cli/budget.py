"""`tokenhub budget`: who may spend how much, of the running server."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import click

from tokenhub_core.admission.budgets import MOST, Period, Unit, amount
from tokenhub_core.cli.admin import admin_client
from tokenhub_core.cli.completion import Names
from tokenhub_core.cli.options import as_json, data_option, listing, plain, shown, tell
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Json

_BUDGETS: Final = "/admin/v1/budgets"
_MICRO: Final = 1_000_000
"""Micro-dollars per dollar."""


@click.group()
def budget() -> None:
    """Limit what keys, projects and everybody may spend."""


@budget.command("set")
@click.argument("owner")
@click.option("--usd", metavar="DOLLARS", help="The limit in dollars.")
@click.option("--tokens", metavar="N", help="The limit in tokens, of input and output together.")
@click.option("--requests", metavar="N", help="The limit in calls.")
@click.option(
    "--per", "period", type=click.Choice([one.value for one in Period]), default="month", show_default=True
)
@click.option("--zone", default="", help="Whose midnights count. Default: TOKENHUB_BUDGET_ZONE.")
@click.option("--warn", metavar="PER CENT", default="50,80,95", show_default=True, help="When to warn.")
@click.option("--soft", is_flag=True, help="Only warn; refuse nothing.")
@as_json
@data_option
def set_(*, owner: str, warn: str, soft: bool, json: bool, data: Path | None, **fields: Any) -> None:
    """Give OWNER a budget: all, key:ID or project:NAME. The one of the same period and unit is changed."""
    unit, limit = _limit({one: fields[one] for one in ("usd", "tokens", "requests")})
    body = {
        "owner": owner,
        "limit": limit,
        "period": fields["period"],
        "unit": unit,
        "zone": fields["zone"],
        "thresholds": [_whole(one.strip(), "--warn") for one in warn.split(",") if one.strip()],
        "hard": not soft,
    }
    made = admin_client(data).post(_BUDGETS, body)
    if not shown(made, json=json):
        tell(plain(_line(made)))


@budget.command("list")
@click.option("--owner", default="", help="Only those of this owner.")
@as_json
@data_option
def list_(*, owner: str, json: bool, data: Path | None) -> None:
    """List budgets with what is left of each."""
    query = f"?owner={quote(owner, safe='')}" if owner else ""
    items = admin_client(data).get(f"{_BUDGETS}{query}")["items"]
    if shown(items, json=json):
        return
    if not items:
        tell("no budget is set")
        return
    table = listing("id", "owner", "per", "limit", "spent", "left", right=("limit", "spent", "left"))
    for item in items:
        amounts = (_amount(item, name) for name in ("limit", "spent", "left"))
        table.add_row(item["id"], plain(item["owner"]), item["period"], *amounts)
    tell(table)


@budget.command()
@click.argument("budget_id", metavar="ID", shell_complete=Names("budget"))
@as_json
@data_option
def show(*, budget_id: str, json: bool, data: Path | None) -> None:
    """Show budget ID, and where it is going."""
    item = admin_client(data).get(_path(budget_id))
    if shown(item, json=json):
        return
    tell(plain(_line(item)))
    tell(
        plain(
            f"spent {_amount(item, 'spent')}, held {_amount(item, 'reserved')}, left {_amount(item, 'left')}"
        )
    )
    tell(plain(f"counted since {_moment(item['since'])}" + _until(item["resets_at"])))
    ahead = item["forecast"] or {}
    if ahead.get("at_end") is not None:
        tell(plain(f"at this rate {_shown(item, ahead['at_end'])} at the end"))
    if ahead.get("met_at") is not None:
        tell(plain(f"at this rate the limit is met at {_moment(ahead['met_at'])}"))


@budget.command()
@click.argument("budget_id", metavar="ID", shell_complete=Names("budget"))
@as_json
@data_option
def paid(*, budget_id: str, json: bool, data: Path | None) -> None:
    """Let the count of budget ID begin anew now."""
    item = admin_client(data).post(f"{_path(budget_id)}/paid")
    if not shown(item, json=json):
        tell(plain(f"{item['id']} counts from now on: {_amount(item, 'left')} left"))


@budget.command()
@click.argument("budget_id", metavar="ID", shell_complete=Names("budget"))
@as_json
@data_option
def remove(*, budget_id: str, json: bool, data: Path | None) -> None:
    """Remove budget ID, and what was counted of it."""
    answer = admin_client(data).delete(_path(budget_id))
    if not shown(answer, json=json):
        tell(plain(f"{budget_id} is removed"))


def _limit(given: dict[str, str | None]) -> tuple[str, int]:
    """Return the unit and the limit as the API takes it."""
    told = [(unit, text) for unit, text in given.items() if text is not None]
    if len(told) != 1:
        raise ConfigError("a budget needs one limit: --usd, --tokens or --requests")
    unit, text = told[0]
    return unit, dollars(text) if unit == "usd" else _whole(text, f"--{unit}")


def dollars(text: str) -> int:
    """Return micro-dollars; raises `ConfigError` where the text is no such amount."""
    try:
        value = Decimal(text.removeprefix("$")) * _MICRO
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite() or not 0 <= value <= MOST // 1000 or value != int(value):
        raise ConfigError(f"--usd {text}: dollars, with at most six decimals, as in 50 or 0.25")
    return int(value)


def _whole(text: str, option: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise ConfigError(f"{option} {text}: a whole number")
    return int(text)


def _line(item: Json) -> str:
    how = "" if item["hard"] else ", only warns"
    return (
        f"{item['id']}: {item['owner']}, {_amount(item, 'limit')} per {item['period']} ({item['zone']}{how})"
    )


def _amount(item: Json, name: str) -> str:
    return _shown(item, item[name])


def _shown(item: Json, value: Any) -> str:
    unit = Unit(item["unit"])
    return amount(unit, value * 1000 if unit is Unit.USD else value)


def _until(resets_at: float | None) -> str:
    return "" if resets_at is None else f", anew at {_moment(resets_at)}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _path(budget_id: str) -> str:
    return f"{_BUDGETS}/{quote(budget_id, safe='')}"
