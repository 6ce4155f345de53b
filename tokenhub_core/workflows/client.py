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
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, TLSConfig, WorkflowExecution, WorkflowExecutionStatus
from temporalio.service import RetryConfig, RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tokenhub_core.composing import Composing
from tokenhub_core.config import Settings
from tokenhub_core.dispatch.executor import Executor
from tokenhub_core.dispatch.job import Job, Live, Whole
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.orchestration.telling import Composed
from tokenhub_core.ports import Recorder
from tokenhub_core.progress import Progress
from tokenhub_core.store.database import Database
from tokenhub_core.store.durable import DurableCalls
from tokenhub_core.store.log import RequestLog
from tokenhub_core.store.writer import Writer
from tokenhub_core.telemetry.metrics import Metrics
from tokenhub_core.vault.sealing import Sealer
from tokenhub_core.workflows import composed, shapes
from tokenhub_core.workflows.activities import Activities, Safe
from tokenhub_core.workflows.codec import Codec, LockedError, converter
from tokenhub_core.workflows.definitions import Chat, Checked, Planned
from tokenhub_core.workflows.following import Errand, Line, Run, Waits
from tokenhub_core.workflows.overtaking import One, Several
from tokenhub_core.workflows.resuming import Resuming
from tokenhub_core.workflows.stepping import Stepping
from tokenhub_core.workflows.way import STATUSES, Framing, Happening, Resumed, Workflow

_log: Final = logging.getLogger(__name__)

_RETRY: Final = RetryConfig(max_elapsed_time_millis=2000, max_retries=3)
"""Of a request to Temporal; whoever made it has other ways to go."""
_AWAY: Final = Fault(
    Kind.TRANSIENT, Blame.US, "Temporal cannot be reached", cause="temporal_unreachable", status=503
)
_KINDS: Final = (shapes.CHAT, shapes.CHECKED, composed.PLAN)
_SPELT: Final = {name: name.title().replace("_", "") for name in STATUSES}
"""As queries spell them: `TimedOut`."""


class Durable(Line):
    """The durable way. Implements `way.Durability`; belongs to one event loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        activities: Activities,
        stepping: Stepping,
        safe: Safe,
        codec: Codec,
        metrics: Metrics,
        waits: Waits,
    ) -> None:
        super().__init__(
            settings, activities=activities, stepping=stepping, safe=safe, metrics=metrics, waits=waits
        )
        self.connected = asyncio.Event()
        """Set once Temporal was reached for the first time."""
        self._codec = codec
        most = settings.total_timeout_secs + waits.grace
        self._resuming = Resuming(
            activities, safe, self.clock, look=waits.look, begin=waits.begin + waits.start, most=most
        )

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
            workflows=[Chat, Checked, Planned],
            activities=[
                self.activities.attempt,
                self.activities.checked,
                self.activities.record,
                self.stepping.steps,
                self.stepping.settle,
            ],
            # The workflow is made of modules that the tests of the architecture hold to be pure.
            workflow_runner=UnsandboxedWorkflowRunner(),
            max_concurrent_activities=500,
            max_heartbeat_throttle_interval=timedelta(seconds=1),
            # So soon others go on with the workflows of a worker that is gone.
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),
            graceful_shutdown_timeout=timedelta(seconds=self.settings.shutdown_drain_secs),
        )

    # --- calls

    def takes(self, ready: Job | Composed) -> bool:
        """Tell whether the call is to be durable."""
        if isinstance(ready, Composed):
            return ready.frame.policy.durable
        return ready.plan.policy.durable and ready.request.dialect.billed

    async def run(self, ready: Job | Composed, progress: Progress) -> Whole | Live:
        """Return the answer of the call; raises `TokenHubError` where there is none."""
        errand = self._several(ready, progress) if isinstance(ready, Composed) else self._one(ready, progress)
        client = self.client
        if client is None or not self.safe.open or not self.breaker.admit(self.clock.monotonic()):
            return await self.directly(errand.direct, progress)
        now = self.clock.now()
        try:
            if isinstance(ready, Composed):
                await self.safe.keep_several(composed.several(ready, progress), now=now)
            else:
                await self.safe.keep(shapes.call(ready, progress), now=now)
        except LockedError:
            self.breaker.left()
            return await self.directly(errand.direct, progress)
        except BaseException:
            self.breaker.left()
            raise
        return await Run(self, client, errand, progress).answer()

    def _one(self, job: Job, progress: Progress) -> Errand:
        plain = job.check is None and not job.bodies.shaped
        return Errand(
            id=job.snapshot.id,
            request=job.request,
            plan=job.plan,
            limits=job.limits,
            started=job.snapshot.started,
            workflow=shapes.CHAT if plain else shapes.CHECKED,
            prefix=shapes.PREFIX,
            begin=partial(shapes.start, job),
            direct=partial(self.executor.run, job, progress.trace),
            taking=lambda: One(
                shapes.start(job, self.clock.monotonic()), activities=self.activities, safe=self.safe
            ),
        )

    def _several(self, ready: Composed, progress: Progress) -> Errand:
        frame = ready.frame
        snapshot, limits = frame.snapshot, frame.limits
        return Errand(
            id=snapshot.id,
            request=frame.request,
            plan=ready.first.plan,
            limits=limits,
            started=snapshot.started,
            workflow=composed.PLAN,
            prefix=composed.PREFIX,
            begin=lambda now: composed.Begin(snapshot.id, limits, now - snapshot.started),
            direct=lambda: Composing(self.executor, ready, progress.trace).start(),
            taking=lambda: Several(
                snapshot.id,
                limits,
                snapshot.started,
                activities=self.activities,
                stepping=self.stepping,
                safe=self.safe,
            ),
            several=True,
        )

    async def resumed(self, request_id: str) -> Resumed | None:
        """Return what a call came to that another front door took, once it is over; None where nobody knows."""
        return await self._resuming.resumed(request_id)

    def given(self, request_id: str) -> None:
        """Hear that such a call's answer has found its caller."""
        self._resuming.given(request_id)

    # --- a look at them

    async def workflows(self, *, limit: int, status: str = "") -> list[Workflow]:
        """Return the latest ones, those of one status where that is said."""
        query = f"WorkflowType IN ({', '.join(map(repr, _KINDS))})"
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
    *,
    store: tuple[Database, Writer],
    sealer: Callable[[], Sealer | None],
    metrics: Metrics,
    framed: Framing,
) -> Durable:
    """Return the durable way, not connected yet."""
    database, writer = store
    safe = Safe(DurableCalls(database, writer), sealer, secrets.token_bytes)
    activities = Activities(executor, recorder, RequestLog(database), safe)
    stepping = Stepping(activities, recorder, safe, framed)
    codec = Codec(sealer, secrets.token_bytes)
    waits = Waits(begin=settings.temporal_begin_secs)
    return Durable(
        settings,
        activities=activities,
        stepping=stepping,
        safe=safe,
        codec=codec,
        metrics=metrics,
        waits=waits,
    )
