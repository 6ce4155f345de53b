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
from collections.abc import AsyncIterator
from contextlib import suppress

from msgspec import structs

from tokenhub_core.admission.outlay import outlay
from tokenhub_core.dialects import wire
from tokenhub_core.dispatch.executor import Executor
from tokenhub_core.dispatch.job import INTERNAL, Live, Trace, Whole
from tokenhub_core.errors import TokenHubError
from tokenhub_core.orchestration import machines
from tokenhub_core.orchestration.asks import Ask, Composite, Told, bound
from tokenhub_core.orchestration.conversation import told as told_of
from tokenhub_core.orchestration.purse import purse
from tokenhub_core.orchestration.runner import Driving, run
from tokenhub_core.orchestration.steps import Ready, beside, step
from tokenhub_core.orchestration.telling import Composed, Form, Telling, asked
from tokenhub_core.ports import Ledger, Outlay
from tokenhub_core.shaping.shape import Said
from tokenhub_core.types import Headers, Usage


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
        self._frame = composed.frame
        self._purse = purse(composed.frame.policy.max_budget_usd, composed.goal)
        self._telling = Telling(composed.frame, composed.goal, trace, executor.means.clock, composed.written)
        self._news: asyncio.Queue[Told | None] = asyncio.Queue()
        self._untold: deque[Told] = deque()
        """Outcomes from before the stream began."""
        self._task: asyncio.Task[Composite] | None = None

    async def start(self) -> Whole | Live:
        """Return the answer, or a stream of it once that may begin; raises `TokenHubError` where there is none."""
        task = self._task = asyncio.create_task(self._run(), name=f"steps of {self._frame.snapshot.id}")
        try:
            if not self._frame.request.features.stream:
                return self._telling.whole(await asyncio.shield(task))
            if await self._failed():
                self._telling.checked(await task)
            return _Unfolding(self, task, self._executor.patience.tick, self._telling.form())
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
            self._telling.conclude(composite)
            self._news.put_nowait(None)

    # --- one step

    async def _ask(self, ask: Ask) -> Told:
        share = self._purse.begin(ask.step)
        trace = self._telling.traces[ask.step] = Trace()
        try:
            ready = self._ready(ask, share)
            if ready.fault is not None:
                raise TokenHubError(ready.fault)
            result = await self._executor.run(ready.job, trace)
            if not isinstance(result, Whole):
                raise TokenHubError(INTERNAL)  # a step asks for no stream
            answer = self._telling.module.parse_answer(wire.decode(result.body, repeats=True))
            told = told_of(ask, answer, result.body)
        except TokenHubError as error:
            told = Told(ask.step, fault=error.fault)
        finally:
            self._purse.end(ask.step, trace.cost_nanousd)
        model, provider = asked(trace)
        return structs.replace(told, model=model, provider=provider, nanousd=trace.cost_nanousd)

    def _ready(self, ask: Ask, share: int | None) -> Ready:
        first = self._composed.first
        if ask.step == first.step:
            return first
        if ask.of > 1:
            return beside(first, ask)
        ready = step(self._frame, ask, share)
        self._telling.plans[ask.step] = ready.plan
        return ready

    def _heard(self, told: Told) -> None:
        self._telling.told[told.step] = told
        self._news.put_nowait(told)

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

    def __init__(self, composing: Composing, task: asyncio.Task[Composite], tick: float, form: Form) -> None:
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
