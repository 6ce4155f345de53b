"""A call that several calls answer: each step through the executor like a call of its own, one answer, one record.

Money: each attempt of each step reserves for itself and settles like any other, so no number of steps can spend what
a budget does not have. Before the first one all of them together are looked at: where the budget could not carry the
whole way, nothing is begun. To hold all of it from beginning to end would keep a caller's other calls from money that
a vote which agrees, or a critic who is content, never spends.

A limit on the call itself (`max_budget_usd`) is shared out: a step may cost what is left of it, by the steps that may
still come. What one step did not use, the later ones may.

An answer in one piece leaves when it is there. A stream begins with the first step that succeeds, or after so much
silence as streams may have, and tells each step in a comment where its framing has comments; so a call that nobody
may serve, or that fails at once, still gets its own status.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec
from msgspec import structs

from tokenhub_core.admission.outlay import outlay
from tokenhub_core.dialects import sse, wire
from tokenhub_core.dialects.base import DialectModule, StreamWriter
from tokenhub_core.dialects.unfolded import deltas
from tokenhub_core.dispatch.executor import Executor
from tokenhub_core.dispatch.job import CANCELLED, INTERNAL, Live, Trace, Whole
from tokenhub_core.errors import TokenHubError
from tokenhub_core.orchestration import machines
from tokenhub_core.orchestration.asks import Ask, Composite, Goal, Note, Told, bound, noted
from tokenhub_core.orchestration.conversation import told as told_of
from tokenhub_core.orchestration.runner import Driving, run
from tokenhub_core.orchestration.steps import Frame, Ready, beside, step
from tokenhub_core.ports import Ledger, Outlay
from tokenhub_core.shaping.shape import Said
from tokenhub_core.types import NANO, Answer, Composition, Headers, Json, Request, Step, Usage

_JSON: Final = (("content-type", "application/json"),)


class Composed(msgspec.Struct, frozen=True):
    """A call that is to be answered in several steps."""

    goal: Goal
    frame: Frame
    first: Ready
    """Its first step, decided."""
    written: Callable[[Composite, int], Json] | None = None
    """Writes the result where it is not told as an answer in the caller's dialect."""


@dataclass(slots=True)
class Purse:
    """The limit of one call, shared out among its steps; nano-dollars. `limit` None: there is none."""

    limit: int | None
    steps: int
    """That may still begin."""
    spent: int = 0
    promised: dict[str, int] = field(default_factory=dict)

    def share(self) -> int | None:
        """Return what the next step may cost."""
        if self.limit is None:
            return None
        left = self.limit - self.spent - sum(self.promised.values())
        return max(0, left) // max(1, self.steps)

    def begin(self, name: str) -> int | None:
        """Return what this step may cost, and set it aside."""
        share = self.share()
        self.steps -= 1
        if share is not None:
            self.promised[name] = share
        return share

    def end(self, name: str, nanousd: int) -> None:
        """Hear what a step did cost."""
        self.promised.pop(name, None)
        self.spent += nanousd


def purse(dollars: float | None, goal: Goal) -> Purse:
    """Return the purse of a call that may cost so much."""
    return Purse(None if dollars is None else int(dollars * NANO), bound(goal))


def check_budget(ledger: Ledger, composed: Composed) -> None:
    """Raise `TokenHubError` (`BUDGET`) where the budgets of the caller could not carry all steps; hold nothing."""
    job, times = composed.first.job, bound(composed.goal)
    best = job.plan.candidates[0]

    def all_of_them() -> Outlay:
        one = outlay(job.request, best, job.plan.output_tokens)
        most = None if one.most_nanousd is None else one.most_nanousd * times
        return Outlay(one.nanousd * times, most, one.tokens * times, one.most_tokens * times, one.capped)

    held = ledger.reserve(job.snapshot, best.estimated_nanousd * times, all_of_them)
    ledger.settle(held, 0, Usage())


class Composing:
    """One call on its way through its steps. `trace` is the whole call's, of which the record is made."""

    def __init__(self, executor: Executor, composed: Composed, trace: Trace) -> None:
        self._executor = executor
        self._composed = composed
        self._trace = trace
        self._frame = composed.frame
        self._module = executor.means.dialects[composed.frame.dialect]
        self._purse = purse(composed.frame.policy.max_budget_usd, composed.goal)
        self._traces: dict[str, Trace] = {}
        self._told: dict[str, Told] = {}
        trace.composition = self._noted("", ())
        self._news: asyncio.Queue[Told | None] = asyncio.Queue()
        self._untold: deque[Told] = deque()
        """Outcomes from before the stream began."""
        self._task: asyncio.Task[Composite] | None = None

    async def start(self) -> Whole | Live:
        """Return the answer, or a stream of it once that may begin; raises `TokenHubError` where there is none."""
        task = self._task = asyncio.create_task(self._run(), name=f"steps of {self._frame.snapshot.id}")
        try:
            if not self._frame.request.features.stream:
                return self._whole(await asyncio.shield(task))
            if await self._failed():
                self._checked(await task)
            return _Unfolding(self, task, self._executor.patience.tick, self._form())
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End every step that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> Composite:
        seconds = self._frame.limits.total_seconds
        driving = Driving(
            self._ask,
            self._executor.means.clock.monotonic,
            None if seconds is None else self._frame.snapshot.started + seconds,
            self._heard,
        )
        composite: Composite | None = None
        try:
            composite = await run(machines.machine(self._composed.goal), driving)
            return composite
        finally:
            self._conclude(composite)
            self._news.put_nowait(None)

    # --- one step

    async def _ask(self, ask: Ask) -> Told:
        share = self._purse.begin(ask.step)
        trace = self._traces[ask.step] = Trace()
        try:
            ready = self._ready(ask, share)
            if ready.fault is not None:
                raise TokenHubError(ready.fault)
            result = await self._executor.run(ready.job, trace)
            if not isinstance(result, Whole):
                raise TokenHubError(INTERNAL)  # a step asks for no stream
            answer = self._module.parse_answer(wire.decode(result.body, repeats=True))
            told = told_of(ask, answer, result.body)
        except TokenHubError as error:
            told = Told(ask.step, fault=error.fault)
        finally:
            self._purse.end(ask.step, trace.cost_nanousd)
        model, provider = _asked(trace)
        return structs.replace(told, model=model, provider=provider, nanousd=trace.cost_nanousd)

    def _ready(self, ask: Ask, share: int | None) -> Ready:
        first = self._composed.first
        if ask.step == first.step:
            return first
        return beside(first, ask) if ask.of > 1 else step(self._frame, ask, share)

    def _heard(self, told: Told) -> None:
        self._told[told.step] = told
        self._news.put_nowait(told)

    def _noted(self, decided: str, notes: Iterable[Note]) -> Composition:
        """Return what the record says of the steps.

        One that was stopped has told nothing, and may have cost something all the same: costs are the attempts' own.
        """
        return Composition(
            self._composed.goal.way.value,
            decided,
            tuple(
                Step(note.step, *_asked(trace), trace.cost_nanousd, note.verdict, note.cause)
                for note in notes
                for trace in [self._traces.get(note.step, Trace())]
            ),
            bound(self._composed.goal),
        )

    # --- the end

    def _conclude(self, composite: Composite | None) -> None:
        """Write into the call's trace what came of it; None: it was broken off."""
        trace = self._trace
        for name, part in self._traces.items():
            # In the order in which the steps began, whoever ended first.
            for attempt in part.attempts:
                trace.attempts.append(structs.replace(attempt, n=len(trace.attempts) + 1, step=name))
            trace.sent += part.sent
            trace.usage_estimated = trace.usage_estimated or part.usage_estimated
        trace.usage = _sum(attempt.usage for attempt in trace.attempts)
        if composite is None:
            left = [self._told.get(name, Told(name, fault=CANCELLED)) for name in self._traces]
            trace.composition = self._noted("", noted(left, None))
            return
        trace.composition = self._noted(composite.decided, composite.notes)
        if composite.final is not None:
            final = self._traces[composite.final.step]
            trace.candidate, trace.losses = final.candidate, final.losses
            trace.stop, trace.left = final.stop, final.left
            now = self._executor.means.clock.monotonic()
            trace.ttft_ms = round((now - self._frame.snapshot.started) * 1000, 3)

    def _checked(self, composite: Composite) -> Told:
        if composite.final is None:
            raise TokenHubError(composite.fault or INTERNAL)
        return composite.final

    def answer(self, composite: Composite) -> Answer:
        """Return the answer with what all steps have used; raises `TokenHubError` where there is none."""
        final = self._checked(composite)
        answer = self._module.parse_answer(wire.decode(final.body, repeats=True))
        return structs.replace(
            answer,
            id=answer.id or self._frame.snapshot.id.removeprefix("req_"),
            created=answer.created or int(self._executor.means.clock.now()),
            usage=self._trace.usage,
        )

    def _result(self, composite: Composite) -> Json:
        """Return the result of a call that is told no answer in a dialect."""
        self._checked(composite)
        assert self._composed.written is not None
        return self._composed.written(composite, self._trace.cost_nanousd)

    def _form(self) -> _Form:
        if self._composed.written is not None:
            return _Events(self._result)
        request, means = self._frame.request, self._executor.means
        module, name = means.dialects[request.dialect], self._frame.snapshot.id.removeprefix("req_")
        writer = module.writer(request=request, created=int(means.clock.now()), fallback_id=name)
        return _Deltas(module, request, writer, self)

    def _whole(self, composite: Composite) -> Whole:
        if self._composed.written is not None:
            return Whole(wire.encode(self._result(composite)), _JSON)
        request = self._frame.request
        module = self._executor.means.dialects[request.dialect]
        rendered = module.render_answer(self.answer(composite), request=request)
        self.lose(rendered.losses)
        return Whole(wire.encode(rendered.data), _JSON)

    def lose(self, losses: tuple[str, ...]) -> None:
        """Note what the caller's dialect could not carry of the answer."""
        self._trace.losses = tuple(dict.fromkeys((*self._trace.losses, *losses)))

    # --- a stream

    async def _failed(self) -> bool:
        """Return when a step has succeeded, or the caller has waited long enough for a sign of life.

        True where all is over before that: no step has succeeded.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(self._executor.patience.tick):
                while (told := await self._news.get()) is not None:
                    self._untold.append(told)
                    if told.fault is None:
                        return False
                self._news.put_nowait(None)
                return True
        return False

    async def news(self, seconds: float) -> Told | None:
        """Return the next outcome, None when all is over; raises `TimeoutError` after so much silence."""
        if self._untold:
            return self._untold.popleft()
        async with asyncio.timeout(seconds):
            return await self._news.get()


class _Unfolding:
    """The stream of a composed answer. Implements `Live`."""

    def __init__(self, composing: Composing, task: asyncio.Task[Composite], tick: float, form: _Form) -> None:
        self._composing = composing
        self._task = task
        self._tick = tick
        self._form = form
        self.headers: Headers = (("content-type", form.type),)
        self.said: Said | None = None

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield a sign for each step and each silence, then the answer up to its last event."""
        while True:
            sign = self._form.sign
            with suppress(TimeoutError):
                if (told := await self._composing.news(self._tick)) is None:
                    break
                sign = self._form.step(told)
            if sign:
                yield sign
        for piece in self._form.end(await self._task):
            yield piece

    def tail(self) -> bytes:
        """Return the terminal event."""
        return self._form.tail

    async def close(self) -> None:
        """End what is under way."""
        await self._composing.close()


class _Form(Protocol):
    """How a stream is written."""

    type: str
    sign: bytes
    """What breaks a silence."""
    tail: bytes
    """The terminal event, once `end` has come to its end."""

    def step(self, told: Told) -> bytes:
        """Return what tells of a step."""
        ...

    def end(self, composite: Composite) -> Iterator[bytes]:
        """Yield the answer up to its last event; raises `TokenHubError` where there is none."""
        ...


class _Deltas:
    """The answer in the caller's dialect."""

    def __init__(
        self, module: DialectModule, request: Request, writer: StreamWriter, whole: Composing
    ) -> None:
        self.type = module.stream_type(request)
        self.sign = module.keep_alive(request)
        self.tail = b""
        self._writer = writer
        self._whole = whole

    def step(self, told: Told) -> bytes:
        """Return a comment where the framing has some, else whatever readers skip."""
        if self.sign != sse.COMMENT:
            return self.sign
        return f": {told.step} {_came(told)}\n\n".encode("ascii", "replace")

    def end(self, composite: Composite) -> Iterator[bytes]:
        """Yield the events of the answer."""
        *body, last = deltas(self._whole.answer(composite))
        for delta in body:
            if piece := self._writer.write(delta):
                yield piece
        self.tail = self._writer.write(last)
        self._whole.lose(self._writer.losses())


class _Events:
    """A result that is no answer in a dialect: an event `step` for each step, and `result` at the end."""

    type = sse.TYPE
    sign = sse.COMMENT

    def __init__(self, written: Callable[[Composite], Json]) -> None:
        self.tail = b""
        self._written = written

    def step(self, told: Told) -> bytes:
        """Return an event that names the step, who made it, and how it ended."""
        said = {"step": told.step, "model": told.model, "provider": told.provider, "outcome": _came(told)}
        return sse.frame(wire.encode(said), "step")

    def end(self, composite: Composite) -> Iterator[bytes]:
        """Yield nothing: the result is one event, and the last one."""
        self.tail = sse.frame(wire.encode(self._written(composite)), "result")
        yield from ()


def _came(told: Told) -> str:
    return "answered" if told.fault is None else told.fault.label


def _asked(trace: Trace) -> tuple[str, str]:
    """Return the model and the provider that a step was answered by, or asked last."""
    if not trace.attempts:
        return "", ""
    return trace.attempts[-1].model, trace.attempts[-1].provider


def _sum(usages: Iterable[Usage]) -> Usage:
    counts = zip(*map(structs.astuple, usages), strict=True)
    return Usage(*map(sum, counts))
