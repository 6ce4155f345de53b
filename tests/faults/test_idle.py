"""L3 of the scorecard: thousands of connections that say nothing, at both ports, beside calls that want an answer.

TokenHub is a process of its own; callers and providers share another one.

IDLE=10000 SECONDS=60 scripts/test load tests/faults/test_idle.py -s
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from statistics import quantiles
from typing import Final

import pytest

from tests.e2e.serving import measured, until
from tests.faults.apart import apart
from tests.faults.sizes import many_files, resident
from tests.faults.world import SLOTS, Call, Outside
from tokenhub_core.types import Lane

pytestmark = [pytest.mark.load, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(1200)]

IDLE: Final = int(os.environ.get("IDLE", "10000"))
SECONDS: Final = float(os.environ.get("SECONDS", "30"))
RATE: Final = float(os.environ.get("RATE", "50"))
"""Calls a second."""
_LATE: Final = 0.2
_MB: Final = 1 << 20
_MOST: Final = 250 * _MB
"""What TokenHub may hold more with all of them."""


async def test_l3_ten_thousand_connections_that_say_nothing_are_in_nobodys_way(tmp_path: Path) -> None:
    """Half of them at the proxy, half at the side server: calls are answered as ever, and little more is held."""
    async with apart(tmp_path) as (serve, it):
        pid = serve.process.pid
        for number in range(60):
            await _took(it, number)
        before, alone = resident(pid), await _steady(it, min(SECONDS, 10))
        with many_files():
            idle = [
                *await _opened(it.doors.proxy_url, IDLE // 2),
                *await _opened(it.doors.side_url, IDLE - IDLE // 2),
            ]
            try:
                await until(lambda: _sockets(pid) > IDLE)
                held, beside = resident(pid), await _steady(it, SECONDS)
                still, most = sum(map(_open, idle)), resident(pid)
            finally:
                for sock in idle:
                    sock.close()
                await asyncio.sleep(1)

    measured(
        f"L3: {still} of {IDLE} connections open at the end; {len(beside)} calls in {SECONDS:g} s, half within"
        f" {_cut(beside, 50):.0f} ms, 99 of 100 within {_cut(beside, 99):.0f} ms ({_cut(alone, 50):.0f} and"
        f" {_cut(alone, 99):.0f} without them); TokenHub held {before / _MB:.0f} MB before, {held / _MB:.0f} with them,"
        f" {most / _MB:.0f} after the calls; load average {os.getloadavg()[0]:.1f}"
    )
    assert still == IDLE
    assert most - before < _MOST
    assert _cut(beside, 50) < _LATE * 1000


async def _steady(it: Outside, seconds: float) -> list[float]:
    """Make calls at their rate, whatever becomes of those before; return how long each took, in seconds."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as calls:
        made = []
        for number in range(int(RATE * seconds)):
            await asyncio.sleep(began + number / RATE - time.monotonic())
            made.append(calls.create_task(_took(it, number)))
    return [one.result() for one in made]


async def _took(it: Outside, number: int) -> float:
    slot = it.slots[number % SLOTS]
    call = replace(
        Call.of(it, number),
        slot=slot,
        lane=(Lane.DIRECT, Lane.INSPECT)[number % 2],
        caller="openai",
        stream=number % 4 == 0,
    )
    got = await call.call()
    assert got.status == 200, got.body[:200]
    assert got.ended or not got.streamed
    return got.took


async def _opened(url: str, count: int) -> list[socket.socket]:
    """Open so many connections, some at a time; bare sockets, so that they cost the callers nothing."""
    host, _, port = url.rpartition("/")[2].rpartition(":")
    loop, some, sockets = asyncio.get_running_loop(), 100, list[socket.socket]()
    for at in range(0, count, some):
        made = [socket.socket() for _ in range(min(some, count - at))]
        for sock in made:
            sock.setblocking(False)
        await asyncio.gather(*(loop.sock_connect(sock, (host, int(port))) for sock in made))
        sockets += made
    return sockets


def _open(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _sockets(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _cut(took: list[float], percent: int) -> float:
    """Return the milliseconds within which so many of a hundred were answered."""
    return quantiles(took, n=100)[percent - 1] * 1000
