"""The lane itself: units of generated inputs over processes, each unit watched, its findings kept as files."""

from __future__ import annotations

import hashlib
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Final

from tests.fuzz.dialects import Target
from tests.fuzz.mutation import Mutator
from tests.fuzz.parsers import targets

UNIT: Final = 25_000
"""Inputs that one process makes before it tells what came of them."""

_HUNG: Final = 1.0
"""Seconds of CPU time that one input may take; at most twice that pass before it is stopped."""
_LARGE: Final = 1 << 19
"""Bytes for each of which there is a second more: what is linear may take its time."""
_MEMORY: Final = 4 << 30
_KINDS: Final = 5
"""How many different findings of one unit are kept; a parser that fails at all fails often."""


class HungError(Exception):
    """An input took more than its time."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Some inputs for one parser. The same unit always makes the same inputs."""

    target: str
    seed: int
    runs: int
    until: float
    """When to stop, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that did what none may do."""

    target: str
    data: bytes
    place: str
    """The exception and where it was raised: two findings of one place are the same."""
    told: str
    """The traceback."""

    def keep(self, folder: Path) -> Path:
        """Write the input to a file whose name says the parser; return it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.target}-{hashlib.sha256(self.data).hexdigest()[:12]}.bin"
        path.write_bytes(self.data)
        return path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of inputs for one parser."""

    target: str
    runs: int = 0
    seconds: float = 0.0
    """CPU time."""
    slowest: float = 0.0
    findings: tuple[Finding, ...] = ()

    def plus(self, other: Outcome) -> Outcome:
        """Return both together, with one finding for each place."""
        places = {finding.place: finding for finding in (*other.findings, *self.findings)}
        return Outcome(
            self.target,
            self.runs + other.runs,
            self.seconds + other.seconds,
            max(self.slowest, other.slowest),
            tuple(places.values()),
        )


def units(names: Sequence[str], *, runs: int, seed: int, until: float, skip: int = 0) -> Iterator[Unit]:
    """Yield the units of all parsers in turns, so that a lane that is stopped early has tried all alike.

    Those that hold the first `skip` inputs are left out: an earlier part of the same run has had them.
    """
    for number, done in enumerate(range(0, runs, UNIT)):
        for name in names if done >= skip else ():
            yield Unit(name, seed * 1_000_003 + number, min(UNIT, runs - done), until)


def worked(unit: Unit) -> Outcome:
    """Do one unit in this process."""
    target = next(one for one in targets() if one.name == unit.target)
    mutator = Mutator(target.seeds, seed=unit.seed, structured=target.structured)
    found: dict[str, Finding] = {}
    slowest, done, began = 0.0, 0, time.process_time()
    with watched() as watch:
        while done < unit.runs and time.time() < unit.until:
            data = mutator.next()
            done += 1
            watch.turn(len(data))
            before = time.process_time()
            try:
                target.run(data)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                finding = told(target, data, error)
                if len(found) < _KINDS:
                    found.setdefault(finding.place, finding)
            slowest = max(slowest, time.process_time() - before)
    return Outcome(unit.target, done, time.process_time() - began, slowest, tuple(found.values()))


def told(target: Target, data: bytes, error: Exception) -> Finding:
    """Return what is to be kept of a failure."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{type(error).__name__} at {last.filename}:{last.lineno}"
    return Finding(target.name, data, place, "".join(traceback.format_exception(error)))


def run(work: Iterator[Unit], jobs: int, tell: Callable[[Outcome], None]) -> dict[str, Outcome]:
    """Do all units in `jobs` processes, `tell` of each one, and return the sums by parser."""
    found: dict[str, Outcome] = {}
    # Not forked: a lock that somebody holds at that moment would stay locked in the child.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_bounded) as pool:
        waiting: set[Future[Outcome]] = {pool.submit(worked, unit) for unit in islice(work, 2 * jobs)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            waiting |= {pool.submit(worked, unit) for unit in islice(work, len(done))}
            for future in done:
                outcome = future.result()
                found[outcome.target] = found.get(outcome.target, Outcome(outcome.target)).plus(outcome)
                tell(outcome)
    return found


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


class _Watch:
    """Counts inputs, and raises in one that goes on from one tick of the CPU clock to the one after the next."""

    def __init__(self) -> None:
        self._ticks = 0
        self._most = 1

    def turn(self, size: int) -> None:
        """Hear of the next input."""
        self._ticks, self._most = 0, 1 + size // _LARGE

    def tick(self, _signal: int, _frame: FrameType | None) -> None:
        """Hear the clock."""
        self._ticks += 1
        if self._ticks > self._most:
            raise HungError(f"one input took more than {self._most * _HUNG:g} s of CPU time")


@contextmanager
def watched() -> Iterator[_Watch]:
    """Raise `HungError` where an input takes too long: whoever gives them tells of each."""
    watch = _Watch()
    before = signal.signal(signal.SIGVTALRM, watch.tick)
    signal.setitimer(signal.ITIMER_VIRTUAL, _HUNG, _HUNG)
    try:
        yield watch
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
