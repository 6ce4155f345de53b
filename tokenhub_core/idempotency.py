"""The engine for calls with an `Idempotency-Key`: however often one is sent, it is made once.

    running? ── joined: every caller gets the one answer, from its beginning
    kept?    ── replayed
    durable? ── followed to its end, whatever has become of the process that took it
    marked?  ── 409: it was made before, and its answer is not here; or another process makes it: come again
    else     ── marked durably, made, and what came of it kept

A call is made in a task of its own, which goes on as long as anybody waits for it. Only answers are kept: whoever got
an error, or a stream that broke, may send the same key again and the call is made anew. Those who had joined get the
error too; they are told what the first one is told. A call without a key takes none of these steps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, cast

from msgspec import structs

from tokenhub_core.admission.idempotency import REPLAYED, Kept, Mark, Shelf, Tape, carried, mark
from tokenhub_core.admission.quotas import nanoseconds
from tokenhub_core.admission.throttle import Stay, Throttle, without_limits
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dispatch.job import CANCELLED, INTERNAL, Trace
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Clock, Engine, Recorder, Reply
from tokenhub_core.progress import Progress, passed_on, record, refusal
from tokenhub_core.store.idempotency import Earlier
from tokenhub_core.types import Dialect, Headers, Outcome, Record, Snapshot
from tokenhub_core.workflows.way import Resumed

_CAUSE: Final = "idempotency_"
_ORIGINAL: Final = "x-tokenhub-original"
"""Names the call that had the key before."""
_FINAL: Final = ("x-should-retry", "false")
"""SDKs send again what a 409 answers; here that would change nothing."""

_log: Final = logging.getLogger(__name__)


class Marking(Protocol):
    """Where marks are durable. See `store.idempotency.Marks`."""

    async def claim(self, mark: Mark, request_id: str, *, now: float, until: float) -> Earlier | None:
        """Return the earlier call with this key; None once this one has it."""
        ...

    def finish(self, mark: Mark, request_id: str, kept: Kept | None) -> bool:
        """Note that the call was answered, and with what where that is known; False where it cannot be stored."""
        ...

    def drop(self, mark: Mark, request_id: str) -> bool:
        """Forget the mark that this call made; as `finish`."""
        ...


class Resumable(Protocol):
    """Calls that go on without whoever took them. See `workflows.way.Durability`."""

    async def resumed(self, request_id: str) -> Resumed | None:
        """Return what a call came to, once it is over; None where nobody knows."""
        ...

    def given(self, request_id: str) -> None:
        """Hear that its answer has found its caller."""
        ...


@dataclass(frozen=True, slots=True)
class Keeping:
    """Where marks are kept, how long, and how many bytes of answers in memory."""

    marks: Marking
    seconds: float = 86_400.0
    cache_bytes: int = 64 << 20
    joinable: int = 4 << 20
    """Bytes of an answer under way that are kept for those who may still join it."""
    longest: float = 600.0
    """Seconds after which a call that another process has begun is not thought to be under way any more."""


class _Run:
    """One call that is being made."""

    def __init__(self, snapshot: Snapshot, mark: Mark, stay: Stay | None, joinable: int) -> None:
        self.snapshot = snapshot
        self.mark = mark
        self.stay = stay
        self.tape = Tape(joinable)
        self.asked = False
        """The engine has heard of it, and records it."""
        self.reply: Reply | None = None
        """Its head, once that is known; the frames are on the tape."""
        self.fault: Fault | None = None
        """Why there is no reply."""
        self.earlier = ""
        """The id of the call that had been made before, so that this one was not."""
        self.failure: Exception | None = None
        """What ended the frames before their end."""
        self.over = False
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Wake whoever waits."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Return when something has changed."""
        await self._changed.wait()


class _Frames:
    """One reader's frames."""

    def __init__(self, run: _Run, left: Callable[[_Run], None]) -> None:
        self._run = run
        self._reader = run.tape.join()
        self._left = left
        self._open = True

    def __aiter__(self) -> _Frames:
        return self

    async def __anext__(self) -> bytes:
        run = self._run
        while self._open:
            if piece := run.tape.read(self._reader):
                run.changed()
                return piece
            if run.over:
                self.leave()
                if run.failure is not None:
                    raise run.failure
                break
            await run.change()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Read no more."""
        self.leave()

    def leave(self) -> None:
        """As `aclose`, without waiting."""
        if self._open:
            self._open = False
            self._run.tape.leave(self._reader)
            self._left(self._run)


class Idempotent:
    """The engine with the key's promise kept. Implements `ports.Engine`."""

    def __init__(
        self,
        engine: Engine,
        keeping: Keeping,
        *,
        recorder: Recorder,
        dialects: Mapping[Dialect, DialectModule],
        clock: Clock,
        throttle: Throttle,
        durable: Resumable | None = None,
    ) -> None:
        self._engine = engine
        self._durable = durable
        self._keeping = keeping
        self._recorder = recorder
        self._dialects = dialects
        self._clock = clock
        self._throttle = throttle
        self._since = clock.now()
        self._running: dict[bytes, _Run] = {}
        self._shelf = Shelf(keeping.cache_bytes)
        self._tasks: dict[_Run, asyncio.Task[None]] = {}

    async def exchange(self, snapshot: Snapshot) -> Reply:
        """Answer one call. Raises nothing but cancellation."""
        if not carried(snapshot.headers):
            return await self._engine.exchange(snapshot)
        try:
            found = mark(snapshot, self._throttle.address(snapshot.caller.peer, snapshot.headers))
        except TokenHubError as error:
            return await self._refuse(snapshot, error.fault)
        stay = self._throttle.visit(snapshot.caller, snapshot.headers, self._instant())
        run, kept = self._running.get(found.id), self._shelf.get(found.id, self._clock.now())
        if run is None and kept is None:
            if stay is not None and stay.refusal(self._instant()) is not None:
                # The engine says so too; to mark what is not made would cost the store two writes.
                return await self._engine.exchange(snapshot)
            return await self._first(snapshot, found, stay)
        try:
            if stay is not None:
                stay.enter(self._instant())
        except TokenHubError as error:
            return await self._refuse(snapshot, error.fault, stay)
        if run is not None:
            return await self._join(run, snapshot, found, stay)
        assert kept is not None
        return await self._replay(kept, snapshot, found, stay)

    async def close(self) -> None:
        """Cancel what is still being made, and return when it has ended."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the call is made

    async def _first(self, snapshot: Snapshot, found: Mark, stay: Stay | None) -> Reply:
        run = self._running[found.id] = _Run(snapshot, found, stay, self._keeping.joinable)
        frames = _Frames(run, self._left)
        task = self._tasks[run] = asyncio.create_task(self._make(run), name=f"idempotent {snapshot.id}")
        task.add_done_callback(lambda _: self._ended(run))
        await self._head(run, frames)
        if (reply := run.reply) is None:
            frames.leave()
            return await self._refuse(snapshot, run.fault or INTERNAL, stay, first=run.earlier)
        if run.earlier:
            frames.leave()
            kept = Kept(run.earlier, found.asked, reply.status, reply.headers, reply.body)
            return await self._replay(kept, snapshot, found, stay)
        if reply.frames is None:
            frames.leave()
            return reply
        return structs.replace(reply, frames=frames)

    async def _make(self, run: _Run) -> None:
        """Make the call, for all who read."""
        done = False
        try:
            if await self._claimed(run):
                run.asked = True
                reply = run.reply = await self._engine.exchange(run.snapshot)
                run.changed()
                if reply.frames is not None:
                    await _written(run, cast("AsyncGenerator[bytes]", reply.frames))
                done = 200 <= reply.status < 300 and not reply.broken()
        except TokenHubError as error:
            run.fault, run.failure = error.fault, error
        except Exception as error:  # noqa: BLE001 -- whatever it is, all who read hear of it
            _log.exception("exchange %s failed", run.snapshot.id)
            run.fault, run.failure = INTERNAL, error
        if not run.over:
            self._settle(run, done=done)

    async def _claimed(self, run: _Run) -> bool:
        """Mark the call; False, and the run told of it, where another one has the mark."""
        now, keeping = self._clock.now(), self._keeping
        while True:
            earlier = await keeping.marks.claim(
                run.mark, run.snapshot.id, now=now, until=now + keeping.seconds
            )
            if earlier is None:
                return True
            resumed = await self._resumed(earlier, run)
            if resumed is None or resumed.answer is not None:
                break
            # It has failed, and nobody was told: as after an error that its caller got, the call is made anew.
            keeping.marks.drop(run.mark, earlier.request_id)
        run.earlier = earlier.request_id
        if run.stay is not None:
            # The engine, which counts requests, hears nothing of this one.
            with suppress(TokenHubError):
                run.stay.enter(self._instant())
            self._leave(run.stay)
        if resumed is not None and resumed.answer is not None:
            run.reply = _given(earlier.request_id, resumed.answer, resumed.headers)
            if self._keep(run, earlier.request_id) and resumed.recorded and self._durable is not None:
                self._durable.given(earlier.request_id)
        elif earlier.asked == run.mark.asked and (answer := earlier.answer) is not None:
            run.reply = Reply(answer.status, answer.headers, answer.body)
        else:
            run.fault = self._why(earlier, run.mark)
        return False

    async def _resumed(self, earlier: Earlier, run: _Run) -> Resumed | None:
        """Return what the earlier call came to, where it is one that goes on without whoever took it.

        Of our own way to ask the answer alone is kept, without the decision that stands around it.
        """
        same = earlier.asked == run.mark.asked and not earlier.done
        if self._durable is None or not same or run.snapshot.native:
            return None
        return await self._durable.resumed(earlier.request_id)

    def _why(self, earlier: Earlier, mark: Mark) -> Fault:
        """Return why a call is not made that has been made, or begun."""
        if earlier.asked != mark.asked:
            return _other(earlier.request_id)
        # Of ours none is running. What was begun since we started was begun by another process, which goes on.
        if not earlier.done and self._since < earlier.begun > self._clock.now() - self._keeping.longest:
            return _elsewhere(earlier.request_id)
        return _made(earlier)

    def _left(self, run: _Run) -> None:
        """Hear that a reader has left: what nobody waits for is not made."""
        run.changed()
        if not run.tape.readers and not run.over:
            # Over at once: it may take long to end, and who sends the call again must not join it.
            self._cancelled(run)
            self._tasks[run].cancel()

    def _ended(self, run: _Run) -> None:
        del self._tasks[run]
        if not run.over:
            self._cancelled(run)

    def _cancelled(self, run: _Run) -> None:
        run.fault, run.failure = CANCELLED, ConnectionError("the call was cancelled")
        if not run.asked:
            progress = Progress(run.snapshot, Trace())
            self._recorder.post(record(progress, CANCELLED, self._clock.monotonic()))
        self._settle(run, done=False)

    def _settle(self, run: _Run, *, done: bool) -> None:
        """End the run. Who comes from here on finds the answer, the durable mark, or nothing."""
        marks, name, request_id = self._keeping.marks, run.mark.id, run.snapshot.id
        del self._running[name]
        run.over = True
        stored = True
        if done:
            stored = self._keep(run, request_id)
        elif not run.earlier:
            stored = marks.drop(run.mark, request_id)
        if not stored:
            _log.error("what became of %s could not be stored: its key stays in use", request_id)
        run.changed()

    def _keep(self, run: _Run, request_id: str) -> bool:
        """Keep the answer that was made for a call; False where that cannot be stored."""
        kept, now = self._kept(run, request_id), self._clock.now()
        if kept is not None:
            self._shelf.put(run.mark.id, kept, until=now + self._keeping.seconds, now=now)
        return self._keeping.marks.finish(run.mark, request_id, kept)

    def _kept(self, run: _Run, request_id: str) -> Kept | None:
        """Return the answer as it is kept, None where it is too long for that."""
        reply = run.reply
        if reply is None or not run.tape.whole:
            return None
        body = reply.body if reply.frames is None else run.tape.all()
        kept = Kept(request_id, run.mark.asked, reply.status, reply.headers, body)
        return kept if kept.size <= self._keeping.cache_bytes else None

    # --- others get the answer

    async def _join(self, run: _Run, snapshot: Snapshot, found: Mark, stay: Stay | None) -> Reply:
        first = run.snapshot.id
        if run.mark.asked != found.asked or not run.tape.whole:
            self._leave(stay)
            fault = _other(first) if run.mark.asked != found.asked else _too_long(first)
            return await self._refuse(snapshot, fault, stay, first=first)
        frames = _Frames(run, partial(self._joined, snapshot, stay))
        await self._head(run, frames)
        if (reply := run.reply) is None:
            frames.leave()
            fault = run.fault or INTERNAL
            return self._refusal(snapshot, fault, stay, first=run.earlier or first)
        headers = self._again(reply.headers, snapshot, stay)
        if reply.frames is not None:
            return structs.replace(reply, headers=headers, frames=frames)
        frames.leave()
        return structs.replace(reply, headers=headers)

    async def _head(self, run: _Run, frames: _Frames) -> None:
        """Return once it is known how the answer begins, or that there is none."""
        try:
            while run.reply is None and not run.over:
                await run.change()
        except asyncio.CancelledError:
            frames.leave()
            raise

    def _joined(self, snapshot: Snapshot, stay: Stay | None, run: _Run) -> None:
        """Record one who joined, now that he leaves. The call itself has its own record, durable before this."""
        self._left(run)
        self._leave(stay)
        reply, fault = run.reply, run.fault
        if reply is not None and reply.frames is None:
            made = self._copied(snapshot, reply.status, run.snapshot.id, "joined")
        elif run.over and reply is not None and fault is None:
            made = self._copied(snapshot, 502 if reply.broken() else reply.status, run.snapshot.id, "joined")
        else:
            progress = Progress(snapshot, Trace())
            made = record(progress, fault if run.over and fault else CANCELLED, self._clock.monotonic())
        self._recorder.post(made)

    async def _replay(self, kept: Kept, snapshot: Snapshot, found: Mark, stay: Stay | None) -> Reply:
        self._leave(stay)
        if kept.asked != found.asked:
            return await self._refuse(snapshot, _other(kept.request_id), stay, first=kept.request_id)
        try:
            await self._recorder.commit(self._copied(snapshot, kept.status, kept.request_id, "replayed"))
        except TokenHubError as error:
            return await self._refuse(snapshot, error.fault, stay)
        return Reply(kept.status, self._again(kept.headers, snapshot, stay), kept.body)

    # --- what is told

    def _again(self, headers: Headers, snapshot: Snapshot, stay: Stay | None) -> Headers:
        """Return the head of an answer that is given again: the first one's, with the limits of now."""
        return (*without_limits(headers), *self._told(snapshot, stay), REPLAYED)

    def _told(self, snapshot: Snapshot, stay: Stay | None) -> Headers:
        at = self._clock.now()
        return stay.headers(snapshot.dialect, now=self._instant(), at=at) if stay is not None else ()

    def _copied(self, snapshot: Snapshot, status: int, first: str, how: str) -> Record:
        """Return the record of a call that was answered by what was made for the `first` one."""
        plain = record(Progress(snapshot, Trace()), None, self._clock.monotonic())
        outcome = Outcome.OK if 200 <= status < 300 else Outcome.ERROR
        return structs.replace(
            plain, status=status, outcome=outcome, reason=how, message=f"the answer of {first}"
        )

    async def _refuse(
        self, snapshot: Snapshot, fault: Fault, stay: Stay | None = None, *, first: str = ""
    ) -> Reply:
        """Answer with an error, recorded like every other answer."""
        try:
            await self._recorder.commit(record(Progress(snapshot, Trace()), fault, self._clock.monotonic()))
        except TokenHubError as error:
            _log.error("record %s is lost: %s", snapshot.id, error)
        return self._refusal(snapshot, fault, stay, first=first)

    def _refusal(self, snapshot: Snapshot, fault: Fault, stay: Stay | None, *, first: str) -> Reply:
        error = self._dialects[snapshot.dialect].error(fault, request_id=snapshot.id)
        original = ((_ORIGINAL, first),) if first else ()
        final = (_FINAL,) if fault.cause.startswith(_CAUSE) and fault.retry_after is None else ()
        progress = Progress(snapshot, Trace())
        return refusal(progress, fault, error, (*original, *final, *self._told(snapshot, stay)))

    def _leave(self, stay: Stay | None) -> None:
        if stay is not None:
            stay.leave(0, self._instant())

    def _instant(self) -> int:
        return nanoseconds(self._clock.monotonic())


async def _written(run: _Run, frames: AsyncGenerator[bytes]) -> None:
    """Write the frames of an answer on the run's tape, as fast as its readers can follow once it is long."""
    try:
        async for frame in frames:
            run.tape.add(frame)
            run.changed()
            while run.tape.full:
                await run.change()
    finally:
        await frames.aclose()


def _given(first: str, body: bytes, upstream: Headers) -> Reply:
    """Return the answer of a durable call as far as it is kept: what its head told of the decision is in its record."""
    named = (("x-request-id", first), ("x-tokenhub-decision", first))
    return Reply(200, (*passed_on(upstream, limited=True), *named), body)


def _other(first: str) -> Fault:
    message = f"this Idempotency-Key stands for another call, which was {first}"
    return Fault(Kind.INVALID, Blame.CLIENT, message, cause=f"{_CAUSE}other_call", status=422)


def _too_long(first: str) -> Fault:
    message = (
        f"{first} with this Idempotency-Key is being answered, at a length that cannot be joined any more"
    )
    return Fault(Kind.INVALID, Blame.CLIENT, message, cause=f"{_CAUSE}under_way", status=409)


def _elsewhere(first: str) -> Fault:
    message = f"{first} with this Idempotency-Key is being made by another process; ask again for its answer"
    cause = f"{_CAUSE}elsewhere"
    return Fault(Kind.INVALID, Blame.CLIENT, message, cause=cause, status=409, retry_after=1.0)


def _made(earlier: Earlier) -> Fault:
    """Return why a call that was made before is not made again."""
    if earlier.done:
        message = f"{earlier.request_id} with this Idempotency-Key was answered, and the answer is not kept"
        return Fault(Kind.INVALID, Blame.CLIENT, message, cause=f"{_CAUSE}answered", status=409)
    message = f"{earlier.request_id} with this Idempotency-Key was begun, and what became of it is not known"
    return Fault(Kind.INVALID, Blame.CLIENT, message, cause=f"{_CAUSE}unknown", status=409)
