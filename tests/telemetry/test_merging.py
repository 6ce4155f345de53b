"""The figures of several workers in one text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tokenhub_core.telemetry.merging import merged


def one(count: float, *seconds: float, state: float, memory: float) -> bytes:
    """Return the text of one worker."""
    registry = CollectorRegistry()
    Counter("calls", "Calls", ["model"], registry=registry).labels("m").inc(count)
    if seconds:
        histogram = Histogram("duration_seconds", "Seconds", registry=registry, buckets=(1, 2))
        for value in seconds:
            histogram.observe(value)
    Gauge("tokenhub_provider_health_state", "State", registry=registry).set(state)
    Gauge("resident_memory_bytes", "Memory", registry=registry).set(memory)
    Gauge("up", "Up", registry=registry).set(state)
    return generate_latest(registry)


def test_counts_are_added_and_of_states_the_worst_stands() -> None:
    """Histograms bucket by bucket; memory is each process's own; what only one of them has stays."""
    text = merged(
        [one(2, 0.5, 1.5, state=2, memory=10), one(3, 1.5, state=0, memory=5), one(1, state=1, memory=1)]
    )
    told = {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }

    assert told == {
        ("calls_total", ""): 6,
        ("duration_seconds_bucket", "1.0"): 1,
        ("duration_seconds_bucket", "2.0"): 3,
        ("duration_seconds_bucket", "+Inf"): 3,
        ("duration_seconds_count", ""): 3,
        ("duration_seconds_sum", ""): 3.5,
        ("tokenhub_provider_health_state", ""): 0,
        ("resident_memory_bytes", ""): 16,
        ("up", ""): 2,
    }
    assert text.count(b"# TYPE calls_total counter") == 1
