"""One exchange: a snapshot in, a reply out, exactly one record.

    open → directives → policy → plan → dispatch → reply → record

The record is durable before the last byte of the reply is released. Whatever fails on the way becomes an
answer in the caller's dialect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Final

from tokenhub_core.composing import Composing
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dispatch.executor import Executor
from tokenhub_core.dispatch.job import CANCELLED, INTERNAL, Job, Live, Trace, Whole
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.orchestration.telling import Composed
from tokenhub_core.policy import Layer
from tokenhub_core.ports import Foreseen, Recorder, Reply
from tokenhub_core.preparing import UNRECORDABLE, Insight, Preparation, Rules
from tokenhub_core.progress import Progress, done, enclosed, passed_on, record, refusal, summary, told
from tokenhub_core.providers.catalogue import Catalogue
from tokenhub_core.routing.affinity import Served
from tokenhub_core.routing.replay import Ground
from tokenhub_core.types import (
    Dialect,
    Features,
    Fleet,
    Headers,
    Plan,
    Snapshot,
)
from tokenhub_core.underway import FULL, LEAVING, Underway, stopped
from tokenhub_core.workflows.way import Durability, Framing

logger: Final = logging.getLogger(__name__)


class _Frames:
    """A reply's frames. Unlike a bare generator, one that is closed before its first frame is ended too."""

    def __init__(
        self,
        frames: AsyncGenerator[bytes],
        abandon: Callable[[], Awaitable[None]],
        begin: Callable[[], None],
    ) -> None:
        self._frames = frames
        self._abandon = abandon
        self._begin = begin
        self._begun = False

    def __aiter__(self) -> _Frames:
        return self

    async def __anext__(self) -> bytes:
        if not self._begun:
            self._begun = True
            self._begin()
        return await anext(self._frames)

    async def aclose(self) -> None:
        """End the exchange."""
        if self._begun:
            await self._frames.aclose()
        else:
            self._begun = True
            await self._frames.aclose()
            await self._abandon()


class Pipeline:
    """The engine behind every front door."""

    def __init__(
        self,
        *,
        executor: Executor,
        recorder: Recorder,
        catalogue: Catalogue,
        fleet: Callable[[], Fleet],
        defaults: Callable[[], Layer],
        rules: Rules,
        insight: Insight = Insight(),
    ) -> None:
        self._executor = executor
        self.underway = Underway()
        """The calls that were not answered to their end yet; the composition root says how many there may be."""
        self.durable: Durability | None = None
        """The way for calls that go on whatever dies; the composition root sets it where it is on."""
        self._recorder = recorder
        self._recordable = rules.recordable
        self._ledger = executor.means.ledger
        self._ready = Preparation(
            executor.means,
            catalogue=catalogue,
            fleet=fleet,
            defaults=defaults,
            rules=rules,
            insight=insight,
        )
        self._dialects: Mapping[Dialect, DialectModule] = executor.means.dialects
        self._clock = executor.means.clock

    @property
    def framed(self) -> Framing:
        """Return what says what the steps of a call share, for whoever goes on with one."""
        return self._ready.framed

    def renew(self, rules: Rules) -> None:
        """Take the calls that come from now on by other rules; what is under way goes on by those that it has."""
        self._ready.renew(rules)

    async def exchange(self, snapshot: Snapshot) -> Reply:
        """Answer one call. Raises nothing but cancellation."""
        progress = Progress(snapshot, Trace())
        streams = False
        try:
            await self.underway.enter(progress)
            self._ready.enter(progress)
            result = await self._run(self._ready.prepare(progress), progress)
            if isinstance(result, Whole):
                if snapshot.native:
                    result = enclosed(progress, result)
                await self._commit(progress, None)
                return self._reply(progress, result.headers, body=result.body)
            frames = _Frames(
                self._frames(progress, result),
                partial(self._abandon, progress, result),
                partial(self.underway.runs, progress),
            )
            streams = True
            return self._reply(progress, result.headers, frames=frames)
        except TokenHubError as error:
            return await self._refuse(progress, error.fault)
        except asyncio.CancelledError as error:
            if stopped(error):
                return await self._refuse(progress, LEAVING)
            self._leave(progress)
            if not (progress.recorded or progress.trace.recorded):
                self._recorder.post(record(progress, CANCELLED, self._clock.monotonic()))
            raise
        except Exception:
            logger.exception("exchange %s failed", snapshot.id)
            return await self._refuse(progress, INTERNAL)
        finally:
            if not streams:
                self.underway.leave(progress)

    def simulate(
        self, features: Features, wishes: Layer, *, dialect: Dialect, seed: str
    ) -> tuple[Plan, Fault | None]:
        """Decide a call that nobody makes, as if it came directly to us; changes nothing."""
        return self._ready.simulate(features, wishes, dialect=dialect, seed=seed)

    def ground(self) -> Ground:
        """Return what a call would be decided with now, for whoever thinks calls through that were made before."""
        return self._ready.ground()

    def alias_of(self, dialect: Dialect, path: str, headers: Headers, body: bytes) -> str:
        """Return the alias that a call asks for, empty where its name is none; raises nothing."""
        return self._ready.alias_of(dialect, path, headers, body)

    def foresee(self, snapshot: Snapshot) -> Foreseen:
        """Decide a call that somebody else answers, as it would be decided now; raises nothing, changes nothing."""
        progress, fault = Progress(snapshot, Trace()), None
        try:
            self._ready.prepare(progress, shadow=True)
        except TokenHubError as error:
            fault = error.fault
        except Exception:
            logger.exception("the shadow of %s failed", snapshot.id)
            fault = INTERNAL
        meant = progress.meant
        return Foreseen(
            request=progress.request,
            plan=progress.plan,
            alias=meant.alias if meant else "",
            variant=meant.variant if meant else "",
            directive=progress.directive,
            fault=fault,
        )

    async def _run(self, ready: Job | Whole | Composed, progress: Progress) -> Whole | Live:
        if not isinstance(ready, Whole) and self.durable is not None and self.durable.takes(ready):
            return await self.durable.run(ready, progress)
        match ready:
            case Job():
                return await self._executor.run(ready, progress.trace)
            case Composed():
                return await Composing(self._executor, ready, progress.trace).start()
            case Whole():
                return ready

    def _keep(self, progress: Progress) -> None:
        """Note who has served the conversation, before the end of the answer can bring the next call."""
        trace, thread = progress.trace, progress.thread
        if thread is None or trace.candidate is None:
            return
        model, provider = trace.candidate.model.id, trace.candidate.provider.id
        tokens = 0 if trace.usage_estimated else trace.usage.input_tokens
        served = Served(model, provider, self._clock.now(), tokens)
        progress.bonds.note(thread, served, trace.left)

    async def _frames(self, progress: Progress, live: Live) -> AsyncGenerator[bytes]:
        """Yield the stream; its terminal event leaves when the record is durable."""
        try:
            async for frame in live.frames():
                yield frame
            if progress.snapshot.native:
                progress.trace.identical = False
            await self._commit(progress, None)
            yield live.tail() + done(progress) if progress.snapshot.native else live.tail()
        except TokenHubError as error:
            yield await self._break(progress, error.fault)
        except asyncio.CancelledError as error:
            if not stopped(error):
                raise
            # Before the record is made: what was said so far is to be paid.
            await live.close()
            yield await self._break(progress, LEAVING)
        except Exception:
            logger.exception("stream of %s failed", progress.snapshot.id)
            yield await self._break(progress, INTERNAL)
        finally:
            await self._abandon(progress, live)

    async def _abandon(self, progress: Progress, live: Live) -> None:
        """Close a stream; where it did not come to its end, record that its caller left."""
        self.underway.leave(progress)
        trace = progress.trace
        trace.gone = not progress.recorded
        await live.close()
        if trace.draining is not None and not trace.draining.done():
            self._leave(progress)
            trace.draining.add_done_callback(lambda _: self._gone(progress))
        else:
            self._gone(progress)

    def _gone(self, progress: Progress) -> None:
        """Record, where nothing is recorded yet, that the caller has left."""
        self._leave(progress)
        if not progress.recorded:
            progress.recorded = True
            if progress.trace.stop is not None:
                self._keep(progress)
            if not progress.trace.recorded:
                self._recorder.post(record(progress, CANCELLED, self._clock.monotonic()))

    async def _commit(self, progress: Progress, fault: Fault | None) -> None:
        """Return once the record is durable. From here on it is nobody else's to make, unless the store fails."""
        progress.recorded = True
        if fault is None:
            self._keep(progress)
        try:
            if not progress.trace.recorded:
                await self._recorder.commit(record(progress, fault, self._clock.monotonic()))
        except TokenHubError:
            progress.recorded = False
            raise
        finally:
            # Before the end of the answer can bring the next call.
            self._leave(progress)

    def _leave(self, progress: Progress) -> None:
        """Give the caller's limits back what the call did not use."""
        if progress.stay is not None:
            trace = progress.trace
            spent = [attempt.usage for attempt in trace.attempts]
            if trace.draining is not None:
                # Its attempt has not ended yet: this is what it was when its caller left.
                spent.append(trace.usage)
            used = sum(usage.input_tokens + usage.output_tokens for usage in spent)
            progress.stay.leave(used, self._ready.instant())

    def _left(self, progress: Progress) -> Headers:
        """Return the headers that tell what is left of the caller's limits, and of a budget that comes to its end."""
        stay, snapshot = progress.stay, progress.snapshot
        budget = self._ledger.told(snapshot.caller, snapshot.received_at)
        limits = (
            stay.headers(snapshot.dialect, now=self._ready.instant(), at=self._clock.now()) if stay else ()
        )
        return (*limits, ("x-tokenhub-budget", budget)) if budget else limits

    async def _break(self, progress: Progress, fault: Fault) -> bytes:
        """Record a stream that has failed and return its last event."""
        progress.broken = True
        await self._note(progress, fault)
        snapshot = progress.snapshot
        return self._dialects[snapshot.dialect].stream_error(
            fault, request_id=snapshot.id, request=progress.request
        )

    async def _refuse(self, progress: Progress, fault: Fault) -> Reply:
        """Answer with an error in the caller's dialect, recorded like every other answer."""
        await self._note(progress, fault)
        error = self._dialects[progress.snapshot.dialect].error(fault, request_id=progress.snapshot.id)
        extra = () if _worth_retrying(fault) else (("x-should-retry", "false"),)
        return refusal(progress, fault, error, (*extra, *self._left(progress)))

    async def _note(self, progress: Progress, fault: Fault) -> None:
        """Record a failure; that the store is down too must not hide it."""
        if progress.recorded:
            return
        if fault is FULL or not self._recordable():
            # Its caller is not to wait for what is waited for in vain.
            self._leave(progress)
            progress.recorded = True
            self._recorder.post(record(progress, fault, self._clock.monotonic()))
            return
        try:
            await self._commit(progress, fault)
        except TokenHubError as error:
            logger.error("record %s is lost: %s", progress.snapshot.id, error)

    def _reply(
        self,
        progress: Progress,
        upstream: Headers,
        *,
        body: bytes = b"",
        frames: AsyncIterator[bytes] | None = None,
    ) -> Reply:
        passed = passed_on(upstream, limited=progress.stay is not None)
        headers = (*passed, *told(progress), *self._left(progress))
        return Reply(200, headers, body, frames, summary(progress, None), lambda: progress.broken)


def _worth_retrying(fault: Fault) -> bool:
    """Tell whether the caller's SDK may try again: not where we have just tried everything ourselves."""
    if fault in (UNRECORDABLE, FULL, LEAVING):
        return True
    return fault.kind is Kind.RATE_LIMITED or fault.blame is Blame.CLIENT or fault.http_status < 500
