"""From a call and a fleet to an ordered list of candidates. Deterministic: the seed breaks ties."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import structs

from tokenhub_core.admission.limits import Room, limited
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.routing import bandit, eligibility, estimate, fleet, scoring
from tokenhub_core.routing.bandit import STILL, Explorer
from tokenhub_core.routing.eligibility import Circumstances, Eligible, Option, Wire
from tokenhub_core.types import (
    Bond,
    Candidate,
    Dialect,
    Expected,
    Features,
    Fleet,
    Mode,
    Model,
    Plan,
    Policy,
    Provider,
    ProviderType,
    Skipped,
    Standing,
)


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
    """Return the candidates in the order in which they should be tried, or why there is none; see `decide`."""
    decision, fault = decide(view, features, policy, now=now, seed=seed, wire=wire, origin=origin)
    return fault or decision


def decide(
    view: Fleet,
    features: Features,
    policy: Policy,
    *,
    now: Circumstances,
    seed: str,
    wire: Wire = Wire(),
    origin: OriginOption | None = None,
) -> tuple[Plan, Fault | None]:
    """Return the candidates in the order in which they should be tried, and why where there is none.

    The named model comes first, at each of its providers by score and last at the origin; other models follow
    by score where the policy lets them stand in. Where bad health alone empties the list, the best unhealthy
    candidate is kept, alone: a lone provider is never written off. Where rate limits alone do, see `soonest`.

    Where somebody explores and no model was named, values sampled for the candidates take the scores' place.

    A conversation that must go on where it was served (`Bond.lock`) goes on there: that model at that provider comes
    first, then it at others, and nobody explores. Where a model was named, only the order among its own changes.

    What a dialect cannot carry worsens the score of its providers. It is found out for the best candidate only, and
    for the next one that takes its place: further down it decides nothing.

    A plan without candidates still tells what was asked and who was left out.
    """
    asked = Plan(
        policy=policy,
        candidates=(),
        skips=(),
        input_tokens=estimate.input_tokens(features),
        output_tokens=0,
        reason="",
        fleet_version=view.version,
        features=features,
        dialect=wire.dialect,
        seed=seed,
        origin=origin.provider.id if origin else "",
        context=bandit.context(features, estimate.input_tokens(features)),
        bond=now.bond,
    )
    wanted = fleet.named(view, policy.model) if policy.model else ()
    if policy.model and not wanted and (origin is None or origin.model.id != policy.model):
        return asked, _unknown(policy.model)
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
    lone = not sorted_out.options
    options = sorted_out.options or sorted_out.unhealthy or soonest(sorted_out.limited)
    outlook = [sorted_out.expected[model.id, provider.id] for model, provider, _ in options]
    candidates = arranged(
        _explored(
            _scored(options, outlook, policy.mode, now, pinned=keys, dialect=wire.dialect),
            asked,
            wire,
            # A named model is served, a lone one has no rivals, and what is locked stays.
            STILL if policy.model or lone or (now.bond and now.bond.lock) else now.explorer,
            now.at,
        ),
        wire=wire,
        seed=seed,
        origin_id=asked.origin,
        bond=now.bond,
    )
    if not candidates or _barred(sorted_out, policy, keys):
        told = structs.replace(asked, skips=sorted_out.skips)
        return told, _nobody(sorted_out, policy, keys)
    best = candidates[0]
    decision = structs.replace(
        asked,
        candidates=tuple(candidates[:1] if lone else candidates),
        spared=tuple(candidates[1:] if lone else ()),
        skips=sorted_out.skips,
        input_tokens=best.expected.input_tokens,
        output_tokens=estimate.output_tokens(features, best.model, now.estimates, now.program),
        reason=reason(best, asked.origin, now.bond),
        lone=lone,
    )
    return decision, None


_FINE: Final = Standing()
_SHOWN: Final = 200
"""Characters of a name that a refusal repeats."""


def soonest(waiting: Sequence[tuple[Option, Room]]) -> tuple[Option, ...]:
    """Return the one option to try although it is rate limited, none where all are too sure to refuse.

    Where something is left, only less than the call is estimated to need, the provider may well take it: estimates are
    rough. And at the host that the call was meant for, with the caller's own key, it is for that host to refuse.
    """
    worth = [
        (room.wait, place)
        for place, ((_, provider, _), room) in enumerate(waiting)
        if room.some or provider.type is ProviderType.ORIGIN
    ]
    return (waiting[min(worth)[1]][0],) if worth else ()


def _scored(
    options: Sequence[Option],
    outlook: Sequence[Expected],
    mode: Mode,
    now: Circumstances,
    *,
    pinned: frozenset[tuple[str, str]],
    dialect: Dialect,
) -> list[Candidate]:
    """Return the options with their scores; `outlook` is what is expected of each."""
    facts = scoring.facts(options, now.standings, outlook)
    terms = scoring.weighed(facts, scoring.WEIGHTS[mode])
    return [
        Candidate(
            model,
            provider,
            scoring.total(t),
            t,
            cost,
            pinned=(model.id, model.provider_id) in pinned,
            dialect=provider.speaks(dialect),
            standing=now.standings.get(provider.id, _FINE),
            expected=one,
            facts=known,
        )
        for (model, provider, cost), t, one, known in zip(options, terms, outlook, facts, strict=True)
    ]


type _Order = tuple[bool, int, bool, float, bytes]


def arranged(
    candidates: Sequence[Candidate], *, wire: Wire, seed: str, origin_id: str, bond: Bond | None = None
) -> list[Candidate]:
    """Return scored candidates in the order in which they should be tried, losses counted.

    Where values were drawn for them, these less the losses make the order, and not the scores.
    """
    if candidates and all(candidate.draw is not None for candidate in candidates):
        return sorted(candidates, key=lambda candidate: (-_drawn(candidate), _tie(seed, candidate)))

    lock = bond if bond is not None and bond.lock else None

    def order(candidate: Candidate) -> _Order:
        away = 0 if lock is None else _away(candidate, lock)
        at_origin = candidate.pinned and candidate.provider.id == origin_id
        return not candidate.pinned, away, at_origin, candidate.score, _tie(seed, candidate)

    return _weighed(sorted(candidates, key=order), wire, order)


def _away(candidate: Candidate, bond: Bond) -> int:
    """Return how far a candidate is from who served before: 0 the same, 1 the model elsewhere, 2 another one."""
    if candidate.model.id != bond.model:
        return 2
    return 0 if candidate.provider.id == bond.provider else 1


def _explored(
    candidates: list[Candidate], asked: Plan, wire: Wire, explorer: Explorer, at: float
) -> list[Candidate]:
    """Return the candidates with a value drawn for each, or as they are where nobody explores.

    All are eligible ones: exploring changes their order and nothing else. Everyone's losses are asked for here,
    because the probability that one comes first depends on them.
    """
    if explorer is STILL or not candidates:
        return candidates
    spoken = {one.dialect for one in candidates} - {wire.dialect}
    lost = {dialect: wire.losses(dialect) for dialect in sorted(spoken)}
    counted = [charged(one, lost[one.dialect]) if lost.get(one.dialect) else one for one in candidates]
    draws = explorer.draw(
        [(one.model.id, one.provider.id) for one in counted],
        asked.context,
        penalties=[one.terms.loss for one in counted],
        seed=asked.seed,
        now=at,
    )
    return [structs.replace(one, draw=draw) for one, draw in zip(counted, draws, strict=True)]


def _drawn(candidate: Candidate) -> float:
    return candidate.draw.sample - candidate.terms.loss if candidate.draw else 0.0


def _weighed(
    candidates: list[Candidate], wire: Wire, order: Callable[[Candidate], _Order]
) -> list[Candidate]:
    """Return the candidates in order with the losses of the best one told, whoever that is then."""
    known: set[Dialect] = {wire.dialect}
    while candidates and (spoken := candidates[0].dialect) not in known:
        known.add(spoken)
        if losses := wire.losses(spoken):
            candidates = sorted(
                (charged(one, losses) if one.dialect is spoken else one for one in candidates), key=order
            )
    return candidates


def charged(candidate: Candidate, losses: tuple[str, ...]) -> Candidate:
    """Return the candidate with its losses told and counted."""
    terms = structs.replace(candidate.terms, loss=scoring.loss(losses))
    return structs.replace(candidate, terms=terms, score=scoring.total(terms), losses=losses)


def _tie(seed: str, candidate: Candidate) -> bytes:
    """Return an order among equals that is fair over seeds; a checksum's order would not be."""
    text = f"{seed}\0{candidate.model.id}\0{candidate.provider.id}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def reason(best: Candidate, origin_id: str, bond: Bond | None = None) -> str:
    """Return why the best candidate is the best, as one word."""
    if best.provider.id == origin_id:
        return "routed-origin"
    if best.draw is not None:
        return "routed-thompson"
    if best.pinned:
        return "routed-hint-exact"
    if bond is not None and bond.lock and not _away(best, bond):
        return "routed-affinity"
    return f"routed-weight-{best.model.weight}"


def _unknown(name: str) -> Fault:
    return Fault(
        Kind.NOT_FOUND,
        Blame.CLIENT,
        f"The model '{name[:_SHOWN]}' is not registered. Register it with `tokenhub model add`, or ask for '*' to let"
        " the router choose.",
        cause="model_not_found",
        code="model_not_found",
        param="model",
    )


def _barred(sorted_out: Eligible, policy: Policy, named: frozenset[tuple[str, str]]) -> bool:
    """Tell whether a model was named that the caller's key is good for nowhere: then no other one stands in."""
    if policy.allowed_models is None and policy.allowed_providers is None:
        return False
    barred = {(one.model, one.provider) for one in sorted_out.skips if one.reason is Skipped.NOT_ALLOWED}
    return bool(named) and named <= barred


_BARRING: Final = frozenset(
    {Skipped.DISABLED, Skipped.NO_ADAPTER, Skipped.NOT_ALLOWED, Skipped.NOT_REQUESTED}
)


def _not_allowed(policy: Policy) -> Fault:
    name = f"the model '{policy.model}'" if policy.model else "any model that could serve this call"
    return Fault(
        Kind.FORBIDDEN,
        Blame.CLIENT,
        f"This API key is not good for {name}.",
        cause="model_not_allowed",
        code="model_not_allowed",
        param="model",
    )


def _nobody(sorted_out: Eligible, policy: Policy, named: frozenset[tuple[str, str]]) -> Fault:
    """Return the fault for an empty list, told by its most telling reason."""
    if _barred(sorted_out, policy, named):
        return _not_allowed(policy)
    if sorted_out.limited:
        return limited([(provider.id, room) for (_, provider, _), room in sorted_out.limited])
    reasons = [skip.reason for skip in sorted_out.skips]
    counts = ", ".join(f"{reasons.count(reason)} {reason}" for reason in Skipped if reason in reasons)
    left_out = f"No model may serve this call ({counts or 'none is registered'})."
    if Skipped.NOT_ALLOWED in reasons and _BARRING.issuperset(reasons):
        return _not_allowed(policy)
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


__all__ = ["Option", "OriginOption", "arranged", "charged", "decide", "plan", "reason"]
