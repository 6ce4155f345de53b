"""The durable way for calls: each becomes a workflow, and whoever brought it waits for what that comes to.

    kept in the store → workflow started → followed to its end → answered
                        not started, or not begun in time → claimed and made directly, or followed all the same

A call that may have been started is never made directly unless its first attempt has been claimed for that, in our own
store: there the worker finds the claim, or we find the worker's. What Temporal knows, or whether it can be reached,
decides nothing. Where it is gone and the answer is in the store, the answer is given.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from temporalio.api.enums.v1 import EventType
from temporalio.client import (
    Client,
    TLSConfig,
    WorkflowExecution,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RetryConfig, RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tokenhub_core.config import Settings
from tokenhub_core.dispatch.executor import Executor
from tokenhub_core.dispatch.job import Job, Live, Whole
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Recorder
from tokenhub_core.progress import Progress
from tokenhub_core.shaping.shape import Said
from tokenhub_core.store.durable import By, DurableCalls, Mark
from tokenhub_core.store.log import RequestLog
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.types import Headers
from tokenhub_core.vault.sealing import Sealer
from tokenhub_core.workflows import shapes
from tokenhub_core.workflows.activities import Activities, Safe
from tokenhub_core.workflows.breaker import Breaker, State
from tokenhub_core.workflows.codec import Codec, LockedError, converter
from tokenhub_core.workflows.definitions import Chat, Checked
from tokenhub_core.workflows.shapes import Answer, Done, Ending, Outcome, Traced
from tokenhub_core.workflows.way import STATUSES, Happening, Workflow

_log: Final = logging.getLogger(__name__)

_RETRY: Final = RetryConfig(max_elapsed_time_millis=2000, max_retries=3)
"""Of a request to Temporal; whoever made it has other ways to go."""
_UNREACHABLE: Final = Fault(
    Kind.TIMEOUT,
    Blame.US,
    "Temporal cannot be reached, and the call is not over",
    cause="temporal_unreachable",
)
_ENDED: Final = Fault(Kind.INTERNAL, Blame.US, "the call's workflow was ended", cause="workflow_ended")
_LOCKED: Final = Fault(
    Kind.INTERNAL,
    Blame.US,
    "the vault was locked while the call was under way",
    cause="vault_locked",
    status=503,
)
_AWAY: Final = Fault(
    Kind.TRANSIENT, Blame.US, "Temporal cannot be reached", cause="temporal_unreachable", status=503
)
_SPELT: Final = {name: name.title().replace("_", "") for name in STATUSES}
"""As queries spell them: `TimedOut`."""


@dataclass(frozen=True, slots=True)
class Waits:
    """How long is waited for Temporal, in seconds."""

    start: float = 3.0
    """For a workflow to be started."""
    begin: float = 5.0
    """For a worker to begin its first attempt."""
    look: float = 0.5
    """Between two looks at what cannot be heard of otherwise."""
    dark: float = 30.0
    """For Temporal to come back, where an attempt has failed and nobody can say what is to be done next."""
    leave: float = 5.0
    """For a workflow to end whose caller has left."""
    reconnect: float = 5.0
    grace: float = 10.0
    """For the end of a call beyond its own time limit."""


class Durable:
    """The durable way. Implements `way.Durability`; belongs to one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        activities: Activities,
        safe: Safe,
        codec: Codec,
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
        self.connected = asyncio.Event()
        """Set once Temporal was reached for the first time."""
        self.fallbacks = 0
        """Calls that were made directly because Temporal could not have them."""
        self.activities = activities
        self._codec = codec
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- the connection, and the worker on it

    async def keep(self) -> None:
        """Hold the connection and run the worker, for ever; what fails is tried again."""
        while True:
            try:
                self.client = client = await self._connection()
                self.connected.set()
                self.told()
                _log.info("connected to Temporal at %s", self.settings.temporal_host)
                if not self.settings.temporal_worker:
                    return
                await self.worker(client).run()
            except Exception as error:  # noqa: BLE001 -- whatever it is, calls go on without Temporal
                self.client = None
                self.told()
                _log.warning("Temporal at %s cannot be used: %s", self.settings.temporal_host, error)
            await asyncio.sleep(self.waits.reconnect)

    async def close(self) -> None:
        """Return when what was left to be done is done."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self) -> Client:
        settings = self.settings
        return await Client.connect(
            settings.temporal_host,
            namespace=settings.temporal_namespace,
            api_key=settings.temporal_api_key.reveal() or None,
            data_converter=converter(self._codec),
            tls=await asyncio.to_thread(_tls, settings),
            retry_config=_RETRY,
        )

    def worker(self, client: Client) -> Worker:
        """Return what takes workflows and attempts from the queue."""
        return Worker(
            client,
            task_queue=self.settings.temporal_task_queue,
            workflows=[Chat, Checked],
            activities=[self.activities.attempt, self.activities.checked, self.activities.record],
            # The workflow is made of modules that the tests of the architecture hold to be pure.
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_concurrent_activities=500,
            max_heartbeat_throttle_interval=timedelta(seconds=1),
            # So soon others go on with the workflows of a worker that is gone.
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
            graceful_shutdown_timeout=timedelta(seconds=self.settings.shutdown_drain_secs),
        )

    # --- calls

    def takes(self, job: Job) -> bool:
        """Tell whether the call is to be durable."""
        return job.plan.policy.durable and job.request.dialect.billed

    async def run(self, job: Job, progress: Progress) -> Whole | Live:
        """Return the answer of the call; raises `TokenHubError` where there is none."""
        now = self.clock.monotonic()
        client = self.client
        if client is None or not self.safe.open or not self.breaker.admit(now):
            return await self.directly(job, progress)
        try:
            await self.safe.keep(shapes.call(job, progress), now=self.clock.now())
        except LockedError:
            self.breaker.left()
            return await self.directly(job, progress)
        except BaseException:
            self.breaker.left()
            raise
        return await _Run(self, client, job, progress).answer()

    async def directly(self, job: Job, progress: Progress) -> Whole | Live:
        """Make the call here and at once."""
        self.fallbacks += 1
        self._metrics.fell_back()
        progress.trace.recorded = False
        return await self.executor.run(job, progress.trace)

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

    # --- a look at them

    async def workflows(self, *, limit: int, status: str = "") -> list[Workflow]:
        """Return the latest ones, those of one status where that is said."""
        query = f"WorkflowType = '{shapes.CHAT}'"
        if status:
            query += f" AND ExecutionStatus = '{_SPELT[status]}'"
        try:
            found = self._reached().list_workflows(query, limit=limit, page_size=limit)
            return [_shown(one) async for one in found]
        except RPCError as error:
            raise TokenHubError(_AWAY) from error

    async def workflow(self, workflow_id: str) -> Workflow | None:
        """Return one, None where there is none of that id."""
        try:
            return _shown(await self._reached().get_workflow_handle(workflow_id).describe())
        except RPCError as error:
            _absent(error)
            return None

    async def history(self, workflow_id: str, *, limit: int) -> list[Happening] | None:
        """Return the first events of one, None where there is none of that id."""
        handle, found = self._reached().get_workflow_handle(workflow_id), []
        try:
            async for event in handle.fetch_history_events(page_size=limit):
                name = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
                found.append(Happening(event.event_id, name, event.event_time.ToMicroseconds() / 1e6))
                if len(found) == limit:
                    break
        except RPCError as error:
            _absent(error)
            return None
        return found

    async def cancel(self, workflow_id: str) -> bool:
        """Ask one to end; False where there is none of that id that runs."""
        handle = self._reached().get_workflow_handle(workflow_id)
        try:
            if (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING:
                return False
            await handle.cancel()
        except RPCError as error:
            _absent(error)
            return False
        return True

    def _reached(self) -> Client:
        if self.client is None:
            raise TokenHubError(_AWAY)
        return self.client

    def state(self) -> State:
        """Return where the breaker is."""
        return self.breaker.state(self.clock.monotonic())


class _Run:
    """One call on the durable way."""

    def __init__(self, durable: Durable, client: Client, job: Job, progress: Progress) -> None:
        self._durable = durable
        self._client = client
        self._waits = durable.waits
        self._clock = durable.clock
        self.job = job
        self._progress = progress
        self._id = job.snapshot.id
        self._handle: WorkflowHandle[Any, Done] = client.get_workflow_handle_for(
            Chat.run, shapes.PREFIX + self._id
        )
        self._dark: float | None = None
        """Since when Temporal could not be asked."""
        seconds = job.limits.total_seconds
        self._limit = None if seconds is None else job.snapshot.started + seconds + self._waits.grace

    async def answer(self) -> Whole | Live:
        """Return the answer; of a stream that lets wait for itself what tells the caller that we live."""
        following = asyncio.create_task(self._followed(), name=f"durable {self._id}")
        try:
            if self.job.request.features.stream:
                await asyncio.wait({following}, timeout=self._durable.executor.patience.tick)
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
            return await self._durable.directly(self.job, self._progress)
        self._write(ending)
        if ending.answer is None:
            raise TokenHubError(shapes.known(ending.fault) or _ENDED)
        self._durable.safe.rows.forget(self._id, attempts=ending.recorded)
        if self.job.request.features.stream:
            return _Told(ending.answer, ending.fault)
        return Whole(ending.answer.body, ending.answer.headers)

    def _write(self, ending: Ending) -> None:
        shapes.restore(self._progress.trace, ending.trace, self.job.plan)
        self._progress.trace.recorded = ending.recorded

    async def leave(self, following: asyncio.Task[Ending | None]) -> None:
        """Have the call end: nobody waits for it any more. Returns when it has, or when that takes too long."""
        if following.done():
            # It has ended by itself, and nobody has looked; one that was to be made directly was not begun.
            if not following.cancelled() and following.exception() is None and (ending := following.result()):
                self._write(ending)
            return
        following.cancel()
        await asyncio.shield(self._durable.later(self._left()))

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
            shapes.restore(trace, done.trace, self.job.plan)

    async def _followed(self) -> Ending | None:
        """Return how the call ended; None where it is to be made directly, and by nobody else."""
        begun = False
        if not await self._started():
            if await self._mine():
                self._durable.later(self._gone())
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
                        self._durable.later(self._gone())
                        return None
                    begun = True
                if self._limit is not None and self._clock.monotonic() > self._limit:
                    return Ending(await self._last(), _UNREACHABLE, recorded=False)
        finally:
            watching.cancel()

    async def _started(self) -> bool:
        """Start the workflow; False where it is not known to be started."""
        breaker, settings = self._durable.breaker, self._durable.settings
        try:
            await self._client.start_workflow(
                Chat.run,
                shapes.start(self.job, self._clock.monotonic()),
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
                breaker.failed(self._clock.monotonic())
                self._durable.told()
            return False
        except asyncio.CancelledError:
            breaker.left()
            raise
        except LockedError:
            breaker.left()
            return False
        breaker.succeeded()
        self._durable.told()
        return True

    async def _mine(self, n: int = 1) -> bool:
        """Claim the call from its attempt `n` on; False where a worker has begun that."""
        mark = await self._durable.safe.rows.begin(self._id, n, By.DIRECT, now=self._clock.now())
        return mark is None or mark.by is By.DIRECT

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
                self._durable.breaker.failed(self._clock.monotonic())
                self._durable.told()
        except LockedError:
            return Ending(Traced(), _LOCKED)
        else:
            return Ending(done.trace, done.fault, await self._answer(done.n) if done.n else None)
        return await self._found(over=over)

    async def _found(self, *, over: bool) -> Ending | None:
        """Return what the store knows of the call's end, None where it may still come to one."""
        marks = await self._durable.safe.rows.marks(self._id)
        if any(mark.outcome is None for mark in marks):
            return None
        outcomes = [self._outcome(mark) for mark in marks]
        recorded = await self._durable.activities.recorded(self._id)
        for outcome in outcomes:
            if outcome.answer is not None:
                return Ending(outcome.told.trace, outcome.told.fault, outcome.answer, recorded)
        if over:
            return Ending(_latest(outcomes), _ENDED, recorded=recorded)
        now = self._clock.monotonic()
        self._dark = self._dark or now
        if outcomes and now - self._dark > self._waits.dark and await self._mine(marks[-1].n + 1):
            # Nobody goes on with it from here.
            return Ending(_latest(outcomes), outcomes[-1].told.fault, recorded=recorded)
        return None

    def _outcome(self, mark: Mark) -> Outcome:
        assert mark.outcome is not None
        return self._durable.safe.outcome(self._id, mark.n, mark.outcome)

    async def _answer(self, n: int) -> Answer | None:
        for mark in await self._durable.safe.rows.marks(self._id):
            if mark.n == n and mark.outcome is not None:
                return self._outcome(mark).answer
        return None

    async def _last(self) -> Traced:
        """Return what is known of the call's attempts."""
        marks = await self._durable.safe.rows.marks(self._id)
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

    def __init__(self, run: _Run, following: asyncio.Task[Ending | None]) -> None:
        self._run = run
        self._following = following
        self.said: Said | None = None
        self._live: Live | None = None
        means, request = run._durable.executor.means, run.job.request
        dialect = means.dialects[request.dialect]
        self.headers: Headers = (("content-type", dialect.stream_type(request)),)
        self._sign = dialect.keep_alive(request)
        self._tick = run._durable.executor.patience.tick

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


def _absent(error: RPCError) -> None:
    """Return nothing for what is not there; raises `TokenHubError` where Temporal could not be asked."""
    if error.status is not RPCStatusCode.NOT_FOUND:
        raise TokenHubError(_AWAY) from error


def _shown(one: WorkflowExecution) -> Workflow:
    begun, ended = one.start_time.timestamp(), one.close_time.timestamp() if one.close_time else None
    return Workflow(
        workflow_id=one.id,
        run_id=one.run_id,
        type=one.workflow_type,
        status=one.status.name if one.status else "",
        start_time=begun,
        close_time=ended,
        duration_ms=None if ended is None else round((ended - begun) * 1000, 3),
    )


def _tls(settings: Settings) -> TLSConfig | bool:
    def read(path: str) -> bytes | None:
        return Path(path).expanduser().read_bytes() if path else None

    if not settings.temporal_tls:
        return False
    return TLSConfig(
        server_root_ca_cert=read(settings.temporal_tls_ca_file),
        client_cert=read(settings.temporal_tls_cert_file),
        client_private_key=read(settings.temporal_tls_key_file),
    )


def made(
    settings: Settings,
    executor: Executor,
    recorder: Recorder,
    requests: RequestLog,
    rows: DurableCalls,
    *,
    sealer: Callable[[], Sealer | None],
    metrics: Metrics,
) -> Durable:
    """Return the durable way, not connected yet."""
    safe = Safe(rows, sealer, secrets.token_bytes)
    activities = Activities(executor, recorder, requests, safe)
    codec = Codec(sealer, secrets.token_bytes)
    waits = Waits(begin=settings.temporal_begin_secs)
    return Durable(settings, activities=activities, safe=safe, codec=codec, metrics=metrics, waits=waits)
