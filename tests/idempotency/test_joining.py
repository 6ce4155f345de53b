"""One call under way for all who send it: joined, left, cancelled, and made once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from typing import Final, cast, override

import pytest

from tests.e2e.serving import measured
from tests.fakes.engine import Bench, chat
from tests.idempotency.scenes import REPLAY, Paced, said, scene, whole
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Reply, Timeouts, UpstreamRequest, UpstreamResponse
from tokenhub_core.providers.simulated import SimulatedTransport
from tokenhub_core.store.database import Database
from tokenhub_core.types import (
    Outcome,
    Snapshot,
    header,
)

TOGETHER: Final = 100
"""Callers with the same call at once."""


class Heard(SimulatedTransport):
    """The simulator, which counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(speed=0)
        self.requests = 0

    @override
    async def send(self, request: UpstreamRequest, timeouts: Timeouts) -> UpstreamResponse:
        self.requests += 1
        return await super().send(request, timeouts)


# --- under way ----------------------------------------------------------------------------------------------


async def test_callers_join_a_call_under_way(database: Database) -> None:
    """One call, one answer for all; each has a record of its own, and only the first one's costs."""
    engine = Paced(stream=False)
    async with scene(database, engine) as it:
        tasks = [it.start() for _ in range(5)]
        await it.until(lambda: engine.asked)
        engine.say(b'{"answer": 1}')
        replies = await asyncio.gather(*tasks)
    assert len(engine.asked) == 1
    assert {body for _, body in replies} == {b'{"answer": 1}'}
    assert [header(reply.headers, REPLAY) for reply, _ in replies] == ["", *["true"] * 4]
    assert [header(reply.headers, "x-request-id") for reply, _ in replies] == ["req_1"] * 5
    assert sorted((one.id, one.reason, one.message) for one in it.recorder.records) == [
        (f"req_{number}", "joined", "the answer of req_1") for number in (2, 3, 4, 5)
    ]


async def test_who_joins_a_stream_gets_it_from_its_beginning(database: Database) -> None:
    """And then as it comes, together with the first one."""
    engine = Paced()
    async with scene(database, engine) as it:
        first = await it.begin()
        engine.say(b"a")
        frames = cast("AsyncGenerator[bytes]", first.frames)
        assert await anext(frames) == b"a"
        late = await it.begin()
        joined = cast("AsyncGenerator[bytes]", late.frames)
        assert await anext(joined) == b"a"
        engine.say(b"b")
        assert await anext(frames) == b"b"
        later = await it.begin()
        assert await anext(cast("AsyncGenerator[bytes]", later.frames)) == b"ab"
        assert await anext(joined) == b"b"
        engine.say(b"c")
        assert (await anext(frames), await anext(joined)) == (b"c", b"c")
        engine.say(b"d", None)
        assert (await whole(first), await whole(late), await whole(later)) == (b"d", b"d", b"cd")
        assert (await it.ask())[1] == b"abcd"
    assert len(engine.asked) == 1


async def test_another_body_does_not_join(database: Database) -> None:
    """422 at once; the call goes on."""
    engine = Paced(stream=False)
    async with scene(database, engine) as it:
        task = it.start()
        await it.until(lambda: engine.asked)
        reply, _ = await it.ask(chat("other"))
        assert (reply.status, header(reply.headers, "x-tokenhub-original")) == (422, "req_1")
        engine.say(b"{}")
        assert (await task)[0].status == 200


async def test_a_stream_that_is_too_long_is_not_joined_any_more(database: Database) -> None:
    """409 that says so; the first one gets all of it, and later the mark stands for it."""
    engine = Paced()
    async with scene(database, engine, more={"joinable": 4}) as it:
        first = await it.begin()
        engine.say(b"abc", b"def")
        frames = cast("AsyncGenerator[bytes]", first.frames)
        await it.until(lambda: not next(iter(it.front._running.values())).tape.whole)
        assert await anext(frames) == b"abcdef"
        reply, body = await it.ask()
        assert (reply.status, "cannot be joined" in said(body)) == (409, True)
        engine.say(b"g", None)
        assert await whole(first) == b"g"
        again, _ = await it.ask()
        assert again.status == 409
    assert [one.fault for one in it.recorder.records] == ["idempotency_under_way", "idempotency_answered"]


async def test_a_long_stream_waits_for_its_slowest_reader(database: Database) -> None:
    """So that memory is bounded; when that one leaves it goes on."""
    engine = Paced()
    async with scene(database, engine, more={"joinable": 4}) as it:
        first, late = await it.begin(), await it.begin()
        engine.say(*[b"xy"] * 50, None)
        frames = cast("AsyncGenerator[bytes]", first.frames)
        got = b""
        while len(got) < 6:
            got += await anext(frames)
        tape = next(iter(it.front._running.values())).tape
        assert tape._held <= 6
        await cast("AsyncGenerator[bytes]", late.frames).aclose()
        assert got + await whole(first) == b"xy" * 50
    assert [(one.outcome, one.id) for one in it.recorder.records] == [(Outcome.CANCELLED, "req_2")]


@pytest.mark.parametrize(("status", "stream"), [(500, False), (429, False), (400, False), (503, True)])
async def test_who_joined_a_call_that_failed_gets_its_error(
    database: Database, status: int, stream: bool
) -> None:
    """The same one as the first caller, and the next call with the key is made: nobody retries for others."""
    engine = Paced(stream=stream, status=status)
    async with scene(database, engine) as it:
        tasks = [it.start() for _ in range(3)]
        await it.until(lambda: engine.asked)
        engine.say(b"no", *([None] if stream else []))
        assert [(reply.status, body) for reply, body in await asyncio.gather(*tasks)] == [(status, b"no")] * 3
        assert len(engine.asked) == 1
        assert [(one.outcome, one.status) for one in it.recorder.records] == [(Outcome.ERROR, status)] * 2
        engine.status = 200
        engine.say(b"yes", *([None] if stream else []))
        reply, body = await it.ask()
        assert (body, header(reply.headers, REPLAY)) == (b"yes", "")


async def test_who_joined_a_stream_that_breaks_hears_of_it(database: Database) -> None:
    """The error event is everybody's; it is recorded as an error, and not kept."""
    engine = Paced()
    async with scene(database, engine) as it:
        tasks = [it.start() for _ in range(2)]
        await it.until(lambda: engine.asked)
        engine.broke = True
        engine.say(b"a", b"error", None)
        assert [body for _, body in await asyncio.gather(*tasks)] == [b"aerror"] * 2
        assert [one.outcome for one in it.recorder.records] == [Outcome.ERROR]
        engine.broke = False
        engine.say(b"b", None)
        assert (await it.ask())[1] == b"b"


@pytest.mark.parametrize(
    "error", [ValueError("bug"), TokenHubError(Fault(Kind.INTERNAL, Blame.US, "late", cause="late"))]
)
async def test_an_engine_that_fails_in_the_middle_looks_whole_to_nobody(
    database: Database, error: Exception
) -> None:
    """Every reader's frames end in the failure."""
    engine = Paced()
    async with scene(database, engine) as it:
        first, late = await it.begin(), await it.begin()
        engine.say(b"a", error)
        for reply in (first, late):
            with pytest.raises(type(error)):
                await whole(reply)
        engine.say(b"b", None)
        assert (await it.ask())[1] == b"b"


async def test_an_engine_that_fails_at_once_is_an_error_for_all(database: Database) -> None:
    """500 in the caller's dialect, and the key is free."""

    class Failing:
        async def exchange(self, snapshot: Snapshot) -> Reply:
            raise ZeroDivisionError

    async with scene(database, Failing()) as it:
        replies = await asyncio.gather(it.ask(), it.ask())
        assert [reply.status for reply, _ in replies] == [500, 500]
        assert [one.fault for one in it.recorder.records] == ["internal", "internal"]
        assert (await it.ask())[0].status == 500


# --- callers that leave -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_nobody_waits_for_is_not_made_on(database: Database, stream: bool) -> None:
    """Its only caller leaves: it is cancelled as without a key, and the key is free."""
    engine = Paced(stream=stream)
    async with scene(database, engine) as it:
        if stream:
            reply = await it.begin()
            engine.say(b"a")
            frames = cast("AsyncGenerator[bytes]", reply.frames)
            await anext(frames)
            await frames.aclose()
        else:
            task = it.start()
            await it.until(lambda: engine.asked)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await it.until(lambda: engine.cancelled)
        await it.until(lambda: not it.front._running)
        engine.say(b"b", *([None] if stream else []))
        again, body = await it.ask()
        assert (body, header(again.headers, REPLAY), len(engine.asked)) == (b"b", "", 2)


@pytest.mark.parametrize("turns", [1, 2])
async def test_who_leaves_before_the_mark_is_durable_is_recorded(database: Database, turns: int) -> None:
    """Before it is begun or while it is written: the engine never heard of the call, and its key is free again."""
    engine = Paced(stream=False)
    async with scene(database, engine) as it:
        task = it.start()
        for _ in range(turns):
            await asyncio.sleep(0)  # the call has come; in the next turn the one that makes it begins
        assert it.front._running
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await it.until(lambda: not it.front._running)
        assert [(one.id, one.outcome) for one in it.recorder.records] == [("req_1", Outcome.CANCELLED)]
        assert engine.asked == []
        engine.say(b"b")
        assert (await it.ask())[1] == b"b"


async def test_who_sends_a_call_again_that_is_being_cancelled_does_not_join_it(database: Database) -> None:
    """However long that takes to end: the call is made anew, and only its own end counts."""
    held = asyncio.Event()

    class Slow(Paced):
        async def exchange(self, snapshot: Snapshot) -> Reply:
            try:
                return await super().exchange(snapshot)
            except asyncio.CancelledError:
                await held.wait()
                raise

    engine = Slow(stream=False)
    async with scene(database, engine) as it:
        task = it.start()
        await it.until(lambda: engine.asked)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = it.start()
        await it.until(lambda: len(engine.asked) == 2)
        held.set()
        await it.until(lambda: len(it.front._tasks) == 1)
        engine.say(b"a")
        reply, body = await again
        assert (reply.status, body) == (200, b"a")
        assert (await it.ask())[1] == b"a"
    assert len(engine.asked) == 2


async def test_an_engine_that_will_not_be_cancelled_disturbs_nobody(database: Database) -> None:
    """What it says after its call was given up is nobody's answer."""

    class Stubborn(Paced):
        async def exchange(self, snapshot: Snapshot) -> Reply:
            try:
                return await super().exchange(snapshot)
            except asyncio.CancelledError:
                return Reply(200, (), b"late")

    engine = Stubborn(stream=False)
    async with scene(database, engine) as it:
        task = it.start()
        await it.until(lambda: engine.asked)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        again = it.start()
        await it.until(lambda: len(engine.asked) == 2)
        engine.say(b"a")
        assert (await again)[1] == (await it.ask())[1] == b"a"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_call_goes_on_as_long_as_anybody_waits(database: Database, stream: bool) -> None:
    """The first caller leaves, who joined gets the answer, and it is kept."""
    engine = Paced(stream=stream)
    async with scene(database, engine) as it:
        if stream:
            first = await it.begin()
            late = it.start()
            await it.until(lambda: next(iter(it.front._running.values())).tape.readers == 2)
            await cast("AsyncGenerator[bytes]", first.frames).aclose()
        else:
            task = it.start()
            await it.until(lambda: engine.asked)
            late = it.start()
            await it.until(lambda: next(iter(it.front._running.values())).tape.readers == 2)
            task.cancel()
        engine.say(b"a", *([None] if stream else []))
        reply, body = await late
        assert (body, header(reply.headers, REPLAY), engine.cancelled) == (b"a", "true", 0)
        assert (await it.ask())[1] == b"a"
    assert len(engine.asked) == 1


async def test_who_joined_and_leaves_takes_nothing_along(database: Database) -> None:
    """He is recorded as one who left; the first one gets all."""
    engine = Paced(stream=False)
    async with scene(database, engine) as it:
        task = it.start()
        await it.until(lambda: engine.asked)
        late = it.start()
        await it.until(lambda: next(iter(it.front._running.values())).tape.readers == 2)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        engine.say(b"a")
        assert (await task)[1] == b"a"
    assert [(one.id, one.outcome) for one in it.recorder.records] == [("req_2", Outcome.CANCELLED)]


async def test_frames_that_were_closed_yield_no_more(database: Database) -> None:
    """Twice is as good as once."""
    engine = Paced()
    async with scene(database, engine) as it:
        reply = await it.begin()
        frames = cast("AsyncGenerator[bytes]", reply.frames)
        await frames.aclose()
        await frames.aclose()
        assert [frame async for frame in frames] == []


async def test_at_the_end_what_is_being_made_is_cancelled(database: Database) -> None:
    """An answer that has begun does not look whole, one that has not is an error; nothing is left over."""
    engine = Paced()
    async with scene(database, engine) as it:
        reply = await it.begin()
        engine.say(b"a")
        frames = cast("AsyncGenerator[bytes]", reply.frames)
        assert await anext(frames) == b"a"
        await it.front.close()
        with pytest.raises(ConnectionError):
            await anext(frames)
        silent = Paced(stream=False)
        it.engine = silent
        it.restart()
        task = it.start()
        await it.until(lambda: silent.asked)
        await it.front.close()
        assert (await task)[0].status == 499
        gc.collect()


# --- storms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_of_many_at_once_one_is_made(database: Database, stream: bool) -> None:
    """A hundred together, round after round, each with a key of its own: one call each."""
    await rounds(database, 5, stream=stream)


@pytest.mark.load
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("stream", [False, True])
async def test_of_many_at_once_one_is_made_a_thousand_times(database: Database, stream: bool) -> None:
    """The same over and over."""
    await rounds(database, 1000, stream=stream)
    measured(
        f"1000 rounds of {TOGETHER} duplicates, {'streamed' if stream else 'whole'}: 1000 requests to providers"
    )


async def rounds(database: Database, number: int, *, stream: bool) -> None:
    """Let so many of the same call in at once, so many times, and see what the provider hears."""
    heard = Heard()
    bench = Bench(transport=heard)
    async with scene(database, bench.engine, bench.recorder) as it:
        for turn in range(number):
            headers = (("idempotency-key", f"turn {turn}"),)
            answers = await asyncio.gather(
                *[it.ask(chat(stream=stream), headers=headers) for _ in range(TOGETHER)]
            )
            assert heard.requests == turn + 1
            assert len({body for _, body in answers}) == 1
            assert {reply.status for reply, _ in answers} == {200}
            assert sum(not header(reply.headers, REPLAY) for reply, _ in answers) == 1
    assert sum(len(one.attempts) for one in it.recorder.records) == number
    assert len(it.recorder.records) == number * TOGETHER
