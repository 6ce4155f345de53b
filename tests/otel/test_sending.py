"""From a call to a collector, over a real socket, in the protocol's own terms."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from tests.fakes.certificates import authority, server_context
from tests.fakes.collector import collecting
from tests.fakes.house import house
from tests.fakes.provider import FakeProvider
from tokenhub_core.otel import joining

pytest.importorskip("opentelemetry.sdk", reason="the extra tokenhub[otel] is not installed")
pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="the extra tokenhub[otel] is not installed"
)

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tokenhub_core.otel import sending

if TYPE_CHECKING:
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=1"}


def spans(bodies: list[bytes]) -> list[Span]:
    """Return the spans of all bodies, calls first."""
    found = [
        span
        for body in bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    return sorted(found, key=lambda span: (span.kind, span.start_time_unix_nano))


def attributes(told: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in told.attributes}


def settings(url: str, **more: str) -> dict[str, str]:
    return {"OTEL_ENDPOINT": url, **more}


async def test_a_call_is_one_trace_from_its_callers_span_to_each_attempt(tmp_path: Path) -> None:
    """And not a word of what was said, nor of a credential, is in any of it."""
    with collecting() as collector:
        async with FakeProvider() as fake, house(tmp_path, settings=settings(collector.url)) as it:
            fake.script("gpt-4o", ["status:500", "ok"])
            await it.provider(fake, "p", "gpt-4o")
            asked = await it.chat(headers=PARENT, messages=[{"role": "user", "content": "Hush-hush"}])
            answered = asked.json["choices"][0]["message"]["content"]
        call, first, second = spans(collector.bodies["/v1/traces"])
        assert {one.trace_id.hex() for one in (call, first, second)} == {TRACE}
        assert (call.parent_span_id.hex(), call.trace_state) == (SPAN, "a=1")
        assert {one.parent_span_id for one in (first, second)} == {call.span_id}
        assert (call.name, first.name) == ("chat gpt-4o", "chat gpt-4o")
        assert (call.kind, first.kind) == (call.SPAN_KIND_SERVER, call.SPAN_KIND_CLIENT)
        assert first.status.code == first.status.STATUS_CODE_ERROR
        assert attributes(first)["error.type"] == "http_500"
        assert attributes(second)["tokenhub.attempt.turn"] == "retry"
        assert attributes(call)["tokenhub.request.id"] == asked.header("x-request-id")
        assert attributes(call)["gen_ai.usage.output_tokens"] == asked.json["usage"]["completion_tokens"]
        assert call.start_time_unix_nano <= first.start_time_unix_nano < first.end_time_unix_nano
        assert second.end_time_unix_nano <= call.end_time_unix_nano
        assert first.end_time_unix_nano <= second.start_time_unix_nano
        for secret in (b"Hush-hush", answered.encode()[:20], b"sk-p"):
            assert secret not in collector.everything


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "caller"),
        ({"OTEL_PROPAGATE": "true"}, "ours"),
        ({"OTEL_SAMPLE": "0", "OTEL_PROPAGATE": "true"}, "unkept"),
    ],
)
async def test_what_a_provider_is_told_of_the_trace_is_the_operators_choice(
    tmp_path: Path, more: dict[str, str], told: str
) -> None:
    """The caller's own words as they came; or our span, as the parent of what the provider does."""
    with collecting() as collector:
        async with FakeProvider() as fake, house(tmp_path, settings=settings(collector.url, **more)) as it:
            await it.provider(fake, "p", "gpt-4o")
            await it.chat(headers=PARENT)
            (request,) = fake.requests
        if told == "caller":
            assert request.header("traceparent") == PARENT["traceparent"]
        elif told == "unkept":
            assert request.header("traceparent").startswith(f"00-{TRACE}-")
            assert request.header("traceparent").endswith("-00")
            assert collector.bodies == {}
        else:
            call = spans(collector.bodies["/v1/traces"])[0]
            assert request.header("traceparent") == f"00-{TRACE}-{call.span_id.hex()}-01"
        assert request.header("tracestate") == "a=1"


@pytest.mark.parametrize("parents", ["link", "ignore"])
async def test_a_callers_trace_need_not_be_ours(tmp_path: Path, parents: str) -> None:
    """A link names it; or nothing does."""
    with collecting() as collector:
        async with house(
            tmp_path, simulate=True, settings=settings(collector.url, OTEL_PARENTS=parents)
        ) as it:
            await it.chat(headers=PARENT)
        call = spans(collector.bodies["/v1/traces"])[0]
        assert call.trace_id.hex() != TRACE
        assert not call.parent_span_id
        assert [(one.trace_id.hex(), one.span_id.hex()) for one in call.links] == (
            [(TRACE, SPAN)] if parents == "link" else []
        )


async def test_a_caller_can_keep_its_trace_from_being_kept_and_no_more(tmp_path: Path) -> None:
    """Its flag makes us keep nothing that our share leaves out; what failed is kept in any case."""
    with collecting() as collector:
        async with house(tmp_path, simulate=True, settings=settings(collector.url, OTEL_SAMPLE="0")) as it:
            await it.chat(headers=PARENT)
            await it.chat("no-such-model")
        assert [attributes(one)["error.type"] for one in spans(collector.bodies["/v1/traces"])] == [
            "model_not_found"
        ]
        collector.bodies.clear()
        async with house(tmp_path, simulate=True, settings=settings(collector.url)) as it:
            await it.chat(headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
        assert collector.bodies == {}


async def test_a_collector_that_is_gone_costs_no_call_anything(tmp_path: Path) -> None:
    """Calls are answered and recorded, what could not be sent is counted, and the end does not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
    with mock.patch.object(sending, "FAREWELL", 0.05), mock.patch.object(sending, "PATIENCE", 0.1):
        async with house(tmp_path, simulate=True, settings=settings(url)) as it:
            assert (await it.chat()).status == 200
            (row,) = (await it.done("GET", "/logs"))["logs"]
            assert row["outcome"] == "ok"


async def test_a_collector_is_asked_over_tls_by_the_authority_that_is_named(tmp_path: Path) -> None:
    """With the fields that it wants; without that authority it gets nothing."""
    ca = authority(tmp_path)
    fields = {"OTEL_HEADERS": "Authorization=Bearer abc, x-tenant=blue"}
    with collecting(server_context(tmp_path, ca)) as collector:
        trusted = settings(collector.url, OTEL_CA_FILE=str(ca[2]), **fields)
        async with house(tmp_path / "a", simulate=True, settings=trusted) as it:
            await it.chat()
        assert len(spans(collector.bodies.pop("/v1/traces"))) == 2
        assert collector.headers[0]["authorization"] == "Bearer abc"
        assert collector.headers[0]["x-tenant"] == "blue"
        with mock.patch.object(sending, "FAREWELL", 0.05), mock.patch.object(sending, "PATIENCE", 0.1):
            async with house(tmp_path / "b", simulate=True, settings=settings(collector.url)) as it:
                await it.chat()
        assert collector.bodies == {}


async def test_what_was_counted_last_is_told_when_the_process_leaves(tmp_path: Path) -> None:
    """A process that lives shorter than the time between two sets of metrics is counted, too."""
    with collecting() as collector:
        wished = settings(collector.url, OTEL_SIGNALS="metrics")
        async with house(tmp_path, simulate=True, settings=wished) as it:
            await it.chat()
            assert collector.bodies == {}
    (told,) = ExportMetricsServiceRequest.FromString(collector.bodies["/v1/metrics"][-1]).resource_metrics
    (requests,) = [one for one in told.scope_metrics[0].metrics if one.name == "tokenhub_requests"]
    assert sum(point.as_double or point.as_int for point in requests.sum.data_points) == 1


async def test_metrics_and_the_log_are_told_where_that_is_wished(tmp_path: Path) -> None:
    """The very sums that a scrape shows, buckets apart; lines as they are logged; and no traces then."""
    with (
        collecting() as collector,
        mock.patch.object(joining, "EVERY", 0.01),
        mock.patch.object(sending, "EVERY", 0.01),
    ):
        wished = settings(collector.url, OTEL_SIGNALS="metrics,logs")
        async with house(tmp_path, simulate=True, settings=wished) as it:
            logging.getLogger("tokenhub_core.here").warning("hello %s", "there")
            logging.getLogger("opentelemetry.sdk").error("not about itself")
            await asyncio.to_thread(collector.wait, "/v1/logs")
            await it.chat()
            collector.bodies.pop("/v1/metrics", None)
            await asyncio.to_thread(collector.wait, "/v1/metrics")
        assert "/v1/traces" not in collector.bodies
        lines = [
            (line.severity_text, line.body.string_value, attributes(line)["logger"])
            for body in collector.bodies["/v1/logs"]
            for resource in ExportLogsServiceRequest.FromString(body).resource_logs
            for line in resource.scope_logs[0].log_records
        ]
        assert ("WARNING", "hello there", "tokenhub_core.here") in lines
        assert "not about itself" not in str(lines)
        (told,) = ExportMetricsServiceRequest.FromString(collector.bodies["/v1/metrics"][-1]).resource_metrics
        metrics = {one.name: one for one in told.scope_metrics[0].metrics}
        assert attributes(told.resource)["service.name"] == "tokenhub"
        requests = metrics["tokenhub_requests"].sum
        assert requests.is_monotonic
        assert [point.as_double for point in requests.data_points] == [1]
        (latency,) = metrics["tokenhub_request_duration_seconds"].histogram.data_points
        assert metrics["tokenhub_request_duration_seconds"].unit == "s"
        assert (latency.count, sum(latency.bucket_counts)) == (1, 1)
        assert len(latency.bucket_counts) == len(latency.explicit_bounds) + 1
        assert metrics["tokenhub_store_up"].gauge.data_points[0].as_double == 1
