"""The one writer: a thread that commits whatever has gathered since its last commit, in one transaction.

A commit to disk costs about as much for one row as for a hundred, so those who wait share it (group commit). A waiter
is resolved after COMMIT returned, never before: that is the promise the whole product's "recorded exactly once" rests
on. The event loop is woken once per transaction, however many wait.

Where items come close together, what is handed over while the loop is busy goes to the thread together, at most two
milliseconds later: each transaction costs two threads' switches and a wait for the disk, and a busy loop brings the
next item soon. An item that comes after a pause, or to a loop with nothing else to do, goes at once.

There are three kinds of failure. A work item that fails alone (it broke a constraint, or raised) fails alone: the
transaction is undone and its halves run again behind savepoints, and halves of those that fail. A store that fails
(locked, full, damaged) fails the whole transaction, and every waiter is told by a typed error. An item nobody waits for
that fails is counted as lost and logged.

A server that is gone is looked for again for as long as a change may wait, so that one which restarts costs nobody an
answer. Where it went while it was asked to commit, nobody knows whether it did: rows are added again, which does
nothing where they are there, and everything else fails.

A store that has failed is behind a breaker, which the thread alone closes: it looks twice a second. While a server is
known to be gone, whoever brings work that he waits for is refused at once, and what nobody waits for is kept until it
is back. `silence` may find it gone while a transaction is under way (`give_up`).
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Protocol, cast

import msgspec
from sqlalchemy import Connection, delete

from tokenhub_core.errors import TokenHubError
from tokenhub_core.store import faults
from tokenhub_core.store.database import Database
from tokenhub_core.store.inserts import Insert, after
from tokenhub_core.store.schema import SETTINGS

_log: Final = logging.getLogger(__name__)

_NEAR: Final = 0.003
"""Seconds. An item that comes within them of the last one can expect company."""
_IDLE: Final = 0.00005
"""Seconds. A loop that comes round within them had nothing else to do, so nothing more is on its way."""
_GATHER: Final = 0.002
"""Seconds. The longest that an item waits for company, but for the turn of the loop that is under way then."""
_AGAIN: Final = 0.05
"""Seconds between two looks for a server that is gone."""
_PROBE: Final = 0.5
"""Seconds between two looks whether a store that failed has come back; of a file, while nobody brings anything."""
STALLED: Final = 2.0
"""Seconds. A server that has not answered for so long is not expected to; a disk may take as long as a change may."""
_GONE: Final = "the database cannot be reached"
_SAME_AGAIN: Final = frozenset({faults.LOST, faults.BUSY})
_WAITED: Final = frozenset({faults.LOCKED, faults.LOST, faults.SLOW})
"""Failures that took as long as a change may wait."""


type Work[T] = Callable[[Connection], T]
"""Runs in the writer's thread. It may be run twice, so it changes nothing but the database; it never commits or rolls
back, because the transaction is not its alone."""


class Commits(Protocol):
    """Whoever commits work: the writer itself, or the audit log before it."""

    async def commit[T](self, work: Work[T]) -> T:
        """Do as `Writer.commit` does."""
        ...


@dataclass(frozen=True, slots=True)
class Counts:
    """What the writer has done since it started."""

    committed: int = 0
    """Items that are durable."""
    batches: int = 0
    duplicates: int = 0
    """Inserts whose row was already there."""
    refused: int = 0
    """Items that were not taken: the queue was full or the writer closed."""
    lost: int = 0
    """Items that were taken, failed, and had nobody waiting for them."""
    failed: int = 0
    """Items whose waiter was told of a failure."""


class _Item(msgspec.Struct, frozen=True, eq=False):
    work: Work[Any] | Insert
    waiter: asyncio.Future[Any] | None


type _Outcome = tuple[_Item, Any, Exception | None]
type _Run = Callable[[list[_Item], Connection], list[_Outcome]]


class Writer:
    """Owns the writer thread. Belongs to the event loop it was started in; only that loop's thread calls it."""

    def __init__(
        self,
        database: Database,
        *,
        limit: int = 10_000,
        batch: int = 500,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._limit = limit
        self._batch = batch
        self._monotonic = monotonic
        self._gathered: list[_Item] = []
        self._last = -math.inf
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._pending = 0
        self._room: deque[asyncio.Future[None]] = deque()
        self._counts: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        self._connection: Connection | None = None
        self.breaker = database.breaker
        self._stalled = STALLED if database.spelling.shared else database.patience
        # Written by the thread, read by the loop; what both decide on, under the lock.
        self._lock = threading.Lock()
        self._begun = 0.0
        self._batch_now: list[_Item] = []
        self._given_up = False
        self._doubtful = False
        """Whether the transaction under way was asked to commit."""
        self._leaving = threading.Event()
        # A daemon, so that a program that failed before `close` can end; whoever ends in order calls `close`.
        self._thread = threading.Thread(target=self._run, name="tokenhub-writer", daemon=True)

    def start(self) -> None:
        """Start the thread, bound to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def counts(self) -> Counts:
        """Return the counters of this moment."""
        return Counts(**self._counts)

    @property
    def pending(self) -> int:
        """Return how many items were taken and are not settled yet."""
        return self._pending

    @property
    def able(self) -> bool:
        """Tell whether what is handed over now can be expected to be stored: the last was, and soon enough."""
        begun = self._begun
        return self.breaker.closed and (not begun or time.monotonic() - begun < self._stalled)

    @property
    def begun(self) -> float:
        """Return since which monotonic second the thread has been busy with a transaction, 0 where it rests."""
        return self._begun

    async def insert(self, insert: Insert) -> bool:
        """Return once the row is durable: True where it is new. Fails as `commit` does."""
        return cast("bool", await self._submit(insert))

    async def commit[T](self, work: Work[T]) -> T:
        """Run `work` in a transaction and return its result once that is durable; waits while the queue is full.

        Raises what `work` raised, or a `TokenHubError` where the store failed or the writer is closed, at once where a
        server is known to be gone. A caller that is cancelled after the work was queued leaves it to be done.
        """
        return cast("T", await self._submit(work))

    def post(self, work: Work[Any] | Insert) -> bool:
        """Queue `work` and return at once; False, and counted, where there is no room for it."""
        if self._closing or self._pending >= self._limit:
            self._counts["refused"] += 1
            return False
        self._put(_Item(work, None))
        return True

    def give_up(self, begun: float) -> bool:
        """Wait no more for the transaction that began then; False where it has ended meanwhile.

        Everybody who waits, for it or behind it, is told. Nothing of that is done any more, but what the server was
        asked to commit already: that may stand, and nobody can know.
        """
        with self._lock:
            if self._begun != begun:
                return False
            self._given_up = True
            under_way = self._batch_now
            self.breaker.failed(time.monotonic(), faults.LOST)
        error = faults.unavailable(_GONE, faults.LOST)
        for item in under_way:
            if item.waiter is not None and not item.waiter.done():
                self._counts["failed"] += 1
                item.waiter.set_exception(error)
        self._settle(())
        return True

    async def close(self) -> None:
        """Commit everything that was taken, then end the thread. Whoever still waits for room is refused."""
        if not self._closing:
            self._closing = True
            self._leaving.set()
            self._hand_over()
            self._queue.put(None)
            self._offer_room()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    # --- in the loop -------------------------------------------------------------------------------------------

    async def _submit(self, work: Work[Any] | Insert) -> Any:
        loop = asyncio.get_running_loop()
        while self._open() and self._pending >= self._limit:
            room = loop.create_future()
            self._room.append(room)
            try:
                await room
            except asyncio.CancelledError:
                self._counts["refused"] += 1
                raise
        waiter = loop.create_future()
        self._put(_Item(work, waiter))
        return await waiter

    def _open(self) -> bool:
        """Return True where work is taken that is waited for; else raises why not."""
        if self._closing:
            self._counts["refused"] += 1
            raise faults.unavailable("the store is closed", faults.CLOSED)
        if self._database.lost:
            self._counts["failed"] += 1
            raise faults.unavailable(_GONE, faults.LOST)
        return True

    def _taken_back(self) -> list[_Item]:
        """Return what is waited for and was not begun; what nobody waits for stays where it is."""
        self._hand_over()
        found: list[_Item | None] = []
        with suppress(queue.Empty):
            while True:
                found.append(self._queue.get_nowait())
        for item in found:
            if item is None or item.waiter is None:
                self._queue.put(item)
        return [item for item in found if item is not None and item.waiter is not None]

    def _put(self, item: _Item) -> None:
        self._pending += 1
        self._gathered.append(item)
        if self._loop is None:
            self._hand_over()
            return
        now = self._monotonic()
        if len(self._gathered) == 1:
            until = now + _GATHER if now - self._last < _NEAR else now
            self._loop.call_soon(self._gather, self._loop, until, now)
        self._last = now

    def _gather(self, loop: asyncio.AbstractEventLoop, until: float, seen: float) -> None:
        """Hand over where the loop came round at once, or has gathered for long enough; else look again."""
        now = self._monotonic()
        if now - seen < _IDLE or now >= until:
            self._hand_over()
        else:
            loop.call_soon(self._gather, loop, until, now)

    def _hand_over(self) -> None:
        for item in self._gathered:
            self._queue.put(item)
        self._gathered.clear()

    def _offer_room(self) -> None:
        """Wake everyone who waits for room; each looks again, and those that find none queue up as before."""
        while self._room:
            room = self._room.popleft()
            if not room.done():
                room.set_result(None)

    def _settle(self, outcomes: Sequence[_Outcome]) -> None:
        counts = self._counts
        counts["batches"] += bool(outcomes)
        if self._database.lost:  # who came while it was looked for is not to wait until it is back
            gone = faults.unavailable(_GONE, faults.LOST)
            outcomes = [*outcomes, *((item, None, gone) for item in self._taken_back())]
        self._pending -= len(outcomes)
        lost: Exception | None = None
        for item, result, error in outcomes:
            waiting = item.waiter is not None and not item.waiter.done()
            if error is None:
                counts["committed"] += 1
                counts["duplicates"] += isinstance(item.work, Insert) and not result
                if waiting:
                    cast("asyncio.Future[Any]", item.waiter).set_result(result)
            elif waiting:
                counts["failed"] += 1
                cast("asyncio.Future[Any]", item.waiter).set_exception(faults.heard(error))
            elif item.waiter is None or item.waiter.cancelled():
                counts["lost"] += 1
                lost = error
        if lost is not None:
            _log.error("the store lost work that nobody waited for: %s", lost)
        self._offer_room()

    # --- in the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        open_ = True
        while open_:
            batch, open_ = self._take()
            if batch:
                self._turn(batch)
            elif open_ and not self._closing:
                self._probe()
        self._disconnect()

    def _take(self) -> tuple[list[_Item], bool]:
        """Wait for the first item, then take what is there; False with it once the queue has ended.

        Nothing with True: the store had failed, and it is time to look at it again.
        """
        batch: list[_Item] = []
        well = self.breaker.closed
        if self._database.lost and not self._closing:
            self._leaving.wait(_PROBE)
            return batch, True
        try:
            item = self._queue.get(timeout=None if well else _PROBE)
            while item is not None:
                batch.append(item)
                if len(batch) == self._batch:
                    return batch, True
                item = self._queue.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False

    def _turn(self, batch: list[_Item]) -> None:
        if outcomes := self._write(batch):
            self._report(outcomes)

    def _report(self, outcomes: Sequence[_Outcome]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._settle, outcomes)
        except RuntimeError:
            # The loop was closed without us, so nobody is left to tell. What was committed is committed.
            _log.warning("the store's loop ended before the store did")

    def _write(self, batch: list[_Item]) -> list[_Outcome]:
        """Commit `batch`; return after COMMIT with one outcome an item. Never raises."""
        behind, now = self._queue.qsize(), time.monotonic()
        with self._lock:
            self._batch_now, self._given_up, self._begun = batch, False, now
        try:
            return self._insist(batch, behind, now + self._database.patience)
        finally:
            with self._lock:
                self._batch_now, self._begun = [], 0.0

    def _insist(self, batch: list[_Item], behind: int, until: float) -> list[_Outcome]:
        """Try `batch` until it is stored or cannot be; at first and then for as long as it is before `until`."""
        unknown: list[_Outcome] = []
        again = False
        while batch:
            self._doubtful = False
            try:
                outcomes = self._attempt(batch)
            except Exception as error:  # noqa: BLE001 -- whatever a work item raises is its waiter's to hear
                fault = faults.store_fault(error)
                if fault is None:
                    return unknown + self._down(batch, 0, error)
                if self._given_up or fault.fault.cause not in _SAME_AGAIN or time.monotonic() >= until:
                    return unknown + self._down(batch, behind, fault)
                self._disconnect(broken=True)
                if self._doubtful and fault.fault.cause == faults.LOST:
                    again = True
                    unknown += [(item, None, fault) for item in batch if not isinstance(item.work, Insert)]
                    batch = [item for item in batch if isinstance(item.work, Insert)]
                time.sleep(_AGAIN)
                continue
            self.breaker.succeeded()
            if again:  # a row that is there already was added a moment ago, by us
                outcomes = [(item, result or error is None, error) for item, result, error in outcomes]
            return unknown + outcomes
        return unknown

    def _attempt(self, batch: list[_Item]) -> list[_Outcome]:
        """Commit `batch`, each item of it alone where one has failed; raises where the store fails."""
        try:
            return self._together(batch)
        except Exception as error:
            if faults.store_fault(error) is not None:
                raise
            if len(batch) == 1 and not isinstance(batch[0].work, Insert):
                return [(batch[0], None, error)]
        return self._committed(self._connected(), batch, self._halves)

    def _together(self, batch: list[_Item]) -> list[_Outcome]:
        """Run everything in one transaction; raises where any of it fails."""
        connection = self._connected()
        statements = {_statement(item) for item in batch}
        if len(statements) == 1 and (only := statements.pop()) is not None:
            new = self._straight(connection, only, batch)
            return [(item, new, None) for item in batch]
        return self._committed(connection, batch, self._all)

    def _committed(self, connection: Connection, batch: list[_Item], run: _Run) -> list[_Outcome]:
        with connection.begin():
            outcomes = run(batch, connection)
            self._committing()
        return outcomes

    def _all(self, batch: list[_Item], connection: Connection) -> list[_Outcome]:
        """Run everything, neighbours with one statement in one call; raises where any of it fails."""
        outcomes: list[_Outcome] = []
        for statement, group in groupby(batch, key=_statement):
            items = list(group)
            if statement is None:
                outcomes += [(item, cast("Work[Any]", item.work)(connection), None) for item in items]
                continue
            rows = _rows(items)
            told = self._database.spelling.told
            new = _all_or_none(connection.exec_driver_sql(told(statement), rows).rowcount, len(rows))
            for then, more in _following(items) if new else ():
                connection.exec_driver_sql(told(then), more)
            outcomes += [(item, new, None) for item in items]
        return outcomes

    def _straight(self, connection: Connection, statement: str, batch: list[_Item]) -> bool:
        """Insert rows in a transaction of their own; return whether they were new. Raises the driver's own errors.

        This is what nearly every transaction is, and SQLAlchemy's share of it would cost half as much as SQLite's.
        """
        rows, spelling = _rows(batch), self._database.spelling
        driver: Any = connection.connection.dbapi_connection
        cursor = driver.cursor()
        try:
            cursor.execute(spelling.begin)
            cursor.executemany(spelling.told(statement), rows)
            new = _all_or_none(cursor.rowcount, len(rows))
            for then, more in _following(batch, sort=spelling.shared) if new else ():
                cursor.executemany(spelling.told(then), more)
            self._committing()
            cursor.execute("COMMIT")
        except Exception:
            driver.rollback()  # does nothing where a full disk has ended it already
            raise
        return new

    def _committing(self) -> None:
        """Note that the store is about to be asked to commit; raises where its waiters were told that it is not."""
        with self._lock:
            if self._given_up:
                raise faults.unavailable(_GONE, faults.LOST)
            self._doubtful = True

    def _halves(self, items: list[_Item], connection: Connection) -> list[_Outcome]:
        """Run each half behind a savepoint, so that no item takes another one along."""
        half = max(1, len(items) // 2)
        return [*self._guarded(items[:half], connection), *self._guarded(items[half:], connection)]

    def _guarded(self, items: list[_Item], connection: Connection) -> list[_Outcome]:
        savepoint = connection.begin_nested()
        try:
            outcomes = self._all(items, connection)
            savepoint.commit()
        except Exception as error:
            if faults.store_fault(error) is not None:
                raise
            savepoint.rollback()
            return [(items[0], None, error)] if len(items) == 1 else self._halves(items, connection)
        return outcomes

    def _probe(self) -> None:
        """Look whether a store that failed takes changes again."""
        self.breaker.admit(time.monotonic())
        try:
            connection = self._connected()
            with connection.begin():
                connection.execute(delete(SETTINGS).where(SETTINGS.c.key == ""))
            self.breaker.succeeded()
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is not over
            self.breaker.failed(time.monotonic(), faults.cause(error) or self.breaker.why)
            self._disconnect(broken=True)
            self._report(())

    def _down(self, batch: list[_Item], behind: int, error: Exception) -> list[_Outcome]:
        """Fail the batch; where the store was waited for in vain, also the `behind` items that waited just as long.

        Without that, a full queue behind a lock would be told of it one busy timeout a batch.
        """
        why = error.fault.cause if isinstance(error, TokenHubError) else "store_failed"
        self.breaker.failed(time.monotonic(), why)
        self._disconnect(broken=True)
        failed = [*batch, *self._behind(behind if why in _WAITED else 0)]
        if why == faults.LOST and not self._closing:
            failed = [item for item in failed if not self._kept(item)]
        return [(item, None, error) for item in failed]

    def _behind(self, most: int) -> list[_Item]:
        """Take so many items at most out of the queue: the loop may have taken some of them back."""
        found: list[_Item] = []
        with suppress(queue.Empty):
            for _ in range(most):
                item = self._queue.get_nowait()
                if item is None:
                    self._queue.put(None)
                else:
                    found.append(item)
        return found

    def _kept(self, item: _Item) -> bool:
        """Put back what nobody waits for, unless it may have been done and must not be done again."""
        if item.waiter is not None or (self._doubtful and not isinstance(item.work, Insert)):
            return False
        self._queue.put(item)
        return True

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.writer_connection()
        return self._connection

    def _disconnect(self, *, broken: bool = False) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if broken:
            connection.invalidate()
        connection.close()


class _Mixed(Exception):  # noqa: N818 -- a signal to start over, not an error anyone sees
    """Some rows of one statement were there already, and only one at a time do they say which."""


def _all_or_none(new: int, rows: int) -> bool:
    if new not in {0, rows}:
        raise _Mixed
    return new > 0


def _rows(items: Sequence[_Item]) -> list[tuple[Any, ...]]:
    return [cast("Insert", item.work).row for item in items]


def _following(items: Sequence[_Item], *, sort: bool = False) -> Iterable[tuple[str, list[tuple[Any, ...]]]]:
    """Return what is inserted with the rows of `items`, by statement.

    Sorted, so that two who change the same rows at once wait for each other and not both.
    """
    found = after([cast("Insert", item.work) for item in items])
    if not sort:
        return found.items()
    return [(statement, sorted(found[statement], key=repr)) for statement in sorted(found)]


def _statement(item: _Item) -> str | None:
    return item.work.statement if isinstance(item.work, Insert) else None
