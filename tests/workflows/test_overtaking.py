"""A call that several calls answer, and whose Temporal is gone for good in its middle: its front door goes on with it.

What the worker did until then is done by hand, so that no server has to be killed for it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from tests.fakes.engine import Bench, chat
from tests.fakes.transport import Scripted
from tests.orchestration.talking import Heard, Talking
from tests.orchestration.talking import bench as talking
from tests.workflows.house import House, durably
from tests.workflows.test_plans import REFINE, VOTE, differ
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.ports import Timeouts, UpstreamRequest
from tokenhub_core.store.durable import By, Mark
from tokenhub_core.types import Outcome
from tokenhub_core.workflows.activities import Activities
from tokenhub_core.workflows.composed import Next, Sofar
from tokenhub_core.workflows.following import Waits
from tokenhub_core.workflows.shapes import TAKEN, Step, Told, Traced

SOON = Waits(begin=60, look=0.01, over=0, elsewhere=60)


class Gone:
    """A Temporal that took a call, let a worker do something for it, and is never heard of again."""

    def __init__(self, meanwhile: Callable[[str], Awaitable[object]]) -> None:
        self._meanwhile = meanwhile
        self.id = ""
        self.asked = 0
        self.looked = asyncio.Event()
        """It was asked in vain several times."""

    async def start_workflow(self, *args: Any, **more: Any) -> None:
        """Take the call."""

    def get_workflow_handle_for(self, workflow: Any, workflow_id: str) -> Gone:
        del workflow
        self.id = workflow_id
        return self

    async def result(self) -> None:
        self.asked += 1
        if self.asked == 1:
            await self._meanwhile(self.id.partition("-")[2])
        if self.asked == 5:
            self.looked.set()
        raise RPCError("the line is dead", RPCStatusCode.UNAVAILABLE, b"")

    async def cancel(self, **more: Any) -> None:
        raise RPCError("the line is dead", RPCStatusCode.UNAVAILABLE, b"")


class Held(Talking):
    """Models that are asked, and answer from the moment on that `go` is set."""

    def __init__(self, talk: Talking) -> None:
        super().__init__(talk.says)
        self.reached, self.twice, self.go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> Scripted:
        answer = await super().send(request, timeouts)
        (self.reached if len(self.heard) == 1 else self.twice).set()
        await self.go.wait()
        return answer


def scene(says: Callable[[Heard], str | int] = differ, **more: Any) -> tuple[Bench, Held]:
    """Return an engine whose models are held, and those."""
    given: dict[str, Any] = {"defaults": {"durable": True}, "patience": Patience(whole=120)}
    bench, talk = talking(says, **(given | more))
    held = Held(talk)
    bench.executor.means = replace(bench.executor.means, transport=held)
    return bench, held


async def next_steps(house: House, call_id: str) -> Next:
    """Have the first steps decided, as a workflow does."""
    following: Next = await ActivityEnvironment().run(house.durable.stepping.steps, Sofar(call_id))
    return following


async def attempt(activities: Activities, name: str, n: int = 1) -> Told:
    """Ask a worker for an attempt of a step."""
    step = Step(name, 0, n, 30.0, None, "", Traced())
    told: Told = await ActivityEnvironment().run(activities.checked, step)
    return told


def put(house: House, gone: Gone) -> None:
    house.durable.client = gone  # type: ignore[assignment]


def beside_the_claim(
    house: House, talk: Held, work: Callable[[str], Coroutine[Any, Any, Told]]
) -> list[asyncio.Task[Told]]:
    """Let another machine begin an attempt when the call is about to be claimed; return what is made of it.

    It is answered when the front door has looked three times for what is under way after its claim.
    """
    begin, marks, working = house.rows.begin, house.rows.marks, list[asyncio.Task[Told]]()
    looks = itertools.count(1)

    async def beside(call_id: str, n: int, by: By, **more: Any) -> Mark | None:
        if n == TAKEN:
            asked = len(talk.heard)
            working.append(asyncio.create_task(work(call_id)))
            await (talk.twice if asked else talk.reached).wait()
        return await begin(call_id, n, by, **more)

    async def looked(call_id: str) -> Sequence[Mark]:
        if working and next(looks) == 3:
            talk.go.set()
        return await marks(call_id)

    house.rows.begin, house.rows.marks = beside, looked  # type: ignore[method-assign]
    return working


@pytest.mark.parametrize(("text", "steps"), [(REFINE, 2), (VOTE, 4)])
async def test_what_is_done_is_kept_and_what_follows_is_made_here(
    text: str, steps: int, tmp_path: Path
) -> None:
    """The first steps were made by a worker: none is made again, and the one record has the exact sum."""
    bench, talk = scene()
    talk.go.set()
    async with durably(None, tmp_path, bench, waits=SOON) as house:
        made = list[str]()

        async def meanwhile(call_id: str) -> None:
            for one in (await next_steps(house, call_id)).steps:
                assert one.start is not None
                assert (await attempt(house.durable.activities, one.start.id)).fault is None
                made.append(one.step)

        put(house, Gone(meanwhile))
        reply, _ = await house.ask(chat(text, model="a"))
        assert house.durable.fallbacks == 0
        late = await next_steps(house, bench.recorder.one.id)

    record = bench.recorder.one
    assert (reply.status, record.outcome, late.taken) == (200, Outcome.OK, True)
    assert record.composition is not None
    names = [one.name for one in record.composition.steps]
    assert (len(names), names[: len(made)]) == (steps, made)
    assert (len(talk.heard), len(record.attempts)) == (steps, steps)
    assert record.cost_nanousd == talk.billed == bench.ledger.spent_nanousd
    assert bench.ledger.reserved_nanousd == 0


async def test_a_step_that_another_process_makes_is_waited_for(tmp_path: Path) -> None:
    """It is not known to be lost, so it is not made again: what comes of it is the plan's."""
    bench, talk = scene()
    async with durably(None, tmp_path, bench, waits=SOON) as house:
        mine = house.durable.activities
        other = Activities(bench.executor, bench.recorder, mine._requests, house.durable.safe)
        working = list[asyncio.Task[Told]]()

        async def meanwhile(call_id: str) -> None:
            (one,) = (await next_steps(house, call_id)).steps
            assert one.start is not None
            working.append(asyncio.create_task(attempt(other, one.start.id)))
            await talk.reached.wait()

        gone = Gone(meanwhile)
        put(house, gone)
        asking = asyncio.create_task(house.ask(chat(REFINE, model="a")))
        await gone.looked.wait()
        assert len(talk.heard) == 1
        talk.go.set()
        reply, _ = await asking
        await asyncio.gather(*working)

    assert (reply.status, len(talk.heard)) == (200, 2)
    assert [one.cause for one in bench.recorder.one.attempts] == ["", ""]


async def test_where_a_step_may_be_under_way_elsewhere_the_call_ends_and_nothing_is_sent(
    tmp_path: Path,
) -> None:
    """The error comes long before the call's time is over; a workflow that comes back finds the claim.

    What may be under way counts as billed, and is in the record.
    """
    bench, talk = scene()
    waits = Waits(begin=60, look=0.01, over=0, elsewhere=0.05)
    async with durably(None, tmp_path, bench, waits=waits) as house:

        async def meanwhile(call_id: str) -> None:
            await next_steps(house, call_id)
            await house.rows.begin(f"{call_id}~answer", 1, By.WORKFLOW, now=bench.clock.now())

        put(house, Gone(meanwhile))
        reply, body = await house.ask(chat(REFINE, model="a"))
        name = bench.recorder.one.id
        again = await attempt(house.durable.activities, f"{name}~answer", 2)
        late = await next_steps(house, name)

    assert (reply.status, b"an attempt of the call" in body) == (503, True)
    record = bench.recorder.one
    assert (record.fault, talk.heard) == ("temporal_unreachable", [])
    assert (again.taken, late.taken) == (True, True)
    (line,) = record.attempts
    assert (line.step, line.cause, line.usage.input_tokens > 0) == ("answer", "worker_lost", True)
    assert record.cost_nanousd == line.cost_nanousd > 0


async def test_a_step_that_begins_in_the_moment_of_the_claim_is_waited_for(tmp_path: Path) -> None:
    """It was begun before the claim, so it is the plan's: it is not made again, and its cost is in the record."""
    bench, talk = scene()
    async with durably(None, tmp_path, bench, waits=SOON) as house:
        mine = house.durable.activities
        other = Activities(bench.executor, bench.recorder, mine._requests, house.durable.safe)
        working = beside_the_claim(house, talk, lambda name: attempt(other, f"{name}~answer"))
        put(house, Gone(lambda name: next_steps(house, name)))
        reply, _ = await house.ask(chat(REFINE, model="a"))
        await asyncio.gather(*working)

    record = bench.recorder.one
    assert (reply.status, len(talk.heard)) == (200, 2)
    assert [(one.step, one.cause) for one in record.attempts] == [("answer", ""), ("refine-1", "")]
    assert record.cost_nanousd == talk.billed == bench.ledger.spent_nanousd


async def test_who_leaves_a_call_that_was_taken_over_takes_it_along(tmp_path: Path) -> None:
    """The step that is made here is cancelled; the one record says what it all did cost."""
    bench, talk = scene()
    async with durably(None, tmp_path, bench, waits=SOON) as house:

        async def meanwhile(call_id: str) -> None:
            talk.go.set()
            await next_steps(house, call_id)
            await attempt(house.durable.activities, f"{call_id}~answer")
            talk.go.clear()

        put(house, Gone(meanwhile))
        asking = asyncio.create_task(house.ask(chat(REFINE, model="a")))
        await talk.twice.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await house.durable.close()

    record = bench.recorder.one
    assert (record.outcome, len(talk.heard)) == (Outcome.CANCELLED, 2)
    assert [one.cause for one in record.attempts] == ["", "client_cancelled"]
    assert bench.ledger.reserved_nanousd == 0
