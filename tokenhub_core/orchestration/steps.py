"""The steps of one call, each made ready like a call of its own and within the limits of the one it belongs to. Pure.

A step is said in the caller's dialect, with all that its call brought, and planned anew: by the same policy, key and
fleet, with the wishes of the ask over them. What the ask wishes can narrow the call's limits and never widen them. Two
dialects have no turns, so the steps of a call in one of them are said in their sibling that has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from msgspec import structs

from tokenhub_core import policy
from tokenhub_core.admission.outlay import answers
from tokenhub_core.dialects import wire
from tokenhub_core.dialects.base import DialectModule
from tokenhub_core.dispatch.bodies import Bodies
from tokenhub_core.dispatch.failover import Limits
from tokenhub_core.dispatch.job import Job
from tokenhub_core.errors import Fault, client_fault
from tokenhub_core.orchestration.asks import Ask, Goal
from tokenhub_core.orchestration.conversation import applied
from tokenhub_core.orchestration.places import placed
from tokenhub_core.routing.eligibility import Circumstances, Wire
from tokenhub_core.routing.plan import OriginOption, decide
from tokenhub_core.shaping.shape import Check, Shape
from tokenhub_core.types import NANO, Bond, Call, Dialect, Fleet, Plan, Policy, Request, Snapshot

_WITH_TURNS: Final[Mapping[Dialect, Dialect]] = {
    Dialect.OPENAI_COMPLETIONS: Dialect.OPENAI_CHAT,
    Dialect.OLLAMA_GENERATE: Dialect.OLLAMA_CHAT,
}
_KEPT_ELSEWHERE: Final = ("previous_response_id", "conversation")
_STREAMED: Final = (":streamGenerateContent", ":generateContent")


class Frame(msgspec.Struct, frozen=True):
    """One call, as far as all its steps share it."""

    snapshot: Snapshot
    request: Request
    call: Call
    policy: Policy
    """Within what the caller's key is good for."""
    view: Fleet
    dialects: Mapping[Dialect, DialectModule]
    limits: Limits
    origin: Callable[[Snapshot], OriginOption | None]
    now: Callable[[OriginOption | None], Circumstances]
    model: str = ""
    """What an alias came to, empty where the call asks for none,"""
    bond: Bond | None = None
    """and who had served the conversation before."""
    most_output: int | None = None
    """The cap that the caller's key puts on every answer."""
    shape: Shape | None = None
    """The form of answers to the caller's question, not of those to ours,"""
    check: Check | None = None
    """and what they have to be."""

    @property
    def dialect(self) -> Dialect:
        """Return what its steps are said in."""
        return _WITH_TURNS.get(self.request.dialect, self.request.dialect)


class Ready(msgspec.Struct, frozen=True):
    """A step as it was decided: `job` follows `plan`, with the candidates in the order that suits the step."""

    step: str
    plan: Plan
    job: Job
    fault: Fault | None = None
    """Why nobody may serve it; then the job is not to be run."""


def check(request: Request, goal: Goal) -> None:
    """Raise `TokenHubError` (400) where a call cannot be made in a mode."""
    if not request.dialect.translates:
        message = f"mode={goal.way} is for answers in words, and this operation gives none"
        raise client_fault(message, cause="mode_unsupported")
    if answers(request.data) > 1:
        message = f"mode={goal.way} gives one answer, and the call asks for several"
        raise client_fault(message, cause="mode_unsupported")
    if kept := [name for name in _KEPT_ELSEWHERE if request.data.get(name)]:
        message = (
            f"mode={goal.way} shows the conversation to several models, and `{kept[0]}` leaves it with one"
        )
        raise client_fault(message, cause="mode_unsupported", param=kept[0])


def step(frame: Frame, ask: Ask, nanousd: int | None = None) -> Ready:
    """Return a step made ready; it may cost so many nano-dollars at most, None: what the call may."""
    snapshot = structs.replace(frame.snapshot, path=_whole(frame.snapshot.path))
    module = frame.dialects[frame.dialect]
    said = module.render(applied(frame.call, ask), model=frame.request.features.model, max_output_tokens=None)
    request = module.open(wire.encode(said.data), snapshot.path)
    request, cap = _capped(request, frame.most_output)
    origin = frame.origin(snapshot) if module.name is snapshot.dialect else None
    wishes = wished(frame.policy, ask, nanousd)
    features, wishes = policy.framed(request.dialect, request.features, wishes)
    shape, fit = (None, None) if ask.aside else (frame.shape, frame.check)
    bodies = Bodies(request, frame.dialects, wishes.output_schema, cap=cap, shape=shape)
    plan, fault = decide(
        frame.view,
        features,
        wishes,
        now=frame.now(origin),
        seed=f"{snapshot.id} {ask.step}",
        wire=Wire(request.dialect, bodies.losses),
        origin=origin,
    )
    job = Job(snapshot, request, placed(plan, ask), bodies, frame.limits, fit)
    return Ready(ask.step, plan, job, fault)


def beside(ready: Ready, ask: Ask) -> Ready:
    """Return a step that shares its candidates with one that is ready: the same call, by the same decision.

    Decided anew it could see another order, as soon as one of the others has answered, and take a place twice.
    """
    job = structs.replace(ready.job, plan=placed(ready.plan, ask))
    return structs.replace(ready, step=ask.step, job=job)


def wished(limits: Policy, ask: Ask, nanousd: int | None) -> Policy:
    """Return the policy of a step: the call's own, with the wishes of the ask over it and its limits kept.

    A question of ours is put to whoever is best for it, whatever model the caller named for the answer, and its
    answer has no shape but ours.
    """
    wishes, said = ask.wishes, f"step {ask.step}"
    values: dict[str, object] = {}
    if wishes.mode is not None:
        values["mode"] = wishes.mode
    if wishes.min_weight is not None and wishes.min_weight > limits.min_weight:
        values["min_weight"] = wishes.min_weight
    if wishes.model is not None or ask.aside:
        values["model"] = wishes.model
    if ask.aside:
        values["output_schema"] = None
    if nanousd is not None:
        dollars = nanousd / NANO
        if limits.max_budget_usd is None or dollars < limits.max_budget_usd:
            values["max_budget_usd"] = dollars
    return structs.replace(limits, **values, why={**limits.why, **dict.fromkeys(values, said)})


def _capped(request: Request, most: int | None) -> tuple[Request, int | None]:
    """Return the step within the cap of the caller's key, and that cap where the step sets none of its own."""
    asked = request.features.max_output_tokens
    if most is None or (asked is not None and asked <= most):
        return request, None
    features = structs.replace(request.features, max_output_tokens=most)
    return structs.replace(request, features=features), most


def _whole(path: str) -> str:
    """Return the path with which a dialect that tells a stream by its path asks for a whole answer."""
    place, mark, query = path.partition("?")
    if not place.endswith(_STREAMED[0]):
        return path
    kept = [one for one in query.split("&") if not one.startswith("alt=")]
    return place.removesuffix(_STREAMED[0]) + _STREAMED[1] + (mark + "&".join(kept) if any(kept) else "")
