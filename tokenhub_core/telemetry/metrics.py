"""Prometheus metrics. Base units, closed label sets: nothing that a caller chooses becomes a label."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from tokenhub_core import __version__
from tokenhub_core.types import NANO, Outcome, Record

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
_STATES: Final = {"healthy": 2, "degraded": 1}
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


class _Children[Metric: (Counter, Histogram)]:
    """The children of one metric, by their labels: to ask the metric itself costs more than to count."""

    def __init__(self, metric: Metric) -> None:
        self._metric: Metric = metric
        self._known: dict[tuple[str, ...], Metric] = {}

    def labels(self, *labels: str) -> Metric:
        child = self._known.get(labels)
        if child is None:
            child = self._known[labels] = self._metric.labels(*labels)
        return child


class Metrics:
    """All metrics of one server, in a registry of their own. A subscriber of records."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        served = ("mode", "model", "provider")
        self._requests = _Children(
            Counter(
                "tokenhub_requests", "Exchanges that ended", (*served, "outcome", "lane"), registry=registry
            )
        )
        self._latency = _Children(
            Histogram(
                "tokenhub_request_duration_seconds",
                "From the request to the reply's last byte, successes only",
                served,
                buckets=_SECONDS,
                registry=registry,
            )
        )
        self._ttft = _Children(
            Histogram(
                "tokenhub_time_to_first_token_seconds",
                "From the request to the first content, successes only",
                served,
                buckets=_SECONDS,
                registry=registry,
            )
        )
        self._overhead = Histogram(
            "tokenhub_route_duration_seconds",
            "From the request to the routing decision",
            buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
            registry=registry,
        )
        self._cost = _Children(
            Counter("tokenhub_cost_usd", "Dollars spent", ("model", "provider"), registry=registry)
        )
        self._tokens = _Children(
            Counter("tokenhub_tokens", "Tokens used", ("model", "provider", "direction"), registry=registry)
        )
        self._errors = _Children(
            Counter(
                "tokenhub_request_errors", "Exchanges that failed, by fault", ("fault",), registry=registry
            )
        )
        self._attempts = _Children(
            Counter("tokenhub_attempts", "Tries at providers", ("provider", "result"), registry=registry)
        )
        self._skips = _Children(
            Counter(
                "tokenhub_provider_skips",
                "Models left out of a plan, by reason",
                ("provider", "reason"),
                registry=registry,
            )
        )
        self._directives = _Children(
            Counter(
                "tokenhub_directives", "Calls with a directive, by outcome", ("outcome",), registry=registry
            )
        )
        self._identical = Counter(
            "tokenhub_identical_replies", "Replies whose bytes are the provider's own", registry=registry
        )
        self._health = Gauge(
            "tokenhub_provider_health_state",
            "2 healthy, 1 degraded, 0 down or half open",
            ("provider",),
            registry=registry,
        )
        Gauge("tokenhub_build_info", "Always 1", ("version",), registry=registry).labels(__version__).set(1)

    def __call__(self, record: Record) -> None:
        """Count one record."""
        mode = record.plan.policy.mode.value if record.plan else ""
        provider = _bounded(record.provider)
        model = "" if provider == "origin" else record.model
        served = (mode, model, provider)
        self._requests.labels(*served, record.outcome.value, record.caller.lane.value).inc()
        if record.timings.route_ms:
            self._overhead.observe(record.timings.route_ms / 1000)
        if record.fault:
            self._errors.labels(record.fault).inc()
        if record.outcome is Outcome.OK:
            self._latency.labels(*served).observe(record.timings.total_ms / 1000)
            if record.timings.ttft_ms is not None:
                self._ttft.labels(*served).observe(record.timings.ttft_ms / 1000)
        if record.cost_nanousd:
            self._cost.labels(model, provider).inc(record.cost_nanousd / NANO)
        if record.usage:
            self._tokens.labels(model, provider, "input").inc(record.usage.input_tokens)
            self._tokens.labels(model, provider, "output").inc(record.usage.output_tokens)
        for attempt in record.attempts:
            self._attempts.labels(_bounded(attempt.provider), attempt.cause or "ok").inc()
        for skip in record.plan.skips if record.plan else ():
            self._skips.labels(_bounded(skip.provider), skip.reason.value).inc()
        if record.directive:
            self._directives.labels(record.directive).inc()
        if record.identical:
            self._identical.inc()

    def health(self, states: Iterable[tuple[str, str]]) -> None:
        """Set each provider's state (`healthy`, `degraded`, anything else); the others are not shown any more."""
        self._health.clear()
        for provider, state in states:
            self._health.labels(_bounded(provider)).set(_STATES.get(state, 0))

    def render(self) -> bytes:
        """Return everything in the text exposition format."""
        return generate_latest(self._registry)


def _bounded(provider: str) -> str:
    """Return the provider's label: every origin is one, since callers choose which hosts they call."""
    return "origin" if provider.startswith("origin:") else provider
