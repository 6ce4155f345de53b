"""What keeps the time series up to the log, and deletes them when their time is over."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Final

from tokenhub_core.config import Settings
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Clock
from tokenhub_core.store import series
from tokenhub_core.store.database import Database
from tokenhub_core.store.series import Batch
from tokenhub_core.store.writer import Work, Writer
from tokenhub_core.telemetry.rollups import DAY, RESOLUTIONS, Keep

EVERY: Final = 10.0
"""Seconds between two looks at the log."""
SWEEP: Final = 600.0
"""Seconds between two looks for what is to be deleted."""
PATIENCE: Final = 1.0
"""Seconds that a question waits for the series to be up to the log."""
_PAUSE: Final = 0.05
"""Seconds between two pieces, for whoever waits for the writer or the processor."""
_log: Final = logging.getLogger(__name__)

type Turn = Callable[[], Awaitable[None]]


async def _at_once() -> None:
    """Wait for nothing."""


class Roller:
    """Takes the request log into the time series, here or in whichever process comes first.

    Nothing is done when a call is made: its record is read once it is durable.
    """

    def __init__(
        self,
        database: Database,
        writer: Writer,
        clock: Clock,
        keep: Keep,
        *,
        most: int,
        turn: Turn = _at_once,
    ) -> None:
        """`most` is how many series a day may have. `turn` returns when this process is to do it."""
        self.database = database
        self.clock = clock
        self.keep = keep
        self._writer = writer
        self._most = most
        self._turn = asyncio.Lock()
        self._ours = turn
        self._told = 0

    async def roll(self, patience: float | None = None) -> int:
        """Take in what the log has more than the series; return how many records that were.

        After `patience` seconds the rest is left for later. Raises `TokenHubError` where the store fails.
        """
        until = None if patience is None else time.monotonic() + patience
        done = 0
        async with self._turn:
            while True:
                batch = await asyncio.to_thread(self._batch)
                if batch is not None and await self._writer.commit(partial(series.store, batch=batch)):
                    done += batch.records
                    self._warn(batch)
                if (
                    batch is None
                    or batch.records < series.PIECE
                    or (until is not None and time.monotonic() >= until)
                ):
                    return done
                if until is None:
                    await asyncio.sleep(_PAUSE)

    async def sweep(self) -> int:
        """Delete what has been kept for long enough; return how many cells that were."""
        now, done = self.clock.now(), 0
        for resolution in RESOLUTIONS:
            since = self.keep.since(resolution, now)
            done += (
                await self._pieces(partial(series.prune, resolution=resolution, since=since)) if since else 0
            )
        await self._pieces(series.prune_series)
        return done

    async def follow(self) -> None:
        """Keep the series up to the log for as long as the service runs; where the store fails, later."""
        while True:
            await self._ours()
            with _later():
                await self.roll()
            await asyncio.sleep(EVERY)

    async def clear(self) -> None:
        """Delete what is due for as long as the service runs; where the store fails, later."""
        while True:
            await self._ours()
            with _later():
                await self.sweep()
            await asyncio.sleep(SWEEP)

    def _batch(self) -> Batch | None:
        upto = series.settled(self.database)
        if upto is None:
            return None
        with self.database.reading() as connection:
            return series.batch(connection, upto, self.keep, self.clock.now(), most=self._most)

    def _warn(self, batch: Batch) -> None:
        """Tell once a day that there are too many series."""
        today = int(self.clock.now() // DAY)
        if batch.others and self._told != today:
            self._told = today
            _log.warning(
                "calls of more than %d time series in a day: what is more is counted as `other`", self._most
            )

    async def _pieces(self, work: Work[int]) -> int:
        done = 0
        while True:
            some = await self._writer.commit(work)
            done += some
            if some < series.SWEPT:
                return done
            await asyncio.sleep(_PAUSE)


@contextmanager
def _later() -> Iterator[None]:
    try:
        yield
    except TokenHubError as error:
        _log.warning("the time series wait for the store: %s", error)


@asynccontextmanager
async def rolling(
    settings: Settings, database: Database, writer: Writer, clock: Clock, turn: Turn
) -> AsyncIterator[Roller]:
    """Keep the series for as long as this is entered."""
    days = (
        settings.series_10s_days,
        settings.series_1m_days,
        settings.series_1h_days,
        settings.series_1d_days,
    )
    roller = Roller(database, writer, clock, Keep(days), most=settings.series_max, turn=turn)
    tasks = [
        asyncio.create_task(roller.follow(), name="series follower"),
        asyncio.create_task(roller.clear(), name="series sweeper"),
    ]
    try:
        yield roller
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
