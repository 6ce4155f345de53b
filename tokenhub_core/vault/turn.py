"""Passwords are tried one after the other: each try takes 64 MiB and a good part of a second."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError

QUEUE: Final = 4
"""How many may wait while one password is being tried."""


class Turn:
    """One place to work in, and a short queue before it; `name` begins the cause of a refusal."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._turn = asyncio.Lock()
        self._queued = 0

    async def run[T](self, work: Callable[[], T]) -> T:
        """Run `work` in a thread when its turn has come; raises `TokenHubError` where too many wait."""
        async with self.alone():
            return await threaded(work)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Have the place to oneself; raises `TokenHubError` where too many wait."""
        if self._queued > QUEUE:
            raise slower("too many passwords are being tried at once", f"{self._name}_busy", 1.0)
        self._queued += 1
        try:
            async with self._turn:
                yield
        finally:
            self._queued -= 1


async def threaded[T](work: Callable[[], T]) -> T:
    """Run `work` in a thread. A thread cannot be stopped: whoever leaves waits until it has ended."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.gather(running, return_exceptions=True)
        raise


def slower(message: str, cause: str, wait: float) -> TokenHubError:
    """Return the refusal of who has to wait so many seconds."""
    return TokenHubError(Fault(Kind.RATE_LIMITED, Blame.CLIENT, message, cause=cause, retry_after=wait))
