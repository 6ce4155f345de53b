"""Where the CPU time of one lane goes: a run under `sampling`, and its notes added up."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from scripts.benchmark import certificates, sampling, subjects
from scripts.benchmark.load import Pace, measure
from scripts.benchmark.processes import Cores, cpu_seconds, on
from scripts.benchmark.subjects import Place, SubjectError
from scripts.benchmark.traffic import Traffic

_SECONDS: Final = 8.0
_SHOWN: Final = 25
_INSTALLED: Final = re.compile(r"/site-packages/([^/]+(?:/[^/]+)?)")
_OURS: Final = re.compile(r"/(tokenhub_(?:core|addon)/.+)\.py")
_LOOP: Final = re.compile(r"/(asyncio|ssl|selectors)\b")


@dataclass(frozen=True, slots=True)
class Profile:
    """CPU time of one answer, in microseconds."""

    answers: int
    total: float
    parts: Mapping[str, float]
    """By who ran, or on whose behalf the standard library did."""
    functions: Mapping[str, float]
    """By function, with all that it called; ours only."""


async def profile(subject: str, traffic: Traffic, folder: Path, cores: Cores) -> Profile:
    """Load one way through TokenHub, eight calls at a time, and note what it does."""
    told = folder / "notes.json"
    program: list[str | Path] = [sys.executable, "-m", "scripts.benchmark.sampling", told]
    with (
        on(cores.rest),
        subjects.upstream(certificates.make(folder), cores.rest) as up,
        subjects.tokenhub(subject, up, Place(folder / "subject", cores.subject), program=program) as run,
    ):

        def clock() -> float:
            os.kill(run.pid, signal.SIGUSR2)
            return cpu_seconds(run.pid)

        await measure(run.route, traffic, Pace(8, _SECONDS / 4))
        tally = await measure(run.route, traffic, Pace(8, _SECONDS), clock=clock)
        for _ in range(100):
            if told.exists():
                break
            await asyncio.sleep(0.05)
        else:
            raise SubjectError("the profile was not written")
    notes: dict[str, float] = json.loads(told.read_text())
    each = 1e6 / len(tally.answers)
    return Profile(
        len(tally.answers),
        tally.cpu * each,
        {name: seconds * each for name, seconds in parts(notes).items()},
        {name: seconds * each for name, seconds in functions(notes).items()},
    )


def parts(notes: Mapping[str, float]) -> dict[str, float]:
    """Return seconds by module of ours, library, or `event loop and TLS`, most first.

    Time in the standard library counts for whoever called it, but for the loop's and TLS's own.
    """
    found: dict[str, float] = defaultdict(float)
    for stack, seconds in notes.items():
        found[_owner(stack)] += seconds
    return _most_first(found)


def functions(notes: Mapping[str, float]) -> dict[str, float]:
    """Return seconds by function of ours, with all that it called, most first."""
    found: dict[str, float] = defaultdict(float)
    for stack, seconds in notes.items():
        names = {f"{ours[1]}: {name}" for file, name in _frames(stack) if (ours := _OURS.search(file))}
        for name in names:
            found[name] += seconds
    return _most_first(found)


def show(found: Profile, console: Console) -> None:
    """Print both tables."""
    console.print(f"{found.answers} answers, {found.total:.0f} µs each")
    for title, by_name in (("by whoever ran", found.parts), ("by function, all within it", found.functions)):
        table = Table("", "µs", "%", title=title, title_justify="left")
        for name, value in list(by_name.items())[:_SHOWN]:
            table.add_row(name, f"{value:.0f}", f"{100 * value / found.total:.0f}")
        console.print(table)


def _owner(stack: str) -> str:
    if stack == sampling.ELSEWHERE:
        return stack
    for file, _ in reversed(_frames(stack)):
        if ours := _OURS.search(file):
            return ours[1]
        if installed := _INSTALLED.search(file):
            return installed[1].removesuffix(".py")
        if file == sampling.GENERATED:
            return "making frozen values"
        if _LOOP.search(file):
            return "event loop and TLS"
    return "the rest"


def _frames(stack: str) -> list[tuple[str, str]]:
    return [(file, name) for file, _, name in (frame.partition(":") for frame in stack.split(";"))]


def _most_first(found: Mapping[str, float]) -> dict[str, float]:
    return dict(sorted(found.items(), key=lambda item: -item[1]))
