"""What keeps learning going: hears of every record, reads at start what was learned, and saves it as it grows."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from sqlalchemy import Connection

from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import Clock
from tokenhub_core.routing.affinity import Affinity
from tokenhub_core.routing.bandit import Bandit
from tokenhub_core.routing.learning import Learner
from tokenhub_core.routing.reward import Reward
from tokenhub_core.routing.spread import Spreads
from tokenhub_core.store import learned
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import Record

SAVE_SECONDS: Final = 5.0
"""Between two savings: what a crash can take back."""
LEARN_SECONDS: Final = 0.05
"""The longest that a record waits to be learned from: a few together cost less than each by itself."""
_TOGETHER: Final = 64

_log: Final = logging.getLogger(__name__)


class Learning:
    """What was learned: estimates, posteriors, spreads of times, marks of conversations. Implements `ports.Subscriber`.

    They learn in every mode, also while nobody explores: whoever switches exploring on does not begin with nothing.
    Spreads are learned of calls that could have been hedged.
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
        self.learner = Learner()
        self.bandit = Bandit()
        self.spreads = Spreads()
        self.affinity = Affinity(salt)

    async def load(self) -> None:
        """Go on from what was saved; called once, before the first record."""
        await asyncio.to_thread(self._read)

    def _read(self) -> None:
        with self._database.reading() as connection:
            self.bandit = Bandit(learned.posteriors(connection))
            self.learner = Learner(learned.estimates(connection))
            self.spreads = Spreads(learned.spreads(connection))
            self.affinity = Affinity(self._salt, learned.marks(connection))

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
        context = record.plan.context if record.plan else ""
        now = self._clock.now()
        for model, provider, reward in self._reward.lessons(record):
            self.bandit.reward((model, provider), context, reward, now)

    async def save(self, *, everything: bool = False) -> None:
        """Store what has changed, or all there is; return once it is durable. Raises as the writer does."""
        self.learn()
        records, averages, times = self.bandit.changes(), self.learner.changes(), self.spreads.changes()
        noted, gone = self.affinity.changes()
        forgotten: list[bytes] | None = gone
        if everything:
            records, averages = self.bandit.kept(), list(self.learner.averages().items())
            times = self.spreads.kept()
            noted, forgotten = self.affinity.kept(), None
        now = self._clock.now()

        def work(connection: Connection) -> None:
            learned.save(connection, records, averages, times, now=now)
            learned.save_marks(connection, noted, forgotten)

        if records or averages or times or noted or gone or everything:
            await self._writer.commit(work)

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
