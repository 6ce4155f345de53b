"""What a workflow of several steps has done besides its attempts: the next steps decided, and the whole settled.

Both may be asked for again. A step is decided once: what is kept of it first is what everybody goes by. The answer is
told once, and the record made once.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs
from temporalio import activity
from temporalio.exceptions import ApplicationError

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dispatch.job import CANCELLED, Trace
from tokenhub_core.errors import TokenHubError
from tokenhub_core.orchestration import machines, plancall
from tokenhub_core.orchestration.asks import Ask, Batch, Composite, Told
from tokenhub_core.orchestration.conversation import told as told_of
from tokenhub_core.orchestration.purse import Purse, purse
from tokenhub_core.orchestration.steps import Frame, Ready, beside
from tokenhub_core.orchestration.steps import step as decided
from tokenhub_core.orchestration.telling import Telling
from tokenhub_core.ports import Recorder
from tokenhub_core.progress import record
from tokenhub_core.store.durable import By
from tokenhub_core.workflows import composed, shapes
from tokenhub_core.workflows.activities import Activities, Safe, beating
from tokenhub_core.workflows.composed import WHOLE, Fact, Next, Prepared, Settling, Several, Sofar
from tokenhub_core.workflows.shapes import Answer, Call, Done, Outcome, Start, Traced
from tokenhub_core.workflows.shapes import Told as Came
from tokenhub_core.workflows.way import Framing


class Stepping:
    """The activities of one worker for calls that several calls answer."""

    def __init__(self, activities: Activities, recorder: Recorder, safe: Safe, framed: Framing) -> None:
        self._activities = activities
        self._means = activities.executor.means
        self._recorder = recorder
        self._safe = safe
        self._framed = framed

    @activity.defn(name=composed.STEPS)
    async def steps(self, sofar: Sofar) -> Next:
        """Decide the steps that follow from what came of those before, and keep them."""
        async with beating():
            return await self._next(sofar)

    @activity.defn(name=composed.SETTLE)
    async def settle(self, settling: Settling) -> Done:
        """Tell the answer and make the record, once each."""
        async with beating():
            return await self._settled(settling)

    async def _next(self, sofar: Sofar) -> Next:
        now = self._means.clock.now()
        mark = await self._safe.rows.begin(sofar.id, WHOLE, By.WORKFLOW, now=now, part_of=sofar.id)
        if mark is not None and mark.by is By.DIRECT:
            return Next(taken=True)
        return await self.following(sofar)

    async def following(self, sofar: Sofar) -> Next:
        """Return the steps that follow, each decided and kept, whoever makes them."""
        several = await self._several(sofar.id)
        frame, spending = self._frame(several), purse(several.policy.max_budget_usd, several.goal)
        found, _ = await self._replayed(several, frame, sofar.batches)
        if isinstance(found, Composite):
            return Next()
        for batch in sofar.batches:
            _spend(spending, batch)
        prepared = [await self._prepared(several, frame, ask, spending.begin(ask.step)) for ask in found.asks]
        return Next(tuple(prepared), found.agree, found.share)

    async def _settled(self, settling: Settling) -> Done:
        marks = await self._safe.rows.marks(settling.id)
        if any(mark.by is By.DIRECT for mark in marks):
            return Done(Traced(), taken=True)
        outcome = await self.ended(settling)
        return Done(outcome.told.trace, outcome.told.fault, WHOLE if outcome.answer is not None else 0)

    async def ended(self, settling: Settling) -> Outcome:
        """Return what came of the call, once that is kept and its record made, whoever has made its steps."""
        outcome = await self._safe.found(settling.id, WHOLE)
        recorded = await self._activities.recorded(settling.id)
        if outcome is None or not recorded:
            several = await self._several(settling.id)
            if outcome is None:
                told = await self._outcome(several, settling)
                outcome = await self._safe.end(settling.id, WHOLE, told)
            if not recorded:
                await self._record(several, outcome.told)
        for name in await self._safe.rows.begins(composed.name_of(settling.id, "")):
            self._safe.rows.forget(name, attempts=True)
        self._safe.rows.forget(settling.id, attempts=False)
        return outcome

    async def broken(self, call_id: str, *, anyway: bool = False) -> Traced | None:
        """Return what is known of a call whose workflow is gone.

        None where an attempt of it is still under way, unless what is known is wanted `anyway`.
        """
        several = await self._safe.several(call_id)
        if several is None:
            return Traced()
        facts = []
        for name in await self._safe.rows.begins(composed.name_of(call_id, "")):
            marks = await self._safe.rows.marks(name)
            if not anyway and any(mark.outcome is None for mark in marks):
                return None
            came = [await self._safe.found(name, mark.n) for mark in marks]
            trace = next((one.told.trace for one in reversed(came) if one is not None), Traced())
            answered = bool(trace.attempts) and not trace.attempts[-1].cause
            step = name.removeprefix(composed.name_of(call_id, ""))
            facts.append(Fact(step, trace, None if answered else CANCELLED))
        outcome = await self._outcome(several, Settling(call_id, left=tuple(facts), cancelled=True))
        return outcome.told.trace

    async def start(self, name: str) -> Start | None:
        """Return what the way of a step begins with, None where it is not kept or nobody may serve it."""
        clock = self._means.clock
        call = await self._safe.load(name)
        if call is None or call.fault is not None:
            return None
        job = shapes.job(shapes.here(call, clock), self._means.dialects)
        return shapes.start(job, clock.monotonic(), name=name)

    # --- the machine, taken again to where it was

    async def _several(self, call_id: str) -> Several:
        found = await self._safe.several(call_id)
        if found is None:
            raise ApplicationError(f"{call_id} is gone", non_retryable=True)
        clock = self._means.clock
        return structs.replace(
            found, call=shapes.here(found.call, clock), first=shapes.here(found.first, clock)
        )

    def _frame(self, several: Several) -> Frame:
        call = several.call
        frame = self._framed(
            call.snapshot,
            shapes.opened(call, self._means.dialects),
            several.policy,
            model=several.model,
            bond=several.bond,
            most_output=several.most_output,
        )
        return structs.replace(frame, limits=call.limits)

    async def _replayed(
        self, several: Several, frame: Frame, batches: Sequence[Sequence[Fact]]
    ) -> tuple[Batch | Composite, list[Told]]:
        """Return what the machine asks for after these batches, or what it came to; and what it was told."""
        machine, heard = machines.machine(several.goal), list[Told]()
        batch = next(machine)
        module = frame.dialects[frame.dialect]
        for facts in batches:
            told = [
                await self._told(several, module, ask, fact)
                for ask, fact in zip(batch.asks, facts, strict=True)
            ]
            heard += told
            try:
                batch = machine.send(told)
            except StopIteration as end:
                composite: Composite = end.value
                return composite, heard
        return batch, heard

    async def _told(self, several: Several, module: DialectModule, ask: Ask, fact: Fact) -> Told:
        if fact.stopped:
            return Told(ask.step, fault=fact.fault)
        told = Told(ask.step, fault=fact.fault or shapes.LOST)
        if fact.n:
            name = composed.name_of(several.call.snapshot.id, ask.step)
            kept = await self._safe.found(name, fact.n)
            if kept is not None and kept.answer is not None:
                body = kept.answer.body
                try:
                    told = told_of(ask, module.parse_answer(wire.decode(body, repeats=True)), body)
                except TokenHubError as error:
                    told = Told(ask.step, fault=error.fault)
        last = fact.trace.attempts[-1] if fact.trace.attempts else None
        nanousd = _cost(fact)
        if last is None:
            return structs.replace(told, nanousd=nanousd)
        return structs.replace(told, model=last.model, provider=last.provider, nanousd=nanousd)

    # --- a step

    async def _prepared(self, several: Several, frame: Frame, ask: Ask, share: int | None) -> Prepared:
        """Return a step that is decided and kept."""
        clock = self._means.clock
        name = composed.name_of(several.call.snapshot.id, ask.step)
        try:
            call = self._decided(several, frame, ask, share)
        except TokenHubError as error:
            return Prepared(ask.step, fault=error.fault)
        kept = shapes.here(await self._safe.keep_step(name, call, now=clock.now()), clock)
        if kept.fault is not None:
            return Prepared(ask.step, fault=kept.fault)
        job = shapes.job(kept, self._means.dialects)
        return Prepared(ask.step, shapes.start(job, clock.monotonic(), name=name))

    def _decided(self, several: Several, frame: Frame, ask: Ask, share: int | None) -> Call:
        first = several.first
        if ask.step == first.step:
            return first
        if ask.of > 1:
            job = shapes.job(first, self._means.dialects)
            ready = beside(Ready(first.step, composed.decided(first), job), ask)
            return composed.step_call(ready)
        return composed.step_call(decided(frame, ask, share), aside=ask.aside)

    # --- the end

    async def _outcome(self, several: Several, settling: Settling) -> Outcome:
        """Return what came of the call, with its answer where there is one."""
        frame, trace = self._frame(several), Trace()
        written = plancall.result if plancall.serves(several.call.snapshot) else None
        telling = Telling(frame, several.goal, trace, self._means.clock, written)
        facts = [fact for batch in (*settling.batches, settling.left) for fact in batch]
        for fact in facts:
            await self._retold(several, telling, fact)
        found, heard = await self._replayed(several, frame, settling.batches)
        for told in heard:
            telling.told[told.step] = told
        telling.told |= {fact.step: Told(fact.step, fault=fact.fault) for fact in settling.left}
        composite = found if isinstance(found, Composite) and not settling.cancelled else None
        telling.conclude(composite)
        answer, fault = None, None if composite is not None else CANCELLED
        if composite is not None:
            stopped = {fact.step for fact in facts if fact.stopped}
            try:
                answer = _answer(telling, composite, [one for one in heard if one.step not in stopped], frame)
            except TokenHubError as error:
                fault = error.fault
        return Outcome(Came(shapes.traced(trace, several.call.plan), fault), answer)

    async def _retold(self, several: Several, telling: Telling, fact: Fact) -> None:
        """Write a step's trace and plan into what is told of the whole."""
        name = composed.name_of(several.call.snapshot.id, fact.step)
        trace = telling.traces[fact.step] = Trace()
        if fact.stopped or fact.fault == CANCELLED:
            known = await self._activities.whole(name, fact.trace)
            fact = composed.settled(structs.replace(fact, trace=known))
        if fact.step == several.first.step:
            shapes.restore(trace, fact.trace, several.first.plan)
        elif (call := await self._safe.load(name)) is not None:
            shapes.restore(trace, fact.trace, call.plan)
            if composed.decided(call) != several.call.plan:
                telling.plans[fact.step] = composed.decided(call)

    async def _record(self, several: Several, came: Came) -> None:
        trace = Trace()
        shapes.restore(trace, came.trace, several.call.plan)
        job = shapes.job(several.call, self._means.dialects)
        progress = shapes.progress(several.call, job, trace)
        now = self._means.clock.monotonic()
        await self._recorder.commit(record(progress, shapes.known(came.fault), now))


def _answer(telling: Telling, composite: Composite, heard: Sequence[Told], frame: Frame) -> Answer:
    """Return the answer as its caller gets it: of a stream, what tells of the steps in front of it."""
    if not frame.request.features.stream:
        whole = telling.whole(composite)
        return Answer(whole.body, whole.headers)
    telling.checked(composite)
    form = telling.form()
    body = b"".join([*map(form.step, heard), *form.end(composite)])
    return Answer(body, (("content-type", form.type),), form.tail)


def _spend(spending: Purse, batch: Sequence[Fact]) -> None:
    """Let the purse hear of a batch as it did when that was made."""
    for fact in batch:
        spending.begin(fact.step)
    for fact in batch:
        spending.end(fact.step, _cost(fact))


def _cost(fact: Fact) -> int:
    return sum(line.cost_nanousd for line in fact.trace.attempts)
