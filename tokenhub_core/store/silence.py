"""Notices a server that has fallen silent, sooner than the time that a change may take.

A transaction that takes long waits for a lock or for a disk, or for a server that is stopped or cut off: its socket
says nothing in either case. So the server is asked for a connection meanwhile. One that answers, with a refusal too, is
there, or will be; one that says nothing is given up, and whoever waits is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tokenhub_core.store.writer import STALLED, Writer

_DOUBT: Final = 0.5
"""Seconds that a transaction may take before anybody asks."""
_TICK: Final = 0.1
"""Seconds between two looks at the writer."""


class Silence:
    """Gives up what a silent server keeps waiting."""

    def __init__(
        self, writer: Writer, ask: Callable[[], None], *, doubt: float = _DOUBT, patience: float = STALLED
    ) -> None:
        """`ask` returns or raises when the server has said something; a transaction is given up after `patience`."""
        self._writer = writer
        self._ask = ask
        self._doubt = doubt
        self._patience = patience

    async def keep(self) -> None:
        """Look after the writer's transactions, for ever."""
        # Its own thread: those that all share may all be waiting for the same server.
        thread = ThreadPoolExecutor(1, "tokenhub-database-look")
        try:
            while True:
                await asyncio.sleep(_TICK)
                begun = self._writer.begun
                if begun and time.monotonic() - begun >= self._doubt and self._writer.able:
                    await self._look(thread, begun)
        finally:
            await asyncio.to_thread(thread.shutdown)

    async def _look(self, thread: ThreadPoolExecutor, begun: float) -> None:
        """Ask, and give up where no answer comes; then wait for the question's own end, since one is enough."""
        asked = asyncio.get_running_loop().run_in_executor(thread, self._ask)
        rest = begun + self._patience - time.monotonic()
        await asyncio.wait({asked}, timeout=max(rest, self._doubt))
        if not asked.done():
            self._writer.give_up(begun)
        await asyncio.gather(asked, return_exceptions=True)
