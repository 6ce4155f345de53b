"""Ratios. The machine is shared and its speed changes, so only what was measured side by side is compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """The smallest, the middle and the largest of one value a round."""

    low: float
    middle: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(min(values), median(values), max(values))


def ratios(subject: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Return one ratio a round; both hold one value a round, in the same order."""
    return [value / other for value, other in zip(subject, reference, strict=True)]


def differences(subject: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Return one difference a round."""
    return [value - other for value, other in zip(subject, reference, strict=True)]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of all values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def rotated[T](items: Sequence[T], number: int) -> list[T]:
    """Return the items in the order of a round: whoever was first is last in the next one."""
    start = number % len(items)
    return [*items[start:], *items[:start]]


@dataclass(frozen=True, slots=True)
class Bar:
    """What a subject may cost at most, as a share of another."""

    subject: str
    most: float
    of: str = ""
    """The other; empty for the workload's reference."""

    def met(self, found: Mapping[str, Spread]) -> bool | None:
        """Tell whether the middle is within the bar; None where the subject was not measured."""
        measured = found.get(self.subject)
        return None if measured is None else measured.middle <= self.most
