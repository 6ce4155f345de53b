"""Prometheus metrics. Base units, closed label sets: nothing that a caller chooses becomes a label.

Records are counted into plain dictionaries and become Prometheus's own families when somebody scrapes: every call
counts a dozen times, and a lock for each would cost as much as routing it. They are counted in the event loop, and
rendered there.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final

from msgspec import structs
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tokenhub_core import __version__
from tokenhub_core.types import NANO, Outcome, Record

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
_SHORT: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
_SERVED: Final = ("mode", "model", "provider")
_STATES: Final = {"healthy": 2, "degraded": 1}
_BREAKER: Final = {"open": 1, "half_open": 2}
CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


class _Counter:
    """Sums by their labels."""

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...] = ()) -> None:
        self._told = (name, meaning)
        self._labels = labels
        self._sums: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def add(self, *labels: str, amount: float = 1.0) -> None:
        self._sums[labels] = self._sums.get(labels, 0.0) + amount

    def family(self) -> Metric:
        family = CounterMetricFamily(*self._told, labels=self._labels)
        for labels, value in self._sums.items():
            family.add_metric(labels, value)
        return family


class _Histogram:
    """How many values were at most each bound, and what all were together, by their labels."""

    def __init__(self, name: str, meaning: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self._told = (name, meaning)
        self._labels = labels
        self._bounds = bounds
        self._names = [*map(floatToGoString, bounds), "+Inf"]
        self._seen: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        if not labels:
            self._seen[()], self._sums[()] = [0] * len(self._names), 0.0

    def observe(self, value: float, *labels: str) -> None:
        seen = self._seen.get(labels)
        if seen is None:
            seen = self._seen[labels] = [0] * len(self._names)
        seen[bisect_left(self._bounds, value)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + value

    def family(self) -> Metric:
        family = HistogramMetricFamily(*self._told, labels=self._labels)
        for labels, seen in self._seen.items():
            buckets = list(zip(self._names, map(float, accumulate(seen)), strict=True))
            family.add_metric(labels, buckets, self._sums[labels])
        return family


class _Families(Collector):
    """What was counted, as the registry wants it."""

    def __init__(self, *counted: _Counter | _Histogram) -> None:
        self._counted = counted

    def collect(self) -> Iterator[Metric]:
        for one in self._counted:
            yield one.family()


class Metrics:
    """All metrics of one server, in a registry of their own. A subscriber of records."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._requests = _Counter("tokenhub_requests", "Exchanges that ended", (*_SERVED, "outcome", "lane"))
        self._latency = _Histogram(
            "tokenhub_request_duration_seconds",
            "From the request to the reply's last byte, successes only",
            _SERVED,
            _SECONDS,
        )
        self._ttft = _Histogram(
            "tokenhub_time_to_first_token_seconds",
            "From the request to the first content, successes only",
            _SERVED,
            _SECONDS,
        )
        self._overhead = _Histogram(
            "tokenhub_route_duration_seconds", "From the request to the routing decision", (), _SHORT
        )
        self._cost = _Counter("tokenhub_cost_usd", "Dollars spent", ("model", "provider"))
        self._tokens = _Counter("tokenhub_tokens", "Tokens used", ("model", "provider", "direction"))
        self._errors = _Counter("tokenhub_request_errors", "Exchanges that failed, by fault", ("fault",))
        self._attempts = _Counter("tokenhub_attempts", "Tries at providers", ("provider", "result"))
        self._skips = _Counter(
            "tokenhub_provider_skips", "Models left out of a plan, by reason", ("provider", "reason")
        )
        self._directives = _Counter("tokenhub_directives", "Calls with a directive, by outcome", ("outcome",))
        self._identical = _Counter("tokenhub_identical_replies", "Replies whose bytes are the provider's own")
        self._parkings = _Counter(
            "tokenhub_credential_parkings",
            "Credentials that were parked, or parked for longer",
            ("provider", "credential", "reason"),
        )
        self._shadows = _Counter(
            "tokenhub_shadow_calls",
            "Calls that went their own way, by what we would have done",
            ("decision",),
        )
        self._leaks = _Counter(
            "tokenhub_leaking_credentials",
            "Keys of vendors on their way to somebody else's host, by how they begin",
            ("kind",),
        )
        self._unrecorded = _Counter(
            "tokenhub_refusals_unrecorded",
            "Refused before their call was read, and too many to be recorded one by one, by fault",
            ("fault",),
        )
        self._tunnels = _Counter(
            "tokenhub_unopened_connections",
            "Connections to LLM hosts that a mode keeps unopened, by the host of its rule",
            ("host",),
        )
        self._refusals = _Counter(
            "tokenhub_limit_refusals", "Requests refused by the operator's limits on callers", ("limit",)
        )
        self._blocked = _Counter("tokenhub_loop_blocked", "Times that the event loop stood still")
        self._proofs = _Counter("tokenhub_proofs", "Answers that were proved, by verdict", ("verdict",))
        self._fallbacks = _Counter(
            "tokenhub_temporal_fallback", "Durable calls that were made directly for want of Temporal"
        )
        counted = [one for one in vars(self).values() if isinstance(one, _Counter | _Histogram)]
        registry.register(_Families(*counted))
        self._health = Gauge(
            "tokenhub_provider_health_state",
            "2 healthy, 1 degraded, 0 down or half open",
            ("provider",),
            registry=registry,
        )
        self._parked = Gauge(
            "tokenhub_credentials_parked",
            "Credentials that are parked, for one model or for all",
            ("provider", "credential"),
            registry=registry,
        )
        self._temporal_up = Gauge(
            "tokenhub_temporal_up", "1 while Temporal can be reached", registry=registry
        )
        self._temporal_breaker = Gauge(
            "tokenhub_temporal_circuit_state", "0 closed, 1 open, 2 half open", registry=registry
        )
        self._ca = Gauge(
            "tokenhub_ca_expires_timestamp_seconds",
            "When the CA's root ends, in seconds since the epoch; 0 where there is none",
            registry=registry,
        )
        Gauge("tokenhub_build_info", "Always 1", ("version",), registry=registry).labels(__version__).set(1)

    def __call__(self, record: Record) -> None:
        """Count one record; what was only decided in shadow is no routing of ours."""
        if (shadow := record.shadow) is not None:
            self._shadows.add("refuse" if shadow.fault else "stay" if shadow.same else "move")
            record = structs.replace(record, plan=None, attempts=(), directive="")
        plan, timings, usage = record.plan, record.timings, record.usage
        mode = plan.policy.mode.value if plan else ""
        provider = _bounded(record.provider)
        model = "" if provider == "origin" else record.model
        self._requests.add(mode, model, provider, record.outcome.value, record.caller.lane.value)
        if timings.route_ms:
            self._overhead.observe(timings.route_ms / 1000)
        if record.fault:
            self._errors.add(record.fault)
        if record.outcome is Outcome.OK:
            self._latency.observe(timings.total_ms / 1000, mode, model, provider)
            if timings.ttft_ms is not None:
                self._ttft.observe(timings.ttft_ms / 1000, mode, model, provider)
        if record.cost_nanousd:
            self._cost.add(model, provider, amount=record.cost_nanousd / NANO)
        if usage:
            self._tokens.add(model, provider, "input", amount=usage.input_tokens)
            self._tokens.add(model, provider, "output", amount=usage.output_tokens)
        for attempt in record.attempts:
            self._attempts.add(_bounded(attempt.provider), attempt.cause or "ok")
        for skip in plan.skips if plan else ():
            self._skips.add(_bounded(skip.provider), skip.reason.value)
        if record.directive:
            self._directives.add(record.directive)
        if record.identical:
            self._identical.add()

    def tunnelled(self, host: str) -> None:
        """Count one connection that was not opened; `host` is that of the rule, as the operator wrote it."""
        self._tunnels.add(host)

    def refused(self, limit: str) -> None:
        """Count a request that a limit refused: whose limit and which, as `admission.throttle` names it."""
        self._refusals.add(limit)

    def leaked(self, kind: str) -> None:
        """Count one key that was to leave for a host that it is not for; `kind` is how such keys begin."""
        self._leaks.add(kind)

    def proved(self, verdict: str) -> None:
        """Count an answer that was compared with what its provider sent."""
        self._proofs.add(verdict)

    def blocked(self) -> None:
        """Count a time that the event loop stood still."""
        self._blocked.add()

    def fell_back(self) -> None:
        """Count one durable call that is made directly."""
        self._fallbacks.add()

    def temporal(self, *, up: bool, breaker: str) -> None:
        """Set whether Temporal can be reached, and where its breaker is."""
        self._temporal_up.set(up)
        self._temporal_breaker.set(_BREAKER.get(breaker, 0))

    def unrecorded(self, fault: str) -> None:
        """Count one that was refused before its call was read, and has no row in the request log."""
        self._unrecorded.add(fault)

    def ca(self, expires_at: float) -> None:
        """Set when the CA's root ends."""
        self._ca.set(expires_at)

    def health(self, states: Iterable[tuple[str, str]]) -> None:
        """Set each provider's state (`healthy`, `degraded`, anything else); the others are not shown any more."""
        self._health.clear()
        for provider, state in states:
            self._health.labels(_bounded(provider)).set(_STATES.get(state, 0))

    def parkings(self, parked: Iterable[tuple[str, str]]) -> None:
        """Set which credentials are parked, by provider and name; the others are not shown any more."""
        self._parked.clear()
        for provider, credential in parked:
            self._parked.labels(provider, credential).inc()

    def parked(self, provider: str, credential: str, reason: str) -> None:
        """Count a parking."""
        self._parkings.add(provider, credential, reason)

    def render(self) -> bytes:
        """Return everything in the text exposition format."""
        return generate_latest(self._registry)


def _bounded(provider: str) -> str:
    """Return the provider's label: every origin is one, since callers choose which hosts they call."""
    return "origin" if provider.startswith("origin:") else provider
