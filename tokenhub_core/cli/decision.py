"""One decision as a table: the candidates with their scores, who was tried, and who answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tokenhub_core.cli.options import plain
from tokenhub_core.types import Json

_SHOWN: Final = 8
"""Candidates in the table, and names of models that were left out; the rest are counted."""


def decision_table(row: Json) -> RenderableType:
    """Show one record of the request log: the candidates with their scores, and who answered."""
    decision = row["decision"] or {"candidates": [], "skips": []}
    title = f"How {row['id']} was routed"
    told = _told(row, decision["skips"])
    candidates = decision["candidates"]
    if not candidates:
        return Group(plain(title), told)
    table = Table(title=plain(title), title_justify="left", box=box.SIMPLE_HEAD)
    table.pad_edge, table.show_edge, table.padding = False, False, (0, 1, 0, 0)
    table.add_column("model", overflow="fold")
    table.add_column("provider", overflow="fold")
    for name in ("cost", "lat", "err", "wt", "loss", "score", "estimate"):
        table.add_column(name, justify="right", no_wrap=True)
    served = (row["model_id"], row["provider_id"])
    for candidate in candidates[:_SHOWN]:
        here = (candidate["model"], candidate["provider"]) == served
        table.add_row(*_cells(candidate), style="bold green" if here else "")
    if len(candidates) > _SHOWN:
        table.add_row(f"… and {len(candidates) - _SHOWN} more")
    return Group(table, told)


def _cells(candidate: Json) -> list[Text]:
    terms = candidate["terms"]
    names = ("cost", "latency", "failure", "weight", "loss")
    # Decisions that were recorded before there was a term do not have it.
    scores = [*(terms.get(name, 0.0) for name in names), candidate["score"]]
    return [
        plain(candidate["model"]),
        plain(candidate["provider"]),
        *(Text(f"{score:.2f}") for score in scores),
        Text(f"${candidate['estimated_nanousd'] / 1e9:.6f}"),
    ]


def _told(row: Json, skips: Sequence[Json]) -> Text:
    """Return what the table does not show: the wishes, the tries, the end, and who was left out."""
    wishes = [f"asked for {row['requested_model']}" if row["requested_model"] else "asked for no model"]
    wishes += [f"directive {row['directive'] or 'none'}", f"mode {row['mode'] or 'none'}"]
    wishes += [row["reason"]] if row["reason"] else []
    lines = [plain(", ".join([*wishes, f"lane {row['lane']}"]))]
    tries = row["attempts"]
    if len(tries) > 1 or any(one["cause"] for one in tries):
        lines += [plain(_try(one)) for one in tries]
    lines.append(
        plain(
            f"{row['input_tokens']} + {row['output_tokens']} tokens, ${row['cost_nanousd'] / 1e9:.6f},"
            f" {row['total_ms']:.0f} ms"
        )
    )
    if row["outcome"] != "ok":
        why = f"{row['error_class']}: {row['message']}" if row["error_class"] else ""
        lines.append(plain(f"{row['outcome']} {row['status']} {why}".strip()))
    if skips:
        lines.append(plain("left out: " + _left_out(skips)))
    if row["simulated"]:
        lines.append(Text("SIMULATED: no provider was called, no money was spent", style="yellow"))
    return Text("\n").join(lines)


def _try(one: Json) -> str:
    end = f"{one['cause']} ({one['message']})" if one["cause"] else "answered"
    return (
        f"{one['n']}. {one['model']} @ {one['provider']}: {end}, {one['ended_ms'] - one['started_ms']:.0f} ms"
    )


def _left_out(skips: Sequence[Json]) -> str:
    if len(skips) <= _SHOWN:
        return ", ".join(f"{skip['model']} ({skip['reason']})" for skip in skips)
    counts = Counter(skip["reason"] for skip in skips)
    return ", ".join(f"{count} {reason}" for reason, count in counts.items())
