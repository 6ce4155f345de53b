"""Hedged calls, mostly over real sockets: a stream that is slow to begin gets a second attempt; one of them wins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.fakes.engine import Bench, chat
from tests.fakes.house import House, Told, house
from tests.fakes.provider import FakeProvider
from tests.fakes.transport import Scripted, ScriptedTransport, completion, json, stream
from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.job import Hedging, Patience
from tokenhub_core.preparing import Insight
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.providers.transport import HttpTransport
from tokenhub_core.routing.affinity import Loose, Thread
from tokenhub_core.routing.spread import ENOUGH
from tokenhub_core.types import (
    Attempt,
    Bond,
    Headers,
    Model,
    Outcome,
    Prices,
    Provider,
    ProviderType,
    Snapshot,
    Traces,
    Usage,
    header,
)

SLOW = Profile(ttft=30.0)
AT_ONCE = Hedging(lambda *_: 10.0, RetryBudget(ratio=1.0))
ON = {"hedge": 0.95}
PATIENT = Patience(ttft=20, stall=20, whole=20)


def stock(*names: str) -> list[Model]:
    """Return model `m` at each provider; the earlier ones are cheaper, so they come first."""
    return [
        Model("m", name, prices=Prices(1000.0 * (n + 1), 4000.0 * (n + 1))) for n, name in enumerate(names)
    ]


@dataclass
class Stage:
    """An engine on real sockets, and its providers by the order of the plan."""

    bench: Bench
    fakes: Sequence[FakeProvider]

    def call(self) -> Snapshot:
        return self.bench.snapshot(chat("tell me more " * 20, model="m", stream=True))

    def unharmed(self, *providers: str) -> None:
        """Health knows nothing good or bad of these."""
        views = self.bench.health.snapshot(self.bench.clock.monotonic())
        for name in providers:
            assert name not in views or (views[name].calls, views[name].last_error) == (0, "")


@asynccontextmanager
async def staged(*profiles: Profile) -> AsyncIterator[Stage]:
    names = "pqr"[: len(profiles)]
    fakes = [FakeProvider(profile=profile) for profile in profiles]
    for fake in fakes:
        fake.script("*", fake.profile.faults or ["ok"])
    async with HttpTransport() as transport:
        for fake in fakes:
            await fake.__aenter__()
        try:
            bench = Bench(
                models=stock(*names),
                providers=[
                    Provider(name, ProviderType.OPENAI_COMPATIBLE, (fake.url,))
                    for name, fake in zip(names, fakes, strict=True)
                ],
                defaults=ON,
                transport=transport,
                hedging=AT_ONCE,
                patience=PATIENT,
            )
            yield Stage(bench, fakes)
            await bench.executor.close()
        finally:
            for fake in fakes:
                await fake.__aexit__()


def told(headers: Headers) -> tuple[str, str, str]:
    names = ("x-tokenhub-provider", "x-tokenhub-reason", "x-tokenhub-attempts")
    provider, reason, attempts = (header(headers, name) for name in names)
    return provider, reason, attempts


def brief(attempts: Sequence[Attempt]) -> list[tuple[int, str, str]]:
    return [(attempt.n, attempt.provider, attempt.cause) for attempt in attempts]


# --- races


async def test_a_slow_stream_is_beaten_by_its_hedge() -> None:
    """The caller reads the second one's answer while the slow one has not said a word, and is let go of."""
    async with staged(SLOW, Profile()) as stage:
        slow, _ = stage.fakes
        reply = await stage.bench.engine.exchange(stage.call())
        frames: Any = reply.frames
        body = await anext(frames)
        assert slow.connections[0].sent == 0
        await slow.until(closed=1)
        body += b"".join([frame async for frame in frames])
        assert body.endswith(b"data: [DONE]\n\n")
        assert told(reply.headers) == ("q", "hedge-won", "2")
        record = stage.bench.recorder.one
        assert (record.outcome, record.provider, record.reason) == (Outcome.OK, "q", "hedge-won")
        assert brief(record.attempts) == [(1, "p", "hedge_lost"), (2, "q", "")]
        stage.unharmed("p")


async def test_what_lost_may_have_been_paid_for() -> None:
    """The input that the slow one was sent is counted as an estimate; the answer's own count stays exact."""
    async with staged(SLOW, Profile()) as stage:
        reply = await stage.bench.engine.exchange(stage.call())
        assert reply.frames is not None
        assert [frame async for frame in reply.frames]
        record = stage.bench.recorder.one
        lost, won = record.attempts
        assert record.plan is not None
        assert lost.usage == Usage(input_tokens=record.plan.input_tokens)
        assert lost.cost_nanousd == record.plan.input_tokens * 1000
        assert (record.usage, record.usage_estimated) == (won.usage, False)
        assert record.cost_nanousd == lost.cost_nanousd + won.cost_nanousd == stage.bench.ledger.spent_nanousd
        assert stage.bench.ledger.reserved_nanousd == 0


async def test_the_slow_one_may_win_after_all() -> None:
    """The hedge says nothing: the first answer is the caller's, under the plan's reason, and the hedge is closed."""
    async with staged(Profile(ttft=0.2), Profile(faults=("lifecycle-hang",))) as stage:
        reply, body = await stage.bench.ask(chat(model="m", stream=True))
        await stage.fakes[1].until(requests=1, closed=1)
        assert body.endswith(b"data: [DONE]\n\n")
        assert told(reply.headers) == ("p", "routed-hint-exact", "2")
        assert brief(stage.bench.recorder.one.attempts) == [(2, "q", "hedge_lost"), (1, "p", "")]
        stage.unharmed("q")


async def test_a_caller_that_leaves_ends_both() -> None:
    """Nobody works for someone who is gone; there is one record, and in it both attempts."""
    async with staged(SLOW, SLOW) as stage:
        task = asyncio.create_task(stage.bench.engine.exchange(stage.call()))
        for fake in stage.fakes:
            await fake.until(requests=1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        record = stage.bench.recorder.one
        assert record.outcome is Outcome.CANCELLED
        assert brief(record.attempts) == [(1, "p", "client_cancelled"), (2, "q", "client_cancelled")]
        assert stage.bench.ledger.reserved_nanousd == 0
        for fake in stage.fakes:
            await fake.until(closed=1)


async def test_when_both_fail_the_call_goes_on() -> None:
    """The third one answers: a hedge takes nothing from failover."""
    broken = Profile(ttft=0.1, faults=("lifecycle-error:500",))
    async with staged(broken, broken, Profile()) as stage:
        reply, body = await stage.bench.ask(chat(model="m", stream=True))
        assert body.endswith(b"data: [DONE]\n\n")
        assert told(reply.headers) == ("r", "failover", "3")
        record = stage.bench.recorder.one
        assert sorted(attempt.provider for attempt in record.attempts[:2]) == ["p", "q"]
        assert all(attempt.blame == "provider" for attempt in record.attempts[:2])
        assert brief(record.attempts)[2] == (3, "r", "")


async def test_a_first_try_that_fails_leaves_the_call_to_its_hedge() -> None:
    """Nothing else is begun while the hedge may still answer, and it has won no race."""
    failing = Profile(ttft=0.1, faults=("lifecycle-error:500",))
    async with staged(failing, Profile(ttft=0.2), Profile()) as stage:
        reply, _ = await stage.bench.ask(chat(model="m", stream=True))
        assert told(reply.headers) == ("q", "failover", "2")
        assert stage.fakes[2].requests == []


class Answering(ScriptedTransport):
    """Gives its answer to the first request once there is a second one, which is never answered."""

    def __init__(self, answer: Scripted) -> None:
        super().__init__(answer)
        self.two = asyncio.Event()

    async def send(self, request: Any, timeouts: Any) -> Scripted:
        answer = await super().send(request, timeouts)
        if len(self.sent) > 1:
            self.two.set()
            await asyncio.Event().wait()
        await self.two.wait()
        return answer


def unplugged(
    transport: ScriptedTransport,
    defaults: dict[str, Any] = ON,
    hedging: Hedging = AT_ONCE,
    insight: Insight = Insight(),
) -> Bench:
    """Return an engine without sockets."""
    names = ("p", "q", "r")
    return Bench(
        models=stock(*names),
        providers=[Provider(name, ProviderType.VLLM, ("https://x.example",)) for name in names],
        defaults=defaults,
        transport=transport,
        hedging=hedging,
        insight=insight,
    )


async def test_what_the_caller_got_wrong_ends_the_hedge_too() -> None:
    """A 400 of the first try is the caller's: it is told at once, and nobody else is asked to obey."""
    wrong = json({"error": {"message": "no such field", "type": "invalid_request_error"}}, 400)
    transport = Answering(wrong)
    bench = unplugged(transport)
    reply, _ = await bench.ask(chat(model="m", stream=True))
    assert (reply.status, len(transport.sent)) == (400, 2)
    assert brief(bench.recorder.one.attempts) == [(1, "p", "http_400"), (2, "q", "hedge_lost")]
    assert bench.ledger.reserved_nanousd == 0


# --- when nobody is hedged


class Watching(ScriptedTransport):
    """Notes in which task each request is sent."""

    def __init__(self, *answers: Scripted | Exception) -> None:
        super().__init__(*answers)
        self.tasks: list[asyncio.Task[Any] | None] = []

    async def send(self, request: Any, timeouts: Any) -> Scripted:
        self.tasks.append(asyncio.current_task())
        return await super().send(request, timeouts)


TEXT = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
DONE = (
    b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
)


@pytest.mark.parametrize(
    ("defaults", "asked", "known", "apart"),
    [
        (ON, True, True, True),
        ({}, True, True, False),
        (ON, False, True, False),
        (ON, True, False, False),
        ({**ON, "fallback": False}, True, True, False),
    ],
    ids=["on", "off", "whole", "unknown", "without-fallback"],
)
async def test_a_call_that_cannot_be_hedged_costs_no_task(
    defaults: dict[str, Any], asked: bool, known: bool, apart: bool
) -> None:
    """Off, not streamed, too little known, nobody else: the attempt runs in the caller's own task, without a timer."""
    answer = stream(TEXT, *DONE) if asked else json(completion())
    transport = Watching(answer)
    hedging = structs.replace(AT_ONCE, after=lambda *_: 1e6 if known else None)
    bench = unplugged(transport, defaults, hedging)
    reply, _ = await bench.ask(chat(model="m", stream=asked))
    assert reply.status == 200
    assert (transport.tasks[0] is not asyncio.current_task()) is apart


class Bound(Loose):
    """Takes every call for one that goes on with a conversation of `m` at `p`."""

    def __init__(self, lock: str) -> None:
        self.bond = Bond("m", "p", 1.0, 0, "calls", lock)

    def follow(self, traces: Callable[[], Traces], now: float) -> Thread:
        thread = Thread(traces(), b"-")
        thread.bond = self.bond
        return thread


@pytest.mark.parametrize(("lock", "apart"), [("tool_loop", False), ("", True)], ids=["locked", "free"])
async def test_a_conversation_that_is_locked_is_not_hedged(lock: str, apart: bool) -> None:
    """Slow is no failure: inside a tool loop nobody else is asked to go on."""
    transport = Watching(stream(TEXT, *DONE))
    bench = unplugged(transport, insight=Insight(bonds=lambda: Bound(lock)))
    reply, _ = await bench.ask(chat(model="m", stream=True))
    assert reply.status == 200
    assert (transport.tasks[0] is not asyncio.current_task()) is apart


# --- the whole application


async def _asked(it: House) -> Told:
    told = await it.chat("m", stream=True)
    assert told.status == 200
    assert told.body.endswith(b"data: [DONE]\n\n")
    return told


async def test_an_application_learns_when_its_providers_are_slow_and_still_knows_it_after_a_restart(
    tmp_path: Path,
) -> None:
    """Some streams that are quick, then one that hangs: the other provider answers, here and in the next process."""
    hedging = {"HEDGE": "0.99", "DEFAULT_MODE": "cheap"}
    async with FakeProvider() as quick, FakeProvider() as other:
        async with house(tmp_path, settings=hedging) as it:
            for name, fake, price in (("p", quick, 0.001), ("q", other, 0.9)):
                body = {"id": name, "base_url": fake.url, "cred_store": "memory", "api_key": f"sk-{name}"}
                await it.done("POST", "/providers", body)
                prices = {"input_per_1k": price, "output_per_1k": price}
                await it.done("POST", "/models", {"id": "m", "provider_id": name, **prices})
            # Records are learned from a moment later: more than enough of them.
            for _ in range(2 * ENOUGH):
                await _asked(it)
            quick.profile = SLOW
            told = await _asked(it)
            assert told.header("x-tokenhub-reason") == "hedge-won"
            shown = await it.done("GET", f"/decisions/{told.header('x-tokenhub-decision')}")
            assert [(one["provider"], one["cause"]) for one in shown["attempts"]] == [
                ("p", "hedge_lost"),
                ("q", ""),
            ]
            assert shown["policy"]["hedge"] == 0.99
            assert shown["policy"]["why"]["hedge"] == "default"
        async with house(tmp_path, settings=hedging) as again:
            for name in ("p", "q"):
                await again.done("PATCH", f"/providers/{name}", {"api_key": f"sk-{name}"})
            assert (await _asked(again)).header("x-tokenhub-reason") == "hedge-won"
