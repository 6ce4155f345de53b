"""A plan again, from the decision that was recorded of it: the same order, and every score to its last bit.

What is taken from the record is what came from outside: what each candidate's score is made of (its facts), the
weights of the mode, the losses of each dialect, values that were drawn, and the seed. The terms, the scores, the
order, who is spared and the reason are made anew, by the same functions that made them then. So a record that was
changed, or a formula that was changed without a new version of the record, is found out.

Who was left out stands as it was recorded: the facts of models that were no candidates are not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from tokenhub_core.numeric import np
from tokenhub_core.routing import scoring
from tokenhub_core.routing.bandit import sampled
from tokenhub_core.routing.decision import VERSION
from tokenhub_core.routing.eligibility import UNKNOWN_PRICE, Wire
from tokenhub_core.routing.plan import arranged, charged, reason
from tokenhub_core.types import (
    Bond,
    Candidate,
    Dialect,
    Draw,
    Expected,
    Facts,
    Features,
    Json,
    Model,
    Plan,
    Policy,
    Prices,
    Provider,
    ProviderType,
    Skip,
    Standing,
    Terms,
)


def recompute(decision: Json) -> Plan:
    """Return the plan of a decision in the form of `decision.unpack`.

    Of models and providers it holds what the record does. Raises `ValueError` for a decision of another version,
    and one that does not hold what it should.
    """
    if decision.get("version") != VERSION:
        raise ValueError(f"a decision of version {decision.get('version')} cannot be recomputed")
    try:
        return _plan(decision)
    except (AttributeError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise ValueError(f"the decision is not whole: {error}") from error


def _plan(decision: Json) -> Plan:
    rows = [*decision["candidates"], *decision["spared"]]
    return rescored(decision, rows, _policy(decision["policy"]))


def rescored(decision: Json, rows: Sequence[Json], policy: Policy, *, explored: bool = True) -> Plan:
    """Return the plan that these rows of a decision make under a policy: scored and put in order anew.

    The weights are those of then where the mode is that of then. Values are drawn again where they were drawn then,
    unless `explored` is false. No limit is checked: the rows are those that may serve.
    """
    same = policy.mode.value == decision["policy"]["mode"]
    weights = msgspec.convert(decision["weights"], Terms) if same else scoring.WEIGHTS[policy.mode]
    facts = [msgspec.convert(row["facts"], Facts) for row in rows]
    terms = scoring.weighed(facts, weights)
    origin, dialect = decision["origin"], Dialect(decision["dialect"])
    draws = _draws(rows, decision["seed"]) if explored else [None] * len(rows)
    candidates = [
        _candidate(row, one, draw, origin) for row, one, draw in zip(rows, terms, draws, strict=True)
    ]
    bond = bond_of(decision)
    ordered = arranged(
        candidates,
        wire=Wire(dialect, losses(rows)),
        seed=decision["seed"],
        origin_id=origin,
        bond=bond,
    )
    lone = decision["lone"]
    features = decision["asked"]
    return Plan(
        policy=policy,
        candidates=tuple(ordered[:1] if lone else ordered),
        spared=tuple(ordered[1:] if lone else ()),
        skips=msgspec.convert(decision["skips"], tuple[Skip, ...]),
        input_tokens=decision["input_tokens"],
        output_tokens=decision["output_tokens"],
        reason=reason(ordered[0], origin, bond) if ordered else "",
        fleet_version=decision["fleet_version"],
        lone=lone,
        features=None if features is None else msgspec.convert(features, Features),
        context=decision["context"],
        dialect=dialect,
        seed=decision["seed"],
        origin=origin,
        bond=bond,
        chances=decision.get("chances", {}),
    )


def bond_of(decision: Json) -> Bond | None:
    """Return who had served the conversation before; a record from before conversations were known tells nobody."""
    told = decision.get("affinity")
    return None if told is None else msgspec.convert(told, Bond)


def _draws(rows: Sequence[Json], seed: str) -> list[Draw | None]:
    """Return the values, drawn again from what is recorded of their distributions."""
    if not rows or "draw" not in rows[0]:
        return [None] * len(rows)
    recorded = [msgspec.convert(row["draw"], Draw) for row in rows]
    alpha, beta = (np.array([getattr(one, name) for one in recorded]) for name in ("alpha", "beta"))
    samples = sampled([(row["model"], row["provider"]) for row in rows], alpha, beta, seed)
    return [
        Draw(sample, one.alpha, one.beta, one.propensity)
        for sample, one in zip(samples.tolist(), recorded, strict=True)
    ]


def _candidate(row: Json, terms: Terms, draw: Draw | None, origin: str) -> Candidate:
    facts = msgspec.convert(row["facts"], Facts)
    at_origin = row["provider"] == origin
    model = Model(
        row["model"],
        row["provider"],
        weight=facts.weight,
        max_context_tokens=row["max_context_tokens"],
        max_output_tokens=row["max_output_tokens"],
        prices=Prices(row["input_nanousd"], row["output_nanousd"]),
        pricing_source=UNKNOWN_PRICE if facts.cost is None else "recorded",
    )
    dialect = Dialect(row["dialect"])
    kind = ProviderType.ORIGIN if at_origin else ProviderType.OPENAI_COMPATIBLE
    candidate = Candidate(
        model,
        Provider(row["provider"], kind, (), dialect),
        scoring.total(terms),
        terms,
        row["estimated_nanousd"],
        pinned=row["pinned"],
        dialect=dialect,
        expected=msgspec.convert(row["expected"], Expected),
        draw=draw,
        facts=facts,
        standing=msgspec.convert(row["standing"], Standing),
    )
    # Where values were drawn, everybody's losses were counted first; else `arranged` counts those that decide.
    return charged(candidate, tuple(row["losses"])) if candidate.draw and row["losses"] else candidate


def losses(rows: Sequence[Json]) -> Callable[[Dialect], tuple[str, ...]]:
    """Return what each dialect was found to lose; of those that nobody asked about, nothing."""
    known = {row["dialect"]: tuple(row["losses"]) for row in rows if row["losses"]}
    return lambda dialect: known.get(dialect.value, ())


def _policy(shown: Mapping[str, Any]) -> Policy:
    known = set(Policy.__struct_fields__)
    values = {name: value for name, value in shown.items() if name in known}
    values["output_schema"] = {} if shown["output_schema"] else None
    return msgspec.convert(values, Policy)
