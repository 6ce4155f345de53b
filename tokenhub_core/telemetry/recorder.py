"""Where records go: into the store, then to whoever listens.

A committed record is told to the subscribers once it is durable, so nothing counts what a crash could take back. A
posted one (its caller is gone) is told when it is handed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import sqlalchemy

from tokenhub_core.ports import Books, Charge, Subscribers
from tokenhub_core.store import faults
from tokenhub_core.store.database import Database
from tokenhub_core.store.inserts import Insert
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.writer import Work, Writer
from tokenhub_core.types import Record

_READY_SECONDS: Final = 0.25
_log: Final = logging.getLogger(__name__)


class _NoBooks:
    """Nobody counts."""

    def book(self, record: Record) -> Sequence[Charge]:
        """Return nothing."""
        del record
        return ()

    def booked(self, record: Record) -> None:
        """Forget nothing."""


_NO_BOOKS: Final = _NoBooks()


class StoreRecorder:
    """The recorder that keeps its word on disk. Implements `ports.Recorder`.

    What a record adds to the budgets is stored with it, or not at all; so is what `beside` makes of its work.
    """

    def __init__(
        self,
        database: Database,
        writer: Writer,
        subscribers: Subscribers = (),
        books: Books = _NO_BOOKS,
        *,
        beside: Callable[[Record, Insert], Insert | Work[bool]] | None = None,
    ) -> None:
        self._database = database
        self._writer = writer
        self._requests = RequestLog(database)
        self._subscribers = tuple(subscribers)
        self._books = books
        self._beside = beside
        self._probe: asyncio.Task[None] | None = None

    @property
    def duplicates(self) -> int:
        """Return how many records were handed over a second time and left out."""
        return self._writer.counts.duplicates

    async def commit(self, record: Record) -> None:
        """Return once the record is durable, and after the subscribers heard of it.

        Raises `TokenHubError` with the cause `store_unavailable` where it could not be written: then nobody has
        heard of it. A record that is already there is neither written nor told again. When the caller is cancelled
        while it waits, the record counts as posted.
        """
        try:
            work = self._work(record)
            new = await (self._writer.insert(work) if isinstance(work, Insert) else self._writer.commit(work))
        except asyncio.CancelledError:
            # It may not have been queued yet. If it was, the second row does nothing.
            self.post(record)
            raise
        except Exception as error:
            _log.error("record %s was not stored: %s", record.id, error)
            raise faults.unavailable("the request could not be recorded") from error
        self._books.booked(record)
        if new:
            self._tell(record)

    def post(self, record: Record) -> None:
        """Hand the record over without waiting. Where the queue is full it is counted as refused, and still told."""
        if not self._writer.post(self._work(record)):
            _log.error("record %s was not stored: the queue is full or closed", record.id)
        self._books.booked(record)
        self._tell(record)

    async def ready(self) -> bool:
        """Say within 250 ms whether the store takes records.

        A probe that hangs is asked again, not joined by another.
        """
        if not self._writer.able:
            return False
        if self._probe is None or self._probe.done():
            self._probe = asyncio.create_task(asyncio.to_thread(self._read), name="store-ready")
        await asyncio.wait({self._probe}, timeout=_READY_SECONDS)
        return self._probe.done() and not self._probe.cancelled() and self._probe.exception() is None

    def _work(self, record: Record) -> Insert | Work[bool]:
        insert = self._requests.insert(record, self._books.book(record))
        return insert if self._beside is None else self._beside(record, insert)

    def _read(self) -> None:
        with self._database.reading() as connection:
            connection.execute(sqlalchemy.select(1))

    def _tell(self, record: Record) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(record)
            except Exception:  # noqa: BLE001 -- one listener's failure is no other's, and not the caller's
                _log.exception("a subscriber failed on record %s", record.id)


class NullRecorder:
    """The recorder of an engine without a store: takes everything, keeps nothing."""

    async def commit(self, record: Record) -> None:
        """Return at once."""

    def post(self, record: Record) -> None:
        """Return at once."""

    async def ready(self) -> bool:
        """Return True."""
        return True
