"""How series are kept in four resolutions, and which of them a question is answered from. Pure.

A stretch begins at a multiple of its length since the epoch, so days are those of UTC, and no clock is ever put
forward or back. Every call is added to all four resolutions at once: so each has the same totals, and one does not
wait for another. What differs is how long they are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tokenhub_core.errors import ConfigError, client_fault
from tokenhub_core.telemetry.series import Cells, Key, Sums

TEN_SECONDS: Final = 10
MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 86_400
RESOLUTIONS: Final = (TEN_SECONDS, MINUTE, HOUR, DAY)
"""Seconds, the finest first; each is a multiple of the one before it."""
NAMES: Final[Mapping[int, str]] = {TEN_SECONDS: "10s", MINUTE: "1m", HOUR: "1h", DAY: "1d"}
STEPS: Final = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 43_200, DAY)
"""What is chosen from where nobody asks for a step."""
FEW: Final = 300
"""Points of a curve where nobody says how many."""


@dataclass(frozen=True, slots=True)
class Keep:
    """How many days each of `RESOLUTIONS` is kept; None for ever. A coarser one is kept at least as long."""

    days: tuple[int | None, int | None, int | None, int | None]

    def __post_init__(self) -> None:
        kept = [float("inf") if days is None else days for days in self.days]
        if sorted(kept) != kept:
            raise ConfigError(
                "TOKENHUB_SERIES_…_DAYS: a coarser resolution must be kept for as long as a finer one"
            )

    def since(self, resolution: int, now: float) -> float:
        """Return the moment before which a resolution may be gone, in seconds since the epoch."""
        days = self.days[RESOLUTIONS.index(resolution)]
        return 0.0 if days is None else now - days * DAY


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of time that one resolution covers; whole seconds since the epoch, `until` not included."""

    resolution: int
    since: int
    until: int


def coarser(cells: Cells, resolution: int) -> Cells:
    """Return cells put together to a resolution that is a multiple of theirs."""
    found: Cells = {}
    for (at, key), sums in cells.items():
        place = (at // resolution * resolution, key)
        into = found.get(place)
        if into is None:
            into = found[place] = Sums()
        into.add(sums)
    return found


def bounded(cells: Cells, known: Mapping[int, set[int]], most: int) -> Cells:
    """Return cells with those series folded into `other` for which their day has no room any more.

    `known` holds the ids of the series that each day has already, by its beginning. A series that a day has stays
    itself until that day ends, in every resolution; so a day has at most `most`, and the few that others go into.
    """
    days = {day: set(ids) for day, ids in known.items()}
    found: Cells = {}
    for (at, key), sums in cells.items():
        here = days.setdefault(at // DAY * DAY, set())
        if key.id not in here and len(here) >= most:
            key = key.folded  # noqa: PLW2901 -- the key that it is counted under
        else:
            here.add(key.id)
        found.setdefault((at, key), Sums()).add(sums)
    return found


def cover(since: int, until: int) -> list[Span]:
    """Return spans that cover a stretch of time exactly once, as coarse as can be; both ends are multiples of ten."""
    return list(_covered(since, until, len(RESOLUTIONS) - 1))


def _covered(since: int, until: int, level: int) -> Iterator[Span]:
    if since >= until:
        return
    resolution = RESOLUTIONS[level]
    low, high = -(-since // resolution) * resolution, until // resolution * resolution
    if level == 0:
        yield Span(resolution, low, high)
    elif low >= high:
        yield from _covered(since, until, level - 1)
    else:
        yield from _covered(since, low, level - 1)
        yield Span(resolution, low, high)
        yield from _covered(high, until, level - 1)


def step_for(since: float, until: float, keep: Keep, now: float) -> int:
    """Return the shortest of `STEPS` that makes at most `FEW` points and is still kept for all of the time."""
    for step in STEPS:
        if until - since <= step * FEW and keep.since(_coarsest(step), now) <= since:
            return step
    return STEPS[-1]


def resolution_for(step: int, since: float, keep: Keep, now: float) -> int:
    """Return the coarsest resolution that makes this step; raises a 400 where none of them is kept for so long."""
    if step <= 0 or step % TEN_SECONDS:
        raise client_fault("step must be a multiple of 10 seconds", param="step")
    resolution = _coarsest(step)
    if keep.since(resolution, now) > since:
        days = keep.days[RESOLUTIONS.index(resolution)]
        coarse = next(one for one in RESOLUTIONS if one == DAY or keep.since(one, now) <= since)
        raise client_fault(
            f"what a step of {step} seconds needs is kept for {days} days; for the time from there on ask for {coarse}",
            param="step",
        )
    return resolution


def _coarsest(step: int) -> int:
    return next(one for one in reversed(RESOLUTIONS) if step % one == 0)


def series_of(cells: Cells) -> set[Key]:
    """Return the series that have a cell."""
    return {key for _, key in cells}
