"""What is too large, and what goes on for long: how much more this process holds for it.

Callers, proxy and providers are one process here, so every figure is an upper bound of what TokenHub's part is.

CALLS=100000 scripts/test load tests/faults/test_bounds.py -s
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.e2e.serving import measured
from tests.faults.sizes import resident
from tests.faults.world import CALLERS, LANES, SPEAKS, World, world
from tokenhub_core.types import Lane

pytestmark = [pytest.mark.load, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3600)]

_MB = 1 << 20
_BOUND = 64 * _MB
"""What an attack may make this process hold more."""
_HEAD = 50
"""Megabytes."""
_STREAM = 600
CALLS = int(os.environ.get("CALLS", "20000"))
_STEPS = 10
_FAULTS = ("500", "429:0", "cut-early:fin", "bad-gzip", "then-error:500")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def it(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One TokenHub for all of them, warm: every lane and dialect has been used."""
    async with world(tmp_path_factory.mktemp("bounds")) as made:
        for number in range(48):
            await made.turn(number).call()
        yield made


class _Most:
    """The most that this process held more within a block, looked at forty times a second."""

    def __init__(self) -> None:
        self._before = 0
        self.grown = 0

    async def __aenter__(self) -> _Most:
        gc.collect()
        self._before = resident()
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self.grown = max(self.grown, resident() - self._before)

    async def _look(self) -> None:
        while True:
            self.grown = max(self.grown, resident() - self._before)
            await asyncio.sleep(0.025)


@pytest.mark.parametrize("door", ["proxy", "side"])
async def test_a_head_of_fifty_megabytes_is_cut_at_its_bound(it: World, door: str) -> None:
    """The door closes long before its end, and holds little of it."""
    url = it.doors.proxy_url if door == "proxy" else it.doors.side_url
    host, _, port = url.rpartition("/")[2].rpartition(":")
    piece, sent = b"x" * (1 << 16), 0
    async with _Most() as most:
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(b"GET http://api.openai.com/v1/models HTTP/1.1\r\nHost: api.openai.com\r\nX-Long: ")
            while sent < _HEAD * _MB and not reader.at_eof():
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
                await asyncio.sleep(0)
            writer.write(b"\r\n\r\n")
            status = await asyncio.wait_for(reader.read(64), 30)
        except ConnectionError:
            status = b""
        finally:
            writer.transport.abort()
    measured(
        f"a head of {_HEAD} MB at the {door} server: {sent / _MB:.1f} MB were taken, the answer begins with"
        f" {status[:12]!r}, {most.grown / _MB:.1f} MB more held"
    )
    assert b" 200 " not in status
    assert most.grown < _BOUND
    assert (await it.turn(0).call()).status == 200


async def test_a_bomb_of_a_provider_is_not_unpacked(it: World) -> None:
    """300 MB of zeros behind a gzip label: another provider answers."""
    async with _Most() as most:
        for number in range(6):
            turn = it.turn(number, stream=False)
            turn.meets("bomb:300")
            turn.whole(await turn.call())
    measured(f"six gzip bombs of 300 MB: {most.grown / _MB:.1f} MB more held")
    assert most.grown < _BOUND


@pytest.mark.parametrize("lane", LANES, ids=[lane.value for lane in LANES])
async def test_a_stream_of_six_hundred_megabytes_passes_by(it: World, lane: Lane) -> None:
    """Nothing of it is kept: what is held does not grow with it."""
    turn = it.turn(0, stream=True, caller="openai", speaks="openai", spare_speaks="openai")
    turn = replace(turn, lane=lane)
    turn.meets(f"torrent:{_STREAM}")
    url, options = turn.request()
    read, tail, began = 0, b"", time.monotonic()
    async with _Most() as most, it.session.post(url, **options) as response:
        assert response.status == 200
        async for piece in response.content.iter_any():
            read += len(piece)
            tail = (tail + piece)[-400:]
    measured(
        f"a stream of {read / _MB:.0f} MB through the lane {lane}: {time.monotonic() - began:.0f} s,"
        f" {most.grown / _MB:.1f} MB more held"
    )
    assert read > _STREAM * _MB
    assert b"[DONE]" in tail
    assert most.grown < _BOUND


async def test_what_is_held_does_not_grow_with_the_calls(it: World) -> None:
    """Mixed calls, one attempt in ten fails: after the first tenth of them, little more is held than then."""
    chance, held = random.Random(7), list[int]()

    async def caller(slot: int) -> None:
        for number in range(slot, CALLS // _STEPS, len(it.slots)):
            turn = it.turn(
                slot, lane=LANES[number % 3], caller=CALLERS[number % 4], speaks=SPEAKS[number % 3]
            )
            turn = replace(turn, stream=number % 2 == 0)
            if chance.random() < 0.1:
                turn.meets(chance.choice(_FAULTS))
            assert (await turn.call()).status == 200

    began = time.monotonic()
    for _ in range(_STEPS):
        await asyncio.gather(*(caller(slot) for slot in range(len(it.slots))))
        for slot in it.slots:
            for fake in (slot.first, slot.spare):
                fake.connections[:] = [peer for peer in fake.connections if not peer.closed]
        gc.collect()
        held.append(resident())
    took = time.monotonic() - began
    measured(
        f"RSS after each tenth of {CALLS} mixed calls in {took:.0f} s: "
        + ", ".join(f"{one / _MB:.0f}" for one in held)
        + " MB"
    )
    assert held[-1] - held[0] < _BOUND
