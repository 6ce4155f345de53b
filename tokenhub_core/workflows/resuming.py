"""What a durable call came to whose front door is gone, for who sends its Idempotency-Key again.

an answer is kept ── given                     made directly, or never kept ── nobody knows
recorded without one ── it has failed           not begun in time ── claimed here, so that nobody makes it
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from tokenhub_core.ports import Clock
from tokenhub_core.store.durable import By, Mark
from tokenhub_core.workflows.activities import Activities, Safe
from tokenhub_core.workflows.codec import LockedError
from tokenhub_core.workflows.shapes import Answer
from tokenhub_core.workflows.way import Resumed


class Resuming:
    """Follows calls that another front door took, by what the store knows of them."""

    def __init__(
        self, activities: Activities, safe: Safe, clock: Clock, *, look: float, begin: float, most: float
    ) -> None:
        """`look`: seconds between two looks; `begin`: for a worker to begin it; `most`: for all of it."""
        self._activities = activities
        self._safe = safe
        self._clock = clock
        self._look = look
        self._begin = begin
        self._most = most

    async def resumed(self, request_id: str) -> Resumed | None:
        """Return what a call came to, once it is over; None where nobody knows."""
        since = self._clock.monotonic()
        answered: float | None = None
        with suppress(LockedError):
            while (waited := self._clock.monotonic() - since) < self._most:
                # Looked for before the answer: between the two the record may be made, and the answer not lost.
                recorded = await self._activities.recorded(request_id)
                marks = await self._safe.rows.marks(request_id)
                answer = await self._answer(request_id, marks)
                if answer is not None:
                    answered = waited if answered is None else answered
                    # Its record is on the way; where Temporal is gone, nobody waits for that.
                    if recorded or waited - answered >= self._begin:
                        return Resumed(answer.body + answer.tail, answer.headers, recorded)
                elif any(mark.by is By.DIRECT for mark in marks):
                    return None
                elif recorded:
                    return Resumed() if marks else None
                elif not marks:
                    if await self._safe.rows.load(request_id) is None:
                        return None
                    if waited >= self._begin and await self._unbegun(request_id):
                        return Resumed()
                await asyncio.sleep(self._look)
        return None

    def given(self, request_id: str) -> None:
        """Forget a call whose answer has found its caller."""
        self._safe.rows.forget(request_id, attempts=True)

    async def _unbegun(self, request_id: str) -> bool:
        """Claim a call that nobody has begun: from here on nobody does."""
        if await self._safe.rows.begin(request_id, 1, By.DIRECT, now=self._clock.now()) is not None:
            return False
        self._safe.rows.forget(request_id, attempts=False)
        return True

    async def _answer(self, request_id: str, marks: Sequence[Mark]) -> Answer | None:
        for mark in marks:
            if mark.outcome is not None:
                outcome = self._safe.outcome(request_id, mark.n, mark.outcome)
                if outcome.answer is not None and outcome.told.fault is None:
                    return outcome.answer
        return None
