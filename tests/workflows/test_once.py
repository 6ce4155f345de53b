"""No attempt is sent twice, and no call is made on both ways, whatever is known and whoever dies."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from tests.fakes.engine import Bench, chat
from tests.workflows.house import House, durably
from tests.workflows.server import Temporal
from tests.workflows.upstream import Counting
from tokenhub_core.dispatch.job import Job, Trace
from tokenhub_core.health.breaker import FAILURES
from tokenhub_core.progress import Progress
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.store.durable import By
from tokenhub_core.types import Json, Outcome, Snapshot
from tokenhub_core.workflows import shapes
from tokenhub_core.workflows.following import Waits
from tokenhub_core.workflows.shapes import Closing, Step, Told, Traced

BRIEF = Waits(start=30, begin=0.2, look=0.05)
NOWHERE = "127.0.0.1:1"


def durable_bench(transport: Counting) -> Bench:
    return Bench(transport=transport, defaults={"durable": True})


async def kept(house: House, body: Json | None = None) -> Step:
    """Keep a call as the front door does, and return its first attempt."""
    snapshot: Snapshot = house.bench.snapshot(body or chat())
    progress = Progress(snapshot, Trace())
    job = house.bench.engine._ready.prepare(progress)
    assert isinstance(job, Job)
    await house.durable.safe.keep(shapes.call(job, progress), now=house.bench.clock.now())
    return Step(snapshot.id, 0, 1, 30.0, None, "", Traced())


async def attempt(house: House, step: Step) -> Told:
    """Ask for an attempt as a workflow does."""
    told: Told = await ActivityEnvironment().run(house.durable.activities.attempt, step)
    return told


async def test_an_attempt_that_is_asked_for_again_is_told_and_not_made(tmp_path: Path) -> None:
    """What came of an attempt is kept: whoever asks again gets the same, and the provider hears of it once."""
    upstream = Counting()
    async with durably(NOWHERE, tmp_path, durable_bench(upstream)) as house:
        step = await kept(house)
        first = await attempt(house, step)
        again = await attempt(house, step)

    assert first.fault is None
    assert again == first
    assert upstream.sent == 1


async def test_an_attempt_under_way_here_is_joined(tmp_path: Path) -> None:
    """Temporal may ask again while the attempt still runs: both askers get what comes of it."""
    upstream = Counting(held=True)
    async with durably(NOWHERE, tmp_path, durable_bench(upstream)) as house:
        step = await kept(house)
        asking = [asyncio.create_task(attempt(house, step)) for _ in range(2)]
        await upstream.reached.wait()
        upstream.go.set()
        first, second = await asyncio.gather(*asking)

    assert first.fault is None
    assert first == second
    assert upstream.sent == 1


async def test_an_attempt_whose_maker_died_is_unknown_and_counts_as_billed(tmp_path: Path) -> None:
    """A mark without an outcome: nothing is sent again, the input is counted as paid, and that is final."""
    upstream = Counting()
    async with durably(NOWHERE, tmp_path, durable_bench(upstream)) as house:
        step = await kept(house)
        await house.rows.begin(step.id, 1, By.WORKFLOW, now=house.bench.clock.now())
        told = await attempt(house, step)
        again = await attempt(house, step)

    assert told.fault == shapes.LOST
    assert again == told
    (line,) = told.trace.attempts
    assert (line.cause, line.usage.input_tokens, line.cost_nanousd) == ("worker_lost", 6, 6 * 2500)
    assert told.trace.usage_estimated
    assert upstream.sent == 0


async def test_a_call_that_is_made_directly_is_nobody_elses(tmp_path: Path) -> None:
    """A workflow that comes too late finds the claim: it sends nothing and records nothing."""
    upstream = Counting()
    bench = durable_bench(upstream)
    async with durably(NOWHERE, tmp_path, bench) as house:
        step = await kept(house)
        await house.rows.begin(step.id, 1, By.DIRECT, now=bench.clock.now())
        told = await attempt(house, step)
        await ActivityEnvironment().run(
            house.durable.activities.record, Closing(step.id, told.trace, told.fault)
        )

    assert told.taken
    assert upstream.sent == 0
    assert bench.recorder.records == []


async def test_without_temporal_calls_are_made_directly(tmp_path: Path) -> None:
    """Where Temporal was never reached no call waits for it."""
    upstream = Counting()
    bench = durable_bench(upstream)
    async with durably(NOWHERE, tmp_path, bench) as house:
        reply, _ = await house.ask(chat())
        assert house.durable.fallbacks == 1

    assert reply.status == 200
    assert (upstream.sent, bench.recorder.one.outcome) == (1, Outcome.OK)


async def test_a_call_that_no_worker_begins_is_made_directly_and_once(
    temporal: Temporal, tmp_path: Path
) -> None:
    """The call is claimed before it is made here; the worker that comes at last finds nothing to do."""
    upstream = Counting()
    bench = durable_bench(upstream)
    async with durably(temporal, tmp_path, bench, worker=False, waits=BRIEF) as house:
        reply, _ = await house.ask(chat())
        assert reply.status == 200
        await house.durable.close()  # the workflow that nobody needs has been ended
        client = house.durable.client
        assert client is not None
        ended = await house.durable.workflow(f"chat-{bench.recorder.one.id}")
        assert ended is not None
        assert ended.status == "TERMINATED"
        async with house.durable.worker(client):
            pass

    assert (upstream.sent, len(bench.recorder.records)) == (1, 1)


class Deaf:
    """A client whose start of a workflow is never acknowledged, though it may arrive."""

    def __init__(self, client: Client, *, arrives: bool, begun: asyncio.Event | None = None) -> None:
        self._client = client
        self._arrives = arrives
        self._begun = begun

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def start_workflow(self, *args: Any, **more: Any) -> None:
        if self._arrives:
            await self._client.start_workflow(*args, **more)
        if self._begun is not None:
            await self._begun.wait()
        raise RPCError("the line is dead", RPCStatusCode.UNAVAILABLE, b"")


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_start_that_is_not_acknowledged_leads_to_one_call(
    arrives: bool, temporal: Temporal, tmp_path: Path
) -> None:
    """Whether the start arrived or not, and whoever is first then: one call upstream, one record, one answer."""
    upstream = Counting()
    bench = durable_bench(upstream)
    async with durably(temporal, tmp_path, bench, waits=BRIEF) as house:
        house.durable.client = Deaf(house.durable.client, arrives=arrives)  # type: ignore[arg-type,assignment]
        reply, _ = await house.ask(chat())

    assert reply.status == 200
    assert (upstream.sent, len(bench.recorder.records)) == (1, 1)


async def test_a_call_that_was_begun_is_followed_though_its_start_was_not_acknowledged(
    temporal: Temporal, tmp_path: Path
) -> None:
    """The worker was faster than the bad news: its answer is the caller's."""
    upstream = Counting(held=True)
    bench = durable_bench(upstream)
    async with durably(temporal, tmp_path, bench, waits=BRIEF) as house:
        deaf = Deaf(house.durable.client, arrives=True, begun=upstream.reached)  # type: ignore[arg-type]
        house.durable.client = deaf  # type: ignore[assignment]
        asking = asyncio.create_task(house.ask(chat()))
        await upstream.reached.wait()
        upstream.go.set()
        reply, _ = await asking
        assert house.durable.fallbacks == 0

    assert reply.status == 200
    assert (upstream.sent, len(bench.recorder.records)) == (1, 1)


async def test_a_call_whose_workflow_somebody_ended_is_told_so(temporal: Temporal, tmp_path: Path) -> None:
    """Its attempt is cancelled; the record with what that cost is made at the front door."""
    upstream = Counting(held=True)
    bench = durable_bench(upstream)
    async with durably(temporal, tmp_path, bench, waits=Waits(start=30, begin=60, look=0.05)) as house:
        asking = asyncio.create_task(house.ask(chat()))
        await upstream.reached.wait()
        client = house.durable.client
        assert client is not None
        await client.get_workflow_handle(f"{shapes.PREFIX}{bench.prefix}1").terminate()
        reply, _ = await asking

    assert reply.status == 500
    record = bench.recorder.one
    assert (record.outcome, record.fault) == (Outcome.ERROR, "workflow_ended")
    assert [one.cause for one in record.attempts] == ["client_cancelled"]
    assert (upstream.sent, upstream.cancelled) == (1, 1)


async def test_failures_of_providers_do_not_move_the_breaker(temporal: Temporal, tmp_path: Path) -> None:
    """However many calls fail, Temporal has done what it was asked; what it refuses itself opens the breaker."""
    upstream = Counting({"gpt-4o": Profile(faults=(*["400"] * 4, "ok"))})
    bench = durable_bench(upstream)
    async with durably(temporal, tmp_path, bench, waits=Waits(start=30, begin=60)) as house:
        for _ in range(4):
            reply, _ = await house.ask(chat())
            assert reply.status == 400
        assert house.durable.fallbacks == 0
        for _ in range(FAILURES - 1):  # one more than those of the calls would open it
            house.durable.breaker.failed(bench.clock.monotonic())
        assert house.durable.state() == "closed"
        house.durable.breaker.succeeded()
        house.durable.client = Deaf(house.durable.client, arrives=False)  # type: ignore[arg-type,assignment]
        for _ in range(3):
            await house.ask(chat())
        assert house.durable.state() == "open"
        assert house.durable.fallbacks == 3
        await house.ask(chat())
        assert house.durable.fallbacks == 4

    outcomes = [record.outcome for record in bench.recorder.records]
    assert outcomes == [Outcome.ERROR] * 4 + [Outcome.OK] * 4
