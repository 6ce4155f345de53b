"""L1 of the scorecard: a thousand streams at once through both lanes of the proxy, an event a second for five minutes.

Callers, TokenHub and the provider are a process each.

STREAMS=50 BEATS=20 APART=0.5 scripts/test load tests/faults/test_held.py -s
"""

from __future__ import annotations

import asyncio
import math
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import quantiles
from typing import Final

import aiohttp
import orjson
import pytest

from tests.e2e.serving import CANARY, ROOT, measured, serving
from tests.faults.sizes import many_files, resident

pytestmark = [pytest.mark.load, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3600)]

STREAMS: Final = int(os.environ.get("STREAMS", "1000"))
BEATS: Final = int(os.environ.get("BEATS", "300"))
APART: Final = float(os.environ.get("APART", "1"))
"""Seconds between two events of a stream."""
_OPENING: Final = 50
"""Streams whose beginning is waited for at a time."""
_MB: Final = 1 << 20
_MOST: Final = 400 * _MB
"""What TokenHub may hold with a thousand streams."""


@dataclass
class Heard:
    """What one caller has read."""

    whose: int
    numbers: list[int] = field(default_factory=list)
    written: int = 0
    """How many there were, as its last words say."""
    others: int = 0
    """Events of somebody else's stream."""
    late: list[tuple[float, float]] = field(default_factory=list)
    """When an event was written, and how many seconds later it was read."""
    ended: bool = False
    said: str = ""

    def line(self, line: bytes) -> None:
        """Take a line of the stream."""
        if line.startswith(b"data: [DONE]"):
            self.ended = True
        elif line.startswith(b"data: "):
            event = orjson.loads(line[6:])
            if "error" in event:
                self.said = str(event["error"])
            for choice in event.get("choices", ()):
                if words := choice["delta"].get("content"):
                    self._words(words)

    def _words(self, words: str) -> None:
        whose, number, at = words.split(".", 2)
        self.others += int(whose) != self.whose
        if number == "of":
            self.written = int(at)
            return
        self.numbers.append(int(number))
        self.late.append((float(at), time.monotonic() - float(at)))

    @property
    def lost(self) -> int:
        return self.written - len(set(self.numbers))

    @property
    def doubled(self) -> int:
        return len(self.numbers) - len(set(self.numbers))

    @property
    def reordered(self) -> int:
        return sum(later < sooner for sooner, later in pairwise(self.numbers))


async def test_l1_a_thousand_streams_through_the_proxy_lose_no_event(tmp_path: Path) -> None:
    """Every event that the provider wrote is read once, in its place, by the caller whose stream it is of."""
    settings = {
        "TOKENHUB_MAX_CALLS": str(2 * STREAMS),
        "TOKENHUB_ALLOW_PRIVATE": "127.0.0.1",
        # A thousand callers who come at once on a busy machine wait for each other, and that is no fault.
        "TOKENHUB_CONNECT_TIMEOUT_SECS": "120",
        "TOKENHUB_TTFT_TIMEOUT_SECS": "600",
        "TOKENHUB_ORIGIN": "false",
        # Of a tree that is installed nowhere.
        **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
    }
    heard = [Heard(number) for number in range(STREAMS)]
    opening, open_, most = asyncio.Semaphore(_OPENING), 0, 0
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=120)
    async with AsyncExitStack() as stack:
        stack.enter_context(many_files())
        port = await stack.enter_async_context(_beats())
        serve = await stack.enter_async_context(serving(tmp_path, settings=settings))
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector, timeout=timeout))
        provider = {"id": "beats", "type": "openai", "base_url": f"http://127.0.0.1:{port}"}
        await serve.admin(
            "POST", "/providers", {**provider, "cred_store": "memory", "api_key": f"{CANARY}-beats"}
        )
        await serve.admin("POST", "/models", {"id": "beats", "provider_id": "beats"})
        trust = ssl.create_default_context(cafile=serve.info.ca_file)
        pid = serve.process.pid
        before = resident(pid)

        async def caller(mine: Heard) -> None:
            nonlocal open_, most
            body = {"model": "beats", "stream": True, "messages": [_message(mine.whose)]}
            scheme = ("https", "http")[mine.whose % 2]
            await opening.acquire()
            async with session.post(
                f"{scheme}://api.openai.com/v1/chat/completions",
                json=body,
                proxy=serve.info.proxy_url,
                ssl=trust,
            ) as response:
                open_ += 1
                most = max(most, open_)
                opening.release()
                assert response.status == 200, await response.text()
                async for line in response.content:
                    mine.line(line)
            open_ -= 1

        began, held = time.monotonic(), 0
        calls = [asyncio.create_task(caller(mine)) for mine in heard]
        ramp = 0.0
        while not all(call.done() for call in calls):
            await asyncio.sleep(0.5)
            held = max(held, resident(pid))
            if not ramp and open_ == STREAMS:
                ramp = time.monotonic()
        await asyncio.gather(*calls)
        took, cpu = time.monotonic() - began, _cpu(pid)

    late = [after for mine in heard for at, after in mine.late if ramp and at > ramp]
    cuts = quantiles(late or [math.inf] * 2, n=100)
    lost, doubled = sum(mine.lost for mine in heard), sum(mine.doubled for mine in heard)
    reordered, others = sum(mine.reordered for mine in heard), sum(mine.others for mine in heard)
    whole = sum(mine.ended and mine.written >= BEATS and not mine.said for mine in heard)
    events, written = sum(len(mine.numbers) for mine in heard), sum(mine.written for mine in heard)
    measured(
        f"L1: {whole} of {STREAMS} streams whole, {most} at once, {events} of {written} events in {took:.0f} s:"
        f" {lost} lost, {doubled} doubled, {reordered} reordered, {others} of another stream."
        f" All were open after {ramp - began:.0f} s; from then on half came within {cuts[49] * 1000:.0f} ms,"
        f" 99 % within {cuts[98] * 1000:.0f} ms. TokenHub held {held / _MB:.0f} MB ({before / _MB:.0f} before),"
        f" and took {cpu:.0f} s of CPU time; load average {os.getloadavg()[0]:.1f}"
    )
    assert (lost, doubled, reordered, others) == (0, 0, 0, 0)
    assert whole == STREAMS
    assert most == STREAMS
    assert held < _MOST


def _message(whose: int) -> dict[str, str]:
    return {"role": "user", "content": f"stream {whose}"}


def _cpu(pid: int) -> float:
    """Return the seconds of CPU time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def _beats() -> AsyncIterator[int]:
    """Run the provider; yield its port."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.beats", str(STREAMS), str(BEATS), str(APART)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()
