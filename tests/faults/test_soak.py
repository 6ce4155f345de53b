"""L7 of the scorecard: mixed calls for a long time, some fail, some callers leave; what is held at rest does not grow.

TokenHub is a process of its own, and what is told is of it alone; callers and providers share another one. A caller
begins a call every half a second at most, so that the machine can do something else as well: two hours are some eighty
thousand calls.

MINUTES=20 scripts/test soak -s
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import linear_regression
from typing import Final

import pytest

from tests.e2e.serving import eventually, measured
from tests.faults.apart import apart
from tests.faults.sizes import resident
from tests.faults.test_load import AFTER, BEFORE
from tests.faults.world import (
    CALLERS,
    LANES,
    SLOTS,
    SPEAKS,
    Call,
    Outside,
)
from tokenhub_core.providers.simulator import Profile

pytestmark = [pytest.mark.load, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(0)]

MINUTES: Final = float(os.environ.get("MINUTES", "120"))
PAUSE: Final = float(os.environ.get("PAUSE", "0.5"))
"""Seconds from one call of a caller to its next, at least."""
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
    """What TokenHub holds while nobody calls."""

    hours: float
    rss: int
    files: int
    tasks: int


async def test_soak_what_is_held_at_rest_does_not_grow(tmp_path: Path) -> None:
    """One attempt in ten fails, one caller in ten leaves: files and tasks stay as many, and memory levels off."""
    chance, ends, looks = random.Random(7), Counter[str](), list[Look]()
    began = time.monotonic()
    async with apart(tmp_path) as (serve, it):
        for number in range(_ROUNDS):
            over = began + (number + 1) * MINUTES * 60 / _ROUNDS
            await asyncio.gather(*(_caller(it, slot, over, chance, ends) for slot in range(SLOTS)))
            looks.append(await _rest(it, serve.process.pid, began))

    recorded = _recorded(serve.data)
    calm = looks[int(_WARM * len(looks)) :]
    slopes = {name: _slope(calm, name) for name in ("rss", "files", "tasks")}
    measured(
        f"L7: {MINUTES:g} minutes, {ends.total()} calls ({', '.join(f'{n} {end}' for end, n in ends.most_common())}),"
        f" {recorded} recorded;"
        f" RSS {calm[0].rss / _MB:.1f} MB after the first third, {calm[-1].rss / _MB:.1f} at the end,"
        f" {slopes['rss'] / _MB:+.1f} MB an hour; files {calm[0].files} and {calm[-1].files},"
        f" {slopes['files']:+.1f} an hour; tasks {calm[0].tasks} and {calm[-1].tasks}, {slopes['tasks']:+.1f} an hour"
    )
    measured("RSS at each look, MB: " + " ".join(f"{one.rss / _MB:.1f}" for one in looks))
    assert recorded == ends.total()
    assert set(ends) <= {"answered", "told", "left"}, ends
    assert calm[-1].files - calm[0].files < _KEPT
    assert calm[-1].tasks - calm[0].tasks < _KEPT
    assert calm[-1].rss - calm[0].rss < 16 * _MB


async def _caller(it: Outside, slot: int, over: float, chance: random.Random, ends: Counter[str]) -> None:
    while (began := time.monotonic()) < over:
        ends[await _play(it, slot, chance)] += 1
        await asyncio.sleep(began + PAUSE - time.monotonic())


async def _play(it: Outside, slot: int, chance: random.Random) -> str:
    """Make a call; return how it ended."""
    it.slots[slot].fresh(apart=False)
    call = replace(
        Call.of(it, slot),
        lane=chance.choice(LANES),
        caller=chance.choice(CALLERS),
        speaks=chance.choice(SPEAKS),
        spare_speaks=chance.choice(SPEAKS),
        stream=chance.random() < 0.5,
    )
    if chance.random() < _FAULTS:
        call.meets(chance.choice(AFTER if call.stream and chance.random() < 0.5 else BEFORE))
    if chance.random() < _LEAVE:
        call.slot.first.profile = call.slot.spare.profile = Profile(tokens_per_second=100)
        async with replace(call, stream=True).open() as response:
            await response.content.readany()
        call.slot.first.profile = call.slot.spare.profile = Profile()
        return "left"
    got = await call.call()
    whole = got.status == 200 and (got.ended or not got.streamed)
    return "told" if got.said and not got.ended else "answered" if whole else "silent"


async def _rest(it: Outside, pid: int, began: float) -> Look:
    """Wait until nothing is under way, forget what the providers have seen, and look."""
    figures = await eventually(lambda: _idle(it))
    for slot in it.slots:
        slot.fresh(apart=False)
        for fake in (slot.first, slot.spare):
            fake.connections[:] = [peer for peer in fake.connections if not peer.closed]
    hours = (time.monotonic() - began) / 3600
    return Look(hours, resident(pid), _files(pid), int(figures["tokenhub_loop_tasks"]))


def _files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


async def _idle(it: Outside) -> dict[str, float]:
    """Return the metrics once no provider is asked and nothing waits for the store; nothing before."""
    figures = dict[str, float]()
    for line in (await it.metrics()).splitlines():
        name, _, value = line.rpartition(" ")
        if not line.startswith("#"):
            figures[name] = float(value)
    busy = figures['tokenhub_provider_connections{state="active"}'] or figures["tokenhub_store_queue_items"]
    return {} if busy else figures


def _recorded(data: Path) -> int:
    with closing(sqlite3.connect(f"file:{data / 'tokenhub.sqlite'}?mode=ro", uri=True)) as database:
        (count,) = database.execute("SELECT count(*) FROM request_logs").fetchone()
    return int(count)


def _slope(looks: Sequence[Look], name: str) -> float:
    """Return how much more there is with each hour, by least squares."""
    return linear_regression([one.hours for one in looks], [float(getattr(one, name)) for one in looks]).slope
