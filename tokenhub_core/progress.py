"""How far one exchange has come, and what is told of it: the headers of its reply, and its one record. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from msgspec import structs

from tokenhub_core import native
from tokenhub_core.admission.throttle import Stay, without_limits
from tokenhub_core.dialects.base import ErrorReply
from tokenhub_core.dispatch.job import CANCELLED, Trace, Whole
from tokenhub_core.errors import Fault
from tokenhub_core.ports import Reply, Summary
from tokenhub_core.recognise import without_secrets
from tokenhub_core.redaction import credentials, without, without_echo
from tokenhub_core.routing import aliases
from tokenhub_core.routing.affinity import LOOSE, Bonds, Thread
from tokenhub_core.types import (
    Attempt,
    Dialect,
    Headers,
    Json,
    Outcome,
    Plan,
    ProviderType,
    Record,
    Request,
    Snapshot,
    Timings,
    header,
)

_KEPT: Final = (
    "content-type",
    "openai-processing-ms",
    "openai-version",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
)
_KEPT_PREFIXES: Final = ("x-ratelimit-", "anthropic-ratelimit-")
_LONGEST_NAME: Final = 200
"""Characters of a name in headers and records; callers and providers choose them."""


_ANTHROPIC: Final = frozenset({Dialect.ANTHROPIC_MESSAGES, Dialect.ANTHROPIC_COUNT_TOKENS})


@dataclass(slots=True, eq=False)
class Progress:
    """How far one exchange has come; what the record is made of."""

    snapshot: Snapshot
    trace: Trace
    request: Request | None = None
    plan: Plan | None = None
    meant: aliases.Applied | None = None
    """Whether the model was an alias, and what for."""
    directive: str = ""
    directive_why: str = ""
    thread: Thread | None = None
    """The call as a part of its conversation,"""
    bonds: Bonds = LOOSE
    """and who is to hear how it goes on."""
    stay: Stay | None = None
    """The call as one of somebody who is limited."""
    called: str = ""
    """The caller's own name for the call, where its body says one."""
    routed: float = 0.0
    broken: bool = False
    """The stream has ended in an error."""
    recorded: bool = False
    """The record is on its way: nobody makes a second one."""


def passed_on(upstream: Headers, *, limited: bool = False) -> Headers:
    """Return those of the provider's headers that go to the caller.

    Who is `limited` by us is told of that: what the provider tells of its limits would be taken for ours.
    """
    kept = tuple(
        (name, value) for name, value in upstream if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    )
    return without_limits(kept) if limited else kept


def told(progress: Progress) -> Headers:
    """Return the headers that explain the decision."""
    trace, snapshot = progress.trace, progress.snapshot
    told = [("x-request-id", snapshot.id), ("x-tokenhub-decision", snapshot.id)]
    if snapshot.dialect in _ANTHROPIC:
        told.append(("request-id", snapshot.id))
    if progress.directive:
        why = f"; {progress.directive_why}" if progress.directive_why else ""
        told.append(("x-tokenhub-directive", progress.directive + why))
    if progress.meant is not None and progress.meant.alias:
        told.append(("x-tokenhub-alias", _visible(progress.meant.alias)))
    if (composition := trace.composition) is not None:
        # The head of a stream leaves while steps are under way.
        streamed = progress.request is not None and progress.request.features.stream
        count = composition.most if streamed else len(composition.steps)
        told += [("x-tokenhub-mode", composition.mode), ("x-tokenhub-steps", str(count))]
    if (candidate := trace.candidate) is not None and progress.plan is not None:
        told += [
            ("x-tokenhub-model", _visible(candidate.model.id)),
            ("x-tokenhub-provider", _visible(candidate.provider.id)),
            ("x-tokenhub-reason", _reason(progress)),
            ("x-tokenhub-attempts", str(trace.sent)),
        ]
        if candidate.provider.type is ProviderType.SIMULATOR:
            told.append(("x-tokenhub-simulated", "true"))
    if trace.losses:
        told.append(("x-tokenhub-loss", ",".join(map(_visible, trace.losses))[:1000]))
    return tuple(told)


def refusal(progress: Progress, fault: Fault, error: ErrorReply, more: Headers = ()) -> Reply:
    """Return an error in the caller's dialect with what is told of every exchange, and `more`."""
    ours = (*told(progress), *more)
    named = {name for name, _ in ours}
    headers = (*(field for field in error.headers if field[0] not in named), *ours)
    return Reply(error.status, headers, error.body, summary=summary(progress, fault))


def enclosed(progress: Progress, answer: Whole) -> Whole:
    """Return an answer to a call that was asked for in our own way."""
    progress.trace.identical = False
    others = tuple(field for field in answer.headers if field[0] != "content-type")
    headers = (*others, ("content-type", "application/json"))
    return Whole(native.enclosed(answer.body, _decision(progress)), headers)


def done(progress: Progress) -> bytes:
    """Return the last event of such a call's stream."""
    return native.done(_decision(progress))


def _decision(progress: Progress) -> Json:
    candidate = progress.trace.candidate
    model = candidate.model.id if candidate else ""
    return native.decision(model, _reason(progress), progress.trace.cost_nanousd)


def _reason(progress: Progress) -> str:
    """Return why the serving candidate was chosen: the plan's reason, or what the failover did."""
    trace, planned = progress.trace, progress.plan
    if planned is None or trace.candidate is None:
        return ""
    if trace.composition is not None:
        return f"{trace.composition.mode}-{trace.composition.decided}"
    if trace.hedged:
        return "hedge-won"
    if trace.change:
        return trace.change
    if trace.candidate is planned.candidates[0]:
        return planned.reason
    return "failover"


def summary(progress: Progress, fault: Fault | None) -> Summary:
    """Return the decision as flows show it."""
    trace = progress.trace
    candidate = trace.candidate
    return Summary(
        request_id=progress.snapshot.id,
        model=candidate.model.id[:_LONGEST_NAME] if candidate else "",
        provider=candidate.provider.id if candidate else "",
        reason=_reason(progress),
        attempts=trace.sent,
        fault=fault.label if fault else "",
    )


def record(progress: Progress, fault: Fault | None, now: float) -> Record:
    """Return the one fact about the exchange, which ends at `now` (monotonic seconds)."""
    snapshot, trace, request = progress.snapshot, progress.trace, progress.request
    # A caller that stops reading once the model has stopped got all it came for.
    whole = fault is None or (fault is CANCELLED and trace.stop is not None)
    candidate = trace.candidate
    return Record(
        id=snapshot.id,
        at=snapshot.received_at,
        outcome=Outcome.OK if whole else Outcome.CANCELLED if fault is CANCELLED else Outcome.ERROR,
        status=200 if whole or fault is None else fault.http_status,
        caller=snapshot.caller,
        method=snapshot.method,
        path=without_secrets(snapshot.path),
        dialect=snapshot.dialect,
        stream=request.features.stream if request else False,
        origin_host=snapshot.origin.host if snapshot.origin else "",
        client_request_id=progress.called or header(snapshot.headers, "x-request-id")[:200],
        requested_model=request.features.model[:200] if request else "",
        alias=progress.meant.alias if progress.meant else "",
        variant=progress.meant.variant if progress.meant else "",
        model=candidate.model.id[:_LONGEST_NAME] if candidate else "",
        provider=candidate.provider.id if candidate else "",
        reason=_reason(progress),
        directive=progress.directive,
        usage=trace.usage.plus(trace.resumed) if trace.resumed else trace.usage,
        usage_estimated=trace.usage_estimated,
        cost_nanousd=trace.cost_nanousd,
        timings=Timings(
            route_ms=_since(snapshot, progress.routed) if progress.routed else 0.0,
            ttft_ms=trace.ttft_ms,
            total_ms=_since(snapshot, now),
        ),
        attempts=tuple(_unechoed(progress, attempt) for attempt in trace.attempts),
        plan=_followed(progress),
        fault="" if whole or fault is None else fault.label,
        message="" if whole or fault is None else _unquoted(progress, fault.message),
        losses=tuple(loss[:_LONGEST_NAME] for loss in trace.losses[:50]),
        identical=trace.identical,
        simulated=candidate is not None and candidate.provider.type is ProviderType.SIMULATOR,
        stop=trace.stop.reason.value if trace.stop else "",
        composition=trace.composition,
    )


def _followed(progress: Progress) -> Plan | None:
    """Return the plan, and who of it was passed over."""
    planned, passed = progress.plan, progress.trace.passed_over
    return structs.replace(planned, passed_over=tuple(passed)) if planned and passed else planned


def _unechoed(progress: Progress, attempt: Attempt) -> Attempt:
    """Return an attempt as it may be stored."""
    message = _unquoted(progress, attempt.message)
    return attempt if message == attempt.message else structs.replace(attempt, message=message)


def _unquoted(progress: Progress, message: str) -> str:
    """Return what a provider has said without what it quotes of the call: bodies and credentials are not stored."""
    if not message:
        return message
    snapshot = progress.snapshot
    body = progress.request.body if progress.request is not None else snapshot.body
    return without_echo(without(message, credentials(snapshot.headers)), body)


def _since(snapshot: Snapshot, monotonic: float) -> float:
    return round((monotonic - snapshot.started) * 1000, 3)


def _visible(text: str) -> str:
    """Return text that others chose as a header may carry it: one line, printable, of bounded length."""
    text = text[:_LONGEST_NAME]
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else "?" for c in text)
