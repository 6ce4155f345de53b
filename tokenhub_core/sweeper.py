"""Deletes what was kept for long enough: the text of calls, and the records of them where that is wished."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Final

from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Clock
from tokenhub_core.store import captures
from tokenhub_core.store.captures import DAY, PIECE
from tokenhub_core.store.writer import Work, Writer

EVERY: Final = 600.0
"""Seconds between two looks."""
PAUSE: Final = 0.05
"""Seconds between two pieces, for whoever waits to write."""
_log: Final = logging.getLogger(__name__)


class Sweeper:
    """`days` is the age at which records of calls are deleted, `parkings` that of what was parked; None for never."""

    def __init__(
        self, writer: Writer, clock: Clock, days: int | None, *, parkings: int | None = None
    ) -> None:
        self._writer = writer
        self._clock = clock
        self._days = days
        self._parkings = parkings

    async def keep(self) -> None:
        """Delete for as long as the service runs; where the store fails, later."""
        while True:
            try:
                await self.sweep()
            except TokenHubError as error:
                _log.warning("what is due to be deleted stays for now: %s", error)
            await asyncio.sleep(EVERY)

    async def sweep(self) -> int:
        """Delete everything that is due now, piece by piece; return how many rows that were."""
        now = self._clock.now()
        done = await self._pieces(partial(captures.delete_texts, now=now))
        if self._days is not None:
            done += await self._pieces(partial(captures.delete_records, before=now - self._days * DAY))
        if self._parkings is not None:
            done += await self._pieces(partial(captures.delete_parkings, before=now - self._parkings * DAY))
        if done:
            _log.info("deleted %d rows whose time was over", done)
        return done

    async def _pieces(self, work: Work[int]) -> int:
        done = 0
        while True:
            some = await self._writer.commit(work)
            done += some
            if some < PIECE:
                return done
            await asyncio.sleep(PAUSE)
