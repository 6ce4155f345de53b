"""A call of one answer whose Temporal is gone for good in its middle: its front door goes on where that is safe.

What the worker did until then is done by hand, so that no server has to be killed for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from tests.fakes.engine import Bench, chat
from tests.orchestration.talking import Heard
from tests.shaping.speaking import BAD, GOOD, SCHEMA, Speaking
from tests.shaping.speaking import bench as speaking
from tests.workflows.house import House, durably
from tests.workflows.test_overtaking import SOON, Gone, attempt, beside_the_claim, put, scene
from tests.workflows.upstream import Counting
from tokenhub_core.ports import Reply
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.store.durable import By
from tokenhub_core.types import Dialect, Outcome
from tokenhub_core.workflows import shapes
from tokenhub_core.workflows.activities import Activities
from tokenhub_core.workflows.following import Waits
from tokenhub_core.workflows.shapes import Closing, Step, Told


def first_fails(one: Heard) -> str | int:
    return 500 if one.model == "a" else "Four."


def elsewhere(house: House) -> Activities:
    """Return the activities of another process on the same store."""
    mine = house.durable.activities
    return Activities(mine.executor, mine._recorder, mine._requests, house.durable.safe)


async def next_attempt(activities: Activities, call_id: str, before: Told) -> Told:
    """Ask a worker for the attempt after one that failed, as the workflow does."""
    step = Step(call_id, 1, len(before.trace.attempts) + 1, 30.0, None, "", before.trace)
    told: Told = await ActivityEnvironment().run(activities.checked, step)
    return told


async def comes_back(house: House, call_id: str, n: int) -> Told:
    """Go on as the workflow does that hears too late of Temporal's end: it asks for an attempt, and for the record."""
    told = await attempt(house.durable.activities, call_id, n)
    closing = Closing(call_id, told.trace, told.fault)
    await ActivityEnvironment().run(house.durable.activities.record, closing)
    return told


async def in_the_dark(house: House, meanwhile: Callable[[str], Awaitable[object]]) -> tuple[Reply, bytes]:
    """Make a call that Temporal takes, for which a worker does something, and of which nothing more is heard."""
    put(house, Gone(meanwhile))
    return await house.ask(chat(model="a"))


async def test_what_has_failed_is_kept_and_the_next_attempt_is_made_here(tmp_path: Path) -> None:
    """The failover goes on where the worker was; a workflow that comes back sends nothing and records nothing."""
    bench, talk = scene(first_fails)
    talk.go.set()
    async with durably(None, tmp_path, bench, waits=SOON) as house:

        async def meanwhile(call_id: str) -> None:
            assert (await attempt(house.durable.activities, call_id)).fault is not None
            bench.recorder.before = lambda: late.append(asyncio.create_task(comes_back(house, call_id, 3)))

        late = list[asyncio.Task[Told]]()
        reply, body = await in_the_dark(house, meanwhile)
        assert house.durable.fallbacks == 0
        (back,) = await asyncio.gather(*late)

    record = bench.recorder.one
    assert (reply.status, b"Four." in body, record.outcome) == (200, True, Outcome.OK)
    assert [bool(one.cause) for one in record.attempts] == [True, False]
    assert (len(talk.heard), back.taken) == (2, True)
    assert record.cost_nanousd == bench.ledger.spent_nanousd > 0
    assert bench.ledger.reserved_nanousd == 0


async def test_a_stream_is_gone_on_with_too(tmp_path: Path) -> None:
    """It comes whole, as ever on the durable way."""
    upstream = Counting({"gpt-4o": Profile(faults=("500", "ok"))})
    bench = Bench(transport=upstream, defaults={"durable": True})
    async with durably(None, tmp_path, bench, waits=SOON) as house:
        put(house, Gone(lambda name: attempt(house.durable.activities, name)))
        reply, body = await house.ask(chat(stream=True))

    assert (reply.status, upstream.sent, bench.recorder.one.outcome) == (200, 2, Outcome.OK)
    assert body.endswith(b"data: [DONE]\n\n")


async def test_where_nobody_is_left_the_error_is_that_of_the_direct_way(tmp_path: Path) -> None:
    """The same attempts and the same status, whoever has made how many of them."""
    seen = []
    for durable in (True, False):
        bench, talk = scene(lambda one: 500)
        talk.go.set()
        bench.defaults = {"durable": durable}
        async with durably(None, tmp_path / str(durable), bench, waits=SOON) as house:
            reply, _ = await in_the_dark(house, lambda name: attempt(house.durable.activities, name))
        record = bench.recorder.one
        tried = [(one.n, one.model, one.cause) for one in record.attempts]
        seen.append((reply.status, record.fault, tried, len(talk.heard)))

    assert seen[0] == seen[1]
    assert len(seen[0][2]) > 1


async def test_the_second_try_of_an_answer_that_does_not_fit_is_made_here(tmp_path: Path) -> None:
    """The first answer is kept, sealed, for just that: it is asked for once more, and once."""
    says = Speaking(Dialect.OPENAI_CHAT, [BAD, GOOD])
    bench = speaking(says, defaults={"output_schema": SCHEMA, "durable": True})
    async with durably(None, tmp_path, bench, waits=SOON) as house:

        async def meanwhile(call_id: str) -> None:
            assert (await attempt(house.durable.activities, call_id)).unfit

        put(house, Gone(meanwhile))
        reply, _ = await house.ask(chat(model="m"))

    record = bench.recorder.one
    assert (reply.status, len(says.sent)) == (200, 2)
    assert [(one.n, one.cause, one.change) for one in record.attempts] == [
        (1, "invalid_output", ""),
        (2, "", "schema-repair"),
    ]


async def test_an_attempt_that_another_process_makes_is_waited_for(tmp_path: Path) -> None:
    """It is not known to be lost, so nothing is sent beside it; what comes of it is what the call goes on with."""
    bench, talk = scene(first_fails)
    async with durably(None, tmp_path, bench, waits=SOON) as house:
        working = list[asyncio.Task[Told]]()

        async def meanwhile(call_id: str) -> None:
            working.append(asyncio.create_task(attempt(elsewhere(house), call_id)))
            await talk.reached.wait()

        gone = Gone(meanwhile)
        put(house, gone)
        asking = asyncio.create_task(house.ask(chat(model="a")))
        await gone.looked.wait()
        assert len(talk.heard) == 1
        talk.go.set()
        reply, _ = await asking
        await asyncio.gather(*working)

    assert (reply.status, [one.model for one in talk.heard]) == (200, ["a", "c"])
    assert [bool(one.cause) for one in bench.recorder.one.attempts] == [True, False]


async def test_an_attempt_that_begins_in_the_moment_of_the_claim_is_waited_for(tmp_path: Path) -> None:
    """It was begun before the claim, so it is the call's: its answer is given, and its cost is in the record."""
    bench, talk = scene(first_fails)
    talk.go.set()
    async with durably(None, tmp_path, bench, waits=SOON) as house:
        told = list[Told]()

        async def meanwhile(call_id: str) -> None:
            told.append(await attempt(elsewhere(house), call_id))
            talk.go.clear()

        working = beside_the_claim(house, talk, lambda name: next_attempt(elsewhere(house), name, told[0]))
        reply, _ = await in_the_dark(house, meanwhile)
        await asyncio.gather(*working)

    record = bench.recorder.one
    assert (reply.status, [one.model for one in talk.heard]) == (200, ["a", "b"])
    assert [bool(one.cause) for one in record.attempts] == [True, False]
    assert record.cost_nanousd == bench.ledger.spent_nanousd > 0


async def test_an_attempt_that_never_ends_elsewhere_ends_the_call_and_counts_as_billed(
    tmp_path: Path,
) -> None:
    """Nothing is sent, the record has it as lost, and whoever makes it after all is told so."""
    bench, talk = scene()
    waits = Waits(begin=60, look=0.01, over=0, elsewhere=0.05)
    async with durably(None, tmp_path, bench, waits=waits) as house:

        async def meanwhile(call_id: str) -> None:
            await house.rows.begin(call_id, 1, By.WORKFLOW, now=bench.clock.now())

        reply, body = await in_the_dark(house, meanwhile)
        late = await comes_back(house, bench.recorder.one.id, 2)

    record = bench.recorder.one
    assert (reply.status, b"an attempt of the call" in body) == (503, True)
    assert (record.fault, talk.heard, late.taken) == ("temporal_unreachable", [], True)
    (line,) = record.attempts
    assert (line.cause, line.usage.input_tokens > 0) == ("worker_lost", True)
    assert record.cost_nanousd == line.cost_nanousd > 0


async def test_an_attempt_under_way_here_leaves_the_call_to_temporal(tmp_path: Path) -> None:
    """As long as it runs nothing is decided: the call is not claimed, so that another worker can still have it."""
    bench, talk = scene(lambda one: "Four.")
    async with durably(None, tmp_path, bench, waits=SOON) as house:
        working = list[asyncio.Task[Told]]()

        async def meanwhile(call_id: str) -> None:
            working.append(asyncio.create_task(attempt(house.durable.activities, call_id)))
            await talk.reached.wait()

        gone = Gone(meanwhile)
        put(house, gone)
        asking = asyncio.create_task(house.ask(chat(model="a")))
        await gone.looked.wait()
        marks = await house.rows.marks(gone.id.removeprefix(shapes.PREFIX))
        talk.go.set()
        reply, _ = await asking
        await asyncio.gather(*working)

    assert [(mark.n, mark.by) for mark in marks] == [(1, By.WORKFLOW)]
    assert (reply.status, len(talk.heard), bench.recorder.one.outcome) == (200, 1, Outcome.OK)


async def test_who_leaves_a_call_that_was_taken_over_takes_its_attempt_along(tmp_path: Path) -> None:
    """It is cancelled, and the one record says what both attempts were."""
    bench, talk = scene(first_fails)
    talk.go.set()
    async with durably(None, tmp_path, bench, waits=SOON) as house:

        async def meanwhile(call_id: str) -> None:
            await attempt(house.durable.activities, call_id)
            talk.go.clear()

        asking = asyncio.create_task(in_the_dark(house, meanwhile))
        await talk.twice.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await house.durable.close()

    record = bench.recorder.one
    assert (record.outcome, len(talk.heard)) == (Outcome.CANCELLED, 2)
    assert [one.cause for one in record.attempts][1:] == ["client_cancelled"]
    assert bench.ledger.reserved_nanousd == 0


class Leaping:
    """A monotonic clock that can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


async def test_what_was_tried_in_time_is_told_however_late_it_is(tmp_path: Path) -> None:
    """The call's time has passed in the dark: nothing more is sent, and the record has what was, with its cost."""
    time = Leaping()
    bench, talk = scene(first_fails, now=time, defaults={"durable": True, "max_latency_ms": 60_000})
    talk.go.set()
    async with durably(None, tmp_path, bench, waits=SOON) as house:

        async def meanwhile(call_id: str) -> None:
            assert (await attempt(house.durable.activities, call_id)).fault is not None
            time.ahead = 65.0

        reply, _ = await in_the_dark(house, meanwhile)

    record = bench.recorder.one
    assert (reply.status, record.fault, len(talk.heard)) == (504, "deadline", 1)
    assert [one.model for one in record.attempts] == ["a"]
