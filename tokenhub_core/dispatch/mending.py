"""The second try of an answer that does not fit: what it is, whether there is room for one, what is told. Pure."""

from __future__ import annotations

from typing import Final

from msgspec import structs

from tokenhub_core.dispatch.job import Job, Trace
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.routing import estimate
from tokenhub_core.routing.eligibility import CONTEXT_MARGIN
from tokenhub_core.shaping.schemas import Failure
from tokenhub_core.shaping.shape import Check
from tokenhub_core.types import NANO, Form, StopReason, Usage

REPAIR: Final = "schema-repair"
"""`Attempt.change` of a second try."""
CAUSE: Final = "invalid_output"


def repairing(job: Job, trace: Trace, check: Check, said: str, failure: Failure) -> Job | None:
    """Return the job of the second try, within every limit of the first; None where there is no room for one.

    An answer that was cut off at its cap would be cut off again.
    """
    candidate, plan, limits = trace.candidate, job.plan, job.limits
    cut = trace.stop is not None and trace.stop.reason is StopReason.LENGTH
    if candidate is None or cut or trace.sent >= limits.max_attempts:
        return None
    told = _told(check, failure)
    size = len(said.encode("utf-8", "replace")) + len(told)
    tokens = plan.input_tokens + -(-size // estimate.BYTES_PER_TOKEN) + 2 * estimate.TURN_TOKENS
    if 0 < candidate.model.max_context_tokens < int(tokens * CONTEXT_MARGIN):
        return None
    cost = estimate.cost(candidate.model.prices, Usage(tokens, plan.output_tokens))
    most = plan.policy.max_budget_usd
    if most is not None and trace.cost_nanousd + cost > most * NANO:
        return None
    bodies = job.bodies.again(said, told)
    if bodies is None:
        return None
    features = job.request.features
    features = structs.replace(features, text_bytes=features.text_bytes + size, turns=features.turns + 2)
    expected = structs.replace(candidate.expected, input_tokens=tokens)
    one = structs.replace(candidate, estimated_nanousd=cost, expected=expected)
    return structs.replace(
        job,
        request=structs.replace(job.request, features=features),
        plan=structs.replace(plan, candidates=(one,), spared=(), input_tokens=tokens, lone=False),
        bodies=bodies,
        limits=structs.replace(limits, max_attempts=1, retries_per_candidate=0),
    )


def unfit(failure: Failure) -> Fault:
    """Return the fault of an answer that does not fit."""
    return Fault(
        Kind.INVALID,
        Blame.PROVIDER,
        f"The answer does not fit what was asked for, {failure}.",
        cause=CAUSE,
        status=422,
        param=failure.path or "/",
    )


def _told(check: Check, failure: Failure) -> str:
    form = "XML" if check.form is Form.XML else "JSON"
    wanted = f"{form} alone, without a code fence or other words"
    if check.schema is not None:
        wanted += ", that fits the schema it was asked to fit"
    return f"This answer does not fit, {failure}. Answer once more, with {wanted}."


def blame(trace: Trace, failure: Failure) -> None:
    """Write into the line of the attempt that answered that its answer did not fit."""
    trace.identical = False
    for at in range(len(trace.attempts) - 1, -1, -1):
        if not trace.attempts[at].cause:
            trace.attempts[at] = structs.replace(
                trace.attempts[at], cause=CAUSE, blame=Blame.PROVIDER.value, message=str(failure)
            )
            return
