"""One call on the durable way, from the start of its workflow to its end, as its front door follows it.

What is followed is a workflow of any kind: an `Errand` says which, and how the call is made directly where it is not
to be a workflow after all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import msgspec
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from tokenhub_core.config import Settings
from tokenhub_core.dispatch.failover import Limits
from tokenhub_core.dispatch.job import CANCELLED, Live, Whole
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.health.breaker import Breaker, State
from tokenhub_core.progress import Progress
from tokenhub_core.shaping.shape import Said
from tokenhub_core.store.durable import By, Mark
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.types import Headers, Plan, Request
from tokenhub_core.workflows import shapes
from tokenhub_core.workflows.activities import Activities, Safe
from tokenhub_core.workflows.codec import LockedError
from tokenhub_core.workflows.composed import WHOLE
from tokenhub_core.workflows.definitions import Chat
from tokenhub_core.workflows.overtaking import Overtaking
from tokenhub_core.workflows.shapes import TAKEN, Answer, Done, Ending, Outcome, Traced
from tokenhub_core.workflows.stepping import Stepping

_log: Final = logging.getLogger(__name__)

_UNREACHABLE: Final = Fault(
    Kind.TIMEOUT,
    Blame.US,
    "Temporal cannot be reached, and the call is not over",
    cause="temporal_unreachable",
)
_ELSEWHERE: Final = Fault(
    Kind.TRANSIENT,
    Blame.US,
    "Temporal cannot be reached, and an attempt of the call is not known to be over; it is not made again",
    cause="temporal_unreachable",
    status=503,
)
_ENDED: Final = Fault(Kind.INTERNAL, Blame.US, "the call's workflow was ended", cause="workflow_ended")
_LOCKED: Final = Fault(
    Kind.INTERNAL,
    Blame.US,
    "the vault was locked while the call was under way",
    cause="vault_locked",
    status=503,
)


@dataclass(frozen=True, slots=True)
class Waits:
    """How long is waited for Temporal, in seconds."""

    start: float = 3.0
    """For a workflow to be started."""
    begin: float = 5.0
    """For a worker to begin its first attempt."""
    look: float = 0.5
    """Between two looks at what cannot be heard of otherwise."""
    over: float = 10.0
    """For Temporal to come back in the middle of a call, before its front door goes on."""
    elsewhere: float = 60.0
    """For an attempt of such a call to end that another process makes."""
    apart: float = 40.0
    """Between two failures to ask Temporal that have nothing to do with each other."""
    leave: float = 5.0
    """For a workflow to end whose caller has left."""
    reconnect: float = 5.0
    grace: float = 10.0
    """For the end of a call beyond its own time limit."""


class Errand(msgspec.Struct, frozen=True):
    """What a caller wants to have done, whatever kind of workflow does it."""

    id: str
    """The request's."""
    request: Request
    plan: Plan
    limits: Limits
    started: float
    """Monotonic seconds, when the call came."""
    workflow: str
    prefix: str
    """Of the workflow's id."""
    begin: Callable[[float], msgspec.Struct]
    """Returns what the workflow begins with at so many monotonic seconds."""
    direct: Callable[[], Awaitable[Whole | Live]]
    """Makes the call here and at once."""
    taking: Callable[[], Overtaking]
    """Returns what goes on with it here, once its workflow cannot."""
    several: bool = False
    """Whether several calls answer it."""


class Line:
    """Our line to Temporal, and what all calls on it share."""

    def __init__(
        self,
        settings: Settings,
        *,
        activities: Activities,
        stepping: Stepping,
        safe: Safe,
        metrics: Metrics,
        waits: Waits = Waits(),
    ) -> None:
        self.settings = settings
        self.executor = executor = activities.executor
        self._metrics = metrics
        self.safe = safe
        self.waits = waits
        self.clock = executor.means.clock
        self.breaker = Breaker()
        self.client: Client | None = None
        self.fallbacks = 0
        """Calls that were made directly because Temporal could not have them."""
        self.activities = activities
        self.stepping = stepping
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Return when what was left to be done is done."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def directly(
        self, direct: Callable[[], Awaitable[Whole | Live]], progress: Progress
    ) -> Whole | Live:
        """Make a call here and at once."""
        self.fallbacks += 1
        self._metrics.fell_back()
        progress.trace.recorded = False
        return await direct()

    def told(self) -> None:
        """Set the gauges."""
        state = self.state()
        up = self.client is not None and state is State.CLOSED
        self._metrics.temporal(up=up, breaker=state)

    def later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have something done that nobody needs to wait for."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def state(self) -> State:
        """Return where the breaker is."""
        return self.breaker.state(self.clock.monotonic())


class Run:
    """One call on the durable way."""

    def __init__(self, line: Line, client: Client, errand: Errand, progress: Progress) -> None:
        self.line = line
        self._client = client
        self._waits = line.waits
        self._clock = line.clock
        self.errand = errand
        self._progress = progress
        self._id = errand.id
        self._handle: WorkflowHandle[Any, Done] = client.get_workflow_handle_for(
            Chat.run, errand.prefix + self._id
        )
        self._claimed = False
        """It is ours to make."""
        self._dark: float | None = None
        """Since when Temporal could not be asked,"""
        self._failed = 0.0
        """and when it was asked last."""
        self._overtaken = False
        """Nobody but us goes on with it, or records it."""
        seconds = errand.limits.total_seconds
        self._limit = None if seconds is None else errand.started + seconds + self._waits.grace

    async def answer(self) -> Whole | Live:
        """Return the answer; of a stream that lets wait for itself what tells the caller that we live."""
        following = asyncio.create_task(self._followed(), name=f"durable {self._id}")
        try:
            if self.errand.request.features.stream:
                await asyncio.wait({following}, timeout=self.line.executor.patience.tick)
                if not following.done():
                    return _Late(self, following)
            ending = await asyncio.shield(following)
        except asyncio.CancelledError:
            await self.leave(following)
            raise
        return await self.settled(ending)

    async def settled(self, ending: Ending | None) -> Whole | Live:
        """Return the answer that a call came to; raises its fault. None: it is to be made directly."""
        if ending is None:
            return await self.line.directly(self.errand.direct, self._progress)
        self._write(ending)
        if ending.answer is None:
            raise TokenHubError(shapes.known(ending.fault) or _ENDED)
        self.line.safe.rows.forget(self._id, attempts=ending.recorded or self._overtaken)
        if self.errand.request.features.stream:
            return _Told(ending.answer, ending.fault)
        return Whole(ending.answer.body, ending.answer.headers)

    def _write(self, ending: Ending) -> None:
        shapes.restore(self._progress.trace, ending.trace, self.errand.plan)
        self._progress.trace.recorded = ending.recorded

    async def leave(self, following: asyncio.Task[Ending | None]) -> None:
        """Have the call end: nobody waits for it any more. Returns when it has, or when that takes too long."""
        if following.done():
            # It has ended by itself, and nobody has looked; one that was to be made directly was not begun.
            if not following.cancelled() and following.exception() is None and (ending := following.result()):
                self._write(ending)
            return
        following.cancel()
        if self._overtaken:
            await asyncio.wait({following})
            await self.leave(following)
            return
        await asyncio.shield(self.line.later(self._left()))

    async def _left(self) -> None:
        trace = self._progress.trace
        trace.recorded = True
        try:
            await self._handle.cancel(rpc_timeout=timedelta(seconds=self._waits.start))
        except RPCError:
            # It may not have been started. Whoever begins it now finds that there is nothing to be done.
            with suppress(TokenHubError):
                trace.recorded = not await self._mine()
            return
        with suppress(RPCError, WorkflowFailureError, LockedError, TimeoutError):
            async with asyncio.timeout(self._waits.leave):
                done = await self._handle.result()
            shapes.restore(trace, done.trace, self.errand.plan)

    async def _followed(self) -> Ending | None:
        """Return how the call ended; None where it is to be made directly, and by nobody else."""
        begun = False
        if not await self._started():
            if await self._mine():
                self.line.later(self._gone())
                return None
            begun = True
        watching = asyncio.create_task(self._handle.result())
        try:
            while True:
                pause = self._waits.look if begun else self._waits.begin
                await asyncio.wait({watching}, timeout=pause)
                if watching.done():
                    ending = await self._heard(watching)
                    if ending is not None:
                        return ending
                    watching = asyncio.create_task(self._heard_later())
                if not begun:
                    if await self._mine():
                        self.line.later(self._gone())
                        return None
                    begun = True
                if self._late():
                    dark = self._darkness() > self._waits.over
                    ending = await self._goes_on() if dark else None
                    return ending or Ending(await self._last(), _UNREACHABLE, recorded=False)
        finally:
            watching.cancel()

    async def _started(self) -> bool:
        """Start the workflow; False where it is not known to be started."""
        breaker, settings = self.line.breaker, self.line.settings
        try:
            await self._client.start_workflow(
                self.errand.workflow,
                self.errand.begin(self._clock.monotonic()),
                id=self._handle.id,
                task_queue=settings.temporal_task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
                execution_timeout=timedelta(days=1),
                rpc_timeout=timedelta(seconds=self._waits.start),
            )
        except WorkflowAlreadyStartedError:
            pass  # an earlier try of this very request was heard
        except RPCError as error:
            _log.warning("the workflow of %s was not started: %s", self._id, error)
            if error.status is RPCStatusCode.INVALID_ARGUMENT:
                breaker.left()
            else:
                breaker.failed(self._clock.monotonic(), error.status.name.lower())
                self.line.told()
            return False
        except asyncio.CancelledError:
            breaker.left()
            raise
        except LockedError:
            breaker.left()
            return False
        breaker.succeeded()
        self.line.told()
        return True

    async def _mine(self) -> bool:
        """Claim the call; False where somebody has begun it."""
        if not self._claimed:
            now = self._clock.now()
            self._claimed = await self.line.safe.rows.begin(self._id, 1, By.DIRECT, now=now) is None
        return self._claimed

    async def _gone(self) -> None:
        """End a workflow that has nothing left to do."""
        with suppress(RPCError):
            await self._handle.terminate("made directly", rpc_timeout=timedelta(seconds=self._waits.start))

    async def _heard_later(self) -> Done:
        await asyncio.sleep(self._waits.look)
        return await self._handle.result()

    async def _heard(self, watching: asyncio.Task[Done]) -> Ending | None:
        """Return how the call ended, None where that cannot be known yet."""
        over = False
        try:
            done = watching.result()
        except WorkflowFailureError as error:
            _log.error("the workflow of %s failed: %s", self._id, error.cause)
            over = True
        except RPCError as error:
            _log.warning("the workflow of %s cannot be followed: %s", self._id, error)
            over = error.status is RPCStatusCode.NOT_FOUND
            if not over:
                self._unanswered()
                self.line.breaker.failed(self._clock.monotonic(), error.status.name.lower())
                self.line.told()
        except LockedError:
            return Ending(Traced(), _LOCKED)
        else:
            return Ending(done.trace, done.fault, await self._answer(done.n) if done.n else None)
        return await self._found(over=over)

    def _unanswered(self) -> None:
        """Hear that Temporal could not be asked. What was long ago has nothing to do with it."""
        now = self._clock.monotonic()
        if self._dark is None or now - self._failed > self._waits.apart:
            self._dark = now
        self._failed = now

    async def _found(self, *, over: bool) -> Ending | None:
        """Return what the store knows of the call's end, None where it may still come to one."""
        if self.errand.several:
            return await self._found_whole(over=over)
        marks = [mark for mark in await self.line.safe.rows.marks(self._id) if mark.n != TAKEN]
        outcomes = [self._outcome(mark) for mark in marks if mark.outcome is not None]
        recorded = await self.line.activities.recorded(self._id)
        for outcome in outcomes:
            if outcome.answer is not None:
                return Ending(outcome.told.trace, outcome.told.fault, outcome.answer, recorded)
        if over and len(outcomes) == len(marks):
            return Ending(_latest(outcomes), _ENDED, recorded=recorded)
        under_way = any(self.line.activities.making(self._id, mark.n) for mark in marks)
        if over or not marks or under_way or self._darkness() <= self._waits.over:
            return None
        if recorded:
            # It was given up, and only its end has not come through.
            fault = outcomes[-1].told.fault if outcomes else shapes.LOST
            return Ending(_latest(outcomes), fault, recorded=True)
        return await self._goes_on()

    async def _found_whole(self, *, over: bool) -> Ending | None:
        """Return the same of a call that several calls answer: its answer is kept as a whole."""
        outcome = await self.line.safe.found(self._id, WHOLE)
        recorded = await self.line.activities.recorded(self._id)
        if outcome is not None:
            return Ending(outcome.told.trace, outcome.told.fault, outcome.answer, recorded)
        if not over:
            return await self._goes_on() if self._darkness() > self._waits.over else None
        trace = await self.line.stepping.broken(self._id)
        return None if trace is None else Ending(trace, _ENDED, recorded=recorded)

    async def _goes_on(self) -> Ending | None:
        """Go on with a call that nobody goes on with; None where an attempt may still be under way elsewhere."""
        taking = self.errand.taking()
        if await taking.elsewhere() and not self._impatient():
            return None
        self._overtaken = True
        await taking.claim()
        try:
            # Whoever began an attempt a moment before the claim is waited for, too.
            while await taking.elsewhere():
                if self._impatient():
                    fault = _UNREACHABLE if self._late() else _ELSEWHERE
                    return Ending(await taking.given_up(), fault, recorded=False)
                await asyncio.sleep(self._waits.look)
            _log.warning("the workflow of %s cannot be reached: it is gone on with here", self._id)
            return await taking.run()
        except asyncio.CancelledError:
            return Ending(await taking.given_up(), CANCELLED, recorded=False)
        except LockedError:
            return Ending(Traced(), _LOCKED, recorded=False)
        except ApplicationError:
            return None  # a worker was about to end it, and has: its end is there

    def _impatient(self) -> bool:
        return self._darkness() > self._waits.elsewhere or self._late()

    def _late(self) -> bool:
        return self._limit is not None and self._clock.monotonic() > self._limit

    def _darkness(self) -> float:
        """Return for how many seconds Temporal could not be asked."""
        return 0.0 if self._dark is None else self._clock.monotonic() - self._dark

    def _outcome(self, mark: Mark) -> Outcome:
        assert mark.outcome is not None
        return self.line.safe.outcome(self._id, mark.n, mark.outcome)

    async def _answer(self, n: int) -> Answer | None:
        for mark in await self.line.safe.rows.marks(self._id):
            if mark.n == n and mark.outcome is not None:
                return self._outcome(mark).answer
        return None

    async def _last(self) -> Traced:
        """Return what is known of the call's attempts."""
        if self.errand.several:
            return await self.line.stepping.broken(self._id, anyway=True) or Traced()
        marks = await self.line.safe.rows.marks(self._id)
        return _latest([self._outcome(mark) for mark in marks if mark.outcome is not None])


def _latest(outcomes: Sequence[Outcome]) -> Traced:
    return outcomes[-1].told.trace if outcomes else Traced()


class _Told:
    """A stream that is here as a whole. Implements `Live`."""

    def __init__(self, answer: Answer, fault: Fault | None) -> None:
        self.headers: Headers = answer.headers
        self.said: Said | None = None
        self._answer = answer
        self._fault = fault

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield all but the terminal event; raises where the stream had broken."""
        if self._answer.body:
            yield self._answer.body
        if self._fault is not None:
            raise TokenHubError(self._fault)

    def tail(self) -> bytes:
        """Return the terminal event."""
        return self._answer.tail

    async def close(self) -> None:
        """Do nothing: the call is over, and recorded as it was."""


class _Late:
    """A stream whose caller waits for a durable call: he hears that we live until it is over. Implements `Live`."""

    def __init__(self, run: Run, following: asyncio.Task[Ending | None]) -> None:
        self._run = run
        self._following = following
        self.said: Said | None = None
        self._live: Live | None = None
        means, request = run.line.executor.means, run.errand.request
        dialect = means.dialects[request.dialect]
        self.headers: Headers = (("content-type", dialect.stream_type(request)),)
        self._sign = dialect.keep_alive(request)
        self._tick = run.line.executor.patience.tick

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield signs of life, then the stream."""
        while not self._following.done():
            if self._sign:
                yield self._sign
            await asyncio.wait({self._following}, timeout=self._tick)
        result = await self._run.settled(self._following.result())
        assert not isinstance(result, Whole)
        self._live = result
        async for frame in result.frames():
            yield frame

    def tail(self) -> bytes:
        """Return the terminal event."""
        return b"" if self._live is None else self._live.tail()

    async def close(self) -> None:
        """Have the call end, where it has not."""
        if self._live is not None:
            await self._live.close()
        else:
            await self._run.leave(self._following)
