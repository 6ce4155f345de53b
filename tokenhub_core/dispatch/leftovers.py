"""What is left of attempts when their replies are over: it ends apart from them, and in the end with the server.

A response whose last event has come is read on for a moment, so that its connection can serve again. One whose caller
has left is read on where its provider bills on: then its usage is known, and not estimated. An attempt that was
abandoned is let go of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final, Protocol

from tokenhub_core.dispatch.gate import Gate
from tokenhub_core.dispatch.job import CANCELLED, DRAINED, Drain, Live, Whole
from tokenhub_core.errors import Fault, TokenHubError
from tokenhub_core.ports import UpstreamResponse

_LINGER_SECONDS: Final = 0.05
_LINGER_BYTES: Final = 16 << 10


class Tried(Protocol):
    """An attempt, as far as it has to be ended."""

    async def finish(self, fault: Fault | None) -> None:
        """End it; only the first call counts."""
        ...


class Leftovers:
    """See the module."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining: set[asyncio.Task[None]] = set()

    def add(self, response: UpstreamResponse, chunks: AsyncIterator[bytes]) -> None:
        """Take a response over whose last event has come."""
        self._keep(asyncio.create_task(_linger(response, chunks), name="end of stream"), self._tasks)

    def end(self, tried: Tried, running: asyncio.Task[Whole | Live]) -> None:
        """Cancel an attempt that was abandoned, and let go of its connection."""
        running.cancel()
        self._keep(
            asyncio.create_task(_ended(tried, running), name="end of an abandoned attempt"), self._tasks
        )

    def drain(
        self, tried: Tried, rest: AsyncIterator[bytes], gate: Gate, drain: Drain
    ) -> asyncio.Task[None] | None:
        """Read on what nobody waits for, and then end the attempt; None where too many are read on already."""
        if len(self._draining) >= drain.most:
            return None
        task = asyncio.create_task(_drained(tried, rest, gate, drain), name="drain")
        self._keep(task, self._draining)
        return task

    async def close(self) -> None:
        """Wait for what is left; what is read on for its usage alone is let go of."""
        # One that was only just begun must have begun, or it could not end its attempt.
        await asyncio.sleep(0)
        for task in self._draining:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._draining, return_exceptions=True)

    def _keep(self, task: asyncio.Task[None], among: set[asyncio.Task[None]]) -> None:
        among.add(task)
        task.add_done_callback(among.discard)


async def _linger(response: UpstreamResponse, chunks: AsyncIterator[bytes]) -> None:
    try:
        with suppress(TokenHubError, TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                left = _LINGER_BYTES
                async for chunk in chunks:
                    left -= len(chunk)
                    if left < 0:
                        break
    finally:
        await response.close()


async def _ended(tried: Tried, running: asyncio.Task[Whole | Live]) -> None:
    await asyncio.gather(running, return_exceptions=True)
    # It may have been committed in the same moment: then nobody reads it, and it is still open.
    await tried.finish(CANCELLED)


async def rest(response: UpstreamResponse, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what is still to come: an iterator that was cancelled while it waited is over, its response is not."""
    async for chunk in chunks:
        yield chunk
    async for chunk in response.chunks():
        yield chunk


async def _drained(tried: Tried, rest: AsyncIterator[bytes], gate: Gate, drain: Drain) -> None:
    """Feed the rest to the gate, which counts; up to the end of the body, so that the connection can serve again."""
    fault, left = CANCELLED, drain.size
    try:
        with suppress(TokenHubError, TimeoutError):
            async with asyncio.timeout(drain.seconds):
                async for chunk in rest:
                    left -= len(chunk)
                    if left < 0:
                        break
                    gate.feed(chunk)
                else:
                    gate.flush()
                    fault = DRAINED if gate.finished else CANCELLED
    finally:
        await tried.finish(fault)
