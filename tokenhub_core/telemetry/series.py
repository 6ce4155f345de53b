"""What one call adds to the time series, and to which of them. Pure.

A series is one combination of values of the dimensions, in a stretch of time: `Sums` under a `Key`. What is summed is
whole numbers, so that adding up is exact and the order does not matter; times are kept as sketches (`sketches`).

    calls          records, whatever became of them
    answered       answers that succeeded, also those of calls that passed with their tokens known
    errors         records that ended in an error
    cancelled      callers left
    passed         records of what was not routed
    input_tokens, output_tokens, cached_tokens      cached ones are those of the input that were read from a cache
    cost_nanousd   over all attempts
    saved_nanousd  what calls in shadow cost, less what they would have cost; negative where they would have cost more
    took_us        of what was answered, from the request to the end of the answer, in microseconds
    latency        the same as a sketch
    ttft           of streams among them, to the first content
    pace           of streams with two output tokens or more, (latency - ttft) / (output tokens - 1)

A call belongs to the moment at which it came in, as in the request log: so what the series say of a stretch of time is
what the log's records of that stretch add up to, and a call that takes long is added where it belongs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from tokenhub_core.telemetry import sketches
from tokenhub_core.types import Outcome, Shadow

MICROS: Final = 1_000_000
FINEST: Final = 10
"""Seconds of the shortest stretch."""
OTHER: Final = "other"
"""The value of every dimension that strangers choose, where a day had too many series."""


class Key(NamedTuple):
    """The dimensions of a series; empty where a call has none of that."""

    model: str = ""
    """That served; empty where none did."""
    provider: str = ""
    key: str = ""
    """The id of the client's key."""
    project: str = ""
    host: str = ""
    """That the call was meant for."""
    program: str = ""
    mode: str = ""
    status: str = ""
    """The class: `2xx`, `4xx` and so on."""
    cause: str = ""
    """The fault's label, empty on success."""

    @property
    def id(self) -> int:
        """Return a number of 63 bits that is always the same for the same values.

        Ten thousand series share none but with a chance of 1 to 10^11.
        """
        told = msgspec.json.encode(tuple(self))
        return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big") >> 1

    @property
    def folded(self) -> Key:
        """Return the series that counts for this one where a day has too many."""
        return Key(*(OTHER,) * 6, self.mode, self.status, OTHER)


DIMENSIONS: Final = Key._fields


class Fact(NamedTuple):
    """What the series take from one record; the columns of the log, in its units."""

    at: int
    outcome: str
    status: int
    model_id: str
    provider_id: str
    key_id: str | None
    project: str | None
    origin_host: str
    program: str
    mode: str
    error_class: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cost_nanousd: int
    ttft_ms: float | None
    total_ms: float | None
    shadow: str | None

    @property
    def key(self) -> Key:
        """Return the series that this belongs to."""
        return Key(
            self.model_id,
            self.provider_id,
            self.key_id or "",
            self.project or "",
            self.origin_host,
            self.program,
            self.mode,
            f"{self.status // 100}xx",
            self.error_class,
        )


@dataclass(slots=True)
class Sums:
    """What the calls of one series in one stretch of time come to."""

    calls: int = 0
    answered: int = 0
    errors: int = 0
    cancelled: int = 0
    passed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_nanousd: int = 0
    saved_nanousd: int = 0
    took_us: int = 0
    latency: dict[int, int] = field(default_factory=dict)
    ttft: dict[int, int] = field(default_factory=dict)
    pace: dict[int, int] = field(default_factory=dict)

    def count(self, fact: Fact) -> None:
        """Add one call."""
        self.calls += 1
        self.input_tokens += fact.input_tokens
        self.output_tokens += fact.output_tokens
        self.cached_tokens += fact.cache_read_tokens
        self.cost_nanousd += fact.cost_nanousd
        if fact.shadow is not None:
            self.saved_nanousd += _saved(fact.shadow)
        outcome = fact.outcome
        if outcome == Outcome.ERROR:
            self.errors += 1
        elif outcome == Outcome.CANCELLED:
            self.cancelled += 1
        elif outcome == Outcome.PASSED:
            self.passed += 1
            if fact.status < 400 and fact.output_tokens:
                self._time(fact)
        else:
            self._time(fact)

    def _time(self, fact: Fact) -> None:
        self.answered += 1
        total, first = fact.total_ms, fact.ttft_ms
        if total is None:
            return
        self.took_us += round(total * 1000)
        _counted(self.latency, total)
        if first is None:
            return
        _counted(self.ttft, first)
        if fact.output_tokens > 1:
            _counted(self.pace, (total - first) / (fact.output_tokens - 1))

    def add(self, other: Sums) -> None:
        """Add what another stretch, or another series, came to."""
        for name in COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in SKETCHES:
            sketches.added(getattr(self, name), getattr(other, name))


COUNTERS: Final = (
    "calls",
    "answered",
    "errors",
    "cancelled",
    "passed",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cost_nanousd",
    "saved_nanousd",
    "took_us",
)
SKETCHES: Final = ("latency", "ttft", "pace")

type Cells = dict[tuple[int, Key], Sums]
"""By the beginning of a stretch, in seconds since the epoch, and series."""


def folded(facts: Iterable[Fact]) -> Cells:
    """Return what calls come to in stretches of `FINEST` seconds."""
    cells: Cells = {}
    length = FINEST * MICROS
    for fact in facts:
        place = (fact.at // length * FINEST, fact.key)
        sums = cells.get(place)
        if sums is None:
            sums = cells[place] = Sums()
        sums.count(fact)
    return cells


def _counted(counts: dict[int, int], milliseconds: float) -> None:
    where = sketches.slot(milliseconds)
    counts[where] = counts.get(where, 0) + 1


def _saved(shadow: str) -> int:
    told = msgspec.json.decode(shadow, type=Shadow)
    return 0 if told.paid is None or told.nanousd is None else told.paid - told.nanousd
