"""A call that several calls answer, gone on with by its front door: where Temporal is gone, nobody else would.

    claimed: from here on the workflow, should it come back, finds that and does nothing
    the same machine from its beginning: what has a mark is told and not made, what follows is made here
    settled as ever: one answer, one record

That no attempt is sent twice follows from its mark, whoever drives. What must not be guessed at is an attempt that
another process makes and has not ended: as long as there is one, nothing is taken over.
"""

from __future__ import annotations

import asyncio
from typing import override

from tokenhub_core.dispatch.failover import Limits
from tokenhub_core.dispatch.job import Means
from tokenhub_core.store.durable import By
from tokenhub_core.workflows import shapes
from tokenhub_core.workflows.activities import Activities, Safe
from tokenhub_core.workflows.composed import TAKEN, Settling, Sofar
from tokenhub_core.workflows.definitions import Batches, Course
from tokenhub_core.workflows.shapes import Ending, Start, Step, Told
from tokenhub_core.workflows.stepping import Stepping


class _Here(Course):
    """A step's way through its plan, driven by this process."""

    def __init__(self, start: Start, name: str, activities: Activities, means: Means) -> None:
        super().__init__(start, activity=shapes.CHECKED_ATTEMPT, name=name)
        self._activities = activities
        self._means = means

    @override
    def now(self) -> float:
        return self._means.clock.monotonic()

    @override
    def dice(self) -> float:
        return self._means.random()

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @override
    async def attempted(self, step: Step) -> Told:
        return await self._activities.directly(step)


class Overtaking:
    """One call that is taken over."""

    def __init__(
        self, call_id: str, limits: Limits, started: float, *, activities: Activities, stepping: Stepping
    ) -> None:
        """`started`: monotonic seconds, when the call came."""
        means = activities.executor.means
        self._id = call_id
        self._until = None if limits.total_seconds is None else started + limits.total_seconds
        self._stepping = stepping
        self._clock = means.clock
        self._batches = Batches(
            lambda start, name: _Here(start, name, activities, means), means.clock.monotonic
        )

    async def claim(self, safe: Safe) -> None:
        """Return once the call is ours to go on with."""
        await safe.rows.begin(self._id, TAKEN, By.DIRECT, now=self._clock.now())

    async def run(self) -> Ending:
        """Return how the call ended; who is cancelled meanwhile has it end, and recorded so."""
        cancelled = False
        try:
            while True:
                following = await self._stepping.following(Sofar(self._id, self._batches.facts))
                if not following.steps:
                    break
                await self._batches.make(following, self._until)
        except asyncio.CancelledError:
            cancelled = True
        left = self._batches.left if cancelled else ()
        outcome = await self._stepping.ended(Settling(self._id, self._batches.facts, left, cancelled))
        return Ending(outcome.told.trace, outcome.told.fault, outcome.answer)
