"""The run that is kept beside the code: what a later one is compared with, and the picture of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from scripts.benchmark.chart import bars
from scripts.benchmark.report import as_json, cpu_ratios
from scripts.benchmark.rounds import LOADED, Outcome

RUN: Final = "bench.json"
PICTURE: Final = "bench.svg"
_WORSE: Final = 0.1
"""A share that has grown by more than this part of itself, beyond what both runs' rounds reach, is told of."""

type Shares = dict[str, dict[str, list[float]]]
"""By workload and subject: smallest, middle and largest share of the reference's CPU time."""


def store(outcome: Outcome, folder: Path) -> None:
    """Write what was found, without the single rounds, and its picture. Files of that name are replaced."""
    found = as_json(outcome)
    del found["rounds"]
    written = {"commit": _commit(folder), **found, "cpu_ratios": shares(outcome)}
    (folder / RUN).write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")
    rows = {
        workload.name: {name: share.middle for name, share in cpu_ratios(outcome, workload).items()}
        for workload in LOADED
        if outcome.results[workload.name]
    }
    (folder / PICTURE).write_text(bars("CPU time of one answer, as a share of mitmdump's", rows))


def stored(folder: Path) -> dict[str, Any] | None:
    """Return the run that was stored last, None where there is none."""
    path = folder / RUN
    return dict(json.loads(path.read_text())) if path.exists() else None


def shares(outcome: Outcome) -> Shares:
    """Return what runs are compared by."""
    return {
        workload.name: {
            name: [round(value, 4) for value in (share.low, share.middle, share.high)]
            for name, share in cpu_ratios(outcome, workload).items()
        }
        for workload in LOADED
        if outcome.results[workload.name]
    }


def grown(before: Shares, now: Shares) -> list[tuple[str, str, float, float]]:
    """Return workload, subject, share before and now, of what has become dearer than noise explains.

    Noise is what the rounds of either run show: the smallest of now has to lie above the largest of before, or the
    middle to have grown by a tenth and to lie above it.
    """
    found = []
    for workload, subjects in now.items():
        for name, (low, middle, _) in subjects.items():
            was = before.get(workload, {}).get(name)
            if was is None:
                continue
            if low > was[2] or (middle > was[1] * (1 + _WORSE) and middle > was[2]):
                found.append((workload, name, was[1], middle))
    return found


def show(run: Mapping[str, Any], outcome: Outcome, console: Console) -> None:
    """Print the middle shares of then and now beside each other."""
    before: Shares = run["cpu_ratios"]
    now = shares(outcome)
    dearer = {(workload, name) for workload, name, _, _ in grown(before, now)}
    table = Table(
        title=f"Beside the run that is stored, of {run['commit']}",
        title_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for heading in ("workload", "subject"):
        table.add_column(heading, no_wrap=True)
    for heading in ("then", "now", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for workload, subjects in now.items():
        for name, (_, middle, _) in subjects.items():
            was = before.get(workload, {}).get(name)
            if was is None or was[1] == middle == 1:
                continue
            told = "dearer" if (workload, name) in dearer else ""
            table.add_row(workload, name, f"{was[1]:.2f}", f"{middle:.2f}", told)
    console.print(table)


def _commit(folder: Path) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "an unknown commit"
    return done.stdout.strip()
