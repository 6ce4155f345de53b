"""How many calls may be under way, who waits, and how those that are left hear that it is over."""

from __future__ import annotations

import asyncio

import pytest

from tests.fakes.engine import Bench, chat
from tokenhub_core.errors import TokenHubError
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.underway import FULL, LEAVING, Underway


async def test_who_finds_no_place_is_refused_in_a_moment() -> None:
    """503 with Retry-After, and the places of those inside are not touched."""
    places = Underway(2, patience=0.01)
    for name in ("a", "b"):
        await places.enter(name)
    with pytest.raises(TokenHubError) as told:
        await places.enter("c")
    assert (told.value.fault, told.value.fault.http_status, FULL.retry_after) == (FULL, 503, 1.0)
    assert (len(places), places.refused) == (2, 1)


async def test_places_go_to_those_who_waited_longest() -> None:
    """And to nobody who comes in between."""
    places, order = Underway(1, patience=30, queue=3), list[str]()
    await places.enter("first")

    async def comes(name: str) -> None:
        await places.enter(name)
        order.append(name)
        await asyncio.sleep(0)
        places.leave(name)

    waiting = [asyncio.create_task(comes(name)) for name in ("second", "third")]
    await asyncio.sleep(0)
    places.leave("first")
    late = asyncio.create_task(comes("late"))
    await asyncio.gather(*waiting, late)
    assert order == ["second", "third", "late"]
    assert len(places) == 0


@pytest.mark.parametrize("most", [3, None])
async def test_who_waits_comes_in_where_there_are_more_places(most: int | None) -> None:
    """At once, without anybody leaving; where there are fewer, whoever is inside stays."""
    places = Underway(1, patience=30, queue=2)
    await places.enter("a")
    waiting = [asyncio.create_task(places.enter(name)) for name in ("b", "c")]
    await asyncio.sleep(0)
    places.resize(most, 0.01)
    await asyncio.gather(*waiting)
    places.resize(1, 0.01)
    assert len(places) == 3
    with pytest.raises(TokenHubError):
        await places.enter("d")


async def test_who_leaves_the_queue_takes_no_place_along() -> None:
    """Whether it left before or after one was held for it."""
    places = Underway(1, patience=30, queue=2)
    await places.enter("a")
    gone, there = (asyncio.create_task(places.enter(name)) for name in ("gone", "there"))
    await asyncio.sleep(0)
    gone.cancel()
    places.leave("a")
    await there
    places.leave("there")
    await places.enter("b")
    assert len(places) == 1


async def test_no_more_wait_than_there_are_places() -> None:
    """The next one is refused at once."""
    places = Underway(1, patience=30)
    await places.enter("a")
    waits = asyncio.create_task(places.enter("b"))
    await asyncio.sleep(0)
    with pytest.raises(TokenHubError):
        await places.enter("c")
    waits.cancel()


async def test_leaving_twice_gives_one_place_back() -> None:
    """A stream's end is told from two sides."""
    places = Underway(1, patience=0)
    await places.enter("a")
    places.leave("a")
    places.leave("a")
    await places.enter("b")
    with pytest.raises(TokenHubError):
        await places.enter("c")


async def test_every_end_of_a_call_gives_its_place_back() -> None:
    """Answers, streams, refusals, callers that leave before and in the middle."""
    bench = Bench(profiles={"gpt-4o": Profile(tokens_per_second=50)})
    places = bench.engine.underway = Underway(1, patience=0)
    await bench.ask(chat(max_tokens=2))
    await bench.ask(chat(stream=True, max_tokens=2))
    await bench.ask(b"{")
    reply = await bench.engine.exchange(bench.snapshot(chat(stream=True)))
    assert reply.frames is not None
    assert (await bench.ask(chat()))[0].status == 503
    await anext(aiter(reply.frames))
    await reply.frames.aclose()  # type: ignore[attr-defined] # as every front door does
    unread = await bench.engine.exchange(bench.snapshot(chat(stream=True)))
    await unread.frames.aclose()  # type: ignore[union-attr]
    assert len(places) == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_left_at_the_end_hears_why(stream: bool) -> None:
    """An error in the caller's dialect, one record, and what was said by then is paid."""
    bench = Bench(profiles={"gpt-4o": Profile(ttft=0.0 if stream else 30.0, tokens_per_second=2)})
    bench.executor.means.transport._speed = 1.0  # type: ignore[attr-defined] # it takes its time here
    begun = asyncio.Event()

    async def call() -> tuple[int, bytes]:
        reply = await bench.engine.exchange(bench.snapshot(chat(stream=stream)))
        if reply.frames is None:
            return reply.status, reply.body
        body = b""
        async for frame in reply.frames:
            body += frame
            begun.set()
        return reply.status, body

    task = asyncio.create_task(call())
    if stream:
        await begun.wait()
    else:
        await asyncio.sleep(0.05)
    bench.engine.underway.stop()
    status, body = await task
    assert (status, b"TokenHub is stopping" in body, b"[DONE]" in body) == (
        200 if stream else 503,
        True,
        False,
    )
    record = bench.recorder.one
    assert (record.fault, record.cost_nanousd > 0) == (LEAVING.cause, True)
    assert len(record.attempts) == 1
    assert (await bench.ask(chat()))[0].status == 503
    assert task.cancelling() == 0
