"""What came of the steps of one call: the trace of the whole, and its answer as its caller gets it. Pure.

Whoever drives the steps writes into `traces` and `told` by the step's name, in the order in which the steps began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

import msgspec
from msgspec import structs

from tokenhub_core.dialects import sse, wire
from tokenhub_core.dialects.base import DialectModule, StreamWriter
from tokenhub_core.dialects.unfolded import deltas
from tokenhub_core.dispatch.job import CANCELLED, INTERNAL, Trace, Whole
from tokenhub_core.errors import TokenHubError
from tokenhub_core.orchestration.asks import Composite, Goal, Note, Told, bound, noted
from tokenhub_core.orchestration.steps import Frame, Ready
from tokenhub_core.ports import Clock
from tokenhub_core.types import Answer, Composition, Json, Plan, Request, Step, Usage

_JSON: Final = (("content-type", "application/json"),)


class Composed(msgspec.Struct, frozen=True):
    """A call that is to be answered in several steps."""

    goal: Goal
    frame: Frame
    first: Ready
    """Its first step, decided."""
    written: Callable[[Composite, int], Json] | None = None
    """Writes the result where it is not told as an answer in the caller's dialect."""


class Telling:
    """One call's steps as they are told. `trace` is the whole call's, of which the record is made."""

    def __init__(
        self,
        frame: Frame,
        goal: Goal,
        trace: Trace,
        clock: Clock,
        written: Callable[[Composite, int], Json] | None = None,
    ) -> None:
        self._frame = frame
        self._goal = goal
        self._clock = clock
        self._written = written
        self.module = frame.dialects[frame.dialect]
        """What the steps are said in."""
        self.trace = trace
        self.traces: dict[str, Trace] = {}
        self.told: dict[str, Told] = {}
        self.plans: dict[str, Plan] = {}
        """Of the steps that were decided for themselves; the first one's is the call's."""
        trace.composition = self._noted("", ())

    def conclude(self, composite: Composite | None) -> None:
        """Write into the call's trace what came of it; None: it was broken off."""
        trace = self.trace
        for name, part in self.traces.items():
            # In the order in which the steps began, whoever ended first.
            for attempt in part.attempts:
                trace.attempts.append(structs.replace(attempt, n=len(trace.attempts) + 1, step=name))
            trace.sent += part.sent
            trace.usage_estimated = trace.usage_estimated or part.usage_estimated
        trace.usage = _sum(attempt.usage for attempt in trace.attempts)
        if composite is None:
            left = [self.told.get(name, Told(name, fault=CANCELLED)) for name in self.traces]
            trace.composition = self._noted("", noted(left, None))
            return
        trace.composition = self._noted(composite.decided, composite.notes)
        if composite.final is not None:
            final = self.traces[composite.final.step]
            trace.candidate, trace.losses = final.candidate, final.losses
            trace.stop, trace.left = final.stop, final.left
            now = self._clock.monotonic()
            trace.ttft_ms = round((now - self._frame.snapshot.started) * 1000, 3)

    def _noted(self, decided: str, notes: Iterable[Note]) -> Composition:
        """Return what the record says of the steps.

        One that was stopped has told nothing, and may have cost something all the same: costs are the attempts' own.
        """
        return Composition(
            self._goal.way.value,
            decided,
            tuple(self._step(note, self.traces.get(note.step, Trace())) for note in notes),
            bound(self._goal),
        )

    def _step(self, note: Note, trace: Trace) -> Step:
        plan = self.plans.get(note.step)
        return Step(note.step, *asked(trace), trace.cost_nanousd, note.verdict, note.cause, plan)

    def checked(self, composite: Composite) -> Told:
        """Return the step whose answer is the call's; raises `TokenHubError` where there is none."""
        if composite.final is None:
            raise TokenHubError(composite.fault or INTERNAL)
        return composite.final

    def answer(self, composite: Composite) -> Answer:
        """Return the answer with what all steps have used; raises `TokenHubError` where there is none."""
        final = self.checked(composite)
        answer = self.module.parse_answer(wire.decode(final.body, repeats=True))
        return structs.replace(
            answer,
            id=answer.id or self._frame.snapshot.id.removeprefix("req_"),
            created=answer.created or int(self._clock.now()),
            usage=self.trace.usage,
        )

    def whole(self, composite: Composite) -> Whole:
        """Return the answer in one piece; raises `TokenHubError` where there is none."""
        if self._written is not None:
            return Whole(wire.encode(self._result(composite)), _JSON)
        request = self._frame.request
        rendered = self._frame.dialects[request.dialect].render_answer(
            self.answer(composite), request=request
        )
        self.lose(rendered.losses)
        return Whole(wire.encode(rendered.data), _JSON)

    def form(self) -> Form:
        """Return how the answer is written as a stream."""
        if self._written is not None:
            return _Events(self._result)
        request = self._frame.request
        module, name = self._frame.dialects[request.dialect], self._frame.snapshot.id.removeprefix("req_")
        writer = module.writer(request=request, created=int(self._clock.now()), fallback_id=name)
        return _Deltas(module, request, writer, self)

    def lose(self, losses: tuple[str, ...]) -> None:
        """Note what the caller's dialect could not carry of the answer."""
        self.trace.losses = tuple(dict.fromkeys((*self.trace.losses, *losses)))

    def _result(self, composite: Composite) -> Json:
        """Return the result of a call that is told no answer in a dialect."""
        self.checked(composite)
        assert self._written is not None
        return self._written(composite, self.trace.cost_nanousd)


class Form(Protocol):
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
        self, module: DialectModule, request: Request, writer: StreamWriter, telling: Telling
    ) -> None:
        self.type = module.stream_type(request)
        self.sign = module.keep_alive(request)
        self.tail = b""
        self._writer = writer
        self._telling = telling

    def step(self, told: Told) -> bytes:
        """Return a comment where the framing has some, else whatever readers skip."""
        if self.sign != sse.COMMENT:
            return self.sign
        return f": {told.step} {_came(told)}\n\n".encode("ascii", "replace")

    def end(self, composite: Composite) -> Iterator[bytes]:
        """Yield the events of the answer."""
        *body, last = deltas(self._telling.answer(composite))
        for delta in body:
            if piece := self._writer.write(delta):
                yield piece
        self.tail = self._writer.write(last)
        self._telling.lose(self._writer.losses())


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


def asked(trace: Trace) -> tuple[str, str]:
    """Return the model and the provider that a step was answered by, or asked last."""
    if not trace.attempts:
        return "", ""
    return trace.attempts[-1].model, trace.attempts[-1].provider


def _came(told: Told) -> str:
    return "answered" if told.fault is None else told.fault.label


def _sum(usages: Iterable[Usage]) -> Usage:
    counts = zip(*map(structs.astuple, usages), strict=True)
    return Usage(*map(sum, counts))
