"""A `tokenhub worker` on another machine: what it sees of models and providers is not lost with it.

Real processes and a real Temporal of their own: `scripts/test load tests/workflows`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.e2e.serving import eventually, measured
from tests.fakes.collector import Collector, collecting
from tests.workflows.server import Temporal
from tests.workflows.test_kills import ask, own_temporal, scene, working
from tokenhub_core.types import Json

__all__ = ["own_temporal"]

pytestmark = [pytest.mark.load, pytest.mark.timeout(600)]


def counted(collector: Collector) -> float:
    """Return how many exchanges the worker said at last that it had made."""
    body = collector.bodies["/v1/metrics"][-1]
    (told,) = ExportMetricsServiceRequest.FromString(body).resource_metrics
    return sum(
        point.as_double or point.as_int
        for scope in told.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("tokenhub_requests")
        for point in metric.sum.data_points
    )


async def test_what_a_worker_learns_is_the_servers_too_and_its_metrics_go_to_a_collector(
    own_temporal: Temporal, tmp_path: Path
) -> None:
    """The server has asked the model nothing itself, and knows from the database what that was worth."""
    with collecting() as collector:
        told = {"TOKENHUB_OTEL_ENDPOINT": collector.url, "TOKENHUB_OTEL_SIGNALS": "metrics"}
        async with scene(tmp_path, own_temporal) as (serve, fake):
            async with working(tmp_path, own_temporal, "nowhere", **told):

                async def learned() -> list[Json]:
                    items: list[Json] = (await serve.admin("GET", "/posteriors"))["items"]
                    return items

                assert await learned() == []
                status, _, _ = await ask(serve)
                found = await eventually(learned)
            assert (status, len(fake.requests), len(await serve.records())) == (200, 1, 1)
            (one,) = found
            assert (one["model_id"], one["provider_id"], one["alpha"] > 1) == ("m", "p", True)
        assert counted(collector) == 1
        measured(f"a worker's call is known to the server: Beta({one['alpha']:.2f}, {one['beta']:.2f})")
