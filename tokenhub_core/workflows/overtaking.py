"""A call gone on with by its front door: where Temporal is gone, nobody else would.

    claimed: from here on the workflow, should it come back, finds that and does nothing
    the same machine from its beginning: what has a mark is told and not made, what follows is made here
    ended as ever: one answer, one record

That no attempt is sent twice follows from its mark, whoever drives. What must not be guessed at is an attempt that
another process makes and has not ended: as long as there is one, nothing is gone on with.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import override

from tokenhub_core.dispatch.failover import Limits
from tokenhub_core.dispatch.job import CANCELLED
from tokenhub_core.store.durable import By
from tokenhub_core.workflows import composed, shapes
from tokenhub_core.workflows.activities import Activities, Safe
from tokenhub_core.workflows.composed import Settling, Sofar
from tokenhub_core.workflows.definitions import Batches, Course
from tokenhub_core.workflows.shapes import TAKEN, Done, Ending, Start, Step, Told, Traced
from tokenhub_core.workflows.stepping import Stepping


class _Here(Course):
    """A call's way through its plan, driven by this process.

    As long as it is told what has a mark it is the time of then: what was tried within the call's time is told, however
    late it is now, and nobody waits again for what was waited for.
    """

    def __init__(self, start: Start, name: str, activities: Activities, *, closed: bool = False) -> None:
        """`closed`: nothing is made any more."""
        super().__init__(start, activity=shapes.CHECKED_ATTEMPT, name=name)
        self._id = start.id
        self._activities = activities
        self._means = activities.executor.means
        self._closed = closed
        self._began = self._then = self._means.clock.monotonic() - start.elapsed
        self._marked = 0
        """The last attempt with a mark,"""
        self._told = 0
        """and the last one that was told."""

    @override
    async def run(self) -> Done:
        self._marked = await self._activities.marked(self._id)
        return await super().run()

    @override
    def began(self, start: Start) -> float:
        return self._began

    @override
    def now(self) -> float:
        return self._then if self._told < self._marked else self._means.clock.monotonic()

    @override
    def dice(self) -> float:
        return self._means.random()

    @override
    async def sleep(self, seconds: float) -> None:
        if self._told < self._marked:
            self._then += seconds
        else:
            await asyncio.sleep(seconds)

    @override
    async def attempted(self, step: Step) -> Told:
        if self._closed and step.n > self._marked:
            return Told(self.trace, CANCELLED)
        told = await self._activities.directly(step)
        self._told = step.n
        if told.trace.attempts:
            self._then = max(self._then, self._began + told.trace.attempts[-1].ended_ms / 1000)
        return told


class Overtaking(ABC):
    """One call that is taken over."""

    def __init__(self, call_id: str, activities: Activities, safe: Safe) -> None:
        self._id = call_id
        self._activities = activities
        self._safe = safe
        self._clock = activities.executor.means.clock

    async def claim(self) -> None:
        """Return once the call is ours: nobody else begins an attempt of it from here on."""
        await self._safe.rows.begin(self._id, TAKEN, By.DIRECT, now=self._clock.now())

    @abstractmethod
    async def elsewhere(self) -> bool:
        """Tell whether an attempt is under way in another process, or was when that died."""

    @abstractmethod
    async def run(self) -> Ending:
        """Return how the call ended; who is cancelled meanwhile has it end, and recorded so."""

    @abstractmethod
    async def given_up(self) -> Traced:
        """Return what is known of the call, of which nothing more is made.

        An attempt whose end nobody knows counts as billed, and whoever makes it is told so when it has ended.
        """


class One(Overtaking):
    """A call that one call answers."""

    def __init__(self, start: Start, *, activities: Activities, safe: Safe) -> None:
        """`start`: what its workflow would begin with now."""
        super().__init__(start.id, activities, safe)
        self._start = start

    @override
    async def elsewhere(self) -> bool:
        return await self._activities.elsewhere(self._id)

    @override
    async def run(self) -> Ending:
        course = _Here(self._start, "attempt", self._activities)
        try:
            done = await course.run()
        except asyncio.CancelledError:
            done = Done(await self._activities.whole(self._id, course.trace), CANCELLED)
        outcome = await self._safe.found(self._id, done.n) if done.n else None
        answer = None if outcome is None else outcome.answer
        return Ending(done.trace, done.fault, answer, recorded=False)

    @override
    async def given_up(self) -> Traced:
        done = await _Here(self._start, "attempt", self._activities, closed=True).run()
        return done.trace


class Several(Overtaking):
    """A call that several calls answer."""

    def __init__(
        self,
        call_id: str,
        limits: Limits,
        started: float,
        *,
        activities: Activities,
        stepping: Stepping,
        safe: Safe,
    ) -> None:
        """`started`: monotonic seconds, when the call came."""
        super().__init__(call_id, activities, safe)
        self._until = None if limits.total_seconds is None else started + limits.total_seconds
        self._stepping = stepping
        self._batches = Batches(lambda start, name: _Here(start, name, activities), self._clock.monotonic)

    @override
    async def elsewhere(self) -> bool:
        for name in await self._steps():
            if await self._activities.elsewhere(name):
                return True
        return False

    @override
    async def run(self) -> Ending:
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

    @override
    async def given_up(self) -> Traced:
        for name in await self._steps():
            await self._activities.whole(name, Traced())
            start = await self._stepping.start(name)
            if start is not None and await self._activities.elsewhere(name):
                await _Here(start, name, self._activities, closed=True).run()
        return await self._stepping.broken(self._id, anyway=True) or Traced()

    async def _steps(self) -> list[str]:
        return [*await self._safe.rows.begins(composed.name_of(self._id, ""))]
