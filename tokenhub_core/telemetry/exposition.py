"""What was counted, as values, and those values as Prometheus's text. Pure.

Several processes that serve behind one port count apart: each hands over its families (they are plain values, for
msgspec to carry), and `merged` makes of all of them what one process would have counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

import msgspec

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BUCKET: Final = "_bucket"
BOUND: Final = "le"

type Labels = tuple[tuple[str, str], ...]
"""Names and values, in the family's order."""
type Families = Sequence[Family]


class Kind(StrEnum):
    """A family's type, as the format names it."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Across(StrEnum):
    """What the values of several processes come to."""

    SUM = "sum"
    MAX = "max"
    MIN = "min"


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One value. `suffix` follows the family's name: `_bucket`, `_sum`, `_count`, or nothing."""

    labels: Labels
    value: float
    suffix: str = ""


class Family(msgspec.Struct, frozen=True, array_like=True):
    """All values of one name. A counter's name ends in `_total`."""

    name: str
    kind: Kind
    meaning: str
    samples: tuple[Sample, ...] = ()
    across: Across = Across.SUM


def text(families: Families) -> str:
    """Return families in the text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats)."""
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escaped(family.meaning)}")
        lines.append(f"# TYPE {family.name} {family.kind.value}")
        for labels, value, suffix in ((one.labels, one.value, one.suffix) for one in family.samples):
            shown = ",".join(f'{name}="{_quoted(told)}"' for name, told in labels)
            braces = f"{{{shown}}}" if shown else ""
            lines.append(f"{family.name}{suffix}{braces} {number(value)}")
    return "\n".join(lines) + "\n"


def merged(processes: Iterable[Families]) -> tuple[Family, ...]:
    """Return what several processes have counted together, in the order in which they name it.

    Counters and histograms add up; a gauge is what its family's `across` says. Of histograms that do not all have the
    same bounds (two versions serve for a moment) those bounds are kept that all of them have: at these the sums are
    exact.
    """
    found: dict[str, list[Family]] = {}
    for families in processes:
        for family in families:
            found.setdefault(family.name, []).append(family)
    return tuple(_together(same) for same in found.values())


def _together(same: Sequence[Family]) -> Family:
    first = same[0]
    if len(same) == 1:
        return first
    kept = _shared_bounds(same) if first.kind is Kind.HISTOGRAM else None
    values: dict[tuple[str, Labels], float] = {}
    for family in same:
        for one in family.samples:
            if kept is not None and one.suffix == BUCKET and dict(one.labels)[BOUND] not in kept:
                continue
            key = one.suffix, one.labels
            before = values.get(key)
            values[key] = one.value if before is None else _joined(first.across, before, one.value)
    samples = tuple(Sample(labels, value, suffix) for (suffix, labels), value in values.items())
    return Family(first.name, first.kind, first.meaning, samples, first.across)


def _shared_bounds(same: Sequence[Family]) -> frozenset[str]:
    """Return the bounds that every process has that has any: one that has counted nothing says nothing of them."""
    bounds = [
        frozenset(dict(one.labels)[BOUND] for one in family.samples if one.suffix == BUCKET)
        for family in same
    ]
    told = [some for some in bounds if some]
    return frozenset.intersection(*told) if told else frozenset()


def _joined(across: Across, one: float, other: float) -> float:
    match across:
        case Across.SUM:
            return one + other
        case Across.MAX:
            return max(one, other)
        case Across.MIN:
            return min(one, other)


def number(value: float) -> str:
    """Return a value as the format writes it."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(float(value))


def _escaped(told: str) -> str:
    return told.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(told: str) -> str:
    return _escaped(told).replace('"', '\\"')
