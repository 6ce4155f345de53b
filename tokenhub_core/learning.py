"""What keeps learning going: hears of every record, reads at start what was learned, and saves it as it grows.

Several processes on one database learn as one. Each saving counts a number up. Who finds that it is another one than it
has seen does not write over what others have learned: it reads what is stored, counts on top of that what it has seen
itself since its last saving, and saves the result. So what is stored is what one process would have learned from all
observations, in the order in which they were saved; each process has it within two savings.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

import msgspec
from sqlalchemy import Connection

from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Clock
from tokenhub_core.routing.affinity import Affinity
from tokenhub_core.routing.bandit import Arm, Bandit
from tokenhub_core.routing.deadlines import Deadlines
from tokenhub_core.routing.learning import Key, Learner
from tokenhub_core.routing.reward import Reward
from tokenhub_core.routing.spread import Seen, Spreads
from tokenhub_core.store import generations, learned
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import Record

SAVE_SECONDS: Final = 5.0
"""Between two savings: what a crash can take back."""
LEARN_SECONDS: Final = 0.05
"""The longest that a record waits to be learned from: a few together cost less than each by itself."""
_TOGETHER: Final = 64

_LESSONS: Final = 20_000
"""Rewards that are remembered until they are saved."""
_TRIES: Final = 3
"""To save on top of what others have saved; after that it is left for the next time."""

_log: Final = logging.getLogger(__name__)

type Lesson = tuple[Arm, str, float, float]
"""An arm, its context, a reward, and when that was."""


class Fresh(msgspec.Struct, frozen=True):
    """What a process has seen since its last saving."""

    lessons: list[Lesson]
    averages: list[tuple[Key, float]]
    times: list[Seen]


class Learning:
    """What was learned: estimates, posteriors, spreads of times, marks of conversations. Implements `ports.Subscriber`.

    They learn in every mode, also while nobody explores: whoever switches exploring on does not begin with nothing.
    Spreads are learned of all streams.
    """

    def __init__(
        self, database: Database, writer: Writer, clock: Clock, reward: Reward, *, salt: bytes = b"-"
    ) -> None:
        """Begin with nothing. `salt` is the key that marks of conversations are hashed with."""
        self._database = database
        self._writer = writer
        self._clock = clock
        self._reward = reward
        self._waiting: list[Record] = []
        self._salt = salt
        self._number = 0
        """Of the last saving that this process knows."""
        self._others = False
        """Somebody else saves here, too."""
        self._lessons: deque[Lesson] = deque(maxlen=_LESSONS)
        self.learner = Learner()
        self.bandit = Bandit()
        self.spreads = Spreads()
        self.deadlines = Deadlines(self.spreads.after)
        self.affinity = Affinity(salt)

    async def load(self) -> None:
        """Go on from what was saved; called once, before the first record."""
        await asyncio.to_thread(self._read)

    def _read(self) -> None:
        with self._database.reading() as connection:
            self._read_learned(connection)
            self.affinity = Affinity(self._salt, learned.marks(connection))

    def _read_learned(self, connection: Connection) -> None:
        # The number first: rows that are newer than it are found out when something is saved on top of them.
        self._number = generations.last(connection, generations.LEARNED)
        self.bandit = Bandit(learned.posteriors(connection))
        self.learner = Learner(learned.estimates(connection))
        self.spreads = Spreads(learned.spreads(connection))
        self.deadlines = Deadlines(self.spreads.after)

    def __call__(self, record: Record) -> None:
        """Take one finished exchange, to be learned from within `LEARN_SECONDS`."""
        self._waiting.append(record)
        if len(self._waiting) >= _TOGETHER:
            self.learn()
        elif len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(LEARN_SECONDS, self.learn)

    def learn(self) -> None:
        """Learn from everything that waits."""
        waiting, self._waiting = self._waiting, []
        for record in waiting:
            self._learn(record)

    def _learn(self, record: Record) -> None:
        """Learn from one finished exchange: every attempt is rewarded, failed ones too.

        A call in shadow teaches what its model at its host needs in tokens and time. Nobody chose that model, so
        there is nothing to reward.
        """
        self.learner.learn(record)
        if record.shadow is not None:
            return
        self.spreads.learn(record)
        self.deadlines.learn(record)
        context = record.plan.context if record.plan else ""
        now = self._clock.now()
        for model, provider, reward in self._reward.lessons(record):
            self.bandit.reward((model, provider), context, reward, now)
            self._lessons.append(((model, provider), context, reward, now))

    async def save(self, *, everything: bool = False) -> None:
        """Store what has changed, or all there is; return once it is durable. Raises as the writer does.

        Where others have saved meanwhile their lessons are here afterwards, too.
        """
        self.learn()
        fresh = self._fresh()
        try:
            done = await self._saved(everything=everything)
            tries = _TRIES
            while not done and tries:
                done, tries = await self._merged(fresh), tries - 1
        except BaseException:
            self._unsaved(fresh)
            raise
        if not done:
            self._unsaved(fresh)

    async def _saved(self, *, everything: bool) -> bool:
        """Save over what is stored, where that is what this process knows; False where it is not."""
        records, averages, times = self.bandit.changes(), self.learner.changes(), self.spreads.changes()
        noted, gone = self.affinity.changes()
        forgotten: list[bytes] | None = gone
        if everything:
            records, averages = self.bandit.kept(), list(self.learner.averages().items())
            times = self.spreads.kept()
            noted, forgotten = self.affinity.kept(), None
        now, known = self._clock.now(), self._number
        learned_some = bool(records or averages or times)

        def work(connection: Connection) -> int | None:
            number = generations.last(connection, generations.LEARNED)
            # Marks of other processes are theirs.
            theirs = self._others or number != known
            learned.save_marks(connection, noted, gone if theirs else forgotten)
            if number != known:
                return None
            if not learned_some:
                return number
            learned.save(connection, records, averages, times, now=now)
            return generations.counted(connection, generations.LEARNED)

        if learned_some or noted or gone or everything:
            number = await self._writer.commit(work)
        else:
            number = await asyncio.to_thread(self._stored)
            number = number if number == known else None
        if number is not None:
            self._number = number
        return number is not None

    async def _merged(self, fresh: Fresh) -> bool:
        """Take over what others have saved, with what was seen here on top; False where they have saved again."""
        self._others = True
        number, known = await asyncio.to_thread(self._rebased, fresh)
        records, averages, times = known.bandit.changes(), known.learner.changes(), known.spreads.changes()
        now = self._clock.now()

        def work(connection: Connection) -> int | None:
            if generations.last(connection, generations.LEARNED) != number:
                return None
            learned.save(connection, records, averages, times, now=now)
            return generations.counted(connection, generations.LEARNED)

        saved: int | None = number
        if records or averages or times:
            saved = await self._writer.commit(work)
        if saved is None:
            return False
        self._number = saved
        # What was seen while this went on comes on top again, and is saved the next time.
        since = self._fresh()
        self.bandit.become(known.bandit)
        self.learner.become(known.learner)
        self.spreads.become(known.spreads)
        self._counted(since)
        return True

    def _stored(self) -> int:
        with self._database.reading() as connection:
            return generations.last(connection, generations.LEARNED)

    def _rebased(self, fresh: Fresh) -> tuple[int, Learning]:
        """Return what is stored, with these observations on top, and the number of what is stored."""
        known = Learning(self._database, self._writer, self._clock, self._reward, salt=self._salt)
        with self._database.reading() as connection:
            known._read_learned(connection)
        known._counted(fresh)
        return known._number, known

    def _counted(self, fresh: Fresh) -> None:
        for lesson in fresh.lessons:
            self.bandit.reward(*lesson)
        self._lessons.extend(fresh.lessons)
        self.learner.count(fresh.averages)
        self.spreads.count(fresh.times)

    def _fresh(self) -> Fresh:
        """Return what was seen since this was last asked."""
        lessons = list(self._lessons)
        self._lessons.clear()
        return Fresh(lessons, self.learner.seen(), self.spreads.seen())

    def _unsaved(self, fresh: Fresh) -> None:
        self._lessons = deque([*fresh.lessons, *self._lessons], maxlen=_LESSONS)
        self.learner.unsaved(fresh.averages)
        self.spreads.unsaved(fresh.times)

    async def keep(self, every: float = SAVE_SECONDS) -> None:
        """Save every so many seconds, for ever; after a saving that failed the next one stores everything."""
        failed = False
        while True:
            await asyncio.sleep(every)
            try:
                await self.save(everything=failed)
                failed = False
            except TokenHubError as error:
                failed = True
                _log.warning("what was learned could not be saved: %s", error)

    async def close(self) -> None:
        """Save for the last time. A store that is gone does not keep anyone from ending."""
        try:
            await self.save(everything=True)
        except TokenHubError as error:
            _log.warning("what was learned could not be saved: %s", error)
