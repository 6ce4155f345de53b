"""Many calls and many faults at once. Each is bounded in time; what the machine gave is told with `-s`.

What a line begins with is its row in the scorecard: G for what callers get, L for load.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from statistics import quantiles

import pytest
import pytest_asyncio

from tests.e2e.serving import measured, until
from tests.faults.world import LANES, Turn, World, world
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.types import Lane
from tokenhub_core.underway import Underway

pytestmark = [pytest.mark.load, pytest.mark.asyncio(loop_scope="module")]

BEFORE = (
    *(
        "500",
        "503",
        "529",
        "429:0",
        "disconnect",
        "bad-json",
        "error-body:500",
        "cut-early:fin",
        "cut-early:reset",
    ),
    *("then-error:500", "bad-gzip", "long-header", "short-gzip"),
)
"""What can happen before anybody has seen a word."""
AFTER = ("cut:fin", "cut:reset", "truncate", "no-terminal", "content-error:500")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One TokenHub for all of them."""
    async with world(tmp_path_factory.mktemp("load")) as made:
        yield made


async def _many(calls: int, play: Callable[[int], Awaitable[str]], *, at_once: int = 24) -> Counter[str]:
    """Make so many calls, some at a time; count how they ended."""
    ends: Counter[str] = Counter()
    numbers = iter(range(calls))

    async def caller() -> None:
        for number in numbers:
            ends[await play(number)] += 1

    await asyncio.gather(*(caller() for _ in range(at_once)))
    return ends


async def test_g1_every_call_is_answered_while_one_provider_is_well(it: World) -> None:
    """A third of the attempts at the first provider fail, in every way that there is before the first word."""
    chance, calls = random.Random(1), 3000
    for slot in it.slots:
        slot.fresh(apart=True)
        slot.first.script(
            "*", [chance.choice(BEFORE) if chance.random() < 0.3 else "ok" for _ in range(1000)]
        )

    async def play(number: int) -> str:
        got = await Turn.of(it, number).call()
        return (
            "answered" if got.status == 200 and not got.said and (got.ended or not got.streamed) else "failed"
        )

    began = time.monotonic()
    ends = await _many(calls, play)
    measured(f"G1: {ends['answered']} of {calls} answered in {time.monotonic() - began:.0f} s")
    assert ends["answered"] == calls, ends


async def test_g2_all_three_attempts_are_used_before_anybody_hears_of_a_failure(it: World) -> None:
    """A third of all attempts fail, whoever is asked: with three attempts each, 97.3 % of the calls are answered."""
    chance, calls = random.Random(2), 2000
    for slot in it.slots:
        slot.fresh(apart=False)
        slot.first.script(
            "*", [chance.choice(BEFORE) if chance.random() < 0.3 else "ok" for _ in range(2000)]
        )

    async def play(number: int) -> str:
        # What was learned of a provider would leave fewer to ask: here the dice alone decide.
        it.executor.means.health._all.clear()
        got = await Turn.of(it, number).call()
        return (
            "answered" if got.status == 200 and not got.said and (got.ended or not got.streamed) else "failed"
        )

    ends = await _many(calls, play)
    measured(f"G2: {ends['answered']} of {calls} answered while every third attempt fails everywhere")
    assert ends["answered"] >= 0.97 * calls, ends


async def test_g3_no_break_looks_like_an_end(it: World) -> None:
    """Every stream breaks behind its first words: every caller reads an error event, none an ending."""
    chance, calls = random.Random(3), 1000
    for slot in it.slots:
        slot.fresh(apart=False)
        slot.first.script("*", [chance.choice(AFTER) for _ in range(1000)])

    async def play(number: int) -> str:
        # Health must not help: whoever is asked breaks.
        it.executor.means.health._all.clear()
        got = await replace(Turn.of(it, number), stream=True).call()
        return "told" if got.said and not got.ended else "silent"

    ends = await _many(calls, play)
    measured(f"G3: {ends['told']} of {calls} streams that broke said so")
    assert ends["told"] == calls, ends


async def test_g11_nothing_is_left_of_clients_that_left(it: World) -> None:
    """A thousand clients leave in the middle: two seconds later no connection to a provider is in use."""
    for slot in it.slots:
        slot.fresh(apart=True)
        slot.first.profile = slot.spare.profile = Profile(tokens_per_second=20)

    async def play(number: int) -> str:
        turn = replace(Turn.of(it, number), stream=True)
        async with turn.open() as response:
            await response.content.readany()
        return "left"

    try:
        ends = await _many(1000, play, at_once=48)
        began = time.monotonic()
        await until(lambda: it.open_upstream() == 0, within=10)
        took = time.monotonic() - began
    finally:
        for slot in it.slots:
            slot.first.profile = slot.spare.profile = Profile()
    measured(f"G11: {ends['left']} clients left; nothing was open {took:.2f} s after the last one")
    assert took < 2
    assert len(it.pipeline.underway) == 0


async def test_l2_many_streams_are_held_and_lose_nothing(it: World) -> None:
    """Three hundred streams, all at once, for some ten seconds: none loses, doubles or mixes a word."""
    for slot in it.slots:
        slot.fresh(apart=True)
        slot.first.profile = Profile(tokens_per_second=7)
    try:
        turns = [
            replace(
                Turn.of(it, number), lane=LANES[number % 3], caller="openai", speaks="openai", stream=True
            )
            for number in range(300)
        ]
        began = time.monotonic()
        gots = await asyncio.gather(*(turn.call(text=f"stream {turn.number}") for turn in turns))
        took = time.monotonic() - began
    finally:
        for slot in it.slots:
            slot.first.profile = Profile()
    bad = [
        got
        for turn, got in zip(turns, gots, strict=True)
        if got.said or not got.ended or not got.words.startswith(f'You asked: "stream {turn.number}".')
    ]
    pieces = sum(len(got.events) for got in gots)
    measured(f"L2: {len(gots)} streams for {took:.0f} s, {pieces} events, {len(bad)} not whole")
    assert bad == []


async def test_l6_overload_is_refused_at_once_and_the_rest_is_served(it: World) -> None:
    """Three times as many callers as places: those inside are served as ever, the others hear so in a moment."""
    for slot in it.slots:
        slot.fresh(apart=True)
        slot.first.profile = slot.spare.profile = Profile(ttft=0.2)
    places, before = 20, it.pipeline.underway

    async def load(callers: int, seconds: float) -> tuple[int, list[float]]:
        served, refusals, until_ = 0, list[float](), time.monotonic() + seconds

        async def caller(number: int) -> None:
            nonlocal served
            while time.monotonic() < until_:
                turn = replace(Turn.of(it, number), lane=Lane.DIRECT, stream=False, caller="openai")
                got = await turn.call()
                if got.status == 200:
                    served += 1
                else:
                    assert got.status == 503, got
                    assert dict(got.headers)["retry-after"] == "1"
                    refusals.append(got.took)
                    await asyncio.sleep(0.1)

        await asyncio.gather(*(caller(number) for number in range(callers)))
        return served, refusals

    try:
        it.pipeline.underway = Underway(places, 0.05)
        capacity, _ = await load(places, 5)
        goodput, refusals = await load(3 * places, 10)
    finally:
        it.pipeline.underway = before
        for slot in it.slots:
            slot.first.profile = slot.spare.profile = Profile()
    goodput //= 2
    p95 = quantiles(refusals, n=20)[-1]
    measured(
        f"L6: {capacity} calls in 5 s at {places} places, {goodput} of three times as many callers;"
        f" {len(refusals)} were refused, 95 % within {p95 * 1000:.0f} ms"
    )
    assert goodput >= 0.9 * capacity
    assert p95 < 0.25
