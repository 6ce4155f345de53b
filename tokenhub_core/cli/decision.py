"""One decision as a table: the candidates with their scores, and who answered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from tokenhub_core.types import Json

_SHOWN: Final = 8
"""Candidates in the table; the rest are counted."""


def decision_table(row: Json) -> RenderableType:
    """Show one record of the request log: the candidates with their scores, and who answered."""
    decision = row["decision"] or {"candidates": [], "skips": []}
    table = Table(title=f"How {row['id']} was routed", title_justify="left", box=box.SIMPLE_HEAD)
    table.pad_edge, table.padding = False, (0, 1, 0, 0)
    table.add_column("model")
    table.add_column("provider")
    for name in ("cost", "lat", "err", "wt", "score", "estimate"):
        table.add_column(name, justify="right", no_wrap=True)
    served = (row["model_id"], row["provider_id"])
    candidates = decision["candidates"]
    for candidate in candidates[:_SHOWN]:
        here = (candidate["model"], candidate["provider"]) == served
        table.add_row(*_cells(candidate), style="bold green" if here else "")
    if len(candidates) > _SHOWN:
        table.add_row(f"… and {len(candidates) - _SHOWN} more")
    return Group(table, _caption(row, decision["skips"]))


def _cells(candidate: Json) -> list[str]:
    terms = candidate["terms"]
    scores = [terms["cost"], terms["latency"], terms["failure"], terms["weight"], candidate["score"]]
    return [
        escape(candidate["model"]),
        escape(candidate["provider"]),
        *(f"{score:.2f}" for score in scores),
        f"${candidate['estimated_nanousd'] / 1e9:.6f}",
    ]


def _caption(row: Json, skips: Iterable[Json]) -> str:
    lines = [
        (
            f"asked for {escape(row['requested_model'])}, directive {row['directive'] or 'none'},"
            f" mode {row['mode']}, {escape(row['reason'])}, lane {row['lane']}"
        ),
        (
            f"{row['input_tokens']} + {row['output_tokens']} tokens, ${row['cost_nanousd'] / 1e9:.6f},"
            f" {row['total_ms']:.0f} ms"
        ),
    ]
    left_out = [f"{skip['model']} ({skip['reason']})" for skip in skips]
    if left_out:
        lines.append("left out: " + escape(", ".join(left_out)))
    if row["simulated"]:
        lines.append("[yellow]SIMULATED: no provider was called, no money was spent[/]")
    return "\n".join(lines)
