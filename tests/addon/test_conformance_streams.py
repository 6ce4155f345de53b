"""Streams over every lane: they flow as they are produced, as fast as they are read, and end as they ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.addon.lanes import Lanes
from tests.addon.scripted import (
    Flood,
    ScriptedEngine,
    Tap,
    broken,
    endless,
    never,
    ready,
    streamed,
    whole,
)
from tokenhub_core.ports import Reply
from tokenhub_core.types import Snapshot

_IN_FLIGHT = 12 << 20
"""More bytes than fit into the buffers between an engine and a client that does not read: ours and the kernel's."""


# --- as they are produced ----------------------------------------------------------------------------------


async def test_each_frame_leaves_while_the_engine_is_still_producing(lane: Lanes) -> None:
    """Each frame reaches the client before the next one exists; the head does not come later than the first."""
    tap = Tap()
    engine = ScriptedEngine(lambda _: ready(streamed(tap.frames())))
    async with lane(engine) as running, await running.client() as client:
        await client.send()
        await tap.flow(b"data: 0\n\n")
        answer = await client.head()
        assert answer.headers["content-type"] == "text/event-stream"
        assert await client.chunk() == b"data: 0\n\n"
        for frame in (b"data: 1\n\n", b"data: 2\n\n"):
            await tap.flow(frame)
            assert await client.chunk() == frame
        await tap.close()
        assert await client.chunk() == b""


async def test_frames_reach_a_modern_client_at_once(lane: Lanes) -> None:
    """HTTP/2, where a lane speaks it, does not hold frames back either."""
    tap = Tap()
    engine = ScriptedEngine(lambda _: ready(streamed(tap.frames())))
    async with lane(engine) as running, running.modern() as client:
        call = await client.send()
        await tap.flow(b"one")
        await call.until(lambda answer: answer.body == b"one")
        await tap.flow(b"two")
        await call.until(lambda answer: answer.body == b"onetwo")
        await tap.close()
        assert (await call.end()).complete


# --- as they ended -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [0, 1, 3])
async def test_a_stream_that_breaks_does_not_look_finished(lane: Lanes, frames: int) -> None:
    """An engine that fails inside a stream ends the HTTP/1 body without its last chunk."""
    engine = ScriptedEngine(lambda _: ready(streamed(broken(frames))))
    async with lane(engine) as running, await running.client() as client:
        await client.send()
        answer = await client.rest(await client.head())
        assert answer.status == 200
        assert answer.body == b"data: 0\n\n" * frames
        assert not answer.complete
        assert engine.running == 0


async def test_a_stream_that_breaks_takes_no_other_with_it(lane: Lanes) -> None:
    """The neighbours of a broken stream go on, those of the same HTTP/2 connection too."""
    tap = Tap()

    async def script(snapshot: Snapshot) -> Reply:
        match snapshot.body:
            case b"bad":
                return streamed(broken(1))
            case b"stays":
                return streamed(tap.frames())
            case _:
                return whole()

    async with lane(ScriptedEngine(script)) as running, running.modern() as client:
        stays = await client.send(body=b"stays")
        bad = await client.send(body=b"bad")
        assert not (await bad.end()).complete
        assert (await client.ask()).complete
        await tap.flow(b"still here")
        await tap.close()
        assert (await stays.end()).body == b"still here"


async def test_a_stream_that_breaks_in_http_1_0_is_reset(lane: Lanes) -> None:
    """Where a close means that all is well, only a reset tells that it is not."""

    async def script(snapshot: Snapshot) -> Reply:
        return streamed(_one(breaks=snapshot.body == b"bad"))

    async with lane(ScriptedEngine(script)) as running:
        for body, complete in ((b"good", True), (b"bad", False)):
            async with await running.client() as client:
                await client.send(body=body, version="1.0")
                answer = await client.rest(await client.head())
                assert "transfer-encoding" not in answer.headers
                assert answer.complete is complete


async def _one(*, breaks: bool) -> AsyncIterator[bytes]:
    yield b"one"
    await asyncio.sleep(0.05)
    if breaks:
        raise RuntimeError("broken")


# --- clients that leave ------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_leaves_stops_its_call(lane: Lanes, begun: bool) -> None:
    """A closed HTTP/1 connection cancels its exchange, before the first byte or after."""
    engine = ScriptedEngine(lambda _: ready(streamed(endless())) if begun else never())
    async with lane(engine) as running, await running.client() as client:
        await client.send()
        if begun:
            await client.head()
            await client.chunk()
        await engine.until(lambda e: e.running == 1)
        client.abort()
        await engine.until(lambda e: e.cancelled == 1)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_client_that_closes_only_its_side_has_left(lane: Lanes, begun: bool) -> None:
    """A half-closed connection is a closed one: nobody knows of a client that still listens, many that left so."""
    engine = ScriptedEngine(lambda _: ready(streamed(endless())) if begun else never())
    async with lane(engine) as running, await running.client() as client:
        await client.send()
        if begun:
            await client.head()
        await engine.until(lambda e: e.running == 1)
        client.half_close()
        await engine.until(lambda e: e.cancelled == 1)
        assert await client.ends()


@pytest.mark.parametrize("begun", [False, True])
async def test_a_call_that_is_given_up_stops_and_no_other(lane: Lanes, begun: bool) -> None:
    """RST_STREAM, or a connection of its own that is cut, ends one exchange; others go on."""
    tap = Tap()

    async def script(snapshot: Snapshot) -> Reply:
        if snapshot.body == b"stays":
            return streamed(tap.frames())
        return streamed(endless()) if begun else await never()

    engine = ScriptedEngine(script)
    async with lane(engine) as running, running.modern() as client:
        stays = await client.send(body=b"stays")
        leaves = await client.send(body=b"leaves")
        if begun:
            await leaves.until(lambda answer: bool(answer.body))
        await engine.until(lambda e: e.running == 2)
        leaves.cancel()
        await engine.until(lambda e: e.cancelled == 1)
        await tap.flow(b"still here")
        await tap.close()
        answer = await stays.end()
        assert (answer.complete, answer.body) == (True, b"still here")
        assert engine.cancelled == 1


# --- clients that dawdle -----------------------------------------------------------------------------------


async def test_a_slow_reader_slows_the_engine_down(lane: Lanes) -> None:
    """A client that does not read stops the engine's generator after a bounded number of bytes."""
    flood = Flood()
    engine = ScriptedEngine(lambda _: ready(streamed(flood.frames())))
    async with lane(engine) as running, await running.client() as client:
        client.stop_reading()
        await client.send()
        await flood.stalled()
        assert flood.sent < _IN_FLIGHT
        at_rest = flood.sent
        client.go_on_reading()
        answer = await client.head()
        received = 0
        while received <= at_rest:
            received += len(await client.chunk())
        assert flood.sent > at_rest
        assert answer.status == 200


async def test_a_slow_call_slows_only_itself_down(lane: Lanes) -> None:
    """A call that is not read stops its generator; the others of its client are served.

    An HTTP/2 stream stalls at its window, long before the buffers of a connection are full.
    """
    flood = Flood()

    async def script(snapshot: Snapshot) -> Reply:
        return streamed(flood.frames()) if snapshot.body == b"flood" else whole()

    async with lane(ScriptedEngine(script)) as running, running.modern() as client:
        slow = await client.send(body=b"flood", slow=True)
        await flood.stalled()
        at_rest = flood.sent
        assert at_rest < (1 << 20 if running.protocol == "h2" else _IN_FLIGHT)
        assert (await client.ask()).complete
        slow.go_on()
        await slow.until(lambda answer: len(answer.body) > at_rest)
        slow.cancel()


async def test_a_slow_reader_that_leaves_is_noticed(lane: Lanes) -> None:
    """Also a client that has stopped reading and then goes ends its call: nothing waits for it for ever."""
    flood = Flood()
    engine = ScriptedEngine(lambda _: ready(streamed(flood.frames())))
    async with lane(engine) as running, await running.client() as client:
        client.stop_reading()
        await client.send()
        await flood.stalled()
        client.abort()
        await engine.until(lambda e: e.cancelled == 1)
        assert engine.running == 0
