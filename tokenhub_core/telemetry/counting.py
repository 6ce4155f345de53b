"""Counters, gauges and histograms as plain sums by their labels, and a bound on what may become a label. Pure.

They belong to the event loop: nothing is locked. Each call counts a dozen times, and a lock for each would cost as much
as routing it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final

from tokenhub_core.telemetry.exposition import BOUND, BUCKET, Across, Family, Kind, Labels, Sample, number

OTHER: Final = "other"
"""The label of everything behind a bound."""


class Bound:
    """Keeps the values of one label few: the first `most` have a label of their own, all later ones are `other`."""

    def __init__(self, most: int, label: Callable[[str], str] = str) -> None:
        """`label` says what a value is called; what is called otherwise than it is counts for nothing."""
        self._most = most
        self._label = label
        self._known: dict[str, str] = {}

    def __call__(self, value: str) -> str:
        """Return the label of `value`."""
        return self._known.get(value) or self._met(value)

    def _met(self, value: str) -> str:
        label = self._label(value)
        if label != value:
            # Many values have it: they are not remembered one by one.
            return label
        if len(self._known) >= self._most:
            return OTHER
        self._known[value] = label
        return label


class Cell:
    """One sum that only grows."""

    __slots__ = ("sum",)

    def __init__(self) -> None:
        self.sum = 0.0


class Row:
    """One histogram: how many values were at most each bound, and what all were together."""

    __slots__ = ("_bounds", "seen", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.seen = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.seen[bisect_left(self._bounds, value)] += 1
        self.sum += value


class Counter:
    """Sums by their labels."""

    kind = Kind.COUNTER

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...] = (), *, zeros: bool = False) -> None:
        """`zeros` says whether sums that are still 0 are shown; one without labels always is."""
        self.name = f"{name}_total"
        self._zeros = zeros or not labels
        self.meaning = meaning
        self.labels = labels
        self._cells: dict[tuple[str, ...], Cell] = {} if labels else {(): Cell()}

    def cell(self, *labels: str) -> Cell:
        """Return the sum of these labels, to be kept by who adds to it often."""
        cell = self._cells.get(labels)
        if cell is None:
            cell = self._cells[labels] = Cell()
        return cell

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Add `amount` to the sum of these labels."""
        self.cell(*labels).sum += amount

    def family(self) -> Family:
        """Return what was counted."""
        sums = ((labels, cell.sum) for labels, cell in self._cells.items() if cell.sum or self._zeros)
        return Family(self.name, self.kind, self.meaning, _samples(self.labels, sums))


class Gauge:
    """Values as they are now."""

    kind = Kind.GAUGE

    def __init__(
        self, name: str, meaning: str, labels: tuple[str, ...] = (), *, across: Across = Across.SUM
    ) -> None:
        """`across` says what the values of several processes come to."""
        self.name = name
        self.meaning = meaning
        self.labels = labels
        self.across = across
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def put(self, value: float, *labels: str) -> None:
        """Set one value."""
        self._values[labels] = value

    def add(self, *labels: str) -> None:
        """Count one more of these labels."""
        self._values[labels] = self._values.get(labels, 0.0) + 1

    def clear(self) -> None:
        """Forget all values: those that are not set again are not shown any more."""
        self._values.clear()

    def family(self) -> Family:
        """Return the values of now."""
        samples = _samples(self.labels, self._values.items())
        return Family(self.name, self.kind, self.meaning, samples, self.across)


class Histogram:
    """Rows by their labels. Those without a value are shown only where there are no labels."""

    kind = Kind.HISTOGRAM

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self.name = name
        self.meaning = meaning
        self.labels = labels
        self._bounds = bounds
        self._names = [*map(number, bounds), "+Inf"]
        self._rows: dict[tuple[str, ...], Row] = {} if labels else {(): Row(bounds)}

    def row(self, *labels: str) -> Row:
        """Return the row of these labels, to be kept by who adds to it often."""
        row = self._rows.get(labels)
        if row is None:
            row = self._rows[labels] = Row(self._bounds)
        return row

    def family(self) -> Family:
        """Return what was counted."""
        samples: list[Sample] = []
        for values, row in self._rows.items():
            labels = _paired(self.labels, values)
            totals = list(accumulate(row.seen))
            if values and not totals[-1]:
                continue
            samples += [
                Sample((*labels, (BOUND, name)), total, BUCKET)
                for name, total in zip(self._names, totals, strict=True)
            ]
            samples += [Sample(labels, totals[-1], "_count"), Sample(labels, row.sum, "_sum")]
        return Family(self.name, self.kind, self.meaning, tuple(samples))


def _samples(names: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]) -> tuple[Sample, ...]:
    return tuple(Sample(_paired(names, labels), float(value)) for labels, value in values)


def _paired(names: tuple[str, ...], values: tuple[str, ...]) -> Labels:
    return tuple(zip(names, map(str, values), strict=True))
