"""What a workflow has done: attempts, and the record. Each may be asked for again, and is done once.

Before an attempt is sent its mark is durable, and what came of it is durable before anybody is told. Whoever is asked
for an attempt that has a mark already says what is known of it, and sends nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from msgspec import structs
from temporalio import activity
from temporalio.exceptions import ApplicationError

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dispatch.attempt import Attempting
from tokenhub_core.dispatch.checking import Watched
from tokenhub_core.dispatch.executor import Executor
from tokenhub_core.dispatch.job import CANCELLED, Job, Live, Trace, Whole
from tokenhub_core.dispatch.mending import blame, repairing, unfit
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.orchestration.asks import Ask
from tokenhub_core.orchestration.conversation import told as told_of
from tokenhub_core.orchestration.saying import gist
from tokenhub_core.ports import Recorder
from tokenhub_core.progress import record
from tokenhub_core.shaping.shape import Said
from tokenhub_core.store.durable import By, DurableCalls, Mark, Sealed
from tokenhub_core.store.log import RequestLog
from tokenhub_core.types import Dialect, TextDelta
from tokenhub_core.vault import sealing
from tokenhub_core.vault.sealing import Sealer
from tokenhub_core.workflows import composed, shapes
from tokenhub_core.workflows.codec import LockedError
from tokenhub_core.workflows.composed import Several
from tokenhub_core.workflows.shapes import TAKEN, Answer, Call, Closing, Outcome, Step, Told, Traced

BEAT: Final = 2.0
"""Seconds between two signs of life; with each one hears whether the caller has left."""

_DRY: Final = Fault(Kind.NO_CANDIDATE, Blame.US, "its retries are used up", cause="retry_budget")


class Safe:
    """Seals and keeps what durable calls need. Raises `LockedError` while the vault is not open."""

    def __init__(
        self, rows: DurableCalls, sealer: Callable[[], Sealer | None], entropy: Callable[[int], bytes]
    ) -> None:
        self.rows = rows
        self._sealer = sealer
        self._entropy = entropy

    async def keep(self, call: Call, *, now: float) -> None:
        """Return once the call is durable."""
        name = call.snapshot.id
        await self.rows.keep(name, self._seal(name, call), now=now)

    async def load(self, call_id: str) -> Call | None:
        """Return the call, None where it is gone."""
        found = await self.rows.load(call_id)
        return None if found is None else self._unseal(call_id, found, Call)

    async def keep_several(self, several: Several, *, now: float) -> None:
        """Return once a call that several calls answer is durable."""
        name = several.call.snapshot.id
        await self.rows.keep(name, self._seal(name, several), now=now)

    async def several(self, call_id: str) -> Several | None:
        """Return a call that several calls answer, None where it is gone."""
        found = await self.rows.load(call_id)
        return None if found is None else self._unseal(call_id, found, Several)

    async def keep_step(self, name: str, call: Call, *, now: float) -> Call:
        """Return a step's call, once it is durable; where it was kept before, that one."""
        return self._unseal(name, await self.rows.first(name, self._seal(name, call), now=now), Call)

    async def found(self, call_id: str, n: int) -> Outcome | None:
        """Return what came of an attempt, None where that is not known."""
        marks = await self.rows.marks(call_id)
        kept = next((mark.outcome for mark in marks if mark.n == n), None)
        return None if kept is None else self.outcome(call_id, n, kept)

    async def end(self, call_id: str, n: int, outcome: Outcome) -> Outcome:
        """Say what came of an attempt; return what was said first."""
        name = f"{call_id}/{n}"
        return self._unseal(name, await self.rows.end(call_id, n, self._seal(name, outcome)), Outcome)

    def outcome(self, call_id: str, n: int, sealed: Sealed) -> Outcome:
        """Return what came of an attempt."""
        return self._unseal(f"{call_id}/{n}", sealed, Outcome)

    @property
    def open(self) -> bool:
        """Return whether there is a key to seal with."""
        return self._sealer() is not None

    def _seal(self, name: str, value: Call | Outcome | Several) -> Sealed:
        sealer = self._key()
        plain = msgspec.msgpack.encode(value)
        return Sealed(sealer.key_id, sealer.seal(name, plain, self._entropy(sealing.NONCE_BYTES)))

    def _unseal[T](self, name: str, sealed: Sealed, kind: type[T]) -> T:
        sealer = self._key()
        if sealed.key_id != sealer.key_id:
            raise LockedError(f"{name} was sealed under another root of the vault")
        return msgspec.msgpack.decode(sealer.unseal(name, sealed.data), type=kind)

    def _key(self) -> Sealer:
        sealer = self._sealer()
        if sealer is None:
            raise LockedError("the vault is not open")
        return sealer


class _Attempt:
    """One attempt that this worker makes, whoever asks for it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Told] | None = None
        self.open = True
        """Whoever leaves ends it. Once it is over, what came of it is written down all the same."""

    async def outcome(self) -> Told:
        """Return what comes of it; whose asker is cancelled cancels it, and is told of that."""
        assert self.task is not None
        while True:
            try:
                return await asyncio.shield(self.task)
            except asyncio.CancelledError:
                if self.task.done():
                    raise
                self.leave()

    def leave(self) -> None:
        """Cancel it, once, where it is not over."""
        if self.open and self.task is not None:
            self.open = False
            self.task.cancel()


class Activities:
    """The activities of one worker."""

    def __init__(self, executor: Executor, recorder: Recorder, requests: RequestLog, safe: Safe) -> None:
        self.executor = executor
        self._means = executor.means
        self._recorder = recorder
        self._requests = requests
        self._safe = safe
        self._running: dict[tuple[str, int], _Attempt] = {}

    @activity.defn(name=shapes.ATTEMPT)
    async def attempt(self, step: Step) -> Told:
        """Make one attempt, once; where it was begun before, say what is known of it."""
        async with beating():
            return await self._once(step)

    @activity.defn(name=shapes.CHECKED_ATTEMPT)
    async def checked(self, step: Step) -> Told:
        """Make one attempt whose answer is checked or shaped, as `attempt` does."""
        return await self.attempt(step)

    async def directly(self, step: Step) -> Told:
        """Make one attempt as `attempt` does, in a call that was taken over by this process."""
        return await self._once(step, By.DIRECT)

    def making(self, call_id: str, n: int) -> bool:
        """Tell whether an attempt is under way here."""
        return (call_id, n) in self._running

    async def elsewhere(self, call_id: str) -> bool:
        """Tell whether an attempt of a call is under way in another process, or was when that died."""
        return any(
            mark.outcome is None and mark.n != TAKEN and not self.making(call_id, mark.n)
            for mark in await self._safe.rows.marks(call_id)
        )

    async def marked(self, call_id: str) -> int:
        """Return the number of the last attempt of a call that was begun, 0 where none was."""
        return max((mark.n for mark in await self._safe.rows.marks(call_id)), default=0)

    @activity.defn(name=shapes.RECORD)
    async def record(self, closing: Closing) -> None:
        """Make the record of a call, once."""
        async with beating():
            await self._record(closing)

    async def _record(self, closing: Closing) -> None:
        call = await self._safe.load(closing.id)
        marks = await self._safe.rows.marks(closing.id)
        if any(mark.by is By.DIRECT for mark in marks):
            return
        if not await self.recorded(closing.id):
            if call is None:
                raise ApplicationError(f"{closing.id} is gone and left no record", non_retryable=True)
            call = shapes.here(call, self._means.clock)
            job, trace = shapes.job(call, self._means.dialects), Trace()
            shapes.restore(trace, await self.whole(closing.id, closing.trace), call.plan)
            made = record(
                shapes.progress(call, job, trace), shapes.known(closing.fault), self._means.clock.monotonic()
            )
            await self._recorder.commit(made)
        self._safe.rows.forget(closing.id, attempts=False)

    async def whole(self, call_id: str, found: Traced) -> Traced:
        """Return a trace with an attempt that ended without its workflow hearing of it: that was cancelled first."""
        for (name, _), running in [*self._running.items()]:
            if name == call_id and running.task is not None:
                running.leave()
                await asyncio.wait({running.task})
        for mark in await self._safe.rows.marks(call_id):
            if mark.outcome is not None:
                trace = self._safe.outcome(call_id, mark.n, mark.outcome).told.trace
                found = trace if len(trace.attempts) > len(found.attempts) else found
        return found

    async def recorded(self, call_id: str) -> bool:
        """Tell whether a call's record is made."""
        return await asyncio.to_thread(self._requests.get, call_id) is not None

    async def _once(self, step: Step, by: By = By.WORKFLOW) -> Told:
        place = (step.id, step.n)
        if (running := self._running.get(place)) is None:
            found = await self._safe.load(step.id)
            if found is None:
                raise ApplicationError(f"{step.id} is gone", non_retryable=True)
            call = shapes.here(found, self._means.clock)
            now = self._means.clock.now()
            whole = (composed.whole_of(step.id) or step.id) if by is By.WORKFLOW else ""
            mark = await self._safe.rows.begin(step.id, step.n, by, now=now, part_of=whole)
            if mark is not None and (running := self._running.get(place)) is None:
                return await self._known(call, step, mark, now)
            if running is None:
                running = self._running[place] = _Attempt()
                running.task = asyncio.create_task(
                    self._made(call, step, running), name=f"attempt {step.n} of {step.id}"
                )
                running.task.add_done_callback(lambda _: self._running.pop(place))
        return await running.outcome()

    async def _known(self, call: Call, step: Step, mark: Mark, now: float) -> Told:
        """Return what is known of an attempt that was begun elsewhere."""
        if mark.by is By.DIRECT:
            return Told(step.trace, taken=True)
        if mark.outcome is not None:
            return self._safe.outcome(step.id, step.n, mark.outcome).told
        told = shapes.lost(call, step, begun_at=mark.begun_at, now=now)
        return (await self._safe.end(step.id, step.n, Outcome(told))).told

    async def _made(self, call: Call, step: Step, running: _Attempt) -> Told:
        """Make the attempt and return what came of it, once that is durable."""
        provider = call.plan.candidates[step.candidate].provider.id
        # A second try is no retry: there the provider has answered.
        again = not step.repair and any(one.provider == provider for one in step.trace.attempts)
        retries, now = self._means.retries, self._means.clock.monotonic()
        # As rule 9 of the failover machine has it, with the budgets of the worker that sends.
        if again and not retries.withdraw(provider, now):
            outcome = Outcome(Told(step.trace, _DRY, refused=True))
        else:
            outcome = await self._tried(call, step, running)
            if not (again or outcome.told.refused):
                retries.deposit(provider, now)
        return (await self._safe.end(step.id, step.n, outcome)).told

    async def _tried(self, call: Call, step: Step, running: _Attempt) -> Outcome:
        job, trace = shapes.job(call, self._means.dialects), Trace()
        shapes.restore(trace, step.trace, call.plan)
        tried: Attempting | None = None
        heard: _Heard | None = None
        fault: Fault | None = None
        try:
            made = shapes.attempted(call, step, self._means.clock.monotonic())
            if step.repair:
                job = await self._again(job, step, trace)
                made = structs.replace(made, candidate=job.plan.candidates[0])
            tried = self.executor.attempt(job, trace, made)
            heard = await _heard(await tried.start(), job, trace)
            fault = heard.fault
        except TokenHubError as error:
            fault = error.fault
        except asyncio.CancelledError:
            # Another worker can go on with what this one must leave.
            leaving = activity.in_activity() and activity.is_worker_shutdown()
            fault = shapes.LOST if leaving else CANCELLED
        finally:
            running.open = False
        if heard is not None and fault is None:
            return self._answered(call, step, job, trace, heard)
        if step.repair and heard is None:
            trace.change = step.trace.change
        told = Told(
            shapes.traced(trace, call.plan),
            fault,
            refused=tried is None or tried.refused,
            spare=tried is not None and tried.spare,
            broken=heard is not None,
        )
        # Of a stream that is held nothing has flowed that the caller could get.
        flowed = heard is not None and not heard.whole
        return Outcome(told, heard.answer if heard is not None and flowed else None)

    def _answered(self, call: Call, step: Step, job: Job, trace: Trace, heard: _Heard) -> Outcome:
        """Return what came of an attempt that was answered: where the answer has to fit and does not, no answer."""
        failure = None
        if job.check is not None and heard.said is not None and heard.whole:
            failure = job.check.failure(heard.said)
        if failure is None or job.check is None or heard.said is None:
            gist = _gist(call, job, heard.answer, self._means.dialects)
            return Outcome(Told(shapes.traced(trace, call.plan), gist=gist), heard.answer)
        blame(trace, failure)
        said = heard.said.text
        mended = None if step.repair else repairing(job, trace, job.check, said, failure)
        again = None
        if mended is not None:
            again = shapes.start(mended, self._means.clock.monotonic(), name=step.id)
        told = Told(shapes.traced(trace, call.plan), unfit(failure), unfit=True, again=again)
        return Outcome(told, said=said)

    async def _again(self, job: Job, step: Step, trace: Trace) -> Job:
        """Return the second try of an answer that did not fit."""
        kept = await self._safe.found(step.id, step.repair)
        if kept is None or job.check is None:
            raise TokenHubError(shapes.LOST)
        said = Said()
        said.hear(TextDelta(kept.said))
        failure = job.check.failure(said)
        mended = None if failure is None else repairing(job, trace, job.check, said.text, failure)
        if mended is None:
            raise TokenHubError(shapes.LOST)
        trace.stop = None
        return mended


class _Heard(msgspec.Struct, frozen=True):
    """An answer that has come to its end, or to where it broke."""

    answer: Answer
    said: Said | None
    whole: bool
    """Nobody has seen anything of it yet; else what has flowed cannot be asked for again."""
    fault: Fault | None = None


async def _heard(result: Whole | Live, job: Job, trace: Trace) -> _Heard:
    if isinstance(result, Whole):
        return _Heard(Answer(result.body, result.headers), result.said, whole=True)
    held = job.plan.policy.buffered
    live = Watched(result, job.check, trace) if job.check is not None and not held else result
    answer, fault = await _gathered(live)
    return _Heard(answer, result.said, held, fault)


async def _gathered(live: Live) -> tuple[Answer, Fault | None]:
    """Read a stream to its end, or to where it broke."""
    frames = bytearray()
    try:
        async for frame in live.frames():
            frames += frame
    except TokenHubError as error:
        return Answer(bytes(frames), live.headers), error.fault
    except asyncio.CancelledError:
        await live.close()
        return Answer(bytes(frames), live.headers), CANCELLED
    return Answer(bytes(frames), live.headers, live.tail()), None


def _gist(call: Call, job: Job, answer: Answer, dialects: Mapping[Dialect, DialectModule]) -> str:
    """Return the digest of what a step's answer says, empty where nobody will compare it."""
    if not call.step:
        return ""
    parsed = dialects[job.request.dialect].parse_answer(wire.decode(answer.body, repeats=True))
    said = gist(told_of(Ask(call.step), parsed, b""))
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@asynccontextmanager
async def beating() -> AsyncIterator[None]:
    """Say, while something is done, that its worker lives."""
    task = asyncio.create_task(_beat(), name="heartbeat")
    try:
        yield
    finally:
        task.cancel()


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(BEAT)
