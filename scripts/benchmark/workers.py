"""What a second worker brings: whole answers by the side server of one worker and of two, in turns.

The load and the upstream stand on the same cores, so answers a second alone would say little: what the callers took
is not there for the workers. So the CPU time of an answer is told for both, and how many cores each had. From these
follows what as many workers give that have a core each to themselves, as far as a second one costs the first nothing.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from rich.console import Console
from rich.table import Table

from scripts.benchmark import certificates, subjects
from scripts.benchmark.figures import rotated
from scripts.benchmark.load import LoadError, Pace, measure
from scripts.benchmark.processes import cpu_seconds, machine
from scripts.benchmark.subjects import Place, Subject, SubjectError, Upstream
from scripts.benchmark.traffic import Traffic

NUMBERS: Final = (1, 2)
ROUNDS: Final = 5
SECONDS: Final = 5.0
QUICK: Final = 1.0
_CONNECTIONS: Final = 32
"""The kernel deals them out by chance: of so many each of two workers gets its part."""
_ANYWHERE: Final = frozenset[int]()


@dataclass(frozen=True, slots=True)
class Found:
    """What so many workers did in one round."""

    workers: int
    answers: int
    seconds: float
    own: float
    """Seconds of CPU time that the workers took, and who watches over them."""
    callers: float
    """The same of the load and the upstream."""
    all: float
    """The same of everything on the machine."""

    @property
    def rate(self) -> float:
        """Return answers a second by the clock."""
        return self.answers / self.seconds

    @property
    def cpu(self) -> float:
        """Return milliseconds of the workers' CPU time for an answer."""
        return self.own * 1000 / self.answers

    @property
    def asking(self) -> float:
        """Return milliseconds of the callers' CPU time for an answer."""
        return self.callers * 1000 / self.answers

    @property
    def cores(self) -> float:
        """Return how many cores the workers had."""
        return self.own / self.seconds

    @property
    def others(self) -> float:
        """Return how many cores had other work."""
        return max(0.0, self.all - self.own - self.callers) / self.seconds

    @property
    def alone(self) -> float:
        """Return answers a second of so many workers with a core each, by the CPU time of an answer."""
        return self.workers * 1000 / self.cpu


async def run(
    folder: Path, *, rounds: int, seconds: float, tell: Callable[[int, int, str], None]
) -> list[Found]:
    """Measure each number of workers once a round; raises as `rounds.run` does."""
    found, answered = list[Found](), defaultdict[str, int](int)
    with ExitStack() as stack:
        up = stack.enter_context(subjects.upstream(certificates.make(folder), _ANYWHERE))
        taking_part = dict[int, Subject]()
        for number in NUMBERS:
            tell(0, 0, f"starting {_called(number)}")
            place = Place(folder / str(number), _ANYWHERE)
            flags = ("--workers", str(number)) if number > 1 else ()
            subject = stack.enter_context(subjects.tokenhub(subjects.SIDE, up, place, flags=flags))
            taking_part[number] = subject
        for turn in range(
            -1, rounds
        ):  # imports on first use are a matter of the first round, which does not count
            for number, subject in rotated([*taking_part.items()], max(turn, 0)):
                tell(turn * len(taking_part), rounds * len(taking_part), _called(number))
                one, calls = await _measured(number, subject, up, seconds)
                answered[_called(number)] += calls
                found += [one] if turn >= 0 else []
    for number, subject in taking_part.items():
        assert subject.data is not None
        if (records := subjects.recorded(subject.data)) != answered[_called(number)]:
            raise SubjectError(
                f"{_called(number)} gave {answered[_called(number)]} answers and has {records} records"
            )
    return found


async def _measured(number: int, subject: Subject, up: Upstream, seconds: float) -> tuple[Found, int]:
    read: list[tuple[float, float]] = []

    def clock() -> float:
        read.append((time.process_time() + cpu_seconds(up.pid), machine().busy))
        return cpu_seconds(subject.pid)

    try:
        tally = await measure(subject.route, Traffic(), Pace(_CONNECTIONS, seconds, warm=4), clock=clock)
    except (LoadError, OSError) as error:
        raise SubjectError(f"{_called(number)}: {error}") from error
    callers, everybody = (after - before for before, after in zip(*read, strict=True))
    answers = len(tally.answers)
    return Found(number, answers, tally.seconds, tally.cpu, callers, everybody), answers + tally.warmed


def _called(number: int) -> str:
    return f"{number} worker{'s' if number > 1 else ''}"


def show(found: Sequence[Found], console: Console) -> None:
    """Print the medians over the rounds for each number of workers."""
    title = f"Whole answers on {os.cpu_count()} cores, medians of the rounds"
    table = Table(title=title, title_justify="left")
    table.add_column("workers")
    columns: dict[str, tuple[Callable[[Found], float], str]] = {
        "answers/s": (lambda one: one.rate, ",.0f"),
        "CPU of an answer, ms": (lambda one: one.cpu, ".2f"),
        "its callers', ms": (lambda one: one.asking, ".2f"),
        "cores they had": (lambda one: one.cores, ".2f"),
        "cores of other work": (lambda one: one.others, ".2f"),
        "answers/s with a core each": (lambda one: one.alone, ",.0f"),
    }
    for name in columns:
        table.add_column(name, justify="right")
    for number in NUMBERS:
        rounds = [one for one in found if one.workers == number]
        values = [format(median(map(value, rounds)), spec) for value, spec in columns.values()]
        table.add_row(str(number), *values)
    console.print(table)
