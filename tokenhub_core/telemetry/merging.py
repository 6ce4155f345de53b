"""The figures of several processes as one text: what is counted is summed, of a state the largest stands.

Text exposition format 0.0.4 in and out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Sample

_ADDED: Final = frozenset({"counter", "histogram", "summary"})
_SUMS: Final = ("_bytes", "_fds", "_parked", "_workers")
"""How gauges end of which each process has its own part."""
_LEAST: Final = frozenset(
    {"process_start_time_seconds", "tokenhub_limits_shared", "tokenhub_provider_health_state"}
)


def merged(texts: Sequence[bytes]) -> bytes:
    """Return one text with what all of them say, each sample once."""
    families: dict[str, Metric] = {}
    for text in texts:
        for family in text_string_to_metric_families(text.decode()):
            known = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known.samples += family.samples
    registry = CollectorRegistry()
    registry.register(_Said([_one(family) for family in families.values()]))
    return generate_latest(registry)


class _Said(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _one(family: Metric) -> Metric:
    together = _rule(family)
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Sample] = {}
    for sample in family.samples:
        key = (sample.name, tuple(sorted(sample.labels.items())))
        known = found.get(key)
        value = sample.value if known is None else together((known.value, sample.value))
        found[key] = Sample(sample.name, sample.labels, value)
    one = Metric(family.name, family.documentation, family.type)
    one.samples = [*found.values()]
    return one


def _rule(family: Metric) -> Callable[[Sequence[float]], float]:
    if family.type in _ADDED or family.name.endswith(_SUMS):
        return sum
    return min if family.name in _LEAST else max
