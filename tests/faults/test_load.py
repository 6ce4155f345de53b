"""Many calls and many faults at once. Each is bounded in time; what the machine gave is told with `-s`.

What a line begins with is its row in the scorecard: G for what callers get, L for load.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import product
from statistics import quantiles
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.serving import measured, until
from tests.faults.chaos import Chaos
from tests.faults.world import LANES, SPEAKS, Turn, World, world
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.types import Lane
from tokenhub_core.underway import Underway

pytestmark = [pytest.mark.load, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

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
CALLS = int(os.environ.get("CALLS", "2000"))
LEAVERS = int(os.environ.get("LEAVERS", "1000"))
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


def _shaky(it: World, seed: int, names: Sequence[str], part: float, *, apart: bool) -> None:
    """Let a part of the attempts meet one of these; `apart` only those at the first providers."""
    chance = random.Random(seed)
    for slot in it.slots:
        slot.fresh(apart=apart)
        slot.first.script(
            "*", [chance.choice(names) if chance.random() < part else "ok" for _ in range(CALLS)]
        )


async def _end(it: World, number: int, **more: Any) -> str:
    """Make a call; return how it ended."""
    got = await replace(Turn.of(it, number), **more).call()
    if got.status != 200 or got.said:
        return "told" if got.said and not got.ended else "silent"
    return "answered" if got.ended or not got.streamed else "silent"


async def test_g1_every_call_is_answered_while_one_provider_is_well(it: World) -> None:
    """A third of the attempts at the first provider fail, in every way that there is before the first word."""
    _shaky(it, 1, BEFORE, 0.3, apart=True)

    began = time.monotonic()
    ends = await _many(CALLS, lambda number: _end(it, number))
    measured(f"G1: {ends['answered']} of {CALLS} answered in {time.monotonic() - began:.0f} s")
    assert ends["answered"] == CALLS, ends


@asynccontextmanager
async def _third(it: World) -> AsyncIterator[Chaos]:
    """Run one more provider, dearer than both of each pair, that serves every model and is always well."""
    async with Chaos() as well:
        body = {
            "id": "well",
            "type": "openai",
            "base_url": well.url,
            "cred_store": "memory",
            "api_key": "sk-canary-lab",
        }
        await it.admin("POST", "/providers", body)
        dear = {"provider_id": "well", "input_per_1k": 0.1, "output_per_1k": 0.4}
        for slot in it.slots:
            for first, spare in product(SPEAKS, SPEAKS):
                await it.admin("POST", "/models", {"id": slot.model(first, spare), **dear})
        try:
            yield well
        finally:
            await it.admin("DELETE", "/providers/well")


async def test_g2_every_call_is_answered_while_one_of_three_providers_is_well(it: World) -> None:
    """A third of the attempts at either of two providers fail, before the first word; the third one is asked last."""
    async with _third(it) as well:
        _shaky(it, 4, BEFORE, 0.3, apart=False)
        ends = await _many(CALLS, lambda number: _end(it, number))
        asked = len(well.requests)
    measured(f"G2: {ends['answered']} of {CALLS} answered while two of three fail, {asked} by the third")
    assert ends["answered"] == CALLS, ends
    assert 0 < asked < CALLS


async def test_g2_all_three_attempts_are_used_before_anybody_hears_of_a_failure(it: World) -> None:
    """A third of all attempts fail, whoever is asked: with three attempts each, 97.3 % of the calls are answered."""
    _shaky(it, 2, BEFORE, 0.3, apart=False)

    async def play(number: int) -> str:
        # What was learned of a provider would leave fewer to ask: here the dice alone decide.
        it.executor.means.health._all.clear()
        return await _end(it, number)

    ends = await _many(CALLS, play)
    measured(f"G2: {ends['answered']} of {CALLS} answered while every third attempt fails everywhere")
    assert ends["answered"] >= 0.97 * CALLS, ends


async def test_g3_no_break_looks_like_an_end(it: World) -> None:
    """Every stream breaks behind its first words: every caller reads an error event, none an ending."""
    _shaky(it, 3, AFTER, 1.0, apart=False)

    async def play(number: int) -> str:
        # Health must not help: whoever is asked breaks.
        it.executor.means.health._all.clear()
        return await _end(it, number, stream=True)

    ends = await _many(CALLS, play)
    measured(f"G3: {ends['told']} of {CALLS} streams that broke said so")
    assert ends["told"] == CALLS, ends


async def test_g11_nothing_is_left_of_clients_that_left(it: World) -> None:
    """A thousand clients, or more, leave in the middle: two seconds later no connection to a provider is in use."""
    for slot in it.slots:
        slot.fresh(apart=True)
        slot.first.profile = slot.spare.profile = Profile(tokens_per_second=20)

    async def play(number: int) -> str:
        turn = replace(Turn.of(it, number), stream=True)
        async with turn.open() as response:
            await response.content.readany()
        return "left"

    try:
        ends = await _many(LEAVERS, play, at_once=48)
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
        gots = await asyncio.gather(*(turn.call(within=600, text=f"stream {turn.number}") for turn in turns))
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


class _Crowd:
    """Callers of one door, what became of their calls, and when."""

    def __init__(self, it: World) -> None:
        self._it = it
        self.served: list[float] = []
        self.refusals: list[float] = []
        """Seconds until they were told."""

    async def call(self, number: int) -> None:
        turn = replace(Turn.of(self._it, number), lane=Lane.DIRECT, stream=False, caller="openai")
        got = await turn.call()
        if got.status == 200:
            self.served.append(time.monotonic())
            return
        assert got.status == 503, got
        assert dict(got.headers)["retry-after"] == "1"
        self.refusals.append(got.took)

    async def steady(self, callers: int, seconds: float) -> float:
        """Call one after another, so many at a time; return how many were served a second."""
        until_, before = time.monotonic() + seconds, len(self.served)

        async def caller(number: int) -> None:
            while time.monotonic() < until_:
                await self.call(number)

        await asyncio.gather(*(caller(number) for number in range(callers)))
        return sum(at < until_ for at in self.served[before:]) / seconds

    async def offered(self, rate: float, seconds: float) -> float:
        """Call so many times a second, whatever becomes of it; return how many were served a second."""
        began, before = time.monotonic(), len(self.served)
        async with asyncio.TaskGroup() as calls:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(began + number / rate - time.monotonic())
                calls.create_task(self.call(number))
        return sum(at < began + seconds for at in self.served[before:]) / seconds


async def test_l6_overload_is_refused_at_once_and_the_rest_is_served(it: World) -> None:
    """For a minute three times as many calls as can be served: as many are as ever, the others hear so at once."""
    for slot in it.slots:
        slot.fresh(apart=True)
        slot.first.profile = slot.spare.profile = Profile(ttft=1.0)
    places, before = 20, it.pipeline.underway
    crowd = _Crowd(it)
    try:
        it.pipeline.underway = Underway(places, 0.05)
        capacity = await crowd.steady(places, 10)
        goodput = await crowd.offered(3 * capacity, 60)
        refusals, over = list(crowd.refusals), time.monotonic()
        while not crowd.served or crowd.served[-1] < over:
            await crowd.call(0)
        recovered = crowd.served[-1] - over
    finally:
        it.pipeline.underway = before
        for slot in it.slots:
            slot.first.profile = slot.spare.profile = Profile()
    cuts = quantiles(refusals, n=100)
    soon = sum(took < 0.1 for took in refusals) / len(refusals)
    measured(
        f"L6: {capacity:.0f} calls a second at {places} places; of three times as many {goodput:.1f} were served"
        f" ({goodput / capacity:.0%}) and {len(refusals)} in all refused, half within {cuts[49] * 1000:.0f} ms,"
        f" 95 % within {cuts[94] * 1000:.0f} ms, {soon:.1%} within 100 ms;"
        f" a call was served {recovered:.1f} s afterwards; load average {os.getloadavg()[0]:.1f}"
    )
    assert goodput >= 0.9 * capacity
    assert recovered < 5
    assert cuts[94] < 0.25
