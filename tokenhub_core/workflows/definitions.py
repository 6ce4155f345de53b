"""The workflow of one call: it asks the failover machine, has done what that says, and tells it what came of it.

It decides nothing itself and computes with nothing but pure code, its own clock and its own dice, which are the same
whenever its history is read again. A change that makes it schedule something else is a new version under a new name:
the old one stays until no open history needs it (`tests/workflows/histories` holds one of each).
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final, assert_never

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.failover import Failover, GiveUp, Try, Wait
from tokenhub_core.dispatch.job import CANCELLED
from tokenhub_core.workflows import shapes
from tokenhub_core.workflows.shapes import Closing, Done, Start, Step, Told, Traced

HEARTBEAT: Final = 10.0
"""Seconds without a sign of life until an attempt's worker counts as dead."""
GRACE: Final = 60.0
"""Seconds that an attempt may take beyond its own limit, which it keeps by itself."""
_LONGEST: Final = timedelta(hours=3)
"""Of an attempt in a call without a limit."""

_AGAIN: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=5)
)
"""Of what only fails where a worker or the store does."""


@workflow.defn(name=shapes.CHAT)
class Chat:
    """One call."""

    def __init__(self) -> None:
        self._trace = Traced()

    @workflow.run
    async def run(self, start: Start) -> Done:
        """Return what came of the call, once its one record is made."""
        try:
            done = await self._dispatched(start)
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
            done = Done(self._trace, CANCELLED)
        if not done.taken:
            await _recorded(Closing(start.id, done.trace, done.fault))
        return done

    async def _dispatched(self, start: Start) -> Done:
        machine = Failover(
            start.plan,
            limits=start.limits,
            # Each attempt is taken out of the providers' real budgets where it is made.
            retries=RetryBudget(),
            started=workflow.time() - start.elapsed,
            max_output_tokens=start.max_output_tokens,
        )
        while True:
            step = machine.next(workflow.time(), workflow.random().random())
            match step:
                case Wait(seconds):
                    await workflow.sleep(seconds)
                case GiveUp(fault):
                    return Done(self._trace, fault)
                case Try():
                    told = await _attempted(shapes.step(start, step, self._trace))
                    self._trace = told.trace
                    if told.taken or told.fault is None or told.broken:
                        n = 0 if told.taken else step.n
                        return Done(told.trace, told.fault, n, told.broken, told.taken)
                    if told.refused:
                        machine.refused(told.fault, step.n)
                    else:
                        machine.failed(told.fault, workflow.time(), step.n, spare=told.spare)
                case _:
                    assert_never(step)


async def _attempted(step: Step) -> Told:
    limit = _LONGEST if step.timeout is None else timedelta(seconds=step.timeout + GRACE)
    try:
        told: Told = await workflow.execute_activity(
            shapes.ATTEMPT,
            step,
            result_type=Told,
            activity_id=f"attempt-{step.n}",
            schedule_to_close_timeout=limit,
            heartbeat_timeout=timedelta(seconds=HEARTBEAT),
            retry_policy=_AGAIN,
            # What a cancelled attempt has cost is known only when it has ended.
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
        return Told(step.trace, shapes.LOST)
    return told


async def _recorded(closing: Closing) -> None:
    """Return when the record is made. Nobody's leaving keeps it from being made."""
    making = workflow.start_activity(
        shapes.RECORD,
        closing,
        activity_id="record",
        start_to_close_timeout=timedelta(seconds=30),
        retry_policy=_AGAIN,
    )
    while True:
        try:
            await asyncio.shield(making)
        except asyncio.CancelledError:
            if making.done():
                raise
        else:
            return
