"""What an import costs, beside one of the standard library's that everybody knows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

_REFERENCE: Final = "asyncio"
SUBJECTS: Final = {
    _REFERENCE: "the reference",
    "tokenhub_core": "the package",
    "tokenhub_core.ports": "the contracts: nouns, faults, ports",
    "tokenhub_core.routing.plan": "routing, NumPy included",
    "tokenhub_core.pipeline": "the engine",
    "tokenhub_core.app": "everything but the proxy",
}
_ROUNDS: Final = 7
_PROBE: Final = """
import sys, time
began = time.process_time()
__import__(sys.argv[1])
print(time.process_time() - began)
"""


def imports(tell: Callable[[int, int, str], None]) -> dict[str, list[float]]:
    """Return the seconds of CPU time that each import took in a fresh interpreter, in rounds of all of them."""
    found: dict[str, list[float]] = {name: [] for name in SUBJECTS}
    total = _ROUNDS * len(SUBJECTS)
    for turn in range(_ROUNDS):
        for place, name in enumerate(SUBJECTS):
            tell(turn * len(SUBJECTS) + place, total, name)
            run = subprocess.run(
                [sys.executable, "-c", _PROBE, name], check=True, capture_output=True, text=True
            )
            found[name].append(float(run.stdout))
    return found


def show(found: dict[str, list[float]], console: Console) -> None:
    """Print the medians, and their share of the reference in the same round."""
    table = Table(title="CPU time of an import", title_justify="left")
    table.add_column("import")
    table.add_column("is")
    table.add_column("ms", justify="right")
    table.add_column(f"of {_REFERENCE}'s", justify="right")
    for name, seconds in found.items():
        shares = [one / other for one, other in zip(seconds, found[_REFERENCE], strict=True)]
        table.add_row(name, SUBJECTS[name], f"{median(seconds) * 1000:.0f}", f"{median(shares):.2f}")
    console.print(table)
