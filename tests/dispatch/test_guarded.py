"""Guarded streams: a break in their beginning is made good unseen, one behind the bound is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import pytest
from msgspec import structs

from tests.dispatch.test_hedge import stock
from tests.fakes.engine import Bench, chat
from tests.fakes.provider import FakeProvider
from tokenhub_core.dispatch.job import Guard, Patience
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.providers.transport import HttpTransport
from tokenhub_core.types import Outcome, Provider, ProviderType

ON: Final = {"guarded": True}
PATIENT: Final = Patience(ttft=20, stall=20, whole=20, guard=Guard(seconds=20, size=1 << 20))


@asynccontextmanager
async def scene(*profiles: Profile, **how: Any) -> AsyncIterator[tuple[Bench, list[FakeProvider]]]:
    """An engine on real sockets, and its providers by the order of the plan."""
    fakes = [FakeProvider(profile=profile) for profile in profiles]
    for fake in fakes:
        fake.script("*", fake.profile.faults or ["ok"])
    names = "pqr"[: len(fakes)]
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(HttpTransport())
        for fake in fakes:
            await stack.enter_async_context(fake)
        bench = Bench(
            models=stock(*names),
            providers=[
                Provider(name, ProviderType.OPENAI_COMPATIBLE, (fake.url,))
                for name, fake in zip(names, fakes, strict=True)
            ],
            transport=transport,
            **{"defaults": ON, "patience": PATIENT, **how},
        )
        yield bench, fakes
        await bench.executor.close()


def call(**more: Any) -> Any:
    return chat("tell me more " * 20, model="m", stream=True, **more)


BREAKS: Final = ("truncate", "reset", "no-terminal", "content-error")


@pytest.mark.parametrize("fault", BREAKS)
async def test_a_break_before_the_bound_is_made_good_unseen(fault: str) -> None:
    """The caller reads one answer, from its beginning, and nothing of the one that broke; both are on record."""
    async with scene(Profile(faults=(fault,)), Profile()) as (bench, fakes):
        _, body = await bench.ask(call())

    assert body.endswith(b"data: [DONE]\n\n")
    assert b'"error"' not in body
    assert body.count(b'"role":"assistant"') == 1, "two beginnings"
    record = bench.recorder.one
    assert (record.outcome, record.provider) == (Outcome.OK, "q")
    first, second = record.attempts
    assert (first.cause != "", second.cause) == (True, "")
    assert first.usage.output_tokens > 0, "it was said, and is billed"
    assert record.plan is not None
    assert record.plan.policy.guarded
    assert [len(fake.requests) for fake in fakes] == [1, 1]


async def test_without_a_guard_a_break_is_told_and_nobody_else_is_asked() -> None:
    """As ever: the first word is the commit."""
    async with scene(Profile(faults=("truncate",)), Profile(), defaults={}) as (bench, fakes):
        _, body = await bench.ask(call())

    assert b'"error"' in body
    assert fakes[1].requests == []


async def test_a_break_behind_the_bound_of_bytes_is_told() -> None:
    """What the caller has read cannot be taken back."""
    few = structs.replace(PATIENT, guard=Guard(seconds=20, size=1))
    async with scene(Profile(faults=("truncate",)), Profile(), patience=few) as (bench, fakes):
        _, body = await bench.ask(call())

    assert b'"error"' in body
    assert b"[DONE]" not in body
    assert fakes[1].requests == []


async def test_a_beginning_is_held_no_longer_than_the_bound_of_seconds() -> None:
    """A provider that falls silent in the middle: what it has said is passed on then, its silence is waited for."""
    short = structs.replace(PATIENT, guard=Guard(seconds=0.1, size=1 << 20))
    async with scene(Profile(faults=("stall",)), Profile(), patience=short) as (bench, fakes):
        reply = await bench.engine.exchange(bench.snapshot(call()))
        frames: Any = reply.frames
        assert b"content" in await anext(frames)
        await frames.aclose()
    assert fakes[1].requests == []


async def test_a_whole_stream_within_the_bound_is_passed_as_it_came() -> None:
    """Byte for byte what came, with its end, from the one provider that was asked."""
    async with scene(Profile()) as (bench, _):
        _, body = await bench.ask(call(stream_options={"include_usage": True}))

    record = bench.recorder.one
    assert (record.outcome, record.identical, len(record.attempts)) == (Outcome.OK, True, 1)
    assert body.endswith(b"data: [DONE]\n\n")


async def test_a_prompt_may_ask_for_a_guard_and_not_lift_one() -> None:
    """`guarded=on` is leave enough; where the operator has it on, `off` is denied."""
    async with scene(Profile(faults=("truncate",)), Profile(), defaults={}) as (bench, _):
        asked = chat("@@tokenhub guarded=on\nHello", model="m", stream=True)
        assert (await bench.ask(asked))[1].endswith(b"[DONE]\n\n")
    async with scene(Profile(faults=("truncate",)), Profile()) as (bench, _):
        reply, body = await bench.ask(chat("@@tokenhub guarded=off\nHello", model="m", stream=True))
        assert body.endswith(b"[DONE]\n\n")
        assert dict(reply.headers)["x-tokenhub-directive"] == "denied; guarded"
