"""L7 of the scorecard: mixed calls for a long time, some fail, some callers leave; what is held at rest does not grow.

Callers, proxy and providers are one process here, so every figure is an upper bound of what TokenHub's part is.

MINUTES=20 scripts/test soak -s
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import linear_regression
from typing import Any, Final

import pytest

from tests.e2e.serving import measured, until
from tests.faults.sizes import resident
from tests.faults.test_load import AFTER, BEFORE
from tests.faults.world import CALLERS, LANES, SPEAKS, World, world
from tokenhub_core.providers.simulator import Profile

pytestmark = [pytest.mark.load, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(0)]

MINUTES: Final = float(os.environ.get("MINUTES", "120"))
_WARM: Final = 1 / 3
"""The part of the time in which caches fill and imports happen."""
_ROUNDS: Final = 60
"""How often all is let come to rest and looked at."""
_FAULTS: Final = 0.1
_LEAVE: Final = 0.1
_KEPT: Final = 50
"""Connections that are kept come and go, each with its files and tasks; what leaks does so with thousands of calls."""
_MB: Final = 1 << 20


@dataclass(frozen=True)
class Look:
    """What is held while nobody calls."""

    hours: float
    rss: int
    files: int
    tasks: int


async def test_soak_what_is_held_at_rest_does_not_grow(tmp_path: Path) -> None:
    """One attempt in ten fails, one caller in ten leaves: files and tasks stay as many, and memory levels off."""
    chance, ends, looks = random.Random(7), Counter[str](), list[Look]()
    began = time.monotonic()
    async with world(tmp_path) as it:
        with _mishaps() as mishaps:
            for number in range(_ROUNDS):
                over = began + (number + 1) * MINUTES * 60 / _ROUNDS
                await asyncio.gather(
                    *(_caller(it, slot, over, chance, ends) for slot in range(len(it.slots)))
                )
                looks.append(await _rest(it, began))

    calm = looks[int(_WARM * len(looks)) :]
    slopes = {name: _slope(calm, name) for name in ("rss", "files", "tasks")}
    measured(
        f"L7: {MINUTES:g} minutes, {ends.total()} calls ({', '.join(f'{n} {end}' for end, n in ends.most_common())});"
        f" RSS {calm[0].rss / _MB:.1f} MB after the first third, {calm[-1].rss / _MB:.1f} at the end,"
        f" {slopes['rss'] / _MB:+.1f} MB an hour; files {calm[0].files} and {calm[-1].files},"
        f" {slopes['files']:+.1f} an hour; tasks {calm[0].tasks} and {calm[-1].tasks}, {slopes['tasks']:+.1f} an hour;"
        f" {len(mishaps)} exceptions that nobody took"
    )
    measured("RSS at each look, MB: " + " ".join(f"{one.rss / _MB:.0f}" for one in looks))
    assert mishaps == []
    assert set(ends) <= {"answered", "told", "left"}, ends
    assert calm[-1].files - calm[0].files < _KEPT
    assert calm[-1].tasks - calm[0].tasks < _KEPT
    assert calm[-1].rss - calm[0].rss < 16 * _MB


async def _caller(it: World, slot: int, over: float, chance: random.Random, ends: Counter[str]) -> None:
    while time.monotonic() < over:
        turn = it.turn(
            slot,
            lane=chance.choice(LANES),
            caller=chance.choice(CALLERS),
            speaks=chance.choice(SPEAKS),
            spare_speaks=chance.choice(SPEAKS),
            stream=chance.random() < 0.5,
        )
        if chance.random() < _FAULTS:
            turn.meets(chance.choice(AFTER if turn.stream and chance.random() < 0.5 else BEFORE))
        if chance.random() < _LEAVE:
            turn.slot.first.profile = turn.slot.spare.profile = Profile(tokens_per_second=100)
            async with replace(turn, stream=True).open() as response:
                await response.content.readany()
            turn.slot.first.profile = turn.slot.spare.profile = Profile()
            ends["left"] += 1
            continue
        got = await turn.call()
        whole = got.status == 200 and (got.ended or not got.streamed)
        ends["told" if got.said and not got.ended else "answered" if whole else "silent"] += 1


async def _rest(it: World, began: float) -> Look:
    """Wait until nothing is under way, forget what the providers have seen, and look."""
    await until(lambda: len(it.pipeline.underway) == 0 and it.open_upstream() == 0)
    for slot in it.slots:
        slot.fresh(apart=False)
        for fake in (slot.first, slot.spare):
            fake.connections[:] = [peer for peer in fake.connections if not peer.closed]
    gc.collect()
    return Look((time.monotonic() - began) / 3600, resident(), _files(), len(asyncio.all_tasks()))


def _files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _slope(looks: Sequence[Look], name: str) -> float:
    """Return how much more there is with each hour, by least squares."""
    return linear_regression([one.hours for one in looks], [float(getattr(one, name)) for one in looks]).slope


@contextmanager
def _mishaps() -> Iterator[list[dict[str, Any]]]:
    """Collect what the loop is told of that nobody else was: exceptions of tasks whose end nobody awaits."""
    loop, told = asyncio.get_running_loop(), list[dict[str, Any]]()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: told.append(context))
    try:
        yield told
    finally:
        loop.set_exception_handler(before)
