"""`POST /v1/plan`: a call that says in its body what is to be done with it. Pure.

The conversation is OpenAI's, and so are the errors. It is taken apart into a chat call and a goal; the answer is what
the mode made, with who made it and what it cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from tokenhub_core.dialects import wire
from tokenhub_core.errors import Kind, client_fault
from tokenhub_core.orchestration.asks import (
    MAX_ITERATIONS,
    MAX_VOTERS,
    Composite,
    Goal,
    Task,
    Way,
    Wishes,
    bound,
)
from tokenhub_core.shaping.shape import STRUCTURED
from tokenhub_core.types import NANO, ApiKey, Dialect, Form, Json, Policy, Snapshot

PATH: Final = "/v1/plan"

_OURS: Final = frozenset({"messages", "model", "stream", "stream_options", "n"})
"""What no parameter replaces."""
_AT: Final = " - at `$"

type _Weight = Annotated[int, Meta(ge=0, le=10)]


class PlanRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked."""

    messages: Annotated[list[Json], Meta(min_length=1)]
    """As in a chat completion, with images and tools' calls and results."""
    model_hint: str = ""
    """The model or alias that is to answer; empty leaves the choice to the router."""
    parameters: Json = {}
    """What else a chat completion has: `tools`, `temperature`, `max_tokens`, …"""
    id: str = ""
    estimated_input_tokens: int = 0
    meta: Json = {}
    """The caller's own notes. Neither these nor the two before are sent on."""
    output_schema: Json | None = None
    """What every answer to the conversation has to fit; our own questions are held to none."""
    stream: bool = False
    """Whether the steps are told as they end, in events `step`, and the result in an event `result`."""


class Orchestration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be done with it."""

    mode: Literal["", "planning", "adversarial", "vote", "refine"] = ""
    """Empty is `planning`."""
    iterations: Annotated[int, Meta(ge=0, le=MAX_ITERATIONS)] = 0
    """0: as the mode has it. Of a vote, how many vote, from 2 on."""
    voters: Annotated[int, Meta(ge=2, le=MAX_VOTERS)] | None = None
    quorum: Annotated[int, Meta(ge=1, le=MAX_VOTERS)] = 1
    """Of a vote: fewer answers are no result."""
    primary_model_id: str = ""
    """Who answers,"""
    review_model_id: str = ""
    """and who criticises or judges."""
    primary_min_weight: _Weight = 0
    review_min_weight: _Weight = 0
    return_plan_only: bool = False
    """Adversarial: only the first answer."""


class PlanPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all steps together may come to; it lowers what the operator allows, and never raises it."""

    max_budget_usd: Annotated[float, Meta(ge=0, le=100)] | None = None
    max_latency_ms: Annotated[int, Meta(ge=1, le=3_600_000)] | None = None
    durable: bool | None = None
    """Whether it goes on when the process that took it dies; null: as the operator has it."""


class PlanOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What shape the text of every answer to the conversation is to have."""

    type: Form | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Text is cut at four times so many bytes. JSON and XML cannot be: there it is refused."""
    strip_think: bool = False


class PlanBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /v1/plan`."""

    request: PlanRequest
    orchestration: Orchestration = Orchestration()
    policy: PlanPolicy = PlanPolicy()
    capabilities: Json = {}
    output_format: PlanOutput = PlanOutput()


class Asked(msgspec.Struct, frozen=True):
    """A body taken apart."""

    chat: bytes
    """The chat call, in OpenAI's dialect."""
    goal: Goal
    policy: PlanPolicy
    wishes: Mapping[str, Any]
    """For the answers, by the field names of `Policy`."""


class PlanResult(msgspec.Struct):
    """What a mode made. `response` is, by mode: `{initial_plan, critique, refined_plan}`, `{responses, selected,
    decided_by, judge, judge_error}`, `{refined_response, iterations, model}`, or of planning the model's own answer."""

    negotiated_model: str
    estimated_cost_usd: float
    """What all attempts of all steps did cost."""
    routing_reason: str
    response: Json


def serves(snapshot: Snapshot) -> bool:
    """Tell whether this is such a call."""
    plain = snapshot.path.partition("?")[0]
    return plain == PATH and snapshot.origin is None and snapshot.dialect is Dialect.OPENAI_CHAT


def read(body: bytes, *, seed: str, key: ApiKey | None) -> Asked:
    """Take a body apart; raises `TokenHubError` (400, 403) that says what is wrong, and where."""
    data = wire.decode(body)
    try:
        said = msgspec.convert(data, PlanBody)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(_AT)
        param = place.rstrip("`").removeprefix(".")
        raise client_fault(f"{param or 'body'}: {what}", cause="bad_field", param=param) from None
    goal = _goal(said.orchestration, seed)
    most = key.trust.max_steps if key is not None else None
    if most is not None and bound(goal) > most:
        message = f"this API key may have {most} steps made of a call, and this one may need {bound(goal)}"
        raise client_fault(message, kind=Kind.FORBIDDEN, cause="too_many_steps", param="orchestration")
    chat: Json = {name: value for name, value in said.request.parameters.items() if name not in _OURS}
    chat |= {"model": said.request.model_hint or "*", "messages": said.request.messages}
    chat |= {"stream": True} if said.request.stream else {}
    return Asked(wire.encode(chat), goal, said.policy, _wishes(said))


def _wishes(said: PlanBody) -> dict[str, Any]:
    output = said.output_format
    if output.max_tokens is not None and output.type in STRUCTURED:
        message = "output_format.max_tokens: JSON and XML cannot be cut"
        raise client_fault(message, cause="bad_field", param="output_format.max_tokens")
    found = {
        "output_schema": said.request.output_schema,
        "output_format": output.type,
        "output_max_tokens": output.max_tokens,
        "strip_think": output.strip_think or None,
        "durable": said.policy.durable,
    }
    return {name: value for name, value in found.items() if value is not None}


def _goal(said: Orchestration, seed: str) -> Goal:
    voters = said.voters or (said.iterations if said.iterations > 1 else 3)
    return Goal(
        Way(said.mode or "planning"),
        seed,
        voters=voters,
        iterations=said.iterations or None,
        primary=Wishes(None, said.primary_min_weight or None, said.primary_model_id or None),
        review=Wishes(None, said.review_min_weight or None, said.review_model_id or None),
        task=Task.PLAN if said.mode == "adversarial" else Task.ANSWER,
        plan_only=said.return_plan_only,
        quorum=min(said.quorum, voters),
    )


def bounded(policy: Policy, asked: Asked) -> Policy:
    """Return the policy within what the body says of it, and with what it wishes for."""
    values = dict(asked.wishes)
    for name in ("max_budget_usd", "max_latency_ms"):
        wanted, allowed = getattr(asked.policy, name), getattr(policy, name)
        if wanted is not None and (allowed is None or wanted < allowed):
            values[name] = wanted
    if not values:
        return policy
    why = {**policy.why, **dict.fromkeys(values, "request")}
    return msgspec.structs.replace(policy, **values, why=why)


def result(composite: Composite, nanousd: int) -> Json:
    """Return what is answered; `composite` has an answer, and all its steps did cost so much."""
    final = composite.final
    response = composite.output
    if composite.way is Way.PLANNING and final is not None:
        response = wire.decode(final.body, repeats=True)
    return {
        "negotiated_model": final.model if final is not None else "",
        "estimated_cost_usd": nanousd / NANO,
        "routing_reason": f"{composite.way}-{composite.decided}",
        "response": response,
    }
