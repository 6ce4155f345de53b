"""What travels where several calls make one durable answer. Pure.

    Several    all that is needed to go on with the call on any machine; kept in the store, sealed
    Begin      what its workflow begins with
    Sofar      what came of the steps up to now    Next    the steps that follow, each decided and kept
    Settling   the answer to be told, and the record to be made

The machine of the goal runs where the texts are: a worker that is asked for the next steps takes the machine anew
through all that was answered, out of the store, and says what it asks for. Of an answer the workflow knows a digest,
so that it can tell when enough voters agree. So nothing that anybody said is in its history.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import structs

from tokenhub_core.dispatch.failover import Limits
from tokenhub_core.dispatch.job import CANCELLED, STOPPED
from tokenhub_core.errors import Fault
from tokenhub_core.orchestration.asks import AGREED, LATE, Goal
from tokenhub_core.orchestration.steps import Ready
from tokenhub_core.orchestration.telling import Composed
from tokenhub_core.progress import Progress
from tokenhub_core.types import Bond, Plan, Policy
from tokenhub_core.workflows import shapes
from tokenhub_core.workflows.shapes import Call, Start, Traced

PLAN: Final = "tokenhub.plan.1"
"""The workflow of one call that several calls answer."""
STEPS: Final = "tokenhub.steps.1"
SETTLE: Final = "tokenhub.settle.1"
PART: Final = "~"
"""Between the id of a call and the name of one of its steps."""
PREFIX: Final = "plan-"
"""What the id of such a workflow begins with."""
WHOLE: Final = 1
"""The number of the mark that stands for the call itself: made with its first steps, ended with its answer."""


class Several(msgspec.Struct, frozen=True):
    """One call that several calls answer, decided."""

    call: Call
    """The caller's own; its plan is the first step's decision."""
    first: Call
    """The first step's call."""
    goal: Goal
    policy: Policy
    """Of the whole call: that of a step follows from it."""
    model: str = ""
    """As in `orchestration.steps.Frame`, and so are the others."""
    bond: Bond | None = None
    most_output: int | None = None


class Begin(msgspec.Struct, frozen=True):
    """A call's way through its steps."""

    id: str
    limits: Limits
    elapsed: float
    """Seconds of the call's time that were over when it was handed over."""


class Fact(msgspec.Struct, frozen=True):
    """What came of one step, without what was said."""

    step: str
    trace: Traced = Traced()
    fault: Fault | None = None
    n: int = 0
    """The attempt that answered, 0 for none."""

    @property
    def stopped(self) -> bool:
        """Tell whether the others had settled it before it was over."""
        return self.fault in (AGREED, LATE)


class Sofar(msgspec.Struct, frozen=True):
    """What came of the steps up to now, batch by batch."""

    id: str
    batches: tuple[tuple[Fact, ...], ...] = ()


class Prepared(msgspec.Struct, frozen=True):
    """One step to be made."""

    step: str
    start: Start | None = None
    """Its way through its own plan; None where nobody may serve it, and then `fault` says why."""
    fault: Fault | None = None


class Next(msgspec.Struct, frozen=True):
    """Steps that may be made at the same time; none: the machine has come to its end."""

    steps: tuple[Prepared, ...] = ()
    agree: int = 0
    share: float = 1.0
    """As in `orchestration.asks.Batch`."""
    taken: bool = False
    """The call is being made directly; there is nothing left to do."""


class Settling(msgspec.Struct, frozen=True):
    """The end of a call."""

    id: str
    batches: tuple[tuple[Fact, ...], ...] = ()
    left: tuple[Fact, ...] = ()
    """The steps that were under way where it was broken off,"""
    cancelled: bool = False
    """because its caller has left."""


def name_of(call_id: str, step: str) -> str:
    """Return the id of a step's call."""
    return f"{call_id}{PART}{step}"


def whole_of(call_id: str) -> str:
    """Return the id of the call that this is a step of, empty where it is none."""
    whole, part, _ = call_id.partition(PART)
    return whole if part else ""


def several(composed: Composed, progress: Progress) -> Several:
    """Return what goes on with a call that is ready for its first step."""
    frame = composed.frame
    whole = structs.replace(composed.first.job, snapshot=frame.snapshot, request=frame.request)
    return Several(
        call=structs.replace(shapes.call(whole, progress), plan=composed.first.plan),
        first=step_call(composed.first),
        goal=composed.goal,
        policy=frame.policy,
        model=frame.model,
        bond=frame.bond,
        most_output=frame.most_output,
    )


def step_call(ready: Ready, *, aside: bool = False) -> Call:
    """Return a step's call as it is kept."""
    job = ready.job
    return Call(
        snapshot=structs.replace(job.snapshot, body=b""),
        body=job.request.body,
        path=job.request.path,
        features=job.request.features,
        plan=job.plan,
        limits=job.limits,
        cap=job.bodies.cap,
        step=ready.step,
        dialect=job.request.dialect,
        bare=aside,
        fault=ready.fault,
        decided=None if ready.plan is job.plan else ready.plan,
    )


def decided(call: Call) -> Plan:
    """Return the plan of a step as it was decided, whomever its ask prefers."""
    return call.decided or call.plan


def settled(fact: Fact) -> Fact:
    """Return what came of a step that was stopped: it was given up by us, and its caller has not left."""
    if not fact.stopped:
        return fact
    lines = tuple(
        structs.replace(line, cause=STOPPED.label, blame=STOPPED.blame.value, message=STOPPED.message)
        if line.cause == CANCELLED.label
        else line
        for line in fact.trace.attempts
    )
    return structs.replace(fact, trace=structs.replace(fact.trace, attempts=lines))
