"""Callers who leave, callers who wait, and what Temporal may know of what they say."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes.engine import Bench, chat
from tests.workflows.house import durably
from tests.workflows.server import Temporal
from tests.workflows.upstream import Counting
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.types import Outcome
from tokenhub_core.workflows.following import Waits

SAID = "the purple elephant keeps her umbrella in Zanzibar"


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_takes_the_call_along(stream: bool, temporal: Temporal, tmp_path: Path) -> None:
    """The workflow is cancelled, its attempt with it, and the upstream call; one record says so."""
    upstream = Counting(held=True)
    bench = Bench(
        transport=upstream, defaults={"durable": True}, patience=Patience(ttft=60, stall=60, whole=60)
    )
    async with durably(temporal, tmp_path, bench) as house:
        asking = asyncio.create_task(house.ask(chat(stream=stream)))
        await upstream.reached.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await house.durable.close()

    record = bench.recorder.one
    assert (upstream.sent, upstream.cancelled) == (1, 1)
    assert record.outcome is Outcome.CANCELLED
    assert [attempt.cause for attempt in record.attempts] == ["client_cancelled"]
    assert bench.ledger.reserved_nanousd == 0


async def test_a_stream_that_lets_wait_says_that_it_lives(temporal: Temporal, tmp_path: Path) -> None:
    """As long as nothing is known the caller gets signs of life, then the stream as it would have been."""
    upstream = Counting(held=True)
    bench = Bench(
        transport=upstream,
        defaults={"durable": True},
        patience=Patience(ttft=60, stall=60, whole=60, tick=0.05),
    )
    async with durably(temporal, tmp_path, bench) as house:
        reply = await bench.engine.exchange(bench.snapshot(chat(stream=True)))
        assert reply.frames is not None
        first = await anext(reply.frames)
        upstream.go.set()
        rest = b"".join([frame async for frame in reply.frames])
        assert house.durable.fallbacks == 0

    assert reply.status == 200
    assert first.startswith(b":")
    assert rest.endswith(b"data: [DONE]\n\n")
    assert (bench.recorder.one.outcome, bench.recorder.one.stream) == (Outcome.OK, True)


async def test_who_leaves_while_a_stream_lets_wait_takes_the_call_along(
    temporal: Temporal, tmp_path: Path
) -> None:
    """The same as before the first sign of life."""
    upstream = Counting(held=True)
    patience = Patience(ttft=60, stall=60, whole=60, tick=0.05)
    bench = Bench(transport=upstream, defaults={"durable": True}, patience=patience)
    async with durably(temporal, tmp_path, bench) as house:
        reply = await bench.engine.exchange(bench.snapshot(chat(stream=True)))
        assert reply.frames is not None
        await anext(reply.frames)
        await upstream.reached.wait()
        await reply.frames.aclose()  # type: ignore[attr-defined]
        await house.durable.close()

    assert upstream.cancelled == 1
    assert bench.recorder.one.outcome is Outcome.CANCELLED


async def test_who_leaves_a_call_that_is_made_directly_ends_it(temporal: Temporal, tmp_path: Path) -> None:
    """No worker began it, so it was made here: it is cancelled here, and recorded here."""
    upstream = Counting(held=True)
    bench = Bench(transport=upstream, defaults={"durable": True})
    async with durably(temporal, tmp_path, bench, worker=False, waits=Waits(begin=0.1, leave=60)) as house:
        asking = asyncio.create_task(house.ask(chat()))
        await upstream.reached.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await house.durable.close()

    assert upstream.cancelled == 1
    assert bench.recorder.one.outcome is Outcome.CANCELLED


async def test_a_stream_that_was_over_when_its_caller_left_is_recorded_once(
    temporal: Temporal, tmp_path: Path
) -> None:
    """He did not look again after the sign of life; the record was made by the workflow."""
    upstream = Counting(held=True)
    patience = Patience(ttft=60, stall=60, whole=60, tick=0.05)
    bench = Bench(transport=upstream, defaults={"durable": True}, patience=patience)
    recorded = asyncio.Event()
    bench.recorder.before = recorded.set
    async with durably(temporal, tmp_path, bench) as house:
        reply = await bench.engine.exchange(bench.snapshot(chat(stream=True)))
        assert reply.frames is not None
        await anext(reply.frames)
        upstream.go.set()
        await recorded.wait()
        await reply.frames.aclose()  # type: ignore[attr-defined]
        await house.durable.close()

    assert bench.recorder.one.outcome is Outcome.OK


def written(store: Path) -> bytes:
    """Return everything that a database has on disk."""
    return b"".join(path.read_bytes() for path in store.parent.glob(f"{store.name}*"))


async def test_nothing_that_is_said_can_be_read_in_temporal(temporal: Temporal, tmp_path: Path) -> None:
    """Neither question nor answer nor names stand in Temporal's store, nor in ours, where anybody could read them."""
    bench = Bench(defaults={"durable": True})
    async with durably(temporal, tmp_path, bench) as house:
        _, body = await house.ask(chat(f"echo: {SAID}"))
        assert SAID.encode() in body
        reply, _ = await house.ask(chat(f"echo: {SAID}", stream=True))
        assert reply.status == 200
        assert house.durable.fallbacks == 0

    theirs, ours = written(temporal.store), written(tmp_path / "store.sqlite")
    assert bench.recorder.records[0].id.encode() in theirs  # it is the right file
    for secret in (b"purple elephant", b"Zanzibar", b"claude-sonnet-4-5"):
        assert secret not in theirs
        assert secret not in ours
