"""The workflows: of one call, which asks the failover machine, has done what that says, and tells it what came of it;
and of one that several calls answer, each of them by the same way.

A workflow decides nothing itself and computes with nothing but pure code, its own clock and its own dice, which are the
same whenever its history is read again. A change that makes it schedule something else is a new version under a new
name: the old one stays until no open history needs it (`tests/workflows/histories` holds one of each).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final, assert_never

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

from tokenhub_core.dispatch.backoff import RetryBudget
from tokenhub_core.dispatch.failover import Failover, GiveUp, Try, Wait
from tokenhub_core.dispatch.job import CANCELLED
from tokenhub_core.errors import Fault
from tokenhub_core.orchestration.asks import AGREED, LATE, Ask, Batch
from tokenhub_core.orchestration.asks import Told as Heard
from tokenhub_core.orchestration.runner import Driving, made
from tokenhub_core.workflows import composed, shapes
from tokenhub_core.workflows.composed import Begin, Fact, Next, Prepared, Settling, Sofar
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


class Course:
    """A call's way through its plan, and through the second try of an answer that does not fit."""

    def __init__(self, start: Start, *, activity: str, name: str = "attempt") -> None:
        self._start = start
        self._activity = activity
        self._name = name
        self.trace = Traced()
        """As far as it has come."""

    async def run(self) -> Done:
        """Return what came of the call."""
        told, n = await self._through(self._start)
        if told.again is None:
            return _done(told, n)
        mended, second = await self._through(told.again, repaired=n)
        if mended.fault is None or mended.unfit or mended.fault == CANCELLED:
            return _done(mended, second)
        # Why the first answer was refused is what its caller has to know.
        return Done(mended.trace, told.fault)

    async def _through(self, start: Start, repaired: int = 0) -> tuple[Told, int]:
        """Return the last attempt's outcome, and its number; of a second try, after the attempt `repaired`."""
        machine = Failover(
            start.plan,
            limits=start.limits,
            # Each attempt is taken out of the providers' real budgets where it is made.
            retries=RetryBudget(),
            started=self.began(start),
            max_output_tokens=start.max_output_tokens,
        )
        place = self.trace.candidate
        while True:
            step = machine.next(self.now(), self.dice())
            match step:
                case Wait(seconds):
                    await self.sleep(seconds)
                case GiveUp(fault):
                    return Told(self.trace, fault), 0
                case Try():
                    asked = shapes.step(start, step, self.trace)
                    if repaired and place is not None:
                        asked = shapes.repairing(asked, repaired, place)
                    told = await self.attempted(asked)
                    self.trace = told.trace
                    if told.taken or told.fault is None or told.broken or told.unfit:
                        return told, asked.n
                    if told.refused:
                        machine.refused(told.fault, step.n)
                    else:
                        machine.failed(told.fault, self.now(), step.n, spare=told.spare)
                case _:
                    assert_never(step)

    # --- where it is driven: by a workflow, unless somebody says otherwise

    def now(self) -> float:
        """Return seconds that only grow."""
        return workflow.time()

    def began(self, start: Start) -> float:
        """Return when the call began, by the same count."""
        return self.now() - start.elapsed

    def dice(self) -> float:
        """Return a number from 0 to 1."""
        return workflow.random().random()

    async def sleep(self, seconds: float) -> None:
        """Return after so long."""
        await workflow.sleep(seconds)

    async def attempted(self, step: Step) -> Told:
        """Return what came of one attempt."""
        limit = _LONGEST if step.timeout is None else timedelta(seconds=step.timeout + GRACE)
        try:
            told: Told = await workflow.execute_activity(
                self._activity,
                step,
                result_type=Told,
                activity_id=f"{self._name}-{step.n}",
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


def _done(told: Told, n: int) -> Done:
    answered = (told.fault is None or told.broken) and not told.taken
    return Done(told.trace, told.fault, n if answered else 0, told.broken, told.taken, told.gist)


@workflow.defn(name=shapes.CHAT)
class Chat:
    """One call."""

    activity = shapes.ATTEMPT
    """What makes its attempts."""

    @workflow.run
    async def run(self, start: Start) -> Done:
        """Return what came of the call, once its one record is made."""
        course = Course(start, activity=self.activity)
        try:
            done = await course.run()
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
            done = Done(course.trace, CANCELLED)
        if not done.taken:
            await _recorded(Closing(start.id, done.trace, done.fault))
        return done


@workflow.defn(name=shapes.CHECKED)
class Checked(Chat):
    """One call whose answer is checked or shaped."""

    activity = shapes.CHECKED_ATTEMPT

    @workflow.run
    async def run(self, start: Start) -> Done:
        """Return what came of the call, once its one record is made."""
        return await super().run(start)


class Batches:
    """The way of several calls that make one answer: what is asked at the same time is a batch."""

    def __init__(self, course: Callable[[Start, str], Course], now: Callable[[], float]) -> None:
        """`course` returns a step's way through its plan; `now` seconds that only grow."""
        self._course = course
        self._now = now
        self.made: list[tuple[Fact, ...]] = []
        self._under_way: dict[str, Fact | Course] = {}
        """The steps of the batch that is being made, in their order."""

    @property
    def facts(self) -> tuple[tuple[Fact, ...], ...]:
        """Return what came of the batches that are over."""
        return tuple(self.made)

    @property
    def left(self) -> tuple[Fact, ...]:
        """Return what came of the steps that are not."""
        return tuple(map(_fact, self._under_way, self._under_way.values()))

    async def make(self, following: Next, until: float | None) -> None:
        """Make the steps that follow."""
        prepared = {one.step: one for one in following.steps}
        self._under_way = {name: Fact(name, fault=CANCELLED) for name in prepared}
        # Of an answer only its digest is known here, and that is enough to see whether voters agree.
        batch = Batch(tuple(map(Ask, prepared)), following.agree, following.share)
        told = await made(batch, Driving(lambda ask: self._step(prepared[ask.step]), self._now, until))
        self.made.append(
            tuple(composed.settled(_fact(one.step, self._under_way[one.step], one.fault)) for one in told)
        )
        self._under_way = {}

    async def _step(self, prepared: Prepared) -> Heard:
        """Return what came of one step, as far as the batch depends on it."""
        name = prepared.step
        if prepared.start is None:
            self._under_way[name] = Fact(name, fault=prepared.fault)
            return Heard(name, fault=prepared.fault)
        course = self._under_way[name] = self._course(prepared.start, name)
        try:
            done = await course.run()
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise asyncio.CancelledError from error
            raise
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # What its attempt did cost was waited for; what it came to counts no more.
            raise asyncio.CancelledError
        self._under_way[name] = Fact(name, done.trace, done.fault, done.n)
        model = done.trace.attempts[-1].model if done.trace.attempts else ""
        return Heard(name, text=done.gist, model=model, fault=done.fault)


def _fact(name: str, known: Fact | Course, fault: Fault | None = CANCELLED) -> Fact:
    """Return what came of a step; of one that was given up, as far as it has come, and why."""
    if isinstance(known, Course) or fault in (AGREED, LATE):
        return Fact(name, known.trace, fault)
    return known


@workflow.defn(name=composed.PLAN)
class Planned:
    """One call that several calls answer."""

    def __init__(self) -> None:
        self._batches = Batches(
            lambda start, name: Course(start, activity=shapes.CHECKED_ATTEMPT, name=name), workflow.time
        )

    @workflow.run
    async def run(self, begin: Begin) -> Done:
        """Return what came of the call, once its answer is kept and its one record is made."""
        cancelled = False
        try:
            if await self._driven(begin):
                return Done(Traced(), taken=True)
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
            cancelled = True
        left = self._batches.left if cancelled else ()
        settling = Settling(begin.id, self._batches.facts, left, cancelled)
        making: workflow.ActivityHandle[Done] = workflow.start_activity(
            composed.SETTLE,
            settling,
            result_type=Done,
            activity_id="settle",
            start_to_close_timeout=timedelta(seconds=60),
            heartbeat_timeout=timedelta(seconds=HEARTBEAT),
            retry_policy=_AGAIN,
        )
        return await _whatever(making)

    async def _driven(self, begin: Begin) -> bool:
        """Return when the machine of the goal has come to its end; True: the call is being made directly."""
        seconds = begin.limits.total_seconds
        until = None if seconds is None else workflow.time() - begin.elapsed + seconds
        while True:
            following: Next = await workflow.execute_activity(
                composed.STEPS,
                Sofar(begin.id, self._batches.facts),
                result_type=Next,
                activity_id=f"steps-{len(self._batches.facts) + 1}",
                start_to_close_timeout=timedelta(seconds=60),
                heartbeat_timeout=timedelta(seconds=HEARTBEAT),
                retry_policy=_AGAIN,
            )
            if following.taken or not following.steps:
                return following.taken
            await self._batches.make(following, until)


async def _recorded(closing: Closing) -> None:
    """Return when the record is made."""
    making = workflow.start_activity(
        shapes.RECORD,
        closing,
        activity_id="record",
        start_to_close_timeout=timedelta(seconds=30),
        heartbeat_timeout=timedelta(seconds=HEARTBEAT),
        retry_policy=_AGAIN,
    )
    await _whatever(making)


async def _whatever[T](making: workflow.ActivityHandle[T]) -> T:
    """Return what an activity comes to. Nobody's leaving keeps it from being done."""
    while True:
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            if making.done():
                raise
