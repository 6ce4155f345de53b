"""Requests over every lane: their bodies, their order on a connection, and what is left of it after an error."""

from __future__ import annotations

import asyncio
import gzip

import pytest

from tests.addon.clients import ANTHROPIC, CHAT, MESSAGES, OPENAI
from tests.addon.lanes import Lanes
from tests.addon.scripted import ScriptedEngine, counted, lines, streamed, whole
from tokenhub_core.ports import Reply
from tokenhub_core.types import Snapshot

each_dialect = pytest.mark.parametrize(
    ("host", "path", "shape"),
    [(OPENAI, CHAT, b'{"error":{'), (ANTHROPIC, MESSAGES, b'{"type":"error"')],
)

# --- bodies ------------------------------------------------------------------------------------------------


@each_dialect
async def test_a_body_that_is_too_large_is_a_413_in_the_callers_dialect(
    lane: Lanes, host: str, path: str, shape: bytes
) -> None:
    """A declared size above the cap is refused in the caller's own shape, and the engine hears nothing."""
    engine = ScriptedEngine()
    async with lane(engine, tokenhub_max_body=1000) as running, await running.client(host) as client:
        answer = await client.ask(path, b"x" * 1001)
        assert answer.status == 413
        assert answer.body.replace(b" ", b"").startswith(shape)
        assert answer.headers["x-request-id"]
        assert engine.snapshots == []


async def test_a_chunked_body_meets_the_cap_as_it_comes(lane: Lanes) -> None:
    """A body of unknown size is refused once it is too large, not before and not at its end."""
    engine = ScriptedEngine()
    async with lane(engine, tokenhub_max_body=1000) as running, await running.client() as client:
        await client.begin()
        await client.send_chunk(b"x" * 600)
        await client.send_chunk(b"x" * 600)
        assert (await client.answer()).status == 413
        assert engine.snapshots == []


async def test_a_client_that_sends_all_of_it_hears_why_it_was_refused(lane: Lanes) -> None:
    """A client that reads nothing until it has sent megabytes is not cut off before it can read its 413.

    What it asks next on that connection is answered, or the connection is closed: a rest of the refused body is
    never taken for a request.
    """
    engine = ScriptedEngine()
    async with lane(engine, tokenhub_max_body=1000) as running, await running.client() as client:
        await client.send(body=b"POST " * (1 << 20))
        assert (await client.answer()).status == 413
        try:
            assert (await client.ask(body=b"next")).status == 200
        except (asyncio.IncompleteReadError, ConnectionError):
            assert engine.snapshots == []
        else:
            assert [snapshot.body for snapshot in engine.snapshots] == [b"next"]


async def test_a_body_at_the_cap_is_taken(lane: Lanes) -> None:
    """The cap itself is allowed, over HTTP/2 too where a lane speaks it, and where the size was not declared."""
    engine = ScriptedEngine()
    async with lane(engine, tokenhub_max_body=65_000) as running:
        async with running.modern() as client:
            assert (await client.ask(body=b"x" * 65_000)).status == 200
            assert (await client.ask(body=b"x" * 65_000, headers={"Content-Length": "65000"})).status == 200
        async with await running.client() as plain:
            await plain.begin()
            await plain.send_chunk(b"x" * 65_000)
            await plain.send_chunk(b"")
            assert (await plain.answer()).status == 200
        assert [len(snapshot.body) for snapshot in engine.snapshots] == [65_000] * 3


async def test_an_encoded_body_stays_encoded(lane: Lanes) -> None:
    """The snapshot holds the bytes that came; nobody has inflated them."""
    engine = ScriptedEngine()
    body = gzip.compress(b'{"model":"m"}' * 100, mtime=0)
    async with lane(engine) as running, await running.client() as client:
        await client.ask(body=body, headers={"Content-Encoding": "gzip"})
        assert engine.snapshots[0].body == body


async def test_a_client_that_waits_for_leave_to_send_gets_it(lane: Lanes) -> None:
    """`Expect: 100-continue` is answered before the body comes, as curl wants it for larger bodies."""
    engine = ScriptedEngine()
    async with lane(engine) as running, await running.client() as client:
        await client.begin(headers={"Expect": "100-continue"})
        assert (await client.head()).status == 100
        await client.send_chunk(b"here it is")
        await client.send_chunk(b"")
        assert (await client.answer()).body == b'{"ok":true}'
        assert [snapshot.body for snapshot in engine.snapshots] == [b"here it is"]


async def test_a_client_that_leaves_during_its_upload_is_no_call(lane: Lanes) -> None:
    """Half a request never reaches the engine."""
    engine = ScriptedEngine()
    async with lane(engine) as running:
        async with await running.client() as client:
            await client.send(body=b"half", headers={"Content-Length": "1000"})
        async with await running.client() as client:
            await client.begin()
            await client.send_chunk(b"half")
        async with await running.client() as client:
            assert (await client.ask()).status == 200
        assert len(engine.snapshots) == 1


# --- one after another -------------------------------------------------------------------------------------


async def test_pipelined_requests_are_answered_in_their_order(lane: Lanes) -> None:
    """Requests that are sent without waiting are served one by one, however long the first one takes."""
    first = asyncio.Event()

    async def script(snapshot: Snapshot) -> Reply:
        if snapshot.body == b"0":
            await first.wait()
        return streamed(counted(1, prefix=snapshot.body)) if snapshot.body == b"1" else whole(snapshot.body)

    engine = ScriptedEngine(script)
    async with lane(engine) as running, await running.client() as client:
        for number in range(3):
            await client.send(body=b"%d" % number)
        await engine.until(lambda e: e.running == 1)
        await asyncio.sleep(0.05)
        assert len(engine.snapshots) == 1
        first.set()
        assert [(await client.answer()).body for _ in range(3)] == [b"0", lines([b"10"]), b"2"]
        assert engine.most_running == 1


async def test_a_connection_lives_on_after_an_error(lane: Lanes) -> None:
    """An answer that tells of a fault ends the call, not the connection."""

    async def script(snapshot: Snapshot) -> Reply:
        if snapshot.body == b"raise":
            raise RuntimeError("boom")
        return whole(b"{}", status=int(snapshot.body))

    engine = ScriptedEngine(script)
    async with lane(engine) as running, await running.client() as client:
        for status in (400, 503, 200, 429, 200):
            assert (await client.ask(body=b"%d" % status)).status == status
        assert (await client.ask(body=b"raise")).status == 500
        assert (await client.ask(body=b"200")).status == 200
        assert engine.running == 0


@pytest.mark.parametrize(
    "nonsense",
    [
        b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"Content-Length: -1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
        b"Content-Length : 2\r\n\r\n{}",
        b"Content-Length: 2\r\n X: y\r\n\r\n{}",
    ],
    ids=["two lengths", "negative length", "length and chunks", "space before colon", "folded line"],
)
async def test_a_request_that_can_be_read_in_two_ways_is_read_in_none(lane: Lanes, nonsense: bytes) -> None:
    """What a second reader could cut differently is refused, and its connection closed."""
    engine = ScriptedEngine()
    async with lane(engine) as running, await running.client() as client:
        client.writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: {client.host}\r\n".encode() + nonsense)
        assert await client.ends()
        assert engine.snapshots == []
        assert running.upstream.dials == []


# --- faults of ours ----------------------------------------------------------------------------------------


@each_dialect
async def test_an_engine_that_raises_is_a_500_in_the_callers_dialect(
    lane: Lanes, host: str, path: str, shape: bytes
) -> None:
    """Whatever the engine does, the caller gets an answer that its SDK understands, and no detail of ours."""

    async def script(_: Snapshot) -> Reply:
        raise RuntimeError("boom")

    async with lane(ScriptedEngine(script)) as running, await running.client(host) as client:
        answer = await client.ask(path)
        assert answer.status == 500
        assert answer.body.replace(b" ", b"").startswith(shape)
        assert answer.headers["x-request-id"]
        assert b"boom" not in answer.body
        assert running.upstream.dials == []
