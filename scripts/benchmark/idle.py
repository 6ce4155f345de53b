"""Many streams at once that say something now and then: how late each piece is, and what it costs.

The upstream writes into each piece when it wrote it. All processes of a machine share that clock.
"""

from __future__ import annotations

import functools
import resource
import time
from dataclasses import dataclass
from statistics import median
from typing import Final

from scripts.benchmark import load
from scripts.benchmark.figures import quantile
from scripts.benchmark.processes import cpu_seconds, resident_mb
from scripts.benchmark.subjects import Subject
from scripts.benchmark.traffic import STAMP, Traffic

GAP_MS: Final = 1000
"""Between two pieces of one stream."""
SPREAD: Final = 5.0
"""Seconds over which streams begin. All in one second would be a peak of calls, which is measured elsewhere."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one subject made of it."""

    streams: int
    pieces: int
    """Those that were written while all of the streams were open."""
    middle: float
    """Milliseconds from the upstream's writing to here: half of those pieces took no longer."""
    late: float
    """The same for 99 of 100."""
    cpu: float
    """CPU time of the subject for one piece, in milliseconds, with its share of beginning and end."""
    memory: float
    """Kilobytes for each stream: what was resident at the end beyond what was before."""


async def hold(subject: Subject, streams: int, pieces: int, spread: float = SPREAD) -> Held:
    """Hold so many streams open until each has had its pieces; raises `LoadError` where one is lost.

    Where streams are shorter than the `spread` seconds over which they begin, they are never all open: all pieces
    count then.
    """
    came: list[tuple[float, float]] = []

    def saw(data: bytes) -> None:
        now = time.monotonic()
        came.extend((float(stamp), now) for stamp in STAMP.findall(data))

    before = resident_mb(subject.pid) if subject.pid else 0.0
    clock = functools.partial(cpu_seconds, subject.pid) if subject.pid else float
    # Two events begin a stream and three end it.
    traffic = Traffic(pieces + 2, GAP_MS, stamped=True)
    tally = await load.hold(subject.route, traffic, streams, saw, spread=spread, clock=clock)
    after = resident_mb(subject.pid) if subject.pid else 0.0
    if len(came) != streams * pieces:
        raise load.LoadError(f"{len(came)} pieces of {streams * pieces} arrived")
    begun, ended = tally.together
    if begun >= ended:
        begun, ended = 0.0, float("inf")
    took = [(now - stamp) * 1000 for stamp, now in came if begun <= stamp < ended]
    return Held(
        streams=streams,
        pieces=len(took),
        middle=median(took),
        late=quantile(took, 0.99),
        cpu=tally.cpu * 1000 / len(came),
        memory=(after - before) * 1000 / streams,
    )


def open_files(number: int = 8192) -> None:
    """Let this process and those that it starts have so many files open, as far as the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < number:
        most = number if hard == resource.RLIM_INFINITY else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
