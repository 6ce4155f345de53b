"""Callers who leave in the middle of a stream: their provider is let go of, or read on where its policy says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import pytest
from msgspec import structs

from tests.dispatch.test_hedge import stock
from tests.fakes.engine import Bench, chat, message
from tests.fakes.provider import FakeProvider
from tokenhub_core.dispatch.job import Drain, Patience
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.providers.transport import HttpTransport
from tokenhub_core.types import Dialect, Json, OnDisconnect, Outcome, Provider, ProviderType, Record

PATIENT: Final = Patience(ttft=20, stall=20, whole=20)
SLOW: Final = Profile(tokens_per_second=200)


@asynccontextmanager
async def scene(
    policy: OnDisconnect = OnDisconnect.DRAIN, *, patience: Patience = PATIENT, profile: Profile = SLOW
) -> AsyncIterator[tuple[Bench, FakeProvider]]:
    async with HttpTransport() as transport, FakeProvider(profile=profile) as fake:
        fake.script("*", profile.faults or ["ok"])
        bench = Bench(
            models=stock("p"),
            providers=[Provider("p", ProviderType.OPENAI_COMPATIBLE, (fake.url,), on_disconnect=policy)],
            transport=transport,
            patience=patience,
        )
        yield bench, fake
        await bench.executor.close()


def call(**more: Any) -> Json:
    return chat("tell me more " * 5, model="m", stream=True, **more)


async def recorded(bench: Bench) -> Record:
    """Return the last record once there is one more than before."""
    heard, before = asyncio.Event(), bench.recorder.post

    def post(record: Record) -> None:
        before(record)
        heard.set()

    bench.recorder.post = post  # type: ignore[method-assign] # the scene listens
    async with asyncio.timeout(20):
        await heard.wait()
    bench.recorder.post = before  # type: ignore[method-assign] # and listens no more
    return bench.recorder.records[-1]


async def left(bench: Bench, body: Json, dialect: Dialect = Dialect.OPENAI_CHAT) -> Record:
    """Read the first words of an answer and leave; return the record."""
    reply = await bench.engine.exchange(bench.snapshot(body, dialect))
    frames: Any = reply.frames
    await anext(frames)
    waiting = asyncio.create_task(recorded(bench))
    await asyncio.sleep(0)
    await frames.aclose()
    return await waiting


@pytest.mark.parametrize("dialect", [Dialect.OPENAI_CHAT, Dialect.ANTHROPIC_MESSAGES])
async def test_what_is_read_on_is_billed_as_the_provider_counts_it(dialect: Dialect) -> None:
    """Usage and cost are those of a call that was read to its end; the connection serves again, health is as it was."""
    body = call() if dialect is Dialect.OPENAI_CHAT else message("tell me", model="m", stream=True)
    async with scene() as (bench, fake):
        await bench.ask(body, dialect)
        whole = bench.recorder.records[-1]
        record = await left(bench, body, dialect)

        assert (record.outcome, record.fault) == (Outcome.CANCELLED, "client_cancelled")
        assert (record.usage, record.usage_estimated) == (whole.usage, False)
        assert record.attempts[0].cost_nanousd == whole.attempts[0].cost_nanousd
        assert "read to its end" in record.attempts[0].message
        assert [peer.closed for peer in fake.connections] == [None] * len(fake.connections)
        assert bench.health.snapshot(bench.clock.monotonic())["p"].last_error == ""


async def test_by_default_the_provider_is_let_go_of_at_once() -> None:
    """What was used is an estimate then."""
    async with scene(OnDisconnect.CANCEL) as (bench, fake):
        record = await left(bench, call())
        await fake.until(closed=1)

    assert record.usage_estimated
    assert record.attempts[0].message == "the caller left"


@pytest.mark.parametrize(
    "drain", [Drain(seconds=0.01), Drain(size=1), Drain(most=0)], ids=["seconds", "bytes", "number"]
)
async def test_it_is_read_no_further_than_the_caps_say(drain: Drain) -> None:
    """Beyond them the provider is let go of, and the bill is an estimate that says so."""
    async with scene(patience=structs.replace(PATIENT, drain=drain)) as (bench, fake):
        record = await left(bench, call())
        await fake.until(closed=1)

    assert record.usage_estimated
    assert record.attempts[0].usage.output_tokens > 0


@pytest.mark.parametrize("fault", ["truncate", "reset", "content-error"])
async def test_a_stream_that_breaks_while_it_is_read_on_is_an_estimate(fault: str) -> None:
    """And nobody's failure: there was nobody any more who could have failed."""
    async with scene(profile=replace(SLOW, faults=(fault,))) as (bench, _):
        record = await left(bench, call())

        assert (record.fault, record.usage_estimated) == ("client_cancelled", True)
        assert not bench.health.snapshot(bench.clock.monotonic())


async def test_the_callers_place_is_free_while_its_answer_is_read_on() -> None:
    """Who leaves does not wait for that, and nor does who comes next."""
    async with scene() as (bench, _):
        reply = await bench.engine.exchange(bench.snapshot(call()))
        frames: Any = reply.frames
        await anext(frames)
        await frames.aclose()
        assert len(bench.engine.underway) == 0
        assert bench.recorder.records == []


async def test_what_is_read_on_ends_with_the_server() -> None:
    """Nothing is left behind: the attempt is settled, on record, and its connection closed."""
    async with scene(profile=Profile(tokens_per_second=1)) as (bench, fake):
        reply = await bench.engine.exchange(bench.snapshot(call()))
        frames: Any = reply.frames
        await anext(frames)
        await frames.aclose()
        waiting = asyncio.create_task(recorded(bench))
        await asyncio.sleep(0)
        await bench.executor.close()
        record = await waiting
        await fake.until(closed=1)

    assert record.usage_estimated
