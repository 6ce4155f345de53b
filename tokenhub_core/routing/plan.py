"""From a call and a fleet to an ordered list of candidates. Deterministic: the seed breaks ties."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec
from msgspec import structs

from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.routing import eligibility, estimate, fleet, scoring
from tokenhub_core.routing.eligibility import Circumstances, Option, Wire
from tokenhub_core.types import Candidate, Dialect, Features, Fleet, Model, Plan, Policy, Provider, Skipped


class OriginOption(msgspec.Struct, frozen=True):
    """The host that the call was meant for, as one more candidate for the model that was asked for."""

    model: Model
    provider: Provider


def plan(
    view: Fleet,
    features: Features,
    policy: Policy,
    *,
    now: Circumstances,
    seed: str,
    wire: Wire = Wire(),
    origin: OriginOption | None = None,
) -> Plan | Fault:
    """Return the candidates in the order in which they should be tried, or why there is none.

    The named model comes first, at each of its providers by score and last at the origin; other models follow
    by score where the policy lets them stand in. Where bad health alone empties the list, the best unhealthy
    candidate is kept, alone: a lone provider is never written off.

    What a dialect cannot carry worsens the score of its providers. It is found out for the best candidate only, and
    for the next one that takes its place: further down it decides nothing.
    """
    wanted = fleet.named(view, policy.model) if policy.model else ()
    if policy.model and not wanted and (origin is None or origin.model.id != policy.model):
        return _unknown(policy.model)
    keys = frozenset((model.id, model.provider_id) for model in wanted)
    if origin is not None:
        if policy.model == origin.model.id:
            keys |= {(origin.model.id, origin.provider.id)}
        view = Fleet(
            view.version,
            {**view.providers, origin.provider.id: origin.provider},
            (*view.models, origin.model),
            view.by_id,
        )
    sorted_out = eligibility.eligible(view, features, policy, wanted=keys, now=now, wire=wire)
    options = sorted_out.options
    lone = not options and bool(sorted_out.unhealthy)
    if lone:
        options = sorted_out.unhealthy
    terms = scoring.score(options, policy.mode, now.standings)
    candidates = [
        Candidate(
            model,
            provider,
            scoring.total(t),
            t,
            cost,
            pinned=(model.id, model.provider_id) in keys,
            dialect=provider.speaks(wire.dialect),
        )
        for (model, provider, cost), t in zip(options, terms, strict=True)
    ]
    last = origin.provider.id if origin else ""

    def order(candidate: Candidate) -> tuple[bool, bool, float, bytes]:
        at_origin = candidate.pinned and candidate.provider.id == last
        return not candidate.pinned, at_origin, candidate.score, _tie(seed, candidate)

    candidates = _weighed(sorted(candidates, key=order), wire, order)
    if lone:
        candidates = candidates[:1]
    if not candidates:
        return _nobody([skip.reason for skip in sorted_out.skips], policy)
    best = candidates[0]
    return Plan(
        policy=policy,
        candidates=tuple(candidates),
        skips=sorted_out.skips,
        input_tokens=estimate.input_tokens(features),
        output_tokens=estimate.output_tokens(features, best.model),
        reason=_reason(best, last),
        fleet_version=view.version,
        lone=lone,
    )


def _weighed(
    candidates: list[Candidate], wire: Wire, order: Callable[[Candidate], tuple[bool, bool, float, bytes]]
) -> list[Candidate]:
    """Return the candidates in order with the losses of the best one told, whoever that is then."""
    known: set[Dialect] = {wire.dialect}
    while candidates and (spoken := candidates[0].dialect) not in known:
        known.add(spoken)
        if losses := wire.losses(spoken):
            candidates = sorted(
                (_charged(one, losses) if one.dialect is spoken else one for one in candidates), key=order
            )
    return candidates


def _charged(candidate: Candidate, losses: tuple[str, ...]) -> Candidate:
    terms = structs.replace(candidate.terms, loss=scoring.loss(losses))
    return structs.replace(candidate, terms=terms, score=scoring.total(terms), losses=losses)


def _tie(seed: str, candidate: Candidate) -> bytes:
    """Return an order among equals that is fair over seeds; a checksum's order would not be."""
    text = f"{seed}\0{candidate.model.id}\0{candidate.provider.id}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _reason(best: Candidate, origin_id: str) -> str:
    if best.provider.id == origin_id:
        return "routed-origin"
    return "routed-hint-exact" if best.pinned else f"routed-weight-{best.model.weight}"


def _unknown(name: str) -> Fault:
    return Fault(
        Kind.NOT_FOUND,
        Blame.CLIENT,
        f"The model '{name}' is not registered. Register it with `tokenhub model add`, or ask for '*' to let"
        " the router choose.",
        cause="model_not_found",
        code="model_not_found",
        param="model",
    )


def _nobody(reasons: Sequence[Skipped], policy: Policy) -> Fault:
    """Return the fault for an empty list, told by its most telling reason."""
    counts = ", ".join(f"{reasons.count(reason)} {reason}" for reason in Skipped if reason in reasons)
    left_out = f"No model may serve this call ({counts or 'none is registered'})."
    if Skipped.BUDGET_EXCEEDED in reasons:
        limit = f"${policy.max_budget_usd:g}" if policy.max_budget_usd is not None else "the budget"
        return Fault(Kind.BUDGET, Blame.CLIENT, f"{left_out} The budget for one call is {limit}.")
    if Skipped.CONTEXT_OVERFLOW in reasons:
        return Fault(Kind.OVERFLOW, Blame.CLIENT, left_out, code="context_length_exceeded")
    if Skipped.LOSSY in reasons:
        message = f"{left_out} Something in it can only be said in its own dialect."
        return Fault(Kind.INVALID, Blame.CLIENT, message, cause="lossy")
    if Skipped.CAPABILITY_MISSING in reasons or Skipped.WEIGHT_BELOW_MINIMUM in reasons:
        return Fault(Kind.INVALID, Blame.CLIENT, left_out, cause="no_candidate")
    return Fault(Kind.NO_CANDIDATE, Blame.US, left_out)


__all__ = ["Option", "OriginOption", "plan"]
