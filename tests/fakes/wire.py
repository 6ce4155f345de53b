"""What goes from machine to machine, in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tokenhub_core.relay import Relay


class Wire:
    """Brings everything to everybody, or nothing while it is not `there`. Implements `relay.Wire`."""

    def __init__(self) -> None:
        self.there = True
        self._heard: list[Callable[[bytes], None]] = []

    async def send(self, data: bytes) -> bool:
        for heard in self._heard if self.there else ():
            heard(data)
        return self.there

    async def receive(self, heard: Callable[[bytes], None]) -> None:
        self._heard.append(heard)
        await asyncio.Event().wait()


@asynccontextmanager
async def kept(*relays: Relay) -> AsyncIterator[None]:
    """Let these send and receive."""
    tasks = [asyncio.create_task(one.keep()) for one in relays]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
