"""Streams that do not begin in the time that is known of their model: they are given up where somebody else is left."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs

from tests.dispatch.test_hedge import SLOW, brief, stock, told
from tests.fakes.engine import Bench, chat
from tests.fakes.house import house
from tests.fakes.provider import FakeProvider
from tests.fakes.transport import ScriptedTransport, json, stream
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.providers.transport import HttpTransport
from tokenhub_core.routing.deadlines import parsed
from tokenhub_core.routing.spread import ENOUGH
from tokenhub_core.types import Outcome, Provider, ProviderType

LATER = Profile(ttft=0.4)
HUNG = Profile(faults=("lifecycle-hang",))
KNOWN = Patience(ttft=30, stall=30, whole=30, floor=0.05)
"""What is known of each model is that it begins at once."""


@asynccontextmanager
async def staged(
    *profiles: Profile, patience: Patience = KNOWN, silence: float = math.inf
) -> AsyncIterator[Bench]:
    """Yield an engine whose model `m` stands at a provider for each profile, in this order."""
    names = "pqr"[: len(profiles)]
    fakes = [FakeProvider(profile=profile) for profile in profiles]
    async with HttpTransport() as transport:
        for fake in fakes:
            fake.script("*", fake.profile.faults or ["ok"])
            await fake.__aenter__()
        try:
            bench = Bench(
                models=stock(*names),
                providers=[
                    Provider(name, ProviderType.OPENAI_COMPATIBLE, (fake.url,))
                    for name, fake in zip(names, fakes, strict=True)
                ],
                transport=transport,
                patience=patience,
                learned=lambda *_: 0.0,
                silences=lambda *_: silence,
            )
            yield bench
            await bench.executor.close()
        finally:
            for fake in fakes:
                await fake.__aexit__()


def limits(bench: Bench) -> Sequence[float | None]:
    return [attempt.ttft_limit_ms for attempt in bench.recorder.one.attempts]


@pytest.mark.parametrize("hung", [SLOW, HUNG], ids=["no-head", "no-content"])
async def test_a_stream_that_does_not_begin_as_its_model_does_is_given_up(hung: Profile) -> None:
    """Another provider answers after the floor, long before the setting; the attempt says what it had."""
    async with staged(hung, Profile()) as bench:
        reply, body = await bench.ask(chat(model="m", stream=True))
        assert body.endswith(b"data: [DONE]\n\n")
        assert told(reply.headers) == ("q", "failover", "2")
        record = bench.recorder.one
        assert brief(record.attempts) == [(1, "p", "ttft_timeout"), (2, "q", "")]
        assert record.plan is not None
        assert limits(bench) == [pytest.approx(50 + record.plan.input_tokens), None]
        assert bench.ledger.reserved_nanousd == 0


async def test_the_last_one_is_waited_for() -> None:
    """What was learned only sends a call on: where nobody else is left it fails no call that the setting allows."""
    async with staged(HUNG, LATER) as bench:
        reply, _ = await bench.ask(chat(model="m", stream=True))
        assert told(reply.headers) == ("q", "failover", "2")
    async with staged(LATER) as bench:
        reply, _ = await bench.ask(chat(model="m", stream=True))
        assert told(reply.headers)[2] == "1"
        assert limits(bench) == [None]


async def test_a_whole_answer_has_its_time() -> None:
    """How long it takes is how long it is."""
    async with staged(LATER, Profile()) as bench:
        reply, _ = await bench.ask(chat(model="m"))
        assert told(reply.headers) == ("p", "routed-hint-exact", "1")
        assert limits(bench) == [None]


async def test_a_long_prompt_has_the_time_that_it_takes_to_read() -> None:
    """A second for a thousand tokens: here they are some sixteen seconds' worth."""
    async with staged(LATER, Profile()) as bench:
        reply, _ = await bench.ask(chat("tell me more " * 5000, model="m", stream=True))
        assert told(reply.headers)[0] == "p"


async def test_where_nothing_is_to_be_learned_the_setting_holds() -> None:
    """It can be switched off."""
    async with staged(LATER, Profile(), patience=structs.replace(KNOWN, floor=None)) as bench:
        reply, _ = await bench.ask(chat(model="m", stream=True))
        assert told(reply.headers)[0] == "p"


async def test_the_operators_word_counts_more_than_what_was_learned() -> None:
    """In both directions, and for the last one too."""
    longer = structs.replace(KNOWN, own=parsed(["p/m=ttft:20"]))
    async with staged(LATER, Profile(), patience=longer) as bench:
        reply, _ = await bench.ask(chat(model="m", stream=True))
        assert told(reply.headers)[0] == "p"
        assert limits(bench) == [20_000.0]
    shorter = structs.replace(KNOWN, floor=None, own=parsed(["m=ttft:0.05"]))
    async with staged(SLOW, patience=shorter) as bench:
        reply, _ = await bench.ask(chat(model="m", stream=True))
        assert reply.status == 504
        assert set(limits(bench)) == {50.0}


async def test_a_model_has_a_stall_limit_of_its_own() -> None:
    """The others keep the setting; a silence behind the first word ends in an error event."""
    stalling = Profile(faults=("stall",))
    async with staged(stalling, patience=structs.replace(KNOWN, own=parsed(["m=stall:0.5"]))) as bench:
        reply, body = await bench.ask(chat("tell me more " * 20, model="m", stream=True))
        assert reply.status == 200
        assert b"[DONE]" not in body
        record = bench.recorder.one
        assert (record.outcome, record.fault) == (Outcome.ERROR, "stall_timeout")
        assert limits(bench) == [None]


ATTENTIVE = structs.replace(KNOWN, stall_floor=0.3, tick=0.1)
STALLING = Profile(faults=("stall",))
LONG = chat("tell me more " * 20, model="m", stream=True)


async def test_a_stream_that_falls_silent_as_its_model_never_does_is_given_up() -> None:
    """After the floor, long before the setting; the attempt says what it had."""
    async with staged(STALLING, patience=ATTENTIVE, silence=0.1) as bench:
        began = time.monotonic()
        reply, body = await bench.ask(LONG)
        assert 0.3 <= time.monotonic() - began < 20
        assert reply.status == 200
        assert b"[DONE]" not in body
        record = bench.recorder.one
        assert (record.outcome, record.fault) == (Outcome.ERROR, "stall_timeout")
        assert record.attempts[-1].stall_limit_ms == 300.0
        assert bench.ledger.reserved_nanousd == 0


@pytest.mark.parametrize(
    ("patience", "silence"),
    [
        (ATTENTIVE, math.inf),
        (ATTENTIVE, 40.0),
        (structs.replace(ATTENTIVE, stall_floor=None), 0.1),
        (structs.replace(ATTENTIVE, own=parsed(["m=stall:25"])), 0.1),
    ],
    ids=["unknown", "above the setting", "off", "by hand"],
)
async def test_a_silence_is_waited_for_where_nothing_else_is_known(
    patience: Patience, silence: float
) -> None:
    """The stream pauses for longer than the floor, and comes to its end; how long it was silent is told."""
    async with staged(Profile(tokens_per_second=0.8), patience=patience, silence=silence) as bench:
        _, body = await bench.ask(chat(model="m", stream=True, max_tokens=3))
        assert body.endswith(b"data: [DONE]\n\n")
        (attempt,) = bench.recorder.one.attempts
        assert attempt.stall_limit_ms is None
        assert attempt.silence_ms is not None
        assert attempt.silence_ms >= 350


async def test_the_transport_is_told_the_models_own_limit() -> None:
    """It is the one that watches the silence between two reads."""
    transport = ScriptedTransport(json({"error": {"message": "no"}}, 500), stream())
    bench = Bench(
        models=stock("p", "q"),
        providers=[Provider(name, ProviderType.VLLM, ("https://x.example",)) for name in "pq"],
        transport=transport,
        patience=structs.replace(KNOWN, own=parsed(["q/*=stall:7"])),
    )
    await bench.ask(chat(model="m", stream=True))
    assert [timeouts.stall for timeouts in transport.timeouts[:2]] == [30, 7]


# --- the whole application


async def test_an_application_learns_how_long_its_models_may_take(tmp_path: Path) -> None:
    """Some streams that are quick, then one that hangs: another provider answers, and the decision says why."""
    quickly = {"TTFT_FLOOR_SECS": "0.5", "DEFAULT_MODE": "cheap"}
    async with FakeProvider() as quick, FakeProvider() as other, house(tmp_path, settings=quickly) as it:
        for name, fake, price in (("p", quick, 0.001), ("q", other, 0.9)):
            body = {"id": name, "base_url": fake.url, "cred_store": "memory", "api_key": f"sk-{name}"}
            await it.done("POST", "/providers", body)
            prices = {"input_per_1k": price, "output_per_1k": price}
            await it.done("POST", "/models", {"id": "m", "provider_id": name, **prices})
        # Records are learned from a moment later: more than enough of them.
        for _ in range(4 * ENOUGH):
            assert (await it.chat("m", stream=True)).status == 200
        quick.profile = SLOW
        answer = await it.chat("m", stream=True)
        assert answer.status == 200
        shown = await it.done("GET", f"/decisions/{answer.header('x-tokenhub-decision')}")
        late, won = shown["attempts"]
        assert (late["provider"], late["cause"], won["provider"]) == ("p", "ttft_timeout", "q")
        assert 500 <= late["ttft_limit_ms"] < 120_000
        assert "ttft_limit_ms" not in won


async def test_an_application_learns_how_long_its_models_are_silent(tmp_path: Path) -> None:
    """Some streams that go on, then one that does not: it is given up early, and its record says after how long."""
    quickly = {"STALL_FLOOR_SECS": "0.5", "KEEP_ALIVE_SECS": "0.1"}
    async with FakeProvider() as fake, house(tmp_path, settings=quickly) as it:
        body = {"id": "p", "base_url": fake.url, "cred_store": "memory", "api_key": "sk-p"}
        await it.done("POST", "/providers", body)
        await it.done("POST", "/models", {"id": "m", "provider_id": "p"})
        for _ in range(4 * ENOUGH):
            assert (await it.chat("m", stream=True)).status == 200
        fake.script("*", ["stall"])
        answer = await it.chat("m", stream=True)
        shown = await it.done("GET", f"/decisions/{answer.header('x-tokenhub-decision')}")
        (given_up,) = shown["attempts"]
        assert given_up["cause"] == "stall_timeout"
        assert 500 <= given_up["stall_limit_ms"] < 90_000
