"""What a server holds after how many mixed calls: resident memory at each tenth of them.

Calls come in turns of a second each: whole answers, streams, long prompts, translated answers, and calls with a
connection of their own. Whatever a call leaves behind for good shows as a line that goes on rising.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from scripts.benchmark import certificates, rounds, subjects
from scripts.benchmark.load import LoadError, Pace, measure
from scripts.benchmark.processes import cpu_seconds, resident_mb
from scripts.benchmark.rounds import Workload
from scripts.benchmark.subjects import Place, Subject, SubjectError

SECONDS: Final = 1.0
"""Of a turn."""
TENTHS: Final = 10
_KINDS: Final = (rounds.WHOLE, rounds.BURST, rounds.LONG, rounds.FOREIGN, rounds.FRESH)
_ANYWHERE: Final = frozenset[int]()


@dataclass(frozen=True, slots=True)
class Held:
    """What was resident after so many calls."""

    calls: int
    memory: float
    """Megabytes."""
    cpu: float
    """Seconds of the server's CPU time so far."""


async def run(
    folder: Path, lane: str, calls: int, *, tell: Callable[[int, int, str], None], seconds: float = SECONDS
) -> list[Held]:
    """Make so many calls, and say what was held before, and at each tenth; raises as `rounds.run` does."""
    with ExitStack() as stack:
        up = stack.enter_context(subjects.upstream(certificates.make(folder), _ANYWHERE))
        tell(0, calls, f"starting {lane}")
        subject = stack.enter_context(subjects.tokenhub(lane, up, Place(folder / "served", _ANYWHERE)))
        made, found = 0, [_held(subject, 0)]
        while made < calls:
            for kind in _KINDS:
                tell(min(made, calls), calls, kind.name)
                made += await _made(subject, kind, seconds)
            if made * TENTHS >= calls * len(found):
                found.append(_held(subject, made))
    assert subject.data is not None
    if (records := subjects.recorded(subject.data)) != made:
        raise SubjectError(f"{lane} gave {made} answers and has {records} records")
    return found


async def _made(subject: Subject, kind: Workload, seconds: float) -> int:
    pace = Pace(kind.connections, seconds, fresh=kind.fresh)
    try:
        tally = await measure(subject.route, kind.traffic, pace)
    except (LoadError, OSError) as error:
        raise SubjectError(f"{subject.name}, {kind.name}: {error}") from error
    return len(tally.answers) + tally.warmed


def _held(subject: Subject, calls: int) -> Held:
    return Held(calls, resident_mb(subject.pid), cpu_seconds(subject.pid))


def show(lane: str, found: Sequence[Held], console: Console) -> None:
    """Print a row for each look."""
    table = Table(title=f"{lane}: resident memory over mixed calls", title_justify="left")
    for name in ("calls", "MB", "CPU time of a call, ms"):
        table.add_column(name, justify="right")
    before: Held | None = None
    for one in found:
        made = one.calls - before.calls if before is not None else 0
        cpu = f"{(one.cpu - before.cpu) * 1000 / made:.2f}" if before is not None and made else ""
        table.add_row(f"{one.calls:,}", f"{one.memory:.0f}", cpu)
        before = one
    console.print(table)
