"""What travels between the caller's front door, the workflow and its activities. Pure.

    Call      all that is needed to go on with a call on any machine; kept in the store, sealed
    Start     what a workflow begins with: the plan, and nothing that anybody said
    Step      one attempt to be made          Told   what came of it
    Closing   the record to be made           Done   what a workflow comes to
    Outcome   an attempt's `Told` with its answer; kept in the store, sealed

An answer that has to fit is checked where its attempt was made, and asked for once more by an attempt of its own.

What callers and models say rests in the store alone. A history of Temporal has facts about it, and these are sealed
too: faults quote, and plans name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import structs

from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dispatch.bodies import Bodies
from tokenhub_core.dispatch.failover import Limits, Try
from tokenhub_core.dispatch.job import CANCELLED, Job, Trace
from tokenhub_core.dispatch.mending import REPAIR
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.ports import Clock
from tokenhub_core.progress import Progress
from tokenhub_core.routing import aliases, estimate
from tokenhub_core.shaping.shape import shape_of
from tokenhub_core.shaping.wanted import check_of
from tokenhub_core.types import (
    Attempt,
    Candidate,
    Composition,
    Dialect,
    Features,
    Headers,
    Left,
    Plan,
    Request,
    Skip,
    Snapshot,
    Stopped,
    Usage,
)

CHAT: Final = "tokenhub.chat.1"
"""The workflow of one call. The number is its version: a change that an open history would not bear makes a new one."""
CHECKED: Final = "tokenhub.chat.2"
"""The workflow of one call whose answer is checked or shaped. A worker that knows nothing of that does not know it."""
ATTEMPT: Final = "tokenhub.attempt.1"
CHECKED_ATTEMPT: Final = "tokenhub.attempt.2"
RECORD: Final = "tokenhub.record.1"
PREFIX: Final = "chat-"
"""What the id of a call's workflow begins with; the rest is the request's, which we made."""
TAKEN: Final = 0
"""The number of the mark by which a front door takes a call over whose workflow cannot go on; attempts begin at 1."""

LOST: Final = Fault(
    Kind.TIMEOUT,
    Blame.US,
    "whoever made this attempt is gone; the provider may have answered and billed",
    cause="worker_lost",
)
"""What is known of an attempt that was begun and never ended."""


class Call(msgspec.Struct, frozen=True):
    """One call, decided. The snapshot is without its body: `body` is what is to be sent, directives taken out."""

    snapshot: Snapshot
    body: bytes
    path: str
    features: Features
    plan: Plan
    limits: Limits
    cap: int | None = None
    """The operator's cap on an answer whose caller set none."""
    alias: str = ""
    variant: str = ""
    directive: str = ""
    route_ms: float = 0.0
    step: str = ""
    """Of a call that several calls answer: which of them this is."""
    dialect: Dialect | None = None
    """What its body is in, where that is not the snapshot's: of two dialects steps are said in another one."""
    decided: Plan | None = None
    """What a step's plan was before its ask put somebody else first; None where it did not."""
    fault: Fault | None = None
    """Why nobody may serve a step."""
    bare: bool = False
    """It is a question of ours, whose answer has no form and need not fit."""


class Traced(msgspec.Struct, frozen=True):
    """A `dispatch.job.Trace`, as a value; the candidate by its place in the plan."""

    attempts: tuple[Attempt, ...] = ()
    sent: int = 0
    change: str = ""
    ttft_ms: float | None = None
    usage: Usage = Usage()
    usage_estimated: bool = False
    candidate: int | None = None
    chosen: Candidate | None = None
    """The candidate itself where it is not one of the plan."""
    losses: tuple[str, ...] = ()
    identical: bool = False
    stop: Stopped | None = None
    left: Left = Left()
    passed_over: tuple[Skip, ...] = ()
    composition: Composition | None = None


class Start(msgspec.Struct, frozen=True):
    """A call's way through its plan, as `Failover` wants to know it."""

    id: str
    plan: Plan
    limits: Limits
    elapsed: float
    """Seconds of the call's time that were over when it was handed over."""
    max_output_tokens: int | None = None


class Step(msgspec.Struct, frozen=True):
    """One attempt to be made; the fields are those of `dispatch.failover.Try`."""

    id: str
    candidate: int
    n: int
    timeout: float | None
    max_output_tokens: int | None
    change: str
    trace: Traced
    repair: int = 0
    """The attempt whose answer did not fit and is asked for once more; 0: none is."""
    others: bool = False


class Told(msgspec.Struct, frozen=True):
    """What came of an attempt. Providers' failures are facts like others: nothing is raised for them."""

    trace: Traced
    fault: Fault | None = None
    refused: bool = False
    """It was not sent."""
    spare: bool = False
    broken: bool = False
    """A stream that had begun: no other candidate can go on with it."""
    taken: bool = False
    """The call is being made directly; there is nothing left to do."""
    unfit: bool = False
    """It was answered, and the answer does not fit."""
    again: Start | None = None
    """What a second try begins with, where there is room for one."""
    gist: str = ""
    """Of a step's answer: the same digest as that of another one that says the same."""


class Answer(msgspec.Struct, frozen=True):
    """An answer in the caller's dialect; of a stream all frames, and its last event apart."""

    body: bytes
    headers: Headers
    tail: bytes = b""


class Outcome(msgspec.Struct, frozen=True):
    """What is kept of an attempt."""

    told: Told
    answer: Answer | None = None
    said: str = ""
    """What the answer said where it does not fit."""


class Closing(msgspec.Struct, frozen=True):
    """The record to be made of a call that has ended."""

    id: str
    trace: Traced
    fault: Fault | None


class Ending(msgspec.Struct, frozen=True):
    """How a call ended, as its front door knows it."""

    trace: Traced
    fault: Fault | None = None
    answer: Answer | None = None
    """With a fault: as far as a stream came."""
    recorded: bool = True


class Done(msgspec.Struct, frozen=True):
    """What a workflow comes to."""

    trace: Traced
    fault: Fault | None = None
    n: int = 0
    """The attempt whose answer the caller gets, 0 for none; with `broken` as far as that came."""
    broken: bool = False
    taken: bool = False
    gist: str = ""


def call(job: Job, progress: Progress) -> Call:
    """Return what goes on with a call that is ready to be dispatched."""
    snapshot, request, meant = job.snapshot, job.request, progress.meant
    return Call(
        snapshot=structs.replace(snapshot, body=b""),
        body=request.body,
        path=request.path,
        features=request.features,
        plan=job.plan,
        limits=job.limits,
        cap=job.bodies.cap,
        alias=meant.alias if meant else "",
        variant=meant.variant if meant else "",
        directive=progress.directive,
        route_ms=(progress.routed - snapshot.started) * 1000 if progress.routed else 0.0,
    )


def start(job: Job, now: float, *, name: str = "") -> Start:
    """Return what the workflow of a call begins with, or a second try; `now` is monotonic.

    `name` is that of a step's call, which is another one than its request's.
    """
    policy = structs.replace(job.plan.policy, output_schema=None)
    return Start(
        id=name or job.snapshot.id,
        plan=structs.replace(job.plan, policy=policy, skips=(), spared=(), chances={}),
        limits=job.limits,
        elapsed=now - job.snapshot.started,
        max_output_tokens=job.request.features.max_output_tokens,
    )


def step(start: Start, tried: Try, trace: Traced) -> Step:
    """Return a step of the failover machine as an attempt to be made."""
    place = next(n for n, one in enumerate(start.plan.candidates) if one is tried.candidate)
    return Step(
        start.id,
        place,
        tried.n,
        tried.timeout,
        tried.max_output_tokens,
        tried.change,
        trace,
        others=tried.others,
    )


def repairing(step: Step, repaired: int, candidate: int) -> Step:
    """Return a step of a second try: at the candidate that gave the answer of the attempt `repaired`."""
    return structs.replace(step, candidate=candidate, n=repaired + step.n, change=REPAIR, repair=repaired)


def attempted(call: Call, step: Step, now: float) -> Try:
    """Return the step as whoever makes attempts wants it; `now` is monotonic, of the clock that the call is on.

    The step may have waited for a worker: what that took is taken off its time.
    """
    candidate, timeout = call.plan.candidates[step.candidate], step.timeout
    if timeout is not None and call.limits.total_seconds is not None:
        left = call.snapshot.started + call.limits.total_seconds - now
        timeout = max(0.0, min(timeout, left))
    return Try(candidate, step.n, timeout, step.max_output_tokens, step.change, step.others)


def here(call: Call, clock: Clock) -> Call:
    """Return the call with its start on this process's clock: a monotonic one means nothing anywhere else."""
    since = max(0.0, clock.now() - call.snapshot.received_at)
    return structs.replace(call, snapshot=structs.replace(call.snapshot, started=clock.monotonic() - since))


def job(call: Call, dialects: Mapping[Dialect, DialectModule]) -> Job:
    """Return the call ready to be dispatched, as it was before it was kept."""
    request, policy = opened(call, dialects), call.plan.policy
    shape = None if call.bare else shape_of(request, policy)
    bodies = Bodies(request, dialects, policy.output_schema, cap=call.cap, shape=shape)
    check = None if call.bare else check_of(request, policy, bodies.own_schema)
    return Job(call.snapshot, request, call.plan, bodies, call.limits, check)


def opened(call: Call, dialects: Mapping[Dialect, DialectModule]) -> Request:
    """Return the request as it was read where the call came in."""
    request = dialects[call.dialect or call.snapshot.dialect].open(call.body, call.path)
    return structs.replace(request, features=call.features)


def progress(call: Call, job: Job, trace: Trace) -> Progress:
    """Return the exchange as its record is made of it."""
    return Progress(
        call.snapshot,
        trace,
        request=job.request,
        plan=call.plan,
        meant=aliases.Applied(call.plan.policy, call.alias, call.variant),
        directive=call.directive,
        routed=call.snapshot.started + call.route_ms / 1000 if call.route_ms else 0.0,
    )


def traced(trace: Trace, plan: Plan) -> Traced:
    """Return a trace as a value."""
    place = _place(trace.candidate, plan)
    return Traced(
        attempts=tuple(trace.attempts),
        sent=trace.sent,
        change=trace.change,
        ttft_ms=trace.ttft_ms,
        usage=trace.usage,
        usage_estimated=trace.usage_estimated,
        candidate=place,
        chosen=trace.candidate if place is None else None,
        losses=trace.losses,
        identical=trace.identical,
        stop=trace.stop,
        left=trace.left,
        passed_over=tuple(trace.passed_over),
        composition=trace.composition,
    )


def restore(trace: Trace, told: Traced, plan: Plan) -> None:
    """Write into a trace what a value of it says."""
    trace.attempts = [*told.attempts]
    trace.sent, trace.change, trace.ttft_ms = told.sent, told.change, told.ttft_ms
    trace.usage, trace.usage_estimated = told.usage, told.usage_estimated
    trace.candidate = told.chosen if told.candidate is None else plan.candidates[told.candidate]
    trace.losses, trace.identical = told.losses, told.identical
    trace.stop, trace.left = told.stop, told.left
    trace.passed_over, trace.composition = [*told.passed_over], told.composition


def known(fault: Fault | None) -> Fault | None:
    """Return a fault that has travelled; a caller's leaving is told from other faults by being that very one."""
    return CANCELLED if fault == CANCELLED else fault


def lost(call: Call, step: Step, *, begun_at: float, now: float) -> Told:
    """Return what is told of an attempt that nobody knows the end of: it counts as read by the provider, and billed.

    Both times are in seconds since the epoch.
    """
    plan, before = call.plan, step.trace
    candidate = plan.candidates[step.candidate]
    usage = Usage(input_tokens=plan.input_tokens)
    line = Attempt(
        n=step.n,
        model=candidate.model.id,
        provider=candidate.provider.id,
        started_ms=round((begun_at - call.snapshot.received_at) * 1000, 3),
        ended_ms=round((now - call.snapshot.received_at) * 1000, 3),
        cause=LOST.label,
        blame=LOST.blame.value,
        message=LOST.message,
        usage=usage,
        cost_nanousd=estimate.cost(candidate.model.prices, usage),
        change=step.change,
    )
    trace = structs.replace(
        before,
        attempts=(*before.attempts, line),
        sent=before.sent + 1,
        change=step.change or before.change,
        usage_estimated=True,
    )
    return Told(trace, LOST)


def _place(candidate: Candidate | None, plan: Plan) -> int | None:
    return next((n for n, one in enumerate(plan.candidates) if one is candidate), None)
