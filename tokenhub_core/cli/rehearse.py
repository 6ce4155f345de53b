"""`tokenhub rehearse`: what logged traffic would come to under another policy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import orjson
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from tokenhub_core.cli.admin import AdminClient, admin_client
from tokenhub_core.cli.alias import variant
from tokenhub_core.cli.options import ago, as_json, data_option, listing, plain, shown, tell
from tokenhub_core.errors import ConfigError
from tokenhub_core.types import Json, Mode

_PATH: Final = "/admin/v1/rehearse"
_MAX_FILE: Final = 1 << 20
_ROWS: Final = 12
"""Models in the table; the rest are counted."""


def _number(text: str) -> float | None:
    value = None if text == "none" else float(text)
    if value is not None and not math.isfinite(value):
        raise ValueError(text)
    return value


def _whole(text: str) -> int | None:
    return None if text == "none" else int(text)


def _flag(text: str) -> bool:
    return {"yes": True, "true": True, "no": False, "false": False}[text]


def _name(text: str) -> str | None:
    return None if text == "none" else text


_KEYS: Final[Mapping[str, tuple[str, Callable[[str], object], str]]] = {
    "mode": ("mode", str, "a mode"),
    "budget": ("max_budget_usd", _number, "dollars, or none"),
    "latency": ("max_latency_ms", _whole, "milliseconds, or none"),
    "min_weight": ("min_weight", int, "a whole number"),
    "provider": ("provider", _name, "a name, or none"),
    "model": ("model", str, "a name, or *"),
    "fallback": ("fallback", _flag, "yes or no"),
    "lossy": ("lossy", _flag, "yes or no"),
}
"""Keys as in directives, the API's fields, how values are read, and what they are."""


@click.command(short_help="Show what logged traffic would come to under another policy.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="FILE|KEY=VALUE",
    help=f"In place of the defaults; a JSON file, or any of {', '.join(_KEYS)}. model=* frees every call.",
)
@click.option("--mode", type=click.Choice([mode.value for mode in Mode]), help="The same as --policy mode=….")
@click.option("--explore", type=click.Choice(["thompson", "off"]), help="Default: as it is now.")
@click.option(
    "--alias", "aliases", multiple=True, metavar="NAME=MODEL[=WEIGHT],…", help="Weighted, by request."
)
@click.option("--since", default="7d", show_default=True, metavar="AGO", help="90m, 12h, 7d.")
@click.option("--host", default="", help="Only calls that were meant for it.")
@click.option("--program", default="", help="Only calls of this program.")
@click.option("--as-logged", is_flag=True, help="Decide with the facts of then and not with today's.")
@click.option("--clip", type=click.FloatRange(min=1), help="The largest weight in the estimates.")
@as_json
@data_option
def rehearse(
    *,
    policies: tuple[str, ...],
    mode: str | None,
    aliases: tuple[str, ...],
    since: str,
    json: bool,
    data: Path | None,
    **fields: Any,
) -> None:
    """Decide logged calls once more, under another policy, and show what would have come of it.

    Callers' own wishes stay; the policy takes the place of the operator's defaults. No model is called and nothing is
    changed.
    """
    policy: Json = {}
    for text in policies:
        policy |= _policy(text)
    policy |= {"mode": mode} if mode else {}
    body = {
        **{name: value for name, value in fields.items() if value is not None},
        "policy": policy,
        "aliases": [_alias(text) for text in aliases],
        "since": max(0.0, time.time() - ago(since)),
    }
    report = _asked(admin_client(data), body)
    if not shown(report, json=json):
        tell(rehearsed(report))


def _asked(client: AdminClient, body: Json) -> Json:
    """Return the report; on a terminal a bar tells how far it is."""
    with Progress(
        TextColumn("deciding again"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not Console(stderr=True).is_terminal,
    ) as progress:
        task = progress.add_task("", total=None)
        for line in client.stream(_PATH, body):
            if "report" in line:
                report: Json = line["report"]
                return report
            if "error" in line:
                raise ConfigError(str(line["error"]["message"]))
            progress.update(task, completed=line["done"], total=line["total"])
    raise ConfigError("the server ended before the rehearsal did")


def _policy(text: str) -> Json:
    """Return a file's object, or one key and its value, in the API's names."""
    key, mark, value = text.partition("=")
    if mark and key in _KEYS:
        name, read, what = _KEYS[key]
        try:
            return {name: read(value)}
        except (ValueError, KeyError):
            raise ConfigError(f"--policy {text}: {key} is {what}") from None
    path = Path(text)
    if mark and not path.is_file():
        raise ConfigError(f"--policy {text}: the keys are {', '.join(_KEYS)}")
    try:
        with path.open("rb") as file:
            found = orjson.loads(file.read(_MAX_FILE))
    except OSError as error:
        raise ConfigError(f"--policy {text}: {error.strerror}") from None
    except orjson.JSONDecodeError:
        raise ConfigError(f"--policy {text}: is not JSON") from None
    if not isinstance(found, dict):
        raise ConfigError(f"--policy {text}: is not a JSON object")
    return {_KEYS[name][0] if name in _KEYS else name: value for name, value in found.items()}


def _alias(text: str) -> Json:
    name, mark, targets = text.partition("=")
    if not mark or not name or not targets:
        raise ConfigError(f"--alias {text}: give NAME=MODEL[=WEIGHT],…")
    return {"name": name, "variants": [variant(part) for part in targets.split(",")]}


def rehearsed(told: Json) -> RenderableType:
    """Show a report for people."""
    parts: list[RenderableType] = [plain(_heading(told))]
    parts += [plain(line) for line in told["said"]]
    if not told["complete"]:
        parts.append(plain(f"Of the newest {told['calls']:,} calls."))
    if told["unreadable"]:
        parts.append(plain(f"{told['unreadable']:,} calls were recorded by an older version and left out."))
    if told["calls"]:
        parts += [Text(), _choices(told), Text(), _mix(told)]
        parts += _counted("models left out, a call", told["exclusions"], told["calls"])
        parts += _counted("refused, % of calls", told["refusals"], told["calls"] / 100)
        parts += _estimated(told)
    return Group(*parts)


def _heading(told: Json) -> str:
    begin, end = (datetime.fromtimestamp(told[name], UTC) for name in ("since", "until"))
    policy = ", ".join(
        f"{name} {'none' if value is None else value}" for name, value in told["policy"].items()
    )
    of = [f"{name} {told[name]}" for name in ("host", "program") if told[name]]
    where = f" ({', '.join(of)})" if of else ""
    return (
        f"{told['calls']:,} calls{where} from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC with"
        f" {'the facts of then' if told['facts'] == 'as logged' else 'facts of today'};"
        f" policy: {policy or 'as it is'}; exploring: {told['explore']}"
    )


def _choices(told: Json) -> RenderableType:
    table = listing(
        "expected of a call that both serve", "logged", "rehearsed", right=("logged", "rehearsed")
    )
    for title, name, digits in (("cost, $", "cost_usd", 6), ("latency, ms", "latency_ms", 0)):
        pair = told[name] or {"logged": None, "rehearsed": None}
        table.add_row(title, *(_cell(pair[side], digits) for side in _SIDES))
    table.add_row("calls refused", *(_cell(told["refused"][side], 0) for side in _SIDES))
    return table


_SIDES: Final = ("logged", "rehearsed")


def _mix(told: Json) -> RenderableType:
    table = listing("first choice, % of calls", "logged", "rehearsed", right=("logged", "rehearsed"))
    rows = told["mix"]
    most = sorted(rows, key=lambda one: -max(one[side] for side in _SIDES))[:_ROWS]
    for one in (row for row in rows if row in most):
        shares = (_cell(100 * one[side] / told["calls"], 1) for side in _SIDES)
        table.add_row(plain(f"{one['model']} @ {one['provider']}"), *shares)
    if len(rows) > _ROWS:
        table.add_row(f"… and {len(rows) - _ROWS} more")
    return table


def _counted(title: str, counts: Sequence[Json], each: float) -> Iterable[RenderableType]:
    if not counts:
        return []
    table = listing(title, "logged", "rehearsed", right=("logged", "rehearsed"))
    for one in counts:
        table.add_row(one["reason"], *(_cell(one[side] / each, 2) for side in _SIDES))
    return [Text(), table]


_OUTCOMES: Final = (
    ("reward", "reward", 1.0, 3),
    ("answered, %", "answered", 100.0, 1),
    ("cost, $", "cost_usd", 1.0, 6),
    ("latency, ms", "latency_ms", 1.0, 0),
)
_ESTIMATORS: Final = (
    ("logged", "logged"),
    ("IPS", "ips"),
    ("SNIPS", "snips"),
    ("DR", "dr"),
    ("DR - logged", "difference"),
)


def _estimated(told: Json) -> Iterable[RenderableType]:
    """Return what happened, weighed by how likely each policy was to choose so, with 95 % intervals."""
    support = told["support"]
    reach = (
        f"first attempts observed: {support['calls']:,}; as much as {support['effective']:,.0f} of the other policy;"
        f" overlap {100 * support['overlap']:.1f} %; largest weight {support['largest_weight']:.1f};"
        f" without any overlap: {support['unsupported']:,}"
    )
    lines = [reach]
    if told["unobserved"]:
        gone = ", ".join(f"{count:,} {why}" for why, count in told["unobserved"].items())
        lines.append(f"not observed: {gone}")
    if not told["estimates"]:
        return [Text(), *map(plain, lines)]
    table = listing("first attempt", *(title for title, _ in _ESTIMATORS), right=_TITLES)
    for title, name, scale, digits in _OUTCOMES:
        one = told["estimates"][name]
        cells = [one[key] for _, key in _ESTIMATORS]
        table.add_row(title, *(_cell(cell["value"], digits, scale) for cell in cells))
        table.add_row("  from", *(_cell(cell["low"], digits, scale) for cell in cells), style="dim")
        table.add_row("  to", *(_cell(cell["high"], digits, scale) for cell in cells), style="dim")
    return [Text(), table, *map(plain, lines)]


_TITLES: Final = tuple(title for title, _ in _ESTIMATORS)


def _cell(value: float | None, digits: int, scale: float = 1.0) -> str:
    return "?" if value is None else f"{value * scale:,.{digits}f}"
