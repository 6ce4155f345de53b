"""The run: rounds in which every subject does every workload once, in an order that rotates."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final

from scripts.benchmark import certificates, idle, subjects
from scripts.benchmark.figures import quantile, rotated
from scripts.benchmark.load import LoadError, Pace, Tally, measure
from scripts.benchmark.processes import Cores, Machine, cpu_seconds, machine, on, resident_mb
from scripts.benchmark.subjects import Place, Subject, SubjectError
from scripts.benchmark.traffic import CHUNKS, Traffic


@dataclass(frozen=True, slots=True)
class Workload:
    """What is sent, and how much of it at a time."""

    name: str
    traffic: Traffic
    connections: int
    reference: str
    """The subject whose CPU time the others' is divided by."""
    fresh: bool = False
    """Whether each call has a connection of its own."""
    rate: float = 0.0
    """Calls a second, begun when they are due; 0 for one after the other on each connection."""
    multiplexed: bool = False
    """Whether all connections are streams of one, by HTTP/2."""


WHOLE: Final = Workload("whole", Traffic(), 8, subjects.BUFFERING)
BURST: Final = Workload("streamed at once", Traffic(CHUNKS), 8, subjects.STREAMING)
PACED: Final = Workload("streamed 3 ms apart", Traffic(CHUNKS, 3), 8, subjects.STREAMING)
ONE_WHOLE: Final = Workload("whole, alone", Traffic(), 1, subjects.BUFFERING)
ONE_PACED: Final = Workload("streamed, alone", Traffic(25, 2), 1, subjects.STREAMING)
LONG: Final = Workload("100 KB prompt", Traffic(prompt=102_400), 8, subjects.BUFFERING)
FOREIGN: Final = Workload("whole, translated", Traffic(foreign=True), 8, subjects.BUFFERING)
FOREIGN_BURST: Final = Workload("at once, translated", Traffic(CHUNKS, foreign=True), 8, subjects.STREAMING)
FRESH: Final = Workload("a connection each", Traffic(), 8, subjects.BUFFERING, fresh=True)
MULTIPLEXED: Final = Workload("HTTP/2", Traffic(), 8, subjects.BUFFERING, multiplexed=True)
SLOW: Final = Workload("20 a second", Traffic(), 16, subjects.BUFFERING, rate=20)
BUSY: Final = Workload("100 a second", Traffic(), 16, subjects.BUFFERING, rate=100)
LOADED: Final = (WHOLE, BURST, PACED, LONG, FOREIGN, FOREIGN_BURST, FRESH, MULTIPLEXED)
"""Those that CPU time is read from: the subject has always something to do."""
SINGLE: Final = (ONE_WHOLE, ONE_PACED)
"""Those that latency is read from: nothing ever waits for anything but the subject."""
RATED: Final = (SLOW, BUSY)
"""Those that latency is read from as callers that know nothing of each other see it."""


@dataclass(frozen=True, slots=True)
class Length:
    """How long a run takes: rounds, and the seconds of the kinds of measurement."""

    rounds: int
    whole: float
    """For whole answers: three bars hang on them, and in a second the machine's speed of the moment decides."""
    loaded: float
    single: float
    rated: float
    """0 leaves it out."""
    streams: int
    """How many are held open at once, at the end; 0 leaves it out."""


QUICK: Final = Length(3, 0.4, 0.4, 0.3, 0.0, 0)
FULL: Final = Length(5, 3.0, 1.0, 0.8, 2.0, 1000)
_PIECES: Final = 16
"""Of each stream that is held open."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One subject doing one workload in one round. Milliseconds."""

    answers: int
    per_second: float
    cpu: float
    """CPU time of the subject for one answer."""
    first: float
    """Median time to the first content."""
    whole: float
    """Median time to the end."""
    late: float
    """The time to the end that 95 of 100 answers kept."""
    latest: float
    """The same for 99 of 100."""


@dataclass(frozen=True, slots=True)
class Started:
    """What it took from nothing, an empty data directory included, to being ready for calls."""

    seconds: float
    cpu: float
    """Seconds."""


type Results = dict[str, dict[str, list[Measured]]]
"""By workload and subject, one a round."""


@dataclass(slots=True)
class Outcome:
    """All that a run has found."""

    results: Results
    surroundings: dict[str, object] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    """Megabytes resident at the end of the rounds, by subject."""
    started: dict[str, Started] = field(default_factory=dict)
    held: dict[str, idle.Held] = field(default_factory=dict)
    """Many streams at once, by subject; empty where that was left out."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Whose streams did not all come to their end, and why: of a peer that is a result, and no reason to stop."""
    records: dict[str, int] = field(default_factory=dict)
    """By subject: how many answers it gave, each of them on record."""


def takes_part(subject: Subject, workload: Workload) -> bool:
    """Tell whether a workload says anything about a subject."""
    if subject.name == subjects.LITELLM and workload in SINGLE:
        return False
    if workload in LOADED and not subject.pid:
        return False  # only its latency is of interest
    if workload.multiplexed and subject.name not in (subjects.BUFFERING, subjects.INSPECT):
        return False  # the others steer their callers to HTTP/1.1
    if subject.name == subjects.SPLICE:
        return workload in (
            WHOLE,
            BURST,
        )  # it differs from the hand-off by what a connection and a piece cost
    if subject.name == subjects.STREAMING:
        return workload.traffic.chunks > 0
    # A stream that is held back until it is whole has a price, but no latency that compares.
    return subject.name != subjects.BUFFERING or workload is not ONE_PACED


@dataclass(frozen=True, slots=True)
class _Step:
    workload: Workload
    subject: Subject
    seconds: float
    counts: bool = True

    @property
    def pace(self) -> Pace:
        """Return how it is loaded."""
        work = self.workload
        warm = 1 if work.traffic.chunks else 4
        return Pace(
            work.connections,
            self.seconds,
            warm,
            fresh=work.fresh,
            rate=work.rate,
            multiplexed=work.multiplexed,
        )


type Progress = Callable[[int, int, str], None]
"""Hears of each step: its number, of how many, and what is done."""


async def run(
    folder: Path, length: Length, cores: Cores, progress: Progress, peer: Path | None = None
) -> Outcome:
    """Start everything in `folder` and go through the rounds. `peer` is LiteLLM's program, None for without it.

    Raises `LoadError` on a wrong answer and `SubjectError` where records and answers are not the same number.
    """
    load, began = os.getloadavg()[0], machine()
    outcome = Outcome(defaultdict(lambda: defaultdict(list)))
    answered: Counter[str] = Counter()
    with ExitStack() as stack:
        stack.enter_context(on(cores.rest))
        taking_part = _started(stack, folder, cores, progress, peer=peer, took=outcome.started)
        steps = _steps(taking_part, length)
        for number, step in enumerate(steps):
            workload, subject = step.workload, step.subject
            progress(number, len(steps), f"{workload.name}: {subject.name}")
            clock = functools.partial(cpu_seconds, subject.pid) if subject.pid else float
            try:
                tally = await measure(subject.route, workload.traffic, step.pace, clock=clock)
            except (LoadError, OSError) as error:
                raise SubjectError(f"{subject.name}, {workload.name}: {error}") from error
            answered[subject.name] += tally.warmed + len(tally.answers)
            if step.counts:
                outcome.results[workload.name][subject.name].append(_measured(tally))
        outcome.memory = {one.name: resident_mb(one.pid) for one in taking_part if one.pid}
        for subject in taking_part if length.streams else ():
            if subject.name in (subjects.BUFFERING, subjects.SPLICE):
                continue  # the one would hold back what is to arrive, the other is told by single calls
            progress(len(steps), len(steps), f"{length.streams:,} streams: {subject.name}")
            try:
                outcome.held[subject.name] = await idle.hold(subject, length.streams, _PIECES)
            except (LoadError, OSError) as error:
                told = str(error) or type(error).__name__
                if subject.name != subjects.LITELLM:
                    raise SubjectError(f"{subject.name}, {length.streams} streams: {told}") from error
                outcome.dropped[subject.name] = told
                continue
            answered[subject.name] += length.streams
        progress(len(steps), len(steps), "stopping")
        outcome.surroundings = _surroundings(load, began, cores)
    outcome.records = _compared(taking_part, answered)
    return outcome


def _started(
    stack: ExitStack,
    folder: Path,
    cores: Cores,
    progress: Progress,
    *,
    peer: Path | None,
    took: dict[str, Started],
) -> list[Subject]:
    """Start the upstream and every subject; `stack` ends them."""
    idle.open_files()
    up = stack.enter_context(subjects.upstream(certificates.make(folder), cores.rest))
    begun: list[Subject] = []

    def start(name: str, make: Callable[[Place], AbstractContextManager[Subject]]) -> None:
        progress(0, 0, f"starting {name}")
        before = time.perf_counter()
        one = stack.enter_context(make(Place(folder / name.replace(" ", "-"), cores.subject)))
        took[name] = Started(time.perf_counter() - before, cpu_seconds(one.pid))
        begun.append(one)

    start(subjects.BUFFERING, functools.partial(subjects.mitmdump, up, streaming=False))
    start(subjects.STREAMING, functools.partial(subjects.mitmdump, up, streaming=True))
    for name in (subjects.HANDOFF, subjects.SPLICE, subjects.INSPECT, subjects.SIDE):
        start(name, functools.partial(subjects.tokenhub, name, up))
    if peer is not None:
        start(subjects.LITELLM, functools.partial(subjects.litellm, peer, up))
    return [*begun, subjects.direct(up)]


def _steps(taking_part: Sequence[Subject], length: Length) -> list[_Step]:
    # Imports on first use and caches that fill are a matter of the first minute, not of a request.
    steps = [
        _Step(workload, subject, length.single, counts=False)
        for workload in (WHOLE, BURST)
        for subject in taking_part
    ]
    for number in range(length.rounds):
        for workload in (*LOADED, *SINGLE, *(RATED if length.rated else ())):
            seconds = _seconds(workload, length)
            steps += [
                _Step(workload, subject, seconds)
                for subject in rotated(taking_part, number)
                if takes_part(subject, workload)
            ]
    return steps


def _seconds(workload: Workload, length: Length) -> float:
    if workload.rate:
        return length.rated
    if workload is WHOLE:
        return length.whole
    return length.loaded if workload in LOADED else length.single


def _measured(tally: Tally) -> Measured:
    first, whole = ([getattr(one, name) * 1000 for one in tally.answers] for name in ("first", "whole"))
    return Measured(
        answers=len(tally.answers),
        per_second=len(tally.answers) / tally.seconds,
        cpu=tally.cpu * 1000 / len(tally.answers),
        first=median(first),
        whole=median(whole),
        late=quantile(whole, 0.95),
        latest=quantile(whole, 0.99),
    )


def _compared(taking_part: Sequence[Subject], answered: Mapping[str, int]) -> dict[str, int]:
    """Return how many records each TokenHub has; raises `SubjectError` where it is not one an answer."""
    found = {one.name: subjects.recorded(one.data) for one in taking_part if one.data is not None}
    for name, records in found.items():
        if records != answered[name]:
            raise SubjectError(f"{name} gave {answered[name]} answers and has {records} records")
    return found


def _surroundings(load: float, began: Machine, cores: Cores) -> dict[str, object]:
    ended = machine()
    total = max(1, ended.total - began.total)
    return {
        "python": platform.python_version(),
        "mitmproxy": version("mitmproxy"),
        "aiohttp": version("aiohttp"),
        "tokenhub": version("tokenhub"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "pinned": bool(cores.subject),
        "load_average": [round(load, 2), round(os.getloadavg()[0], 2)],
        "busy_percent": round(100 - 100 * (ended.idle - began.idle) / total),
        "stolen_percent": round(100 * (ended.stolen - began.stolen) / total, 1),
    }
