"""A call with an Idempotency-Key whose front door has died: who sends the key again gets what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from tests.fakes.engine import Bench, chat
from tests.workflows.house import PATIENT, House, durably
from tests.workflows.server import Temporal
from tests.workflows.test_once import NOWHERE
from tests.workflows.upstream import Counting
from tokenhub_core.admission.idempotency import mark
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.dispatch.job import Job, Trace
from tokenhub_core.idempotency import Idempotent, Keeping
from tokenhub_core.ports import Reply
from tokenhub_core.progress import Progress
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.store.durable import By
from tokenhub_core.store.idempotency import Marks
from tokenhub_core.telemetry.recorder import StoreRecorder
from tokenhub_core.types import Json, Outcome, Snapshot, header
from tokenhub_core.workflows import shapes
from tokenhub_core.workflows.following import Waits
from tokenhub_core.workflows.shapes import Step, Traced

KEY = (("idempotency-key", "k"),)


class Front:
    """A front door that was just started, in front of a durable engine."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.marks = Marks(house.writer)
        # What it waits for besides the answer is the record in the store.
        recorder = StoreRecorder(house.rows._database, house.writer, (house.bench.recorder.post,))
        house.durable.activities._recorder = recorder
        self.throttle = Throttle()
        self.engine = Idempotent(
            house.bench.engine,
            Keeping(self.marks),
            recorder=house.bench.recorder,
            dialects=DIALECTS,
            clock=house.bench.clock,
            throttle=self.throttle,
            durable=house.durable,
        )

    async def died(self, body: Json, *, keep: bool = True, start: bool = True) -> Snapshot:
        """Leave a call as a front door does that dies once its workflow is started, or before that."""
        house, now = self.house, self.house.bench.clock.now()
        snapshot = house.bench.snapshot(body, headers=KEY)
        address = self.throttle.address(snapshot.caller.peer, snapshot.headers)
        await self.marks.claim(mark(snapshot, address), snapshot.id, now=now, until=now + 60)
        if not keep:
            return snapshot
        progress = Progress(snapshot, Trace())
        job = house.bench.engine._ready.prepare(progress)
        assert isinstance(job, Job)
        await house.durable.safe.keep(shapes.call(job, progress), now=now)
        if start:
            assert house.durable.client is not None
            await house.durable.client.start_workflow(
                shapes.CHAT,
                shapes.start(job, job.snapshot.started),
                id=shapes.PREFIX + snapshot.id,
                task_queue=house.durable.settings.temporal_task_queue,
            )
        return snapshot

    async def ask(self, body: Json) -> Reply:
        return await self.engine.exchange(self.house.bench.snapshot(body, headers=KEY))


@asynccontextmanager
async def front(
    temporal: Temporal | str, folder: Path, upstream: Counting, waits: Waits = PATIENT
) -> AsyncIterator[Front]:
    bench = Bench(transport=upstream, defaults={"durable": True})
    async with durably(temporal, folder, bench, waits=waits) as house:
        it = Front(house)
        try:
            yield it
        finally:
            await it.engine.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_repeated_key_joins_the_call_that_goes_on(
    stream: bool, temporal: Temporal, tmp_path: Path
) -> None:
    """It waits for the workflow and gets its answer; the provider is asked once, and a third try gets it too."""
    upstream = Counting(held=True)
    async with front(temporal, tmp_path, upstream) as it:
        first = await it.died(chat(stream=stream))
        asking = asyncio.create_task(it.ask(chat(stream=stream)))
        await upstream.reached.wait()
        upstream.go.set()
        reply, third = await asking, await it.ask(chat(stream=stream))
        other = await it.ask(chat("another", stream=stream))

    assert (reply.status, third.status, other.status) == (200, 200, 422)
    assert reply.body == third.body
    assert reply.body.endswith(b"data: [DONE]\n\n" if stream else b"}")
    assert header(reply.headers, "x-request-id") == first.id
    assert header(reply.headers, "idempotency-replay") == "true"
    assert upstream.sent == 1
    made = [record for record in it.house.bench.recorder.records if record.id == first.id]
    assert [record.outcome for record in made] == [Outcome.OK]


async def test_a_call_that_failed_meanwhile_is_made_anew(temporal: Temporal, tmp_path: Path) -> None:
    """As after an error that its caller got."""
    down = Profile(faults=("400", "ok"))
    upstream = Counting({"gpt-4o": down}, held=True)
    async with front(temporal, tmp_path, upstream) as it:
        first = await it.died(chat())
        asking = asyncio.create_task(it.ask(chat()))
        await upstream.reached.wait()
        upstream.go.set()
        reply = await asking

    assert (reply.status, upstream.sent) == (200, 2)
    assert header(reply.headers, "x-request-id") != first.id


async def test_a_call_that_no_worker_has_begun_is_made_anew_and_by_nobody_else(tmp_path: Path) -> None:
    """The claim stands before the call is made: the workflow that comes too late sends nothing."""
    upstream = Counting()
    async with front(NOWHERE, tmp_path, upstream, Waits(start=0, begin=0, look=0.01)) as it:
        first = await it.died(chat(), start=False)
        reply = await it.ask(chat())
        late = Step(first.id, 0, 1, 30.0, None, "", Traced())
        marks = await it.house.rows.marks(first.id)
        with pytest.raises(ApplicationError):
            await ActivityEnvironment().run(it.house.durable.activities.attempt, late)

    assert (reply.status, upstream.sent) == (200, 1)
    assert header(reply.headers, "x-request-id") != first.id
    assert [mark.by for mark in marks] == [By.DIRECT]


async def test_a_call_that_was_never_handed_over_stays_unknown(tmp_path: Path) -> None:
    """Nobody can say what became of one that was made directly, so it is not made again."""
    upstream = Counting()
    async with front(NOWHERE, tmp_path, upstream) as it:
        first = await it.died(chat(), keep=False)
        assert (await it.ask(chat())).status == 409
        await it.house.rows.begin(first.id, 1, By.DIRECT, now=it.house.bench.clock.now())
        assert (await it.ask(chat())).status == 409

    assert upstream.sent == 0


async def test_what_is_given_again_is_not_kept_any_longer(temporal: Temporal, tmp_path: Path) -> None:
    """Once its caller has the answer, what was kept of the call is gone."""
    async with front(temporal, tmp_path, Counting()) as it:
        first = await it.died(chat())
        assert (await it.ask(chat())).status == 200
        await it.house.rows.begin("another", 1, By.DIRECT, now=0)  # what was posted before is written
        marks = await it.house.rows.marks(first.id)

    assert marks == []


async def test_of_our_own_way_to_ask_nothing_is_given_again(tmp_path: Path) -> None:
    """Its answer has the decision around it, which is not kept with it: the second one hears that it was begun."""
    async with front(NOWHERE, tmp_path, Counting()) as it:
        first = await it.died(chat(), start=False)
        again = structs.replace(first, id="req_again", native=True)
        assert (await it.engine.exchange(again)).status == 409
