"""Sends what waits over OTLP/HTTP, from a thread of its own: a collector that is slow or gone costs no call a thing."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from itertools import pairwise
from typing import Any, Final

import msgspec
import requests
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from tokenhub_core import __version__
from tokenhub_core.otel.context import Parent
from tokenhub_core.otel.mapping import SCHEMA, Span, spans
from tokenhub_core.otel.outbox import Call, Counted, Item, Line, Outbox
from tokenhub_core.telemetry.exposition import BOUND, BUCKET, Family, Kind, Labels

EVERY: Final = 2.0
"""Seconds that what waits may wait for company."""
PATIENCE: Final = 10.0
"""Seconds for a batch, tries again included."""
FAREWELL: Final = 3.0
"""Seconds for what still waits at the end, and for the thread."""
_NANOS: Final = 1_000_000_000
_SCOPE: Final = InstrumentationScope("tokenhub", __version__, SCHEMA)
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNITS: Final = (("_seconds", "s"), ("_bytes", "By"), ("_usd", "{USD}"), ("_ratio", "1"))
_log: Final = logging.getLogger(__name__)


class Collector(msgspec.Struct, frozen=True):
    """Where to send, and how. The files are PEM; empty: the public authorities, and no certificate of ours."""

    url: str
    """Without a path of a signal."""
    headers: Mapping[str, str] = {}
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


class Sender:
    """The thread that empties an outbox."""

    def __init__(self, outbox: Outbox, collector: Collector) -> None:
        self._outbox = outbox
        self._resource = Resource.create({"service.name": "tokenhub", "service.version": __version__})
        base = collector.url.rstrip("/")
        more: dict[str, Any] = {
            "headers": dict(collector.headers),
            "certificate_file": collector.ca_file or None,
            "client_certificate_file": collector.cert_file or None,
            "client_key_file": collector.key_file or None,
            "timeout": PATIENCE,
            "compression": Compression.Gzip,
        }
        self._spans = OTLPSpanExporter(f"{base}/v1/traces", session=_session(), **more)
        self._metrics = OTLPMetricExporter(f"{base}/v1/metrics", session=_session(), **more)
        self._lines = OTLPLogExporter(f"{base}/v1/logs", session=_session(), **more)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="tokenhub-otel", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Send what still waits, as far as that is soon done, and end. Blocks for a few seconds at most."""
        self._closing = True
        self._outbox.wake()
        self._thread.join(FAREWELL)
        for exporter in (self._spans, self._metrics, self._lines):
            # Ends what it tries again.
            exporter.shutdown()
        self._thread.join(FAREWELL)

    def _run(self) -> None:
        while True:
            items = self._outbox.take(0 if self._closing else EVERY)
            if items:
                self._send(items)
            elif self._closing:
                return

    def _send(self, items: Sequence[Item]) -> None:
        calls = [one for one in items if isinstance(one, Call)]
        lines = [one for one in items if isinstance(one, Line)]
        # An older count of the same is of no use.
        counted = [one for one in items if isinstance(one, Counted)][-1:]
        self._export("traces", len(calls), lambda: self._spans.export(self._made(calls)))
        self._export("logs", len(lines), lambda: self._lines.export([self._line(one) for one in lines]))
        self._export("metrics", len(counted), lambda: self._metrics.export(self._measured(counted[0])))

    def _export(self, signal: str, items: int, export: Callable[[], Enum]) -> None:
        if not items:
            return
        try:
            sent = export().name == "SUCCESS"
        except Exception:  # noqa: BLE001 - whatever it is, the next batch is sent
            _log.exception("%s could not be sent", signal)
            sent = False
        self._outbox.count(signal, "sent" if sent else "failed", items)

    # --- in the terms of the library

    def _made(self, calls: Sequence[Call]) -> list[ReadableSpan]:
        return [
            self._span(span)
            for call in calls
            for span in spans(call.record, call.joined, lambda: secrets.token_hex(8))
        ]

    def _span(self, span: Span) -> ReadableSpan:
        state = TraceState.from_header([span.state]) if span.state else None
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace_id, span.span_id, state, remote=False),
            parent=_context(span.trace_id, span.parent_id, state, remote=span.server)
            if span.parent_id
            else None,
            resource=self._resource,
            attributes=span.attributes,
            links=[_linked(span.link)] if span.link else (),
            kind=SpanKind.SERVER if span.server else SpanKind.CLIENT,
            status=Status(StatusCode.ERROR) if span.failed else Status(StatusCode.UNSET),
            start_time=span.start,
            end_time=span.end,
            instrumentation_scope=_SCOPE,
        )

    def _line(self, line: Line) -> ReadableLogRecord:
        record = LogRecord(
            timestamp=round(line.at * _NANOS),
            observed_timestamp=round(line.at * _NANOS),
            severity_number=_severity(line.level),
            severity_text=line.level_name,
            body=line.message,
            attributes={"logger": line.logger},
        )
        return ReadableLogRecord(record, self._resource, _SCOPE)

    def _measured(self, counted: Counted) -> MetricsData:
        since, at = round(counted.since * _NANOS), round(counted.at * _NANOS)
        metrics = [_metric(family, since, at) for family in counted.families if family.samples]
        scope = ScopeMetrics(_SCOPE, metrics, SCHEMA)
        return MetricsData([ResourceMetrics(self._resource, [scope], SCHEMA)])


def _session() -> requests.Session:
    """Return a session that the environment does not bend: not to other authorities, and to no proxy, such as us."""
    session = requests.Session()
    session.trust_env = False
    return session


def _context(trace_id: str, span_id: str, state: TraceState | None, *, remote: bool) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), remote, _SAMPLED, state)


def _linked(parent: Parent) -> Link:
    flags = _SAMPLED if parent.sampled else TraceFlags(TraceFlags.DEFAULT)
    return Link(SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, flags))


def _severity(level: int) -> SeverityNumber:
    """Return the data model's number for a level (opentelemetry.io/docs/specs/otel/logs/data-model)."""
    steps = ((50, SeverityNumber.FATAL), (40, SeverityNumber.ERROR), (30, SeverityNumber.WARN))
    found = (severity for least, severity in steps if level >= least)
    return next(found, SeverityNumber.INFO if level >= 20 else SeverityNumber.DEBUG)


def _metric(family: Family, since: int, at: int) -> Metric:
    name = family.name.removesuffix("_total")
    unit = next((unit for end, unit in _UNITS if name.endswith(end)), "")
    whole = AggregationTemporality.CUMULATIVE
    match family.kind:
        case Kind.COUNTER:
            return Metric(
                name, family.meaning, unit, Sum(_points(family, since, at), whole, is_monotonic=True)
            )
        case Kind.GAUGE:
            return Metric(name, family.meaning, unit, Gauge(_points(family, since, at)))
        case Kind.HISTOGRAM:
            return Metric(name, family.meaning, unit, Histogram(_histograms(family, since, at), whole))


def _points(family: Family, since: int, at: int) -> list[NumberDataPoint]:
    return [NumberDataPoint(dict(one.labels), since, at, one.value) for one in family.samples]


def _histograms(family: Family, since: int, at: int) -> list[HistogramDataPoint]:
    """Return one point for each row; the buckets of the text format count all below their bound, these do not."""
    rows: dict[Labels, tuple[list[tuple[float, int]], dict[str, float]]] = {}
    for one in family.samples:
        labels = tuple(label for label in one.labels if label[0] != BOUND)
        buckets, sums = rows.setdefault(labels, ([], {}))
        if one.suffix == BUCKET:
            buckets.append((float(dict(one.labels)[BOUND]), round(one.value)))
        else:
            sums[one.suffix] = one.value
    points = []
    for labels, (buckets, sums) in rows.items():
        totals = [0, *(total for _, total in buckets)]
        counts = [after - before for before, after in pairwise(totals)]
        bounds = [bound for bound, _ in buckets][:-1]
        count = round(sums["_count"])
        point = HistogramDataPoint(
            dict(labels), since, at, count, sums["_sum"], counts, bounds, min=float("inf"), max=float("-inf")
        )
        points.append(point)
    return points
