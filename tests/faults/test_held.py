"""L1 of the scorecard: a thousand streams at once through the proxy, an event a second each.

STREAMS=300 scripts/test load tests/faults/test_held.py -s
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.serving import measured
from tests.faults.sizes import resident
from tests.faults.world import Got, Turn, World, world
from tokenhub_core.providers.simulator import Profile
from tokenhub_core.types import Lane, header

pytestmark = [pytest.mark.load, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

STREAMS = int(os.environ.get("STREAMS", "1000"))
LANES = (Lane.HANDOFF, Lane.INSPECT)
_MB = 1 << 20


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process, which is callers, proxy and providers in one, open what it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_l1_a_thousand_streams_through_the_proxy_lose_no_event(
    tmp_path: Path, many_files: None
) -> None:
    """All at once and an event a second each: what callers read is what providers wrote, word for word."""
    async with world(tmp_path, max_calls=2 * STREAMS) as it:
        for slot in it.slots:
            slot.fresh(apart=True)
            slot.first.profile = Profile(tokens_per_second=1)
        turns = [_turn(it, number) for number in range(STREAMS)]
        before, began = resident(), time.monotonic()
        calls = [asyncio.create_task(_held(turn)) for turn in turns]
        await asyncio.wait(calls, timeout=30)
        under_way, grown = len(it.pipeline.underway), resident() - before
        gots = await asyncio.gather(*calls)
        took = time.monotonic() - began
        written = Counter(_words(it))

    read = Counter(got.words for got in gots)
    whole = sum(got.status == 200 and got.ended and not got.said for got in gots)
    events = sum(len(got.events) for got in gots)
    measured(
        f"L1: {whole} of {STREAMS} streams whole, {events} events in {took:.0f} s, {under_way} at once;"
        f" {(read - written).total()} with other words than were written; {grown / _MB:.0f} MB more held"
    )
    assert whole == STREAMS, next(got for got in gots if not got.ended or got.said)
    assert read == written
    assert under_way > STREAMS // 2


def _turn(it: World, number: int) -> Turn:
    turn = Turn.of(it, number)
    return replace(turn, lane=LANES[number % 2], caller="openai", speaks="openai", stream=True)


async def _held(turn: Turn) -> Got:
    """Make a call that lasts longer than others may."""
    url, options = turn.request(text=f"stream {turn.number}")
    async with turn.world.session.post(url, **options) as response:
        body = await response.read()
        headers = tuple((name.lower(), value) for name, value in response.headers.items())
    return Got(turn.caller, streamed=True, status=response.status, headers=headers, body=body, took=0.0)


def _words(it: World) -> list[str]:
    """Return what every stream was to say."""
    return [
        Got("openai", True, 200, (("content-type", header(script.headers, "content-type")),), body, 0.0).words
        for slot in it.slots
        for _, script in slot.first.played
        for body in (b"".join(data for _, data in script.frames),)
    ]
