"""What a run has found, as a table, as a list of survivors, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from scripts.mutation.covering import Reach
from scripts.mutation.trial import KILLED, SURVIVED, TIMEOUT, Verdict


def score(verdicts: Sequence[Verdict]) -> float:
    """Return the share of mutants that tests notice, in percent; 100 where there were none."""
    noticed = sum(one.outcome != SURVIVED for one in verdicts)
    return 100 * noticed / len(verdicts) if verdicts else 100.0


def show(reached: Mapping[str, Reach], verdicts: Sequence[Verdict], console: Console) -> None:
    """Print a row for every file, and what they come to."""
    table = Table(box=SIMPLE)
    names = (
        "file",
        "lines and branches",
        "reached %",
        "not reached",
        "mutants",
        "noticed",
        "survived",
        "score %",
    )
    for name in names:
        table.add_column(name, justify="left" if name in {"file", "not reached"} else "right")
    whole, got = 0, 0
    for reach in reached.values():
        for file, (parts, reach_of, missing) in reach.parts.items():
            whole, got = whole + parts, got + reach_of
            mine = [one for one in verdicts if one.file == file]
            table.add_row(file, *_shares(parts, reach_of), " ".join(missing), *_counts(mine))
    table.add_row("all", *_shares(whole, got), "", *_counts(verdicts))
    console.print(table)


def survivors(verdicts: Sequence[Verdict], sources: Mapping[str, str], console: Console) -> None:
    """Print every mutant that no test noticed."""
    for one in verdicts:
        if one.outcome == SURVIVED:
            console.print(
                f"{one.file}:{one.mutant.lines[0]} {one.mutant.kind}, {one.tests} tests", highlight=False
            )
            console.print(one.mutant.diff(sources[one.file]), markup=False, highlight=False)


def as_json(
    reached: Mapping[str, Reach], verdicts: Sequence[Verdict], sources: Mapping[str, str], **how: Any
) -> dict[str, Any]:
    """Return everything: how it was run, what is reached, and each mutant."""
    return {
        "how": how,
        "reached": {
            file: {"parts": parts, "reached": got, "missing": missing}
            for reach in reached.values()
            for file, (parts, got, missing) in reach.parts.items()
        },
        "score": score(verdicts),
        "mutants": [
            {
                "file": one.file,
                "line": one.mutant.lines[0],
                "kind": one.mutant.kind,
                "outcome": one.outcome,
                "tests": one.tests,
                "diff": one.mutant.diff(sources[one.file]),
            }
            for one in verdicts
        ],
    }


def _shares(parts: int, got: int) -> tuple[str, str]:
    return str(parts), f"{100 * got / parts:.1f}" if parts else ""


def _counts(verdicts: Sequence[Verdict]) -> tuple[str, str, str, str]:
    counted = {name: sum(one.outcome == name for one in verdicts) for name in (KILLED, TIMEOUT, SURVIVED)}
    if not verdicts:
        return "", "", "", ""
    noticed = counted[KILLED] + counted[TIMEOUT]
    return str(len(verdicts)), str(noticed), str(counted[SURVIVED]), f"{score(verdicts):.1f}"
