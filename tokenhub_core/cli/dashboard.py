"""How `tokenhub top` looks: figures in, one screen of exactly so many lines out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tokenhub_core.cli.gauges import SORTS, Call, Figures, Row
from tokenhub_core.cli.options import listing, plain
from tokenhub_core.types import Json

_BAR: Final = 10
_BESIDE: Final = 100
"""Columns from which on health and budgets stand side by side."""
_FAULTS: Final = 3
_NARROW: Final = 70
_ONGOING: Final = 6
"""Calls under way that are shown; there may be as many as the room for the rows of models leaves,"""
_ROWS: Final = 4
"""of which so many come first."""
_COLUMNS: Final = {
    "calls/s": (7, 0),
    "tokens/s": (8, 60),
    "$": (8, 60),
    "err %": (5, 0),
    "p50": (6, 60),
    "p95": (6, 0),
    "ttft": (6, 100),
}
"""Numbers of a row → (columns that they have, least width of a screen that shows them)."""
_STATES: Final = {"healthy": "green", "degraded": "yellow", "down": "bold red", "half_open": "magenta"}


class View(msgspec.Struct, frozen=True):
    """What the user has chosen, and how the server is heard."""

    url: str = ""
    sort: str = SORTS[0]
    only: str = ""
    typing: bool = False
    """The filter is being typed."""
    paused: bool = False
    broken: str = ""
    """Why nothing is heard at the moment; empty where something is."""


def screen(figures: Figures, view: View, *, width: int, height: int, zone: tzinfo | None = None) -> Group:
    """Return everything, `height` lines of at most `width` columns."""
    below, high = _below(figures, width, height)
    faults = _faults(figures.faults[:_FAULTS], zone) if height >= 20 else []
    fixed = 3 + 2 + high + len(faults) + 1
    room = max(height - fixed, 1)
    ongoing = _ongoing(figures.underway, room - min(len(figures.rows), _ROWS), width)
    room -= sum(table.row_count + 2 for table in ongoing)
    parts: list[RenderableType] = [*_head(figures, view), _rows(figures.rows, room, width)]
    parts += [Text()] * (room - min(len(figures.rows), room))
    parts += [*ongoing, *below, *faults, _foot(view)]
    for part in parts:
        if isinstance(part, Text):
            part.no_wrap, part.overflow = True, "ellipsis"
    return Group(*parts)


def _head(figures: Figures, view: View) -> list[Text]:
    info, total = figures.info, figures.total
    first = plain(f"tokenhub {info.get('version', '')}".strip())
    if view.broken:
        first.append(f"  {plain(view.broken)}", style="bold red")
    elif view.paused:
        first.append("  PAUSED", style="bold yellow")
    said = ["", view.url, "SIMULATED" if info.get("simulated") else ""]
    said += [f"vault {info['vault']}" if "vault" in info else "", f"last {figures.window:.0f} s"]
    first.append("  ".join([said[0], *filter(None, said[1:])]))
    if figures.lost:
        first.append(f"  {figures.lost} events lost", style="yellow")
    if "underway" in info:
        first.append(f"  {info['underway']} under way")
    share = f"{total.errors * 100:.1f} % errors"
    counts = Text(f"{total.per_second:.2f} calls/s  {total.tokens_per_second:.0f} tokens/s  ")
    counts.append(f"${total.usd:.4f} (${total.usd * 3600 / figures.window:.2f}/h)  ")
    counts.append(share, style="bold red" if total.errors else "")
    counts.append(f"  p50 {_ms(total.p50_ms)}  p95 {_ms(total.p95_ms)}  first token {_ms(total.ttft_ms)} ms")
    return [first, counts, Text()]


def _rows(rows: Sequence[Row], room: int, width: int) -> Table:
    """Return the rows that there is room for; where the screen is narrow, with fewer columns."""
    names = [name for name, (_, least) in _COLUMNS.items() if width >= least]
    left = width - sum(_COLUMNS[name][0] + 1 for name in names)
    provider = left // 3 if width >= _NARROW else 0
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=0)
    table.add_column("model", no_wrap=True, overflow="ellipsis", width=left - provider - (provider > 0))
    if provider:
        table.add_column("provider", no_wrap=True, overflow="ellipsis", width=provider)
    for name in names:
        table.add_column(name, no_wrap=True, justify="right", width=_COLUMNS[name][0])
    for row in rows[:room]:
        cells: dict[str, RenderableType] = {
            "calls/s": f"{row.per_second:.2f}",
            "tokens/s": f"{row.tokens_per_second:.0f}",
            "$": f"{row.usd:.4f}",
            "err %": Text(f"{row.errors * 100:.0f}", style="red" if row.errors else ""),
            "p50": _ms(row.p50_ms),
            "p95": _ms(row.p95_ms),
            "ttft": _ms(row.ttft_ms),
        }
        who = [row.model or "none", row.provider or "none"][: 2 if provider else 1]
        table.add_row(*map(plain, who), *(cells[name] for name in names))
    return table


def _ongoing(items: Sequence[Json], room: int, width: int) -> list[Table]:
    """Return the calls that are under way, as many as there is room for; nothing where that is too little."""
    most = min(len(items), _ONGOING, room - 2)
    if most < 1:
        return []
    names = ["under way", "asked for", *(["served by"] if width >= _NARROW else []), "", "for", "tokens"]
    table = listing(*names, right=("for", "tokens"))
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    for item in items[:most]:
        served = f"{item['model_id']} @ {item['provider_id']}" if item["model_id"] else ""
        cells: list[RenderableType] = [plain(item["program"] or "unknown"), plain(item["requested_model"])]
        cells += [plain(served)] if width >= _NARROW else []
        took = f"{item['seconds']:.1f} s" if item["seconds"] < 100 else f"{item['seconds'] / 60:.0f} min"
        table.add_row(*cells, item["state"], took, str(item["output_tokens"] or ""))
    return [table]


def _below(figures: Figures, width: int, height: int) -> tuple[list[RenderableType], int]:
    """Return health and budgets, as many lines of each as a third of the screen has, and how high they are."""
    most = max(height // 3 - 3, 1)
    found = [_health(figures.health[:most], figures.at), _budgets(figures.budgets[:most])]
    tables = [table for table in found if table is not None]
    heights = [table.row_count + 2 for table in tables]
    if height < 12 or not tables:
        return [], 0
    if width >= _BESIDE:
        both = Table.grid(padding=(0, 4, 0, 0))
        both.add_row(*tables)
        return [both], max(heights)
    if height < 24:
        return [tables[0]], heights[0]
    return [*tables], sum(heights)


def _health(items: Sequence[Json], now: float) -> Table | None:
    if not items:
        return None
    table = listing(
        "provider", "health", "calls", "err %", "ms", "last error", right=("calls", "err %", "ms")
    )
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    for item in items:
        until = item.get("cooldown_until")
        rest = f" {until - now:.0f} s" if until is not None and until > now else ""
        table.add_row(
            plain(item["provider_id"]),
            Text(f"{item['state']}{rest}", style=_STATES.get(item["state"], "")),
            str(item["calls"]),
            f"{item['error_rate'] * 100:.0f}",
            f"{item['latency_ms']:.0f}",
            plain(item["last_error"]),
        )
    return table


def _budgets(items: Sequence[Json]) -> Table | None:
    if not items:
        return None
    table = listing("budget", "", "spent", "of", right=("spent", "of"))
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    for item in items:
        share = min(item["spent"] / item["limit"], 1.0) if item["limit"] else 1.0
        full = round(share * _BAR)
        style = "red" if share >= 1 else "yellow" if share >= 0.8 else "green"
        table.add_row(
            plain(f"{item['owner']} {item['period']}"),
            Text("█" * full + "░" * (_BAR - full), style=style),
            _amount(item["spent"], item["unit"]),
            _amount(item["limit"], item["unit"]),
        )
    return table


def _amount(amount: int, unit: str) -> str:
    return f"${amount / 1e6:.2f}" if unit == "usd" else f"{amount} {unit}"


def _faults(calls: Sequence[Call], zone: tzinfo | None) -> list[Text]:
    """Return the newest errors, a line each, with an empty line before them."""
    lines = []
    for call in calls:
        when = datetime.fromtimestamp(call.ended, UTC).astimezone(zone)
        line = Text(f"{when:%H:%M:%S} ", style="dim")
        line.append(plain(f"{call.model or 'no model'} @ {call.provider or 'nobody'} "))
        line.append(plain(f"{call.fault}: {call.message}").plain, style="red")
        lines.append(line)
    return [Text(), *lines] if lines else []


def _foot(view: View) -> Text:
    if view.typing:
        return plain(f"show only: {view.only}▏  (Enter to keep, Esc for all)")
    said = ["q quit", "p go on" if view.paused else "p pause", f"s sort: {view.sort}"]
    said += [f"/ only: {view.only}" if view.only else "/ filter"]
    return Text("  ".join(said), style="reverse")


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def pressed(view: View, key: str) -> View | None:
    """Return what the user sees after a key, None where it ends everything; other keys change nothing."""
    change = msgspec.structs.replace
    if view.typing:
        match key:
            case "\r" | "\n":
                return change(view, typing=False)
            case "\x1b":
                return change(view, typing=False, only="")
            case "\x7f" | "\b":
                return change(view, only=view.only[:-1])
            case "\x03":
                return None
        return change(view, only=view.only + key) if key.isprintable() else view
    match key:
        case "q" | "\x03":
            return None
        case "p":
            return change(view, paused=not view.paused)
        case "s":
            return change(view, sort=SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)])
        case "/":
            return change(view, typing=True)
    return view
