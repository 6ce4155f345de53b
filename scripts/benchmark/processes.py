"""What the kernel says of processes: the CPU time that they took, where they may run, how busy the machine is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICK: Final = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Times:
    """What `/proc/PID/stat` tells, in seconds."""

    own: float
    """User and system time of all threads, those that have ended included."""
    reaped: float
    """The same of children that have ended and were waited for."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the first line of `/proc/stat` tells, in ticks."""

    total: int
    idle: int
    stolen: int

    @property
    def busy(self) -> float:
        """Return the seconds of CPU time that all processes took together."""
        return (self.total - self.idle - self.stolen) * _TICK


def times(stat: str) -> Times:
    """Return the times of a line of `/proc/PID/stat`."""
    # The second field is the program's name in parentheses, and may hold anything.
    fields = stat.rpartition(")")[2].split()
    user, system, children_user, children_system = (int(field) for field in fields[11:15])
    return Times((user + system) * _TICK, (children_user + children_system) * _TICK)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, all its threads and all its children.

    `/proc/PID/stat` counts in ticks of 10 ms. Where the kernel shows the same clock in nanoseconds, its own part
    is read there.
    """
    told = times((_PROC / f"{pid}/stat").read_text())
    return _precise(pid, told.own) + told.reaped + sum(map(cpu_seconds, _children(pid)))


def _precise(pid: int, otherwise: float) -> float:
    # clock_getcpuclockid(3): the complement of the pid, and 2 for the scheduler's clock of the whole process.
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return otherwise


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in (_PROC / f"{pid}/task").iterdir():
        # Not every kernel is built to tell; then there is nobody to ask.
        listed = task / "children"
        found += map(int, listed.read_text().split()) if listed.exists() else ()
    return found


def machine() -> Machine:
    """Return the machine's counters since it started."""
    counted = [int(field) for field in (_PROC / "stat").read_text().partition("\n")[0].split()[1:]]
    return Machine(sum(counted[:8]), counted[3] + counted[4], counted[7])


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in megabytes."""
    return int((_PROC / f"{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: empty sets leave it to the kernel."""

    subject: frozenset[int]
    """For what is measured."""
    rest: frozenset[int]
    """For the load and the upstream."""


def cores() -> Cores:
    """Give the subject one core and everybody else another, where there are two."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        return Cores(frozenset(), frozenset())
    return Cores(frozenset(allowed[:1]), frozenset(allowed[1:2]))


@contextmanager
def on(chosen: frozenset[int]) -> Iterator[None]:
    """Run on these cores inside the block; a process that is started there stays on them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
