"""One of several processes on a database does what is to be done once: it deletes what is due, and makes the series.

It says every ten seconds that it is there, in a row of the database. Another one takes over when it leaves, or thirty
seconds after it was last there. Where two do the same for a moment, because one of them was only asleep, nothing is
harmed: what they do is done in pieces, each of which looks at what is there.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from tokenhub_core.config import Settings
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Clock
from tokenhub_core.store import leading as rows
from tokenhub_core.store.writer import Writer

BEAT: Final = 10.0
"""Seconds between two times that the leader says that it is there, and that the others look."""
LEASE: Final = 30.0
"""Seconds after which another one takes over."""

_log: Final = logging.getLogger(__name__)


class Lead:
    """Whether this process does it. Belongs to one event loop."""

    def __init__(self, writer: Writer, clock: Clock, process: str) -> None:
        self._writer = writer
        self._clock = clock
        self._process = process
        self._mine = asyncio.Event()
        self._until = 0.0

    async def turn(self) -> None:
        """Return when this process is the one."""
        while True:
            await self._mine.wait()
            if self._clock.monotonic() < self._until:
                return
            self._mine.clear()

    async def look(self) -> None:
        """Take the lead where nobody has it, or keep it. Raises `TokenHubError` where the store fails."""
        asked, now = self._clock.monotonic(), self._clock.now()
        work = partial(rows.claim, process=self._process, now=now, until=now + LEASE)
        if await self._writer.commit(work):
            self._until = asked + LEASE
            self._mine.set()
        else:
            self._mine.clear()

    async def keep(self) -> None:
        """Look for as long as the service runs; where the store fails, the lead ends by itself."""
        while True:
            await asyncio.sleep(BEAT)
            await self.begin()

    async def begin(self) -> None:
        """Look; where the store fails, nobody leads here."""
        try:
            await self.look()
        except TokenHubError as error:
            _log.warning("who does the upkeep is not known for now: %s", error)

    async def leave(self) -> None:
        """Let another one take over at once."""
        try:
            await self._writer.commit(partial(rows.leave, process=self._process))
        except TokenHubError:
            return  # it ends by itself

    def alone(self) -> None:
        """Lead for ever: there is nobody else."""
        self._until = float("inf")
        self._mine.set()


@asynccontextmanager
async def leading(settings: Settings, writer: Writer, clock: Clock) -> AsyncIterator[Lead]:
    """Have a part in it for as long as this is entered; who shares its database with nobody leads alone."""
    lead = Lead(writer, clock, secrets.token_hex(8))
    if settings.workers == 1 and not settings.db_dsn:
        lead.alone()
        yield lead
        return
    await lead.begin()
    keeping = asyncio.create_task(lead.keep(), name="upkeep")
    try:
        yield lead
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await lead.leave()
