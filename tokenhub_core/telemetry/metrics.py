"""Prometheus metrics. Base units, closed label sets: nothing that a caller chooses becomes a label.

Records are counted in the event loop, and rendered there. What other parts know of themselves (queues, connections,
budgets) is asked for when somebody scrapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec
from msgspec import structs
from prometheus_client import CollectorRegistry
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from tokenhub_core import __version__
from tokenhub_core.routing.spread import LOST
from tokenhub_core.telemetry import exposition
from tokenhub_core.telemetry.counting import Bound, Cell, Counter, Gauge, Histogram, Row
from tokenhub_core.telemetry.exposition import Across, Family, Kind, Sample
from tokenhub_core.telemetry.turns import Turn, turns
from tokenhub_core.types import NANO, Attempt, Outcome, Record

CONTENT_TYPE: Final = exposition.CONTENT_TYPE
MODELS: Final = 500
"""Labels of models, beside `other`; so below."""
PROVIDERS: Final = 100
HOSTS: Final = 100
CREDENTIALS: Final = 500
BUDGETS: Final = 100

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)
_SHORT: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
_TOKEN: Final = (0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1)
_HOLD: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30)
_LAG: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_SERVED: Final = ("mode", "model", "provider")
_STATES: Final = {"healthy": 2, "degraded": 1}
_BREAKER: Final = {"open": 1, "half_open": 2}
_ORIGIN: Final = "origin"
_LOSSES: Final = frozenset({"part", "tool", "stop_reason", "unsent", "thinking"})
_NO_FAILURE: Final = frozenset({LOST, "step_stopped", "client_cancelled"})
"""Causes of attempts that did not fail."""
_OURS: Final = Across.MAX
"""Of what every process sees alike."""
_PROCESS: Final = {
    "process_start_time_seconds": Across.MIN,
    "process_max_fds": Across.MAX,
    "python_info": Across.MAX,
}
METRICS: Final = "metrics"
"""Under this workers ask each other for `figures`."""


class Readings(msgspec.Struct, frozen=True):
    """What other parts know of themselves at one moment."""

    queued: int = 0
    """Items that wait to be stored."""
    stored: Mapping[str, int] = {}
    """What became of such items since the start, by result."""
    batches: int = 0
    storing: bool = True
    circuit: str = "closed"
    """Whether what is handed over now can be expected to be stored."""
    connections: Mapping[str, int] = {}
    """Those to providers, by what they do: `active`, `idle`."""
    connected: int = 0
    """Those that were made since the start,"""
    reused: int = 0
    """and how often one served another call."""
    reserved_usd: float = 0.0
    """Set aside for attempts under way."""
    budgets: Mapping[str, float] = {}
    """Used share of each budget, by id."""
    listeners: int = 0
    """Who reads the event stream."""
    tasks: int = 0
    """Those of the event loop that have not ended."""
    vault_open: bool = False


class _Process:
    """What the library tells of the process: its memory, its files, its garbage."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def families(self) -> Iterator[Family]:
        for one in self._registry.collect():
            counter = one.type == "counter"
            name = f"{one.name}_total" if counter else one.name
            samples = tuple(
                Sample(tuple(sample.labels.items()), sample.value)
                for sample in one.samples
                if sample.name == name
            )
            kind = Kind.COUNTER if counter else Kind.GAUGE
            yield Family(name, kind, one.documentation, samples, _PROCESS.get(name, Across.SUM))


class _Series:
    """What calls in one mode, of one model at one provider, are counted into."""

    def __init__(
        self,
        requests: Callable[[str, str], Cell],
        *,
        latency: Row,
        ttft: Row,
        pace: Row,
        cost: Cell,
        read: Cell,
        written: Cell,
    ) -> None:
        self._requests = requests
        self._ended: dict[tuple[str, str], Cell] = {}
        self._latency = latency
        self._ttft = ttft
        self._pace = pace
        self.cost = cost
        self.read = read
        self.written = written

    def ended(self, outcome: str, lane: str) -> Cell:
        """Return what counts calls that came this way and ended so."""
        found = self._ended.get((outcome, lane))
        if found is None:
            found = self._ended[outcome, lane] = self._requests(outcome, lane)
        return found

    def time(self, record: Record) -> None:
        """Count how long a call took that went well."""
        timings, ttft = record.timings, record.timings.ttft_ms
        self._latency.observe(timings.total_ms / 1000)
        if ttft is None:
            return
        self._ttft.observe(ttft / 1000)
        more = record.usage.output_tokens - 1
        if record.stream and more > 0:
            self._pace.observe(max(timings.total_ms - ttft, 0.0) / more / 1000)


class _Tries(msgspec.Struct, frozen=True):
    """What attempts at one provider are counted into."""

    ok: Row
    failed: Row
    held: Row


class Metrics:
    """All metrics of one process. A subscriber of records."""

    def __init__(self) -> None:
        self._process = _Process()
        self._ask: Callable[[], Readings] = Readings
        self._exports: Callable[[], Mapping[tuple[str, str], int]] = dict
        self._model = Bound(MODELS)
        self._provider = Bound(PROVIDERS, _origin)
        self._host = Bound(HOSTS)
        self._credential = Bound(CREDENTIALS)
        self._served: dict[tuple[str, str, str], _Series] = {}
        self._tries: dict[str, _Tries] = {}
        self._count_calls()
        self._count_attempts()
        self._count_the_rest()
        self._gauge_health()
        self._gauge_readings()
        self._all = tuple(one for one in vars(self).values() if isinstance(one, Counter | Gauge | Histogram))

    def _count_calls(self) -> None:
        self._requests = Counter("tokenhub_requests", "Exchanges that ended", (*_SERVED, "outcome", "lane"))
        self._latency = Histogram(
            "tokenhub_request_duration_seconds",
            "From the request to the reply's last byte, successes only",
            _SERVED,
            _SECONDS,
        )
        self._ttft = Histogram(
            "tokenhub_time_to_first_token_seconds",
            "From the request to the first content, successes only",
            _SERVED,
            _SECONDS,
        )
        self._pace = Histogram(
            "tokenhub_time_per_output_token_seconds",
            "Of a stream behind its first content, divided by the output tokens after the first, successes only",
            _SERVED,
            _TOKEN,
        )
        self._overhead = Histogram(
            "tokenhub_route_duration_seconds", "From the request to the routing decision", (), _SHORT
        )
        self._routed = self._overhead.row()
        self._cost = Counter("tokenhub_cost_usd", "Dollars spent", ("model", "provider"))
        self._tokens = Counter("tokenhub_tokens", "Tokens used", ("model", "provider", "direction"))
        self._errors = Counter(
            "tokenhub_request_errors",
            "Exchanges that failed, by fault and class of status (4xx, 5xx)",
            ("fault", "status"),
        )
        self._directives = Counter("tokenhub_directives", "Calls with a directive, by outcome", ("outcome",))
        self._identical = Counter("tokenhub_identical_replies", "Replies whose bytes are the provider's own")
        self._same = self._identical.cell()
        self._lost = Counter(
            "tokenhub_losses",
            "Pieces of calls and answers that a provider's dialect could not carry, by the caller's dialect and what"
            " they are",
            ("dialect", "kind"),
        )
        self._shadows = Counter(
            "tokenhub_shadow_calls",
            "Calls that went their own way, by what we would have done",
            ("decision",),
        )

    def _count_attempts(self) -> None:
        self._attempts = Counter("tokenhub_attempts", "Tries at providers", ("provider", "result"))
        self._tried = Histogram(
            "tokenhub_attempt_duration_seconds",
            "From an attempt's start to its end; result: ok or failed",
            ("provider", "result"),
            _SECONDS,
        )
        self._retries = Counter(
            "tokenhub_retries",
            "Attempts that followed a failed one: retry, at the same model and provider, or failover",
            ("provider", "kind"),
        )
        self._hedges = Counter(
            "tokenhub_hedges",
            "Attempts sent beside one that was slow to begin, by what became of them: won, lost, failed",
            ("provider", "result"),
        )
        self._holds = Histogram(
            "tokenhub_commit_gate_hold_seconds",
            "From the head of a stream's answer to its first content, while the caller is shown nothing",
            ("provider",),
            _HOLD,
        )
        self._hidden = Counter(
            "tokenhub_hidden_failures",
            "Attempts that failed in calls that went well: their callers saw nothing of it",
            ("provider", "result"),
        )
        self._broken = Counter(
            "tokenhub_broken_streams",
            "Streams that failed behind their first content, where nobody can be asked again",
            ("provider", "result"),
        )
        self._skips = Counter(
            "tokenhub_provider_skips", "Models left out of a plan, by reason", ("provider", "reason")
        )

    def _count_the_rest(self) -> None:
        self._parkings = Counter(
            "tokenhub_credential_parkings",
            "Credentials that were parked, or parked for longer",
            ("provider", "credential", "reason"),
        )
        self._leaks = Counter(
            "tokenhub_leaking_credentials",
            "Keys of vendors on their way to somebody else's host, by how they begin",
            ("kind",),
        )
        self._unrecorded = Counter(
            "tokenhub_refusals_unrecorded",
            "Refused before their call was read, and too many to be recorded one by one, by fault",
            ("fault",),
        )
        self._tunnels = Counter(
            "tokenhub_unopened_connections",
            "Connections to LLM hosts that a mode keeps unopened, by the host of its rule",
            ("host",),
        )
        self._refusals = Counter(
            "tokenhub_limit_refusals", "Requests refused by the operator's limits on callers", ("limit",)
        )
        self._blocked = Counter("tokenhub_loop_blocked", "Times that the event loop stood still")
        self._proofs = Counter("tokenhub_proofs", "Answers that were proved, by verdict", ("verdict",))
        self._fallbacks = Counter(
            "tokenhub_temporal_fallback", "Durable calls that were made directly for want of Temporal"
        )

    def _gauge_health(self) -> None:
        self._health = Gauge(
            "tokenhub_provider_health_state",
            "2 healthy, 1 degraded, 0 down or half open; of several processes the lowest",
            ("provider",),
            across=Across.MIN,
        )
        self._parked = Gauge(
            "tokenhub_credentials_parked",
            "Credentials that are parked, for one model or for all",
            ("provider", "credential"),
            across=_OURS,
        )
        self._temporal_up = Gauge(
            "tokenhub_temporal_up", "1 while Temporal can be reached", across=Across.MIN
        )
        self._temporal_breaker = Gauge(
            "tokenhub_temporal_circuit_state", "0 closed, 1 open, 2 half open", across=_OURS
        )
        self._ca = Gauge(
            "tokenhub_ca_expires_timestamp_seconds",
            "When the CA's root ends, in seconds since the epoch; 0 where there is none",
            across=_OURS,
        )
        self._shared = Gauge(
            "tokenhub_limits_shared",
            "1 while limits on callers are counted together with other processes",
            across=Across.MIN,
        )
        self._build = Gauge("tokenhub_build_info", "Always 1", ("version",), across=_OURS)
        self._build.put(1, __version__)
        self._processes = Gauge("tokenhub_processes", "Processes that were counted together")
        self._processes.put(1)

    def _gauge_readings(self) -> None:
        self._lag = Histogram(
            "tokenhub_event_loop_lag_seconds",
            "How much later than asked for the event loop came round; looked at every quarter of a second",
            (),
            _LAG,
        )
        self._queued = Gauge("tokenhub_store_queue_items", "Items that wait to be stored")
        self._stored = Counter(
            "tokenhub_store_items",
            "Items handed to the store, by what became of them: committed; duplicate, of those; refused (no room),"
            " lost (failed, nobody waited), failed (and its waiter was told)",
            ("result",),
            zeros=True,
        )
        self._batches = Counter("tokenhub_store_batches", "Transactions that the items shared")
        self._storing = Gauge(
            "tokenhub_store_up", "1 while the store takes records in time", across=Across.MIN
        )
        self._circuit = Gauge(
            "tokenhub_store_circuit_state",
            "0 closed, 1 open, 2 half open: the store is looked at",
            across=_OURS,
        )
        self._connections = Gauge(
            "tokenhub_provider_connections", "Connections to providers: active or idle", ("state",)
        )
        self._connected = Counter("tokenhub_provider_connections_opened", "Connections made to providers")
        self._reused = Counter("tokenhub_provider_connections_reused", "Requests sent on a kept connection")
        self._reserved = Gauge(
            "tokenhub_budget_reserved_usd",
            "Dollars set aside for attempts under way, with a budget or without",
        )
        self._budgets = Gauge(
            "tokenhub_budget_used_ratio",
            f"Used share of the {BUDGETS} budgets that are nearest to their end, holds included",
            ("budget",),
            across=_OURS,
        )
        self._exhausted = Gauge("tokenhub_budgets_exhausted", "Budgets with nothing left", across=_OURS)
        self._exported = Counter(
            "tokenhub_otel_items",
            "Calls, lines and sets of metrics for the collector, by what became of them: sent; failed, and not tried"
            " again; dropped, for want of room",
            ("signal", "result"),
        )
        self._listeners = Gauge("tokenhub_event_listeners", "Readers of the event stream")
        self._tasks = Gauge("tokenhub_loop_tasks", "Tasks of the event loop that have not ended")
        self._vault = Gauge("tokenhub_vault_open", "1 while the vault is unlocked", across=Across.MIN)

    # --- what is counted

    def __call__(self, record: Record) -> None:
        """Count one record; what was only decided in shadow is no routing of ours."""
        if (shadow := record.shadow) is not None:
            self._shadows.add("refuse" if shadow.fault else "stay" if shadow.same else "move")
            record = structs.replace(record, plan=None, attempts=(), directive="")
        plan, timings, usage = record.plan, record.timings, record.usage
        series = self._series(plan.policy.mode if plan else "", record.model, record.provider)
        series.ended(record.outcome, record.caller.lane).sum += 1
        if timings.route_ms:
            self._routed.observe(timings.route_ms / 1000)
        if record.outcome is Outcome.OK:
            series.time(record)
        if record.cost_nanousd:
            series.cost.sum += record.cost_nanousd / NANO
        if usage:
            series.read.sum += usage.input_tokens
            series.written.sum += usage.output_tokens
        if record.attempts:
            self._count(record)
        if plan is not None and plan.skips:
            for skip in plan.skips:
                self._skips.add(self._provider(skip.provider), skip.reason)
        if record.losses:
            for loss in record.losses:
                self._lost.add(record.dialect or "", _loss(loss))
        if record.fault:
            self._errors.add(record.fault, f"{record.status // 100}xx")
        if record.directive:
            self._directives.add(record.directive)
        if record.identical:
            self._same.sum += 1

    def _series(self, mode: str, model: str, provider: str) -> _Series:
        provider = self._provider(provider)
        model = "" if provider == _ORIGIN else self._model(model)
        key = (mode, model, provider)
        found = self._served.get(key)
        if found is None:
            found = self._served[key] = _Series(
                partial(self._requests.cell, *key),
                latency=self._latency.row(*key),
                ttft=self._ttft.row(*key),
                pace=self._pace.row(*key),
                cost=self._cost.cell(model, provider),
                read=self._tokens.cell(model, provider, "input"),
                written=self._tokens.cell(model, provider, "output"),
            )
        return found

    def _count(self, record: Record) -> None:
        attempts = record.attempts
        for attempt, turn in zip(attempts, turns(attempts), strict=True):
            provider = self._provider(attempt.provider)
            tries = self._tries.get(provider)
            if tries is None:
                tries = self._tries[provider] = _Tries(
                    self._tried.row(provider, "ok"),
                    self._tried.row(provider, "failed"),
                    self._holds.row(provider),
                )
            cause, seconds = attempt.cause, (attempt.ended_ms - attempt.started_ms) / 1000
            self._attempts.add(provider, cause or "ok")
            (tries.failed if cause else tries.ok).observe(seconds)
            if record.stream and attempt.head_ms is not None and attempt.first_byte_ms is not None:
                tries.held.observe((attempt.first_byte_ms - attempt.head_ms) / 1000)
            if turn is not Turn.FIRST:
                self._move(provider, turn, cause)
            if cause and cause not in _NO_FAILURE:
                self._judge(attempt, provider, record)

    def _move(self, provider: str, turn: Turn, cause: str) -> None:
        if turn is Turn.HEDGE:
            self._hedges.add(provider, "won" if not cause else "lost" if cause == LOST else "failed")
        else:
            self._retries.add(provider, turn)

    def _judge(self, attempt: Attempt, provider: str, record: Record) -> None:
        if record.outcome is Outcome.OK:
            self._hidden.add(provider, attempt.cause)
        elif record.stream and attempt.first_byte_ms is not None:
            self._broken.add(provider, attempt.cause)

    def tunnelled(self, host: str) -> None:
        """Count one connection that was not opened; `host` is that of the rule, as the operator wrote it."""
        self._tunnels.add(self._host(host))

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

    def limits_shared(self, *, shared: bool) -> None:
        """Set whether limits are counted together with other processes."""
        self._shared.put(shared)

    def temporal(self, *, up: bool, breaker: str) -> None:
        """Set whether Temporal can be reached, and where its breaker is."""
        self._temporal_up.put(up)
        self._temporal_breaker.put(_BREAKER.get(breaker, 0))

    def unrecorded(self, fault: str) -> None:
        """Count one that was refused before its call was read, and has no row in the request log."""
        self._unrecorded.add(fault)

    def ca(self, expires_at: float) -> None:
        """Set when the CA's root ends."""
        self._ca.put(expires_at)

    def health(self, states: Iterable[tuple[str, str]]) -> None:
        """Set each provider's state (`healthy`, `degraded`, anything else); the others are not shown any more."""
        self._health.clear()
        for provider, state in states:
            self._health.put(_STATES.get(state, 0), self._provider(provider))

    def parkings(self, parked: Iterable[tuple[str, str]]) -> None:
        """Set which credentials are parked, by provider and name; the others are not shown any more."""
        self._parked.clear()
        for provider, credential in parked:
            self._parked.add(self._provider(provider), self._credential(credential))

    def parked(self, provider: str, credential: str, reason: str) -> None:
        """Count a parking."""
        self._parkings.add(self._provider(provider), self._credential(credential), reason)

    def lagged(self, seconds: float) -> None:
        """Count by how much the event loop was late."""
        self._lag.row().observe(seconds)

    # --- what is shown

    def ask(self, readings: Callable[[], Readings]) -> None:
        """Take what other parts know of themselves from `readings` whenever somebody scrapes."""
        self._ask = readings

    def exporting(self, counts: Callable[[], Mapping[tuple[str, str], int]]) -> None:
        """Take what became of what was for the collector, by signal and result, from `counts`."""
        self._exports = counts

    def families(self) -> tuple[Family, ...]:
        """Return everything as values: `exposition.merged` puts those of several processes together."""
        self._read(self._ask())
        return (*self._process.families(), *(one.family() for one in self._all))

    async def figures(self, asked: bytes) -> bytes:
        """Return everything for another worker, which was asked for the figures of all."""
        del asked
        return msgspec.msgpack.encode(self.families())

    def render(self, others: Sequence[bytes] = ()) -> bytes:
        """Return everything in the text exposition format, with the `figures` of other processes."""
        families = self.families()
        if others:
            told = [msgspec.msgpack.decode(one, type=tuple[Family, ...]) for one in others]
            families = exposition.merged([families, *told])
        return exposition.text(families).encode()

    def described(self) -> tuple[tuple[str, Kind, tuple[str, ...], str], ...]:
        """Return name, type, labels and meaning of each of our families, by name."""
        told = [(one.name, one.kind, one.labels, one.meaning) for one in self._all]
        return tuple(sorted(told))

    def _read(self, now: Readings) -> None:
        self._queued.put(now.queued)
        for result, count in now.stored.items():
            self._stored.cell(result).sum = count
        for (signal, result), count in self._exports().items():
            self._exported.cell(signal, result).sum = count
        self._batches.cell().sum = now.batches
        self._storing.put(now.storing)
        self._circuit.put(_BREAKER.get(now.circuit, 0))
        for state, count in now.connections.items():
            self._connections.put(count, state)
        self._connected.cell().sum = now.connected
        self._reused.cell().sum = now.reused
        self._reserved.put(now.reserved_usd)
        self._listeners.put(now.listeners)
        self._tasks.put(now.tasks)
        self._vault.put(now.vault_open)
        self._exhausted.put(sum(used >= 1 for used in now.budgets.values()))
        self._budgets.clear()
        for name in sorted(now.budgets, key=now.budgets.__getitem__, reverse=True)[:BUDGETS]:
            self._budgets.put(now.budgets[name], name)


def _origin(provider: str) -> str:
    """Return the provider's label: every origin is one, since callers choose which hosts they call."""
    return _ORIGIN if provider.startswith("origin:") else provider


def _loss(name: str) -> str:
    """Return what kind of piece was lost; the names of fields are the callers' choice."""
    kind = name.partition(":")[0].partition(".")[0]
    return kind if kind in _LOSSES else "field"
