"""The calls that are under way: who asks, who is asked, for how long, what has come so far, in all workers."""

from __future__ import annotations

import asyncio
import socket

import orjson
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from msgspec import structs

from tests.e2e.serving import eventually
from tests.fakes.engine import Bench, chat
from tests.fakes.house import House
from tests.fakes.provider import FakeProvider
from tokenhub_core.clock import SystemClock
from tokenhub_core.dispatch.job import Trace
from tokenhub_core.http.ongoing import OngoingPages, shown
from tokenhub_core.progress import Progress
from tokenhub_core.siblings import Frame, Siblings, packed, received
from tokenhub_core.types import Caller, Json
from tokenhub_core.underway import Underway


async def test_a_stream_tells_how_far_it_has_come_until_it_ends() -> None:
    """Who asked for what, who answers, and as much of the answer as has come; then it is gone."""
    bench = Bench()
    snapshot = bench.snapshot(chat(stream=True, max_tokens=400), caller=Caller(program="agent/1"))
    reply = await bench.engine.exchange(snapshot)
    assert reply.frames is not None
    frames = aiter(reply.frames)
    await anext(frames)
    (call,) = shown(bench.engine.underway.calls(), snapshot.started + 7.5)
    assert (call.id, call.program, call.requested_model, call.seconds) == (
        snapshot.id,
        "agent/1",
        "gpt-4o",
        7.5,
    )
    assert (call.model_id, call.provider_id, call.state) == ("gpt-4o", "sim-openai", "streaming")
    assert (call.stream, call.attempts) == (True, 1)
    assert call.output_chars > 0
    assert call.output_tokens >= call.output_chars / 4
    async for _ in frames:
        pass
    assert shown(bench.engine.underway.calls(), 0.0) == []
    assert bench.recorder.one.usage.output_tokens >= call.output_tokens


async def test_a_call_that_waits_says_for_whom(it: House) -> None:
    """Its attempt was sent and nothing has come; the first to come stands first, and whoever ended is gone."""
    async with FakeProvider() as fake:
        await it.provider(fake, "p", "gpt-4o")
        fake.script("*", ["hang"])
        asking = [asyncio.create_task(it.chat(headers={"user-agent": "agent/1"}))]
        await fake.until(requests=1)
        asking.append(asyncio.create_task(it.chat(headers={"user-agent": "late/1"})))
        await fake.until(requests=2)

        async def all_there() -> Json | None:
            told = await it.done("GET", "/underway")
            return told if told["calls"] == 2 else None

        told = await eventually(all_there)
        assert told is not None
        first, second = told["items"]
        assert (told["processes"], told["unheard"]) == (1, 0)
        assert (first["program"], second["program"]) == ("agent/1", "late/1")
        assert (first["model_id"], first["provider_id"], first["state"]) == ("gpt-4o", "p", "waiting")
        assert first["seconds"] >= second["seconds"] >= 0
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

        async def gone() -> bool:
            return not (await it.done("GET", "/underway"))["items"]

        await eventually(gone)


async def test_all_workers_are_asked_and_one_that_is_silent_is_counted() -> None:
    """What another worker is at stands among the rest by how long it takes; who does not answer is said."""
    bench, clock = Bench(), SystemClock()

    async def at(seconds: float, name: str, siblings: Siblings) -> OngoingPages:
        underway, call = Underway(), bench.snapshot(chat(), caller=Caller(program=name))
        await underway.enter(Progress(structs.replace(call, started=call.started - seconds), Trace()))
        return OngoingPages(underway, siblings, clock)

    theirs = Siblings()
    await at(100.0, "other/1", theirs)
    ours, end = socket.socketpair()
    siblings = Siblings()
    await siblings.join(ours)
    pages = await at(1.0, "mine/1", siblings)
    end.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=end)

    async def supervise() -> None:
        while (frame := await received(reader)) is not None:
            told = await theirs._answers[frame.topic](frame.body)
            writer.write(packed(Frame("answers", frame.id, parts=(told, b""))))

    supervisor = asyncio.create_task(supervise())
    try:
        response = await pages._show(make_mocked_request("GET", "/"))
        assert isinstance(response, web.Response)
        assert isinstance(response.body, bytes)
        told = orjson.loads(response.body)
    finally:
        await siblings.leave()
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    assert [one["program"] for one in told["items"]] == ["other/1", "mine/1"]
    assert (told["calls"], told["processes"], told["unheard"]) == (2, 2, 1)
    assert {one["state"] for one in told["items"]} == {"planning"}
