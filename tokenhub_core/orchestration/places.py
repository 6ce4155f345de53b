"""Who answers which ask of a batch: other models for each where there are some, at other providers where there are.

Nothing is tried that is not in the plan: only the order of its candidates changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from msgspec import structs

from tokenhub_core.orchestration.asks import Ask
from tokenhub_core.types import Candidate, Plan


def placed(plan: Plan, ask: Ask) -> Plan:
    """Return the plan in the order in which this ask should try its candidates.

    The candidates that other asks of its batch begin with go behind those that nobody does, so that a failure does
    not make two voters of one model. Where a model was named, it is the one that is asked, and nobody is avoided.
    """
    if plan.lone or not plan.candidates or (ask.of < 2 and not ask.avoid):
        return plan
    named = [one for one in plan.candidates if one.pinned] if plan.policy.model else []
    everyone = plan.candidates if named else _without(plan.candidates, ask.avoid)
    heads = spread(named or everyone, ask.of)
    mine, taken = heads[ask.place], {_key(one) for one in heads}
    rest = [one for one in everyone if one is not mine]
    rest.sort(key=lambda one: (bool(named) and not one.pinned, _key(one) in taken))
    return structs.replace(plan, candidates=(mine, *rest))


def _key(candidate: Candidate) -> tuple[str, str]:
    return candidate.model.id, candidate.provider.id


def _without(candidates: Sequence[Candidate], models: Collection[str]) -> Sequence[Candidate]:
    """Return the candidates with those of these models behind the others."""
    return sorted(candidates, key=lambda one: one.model.id in models)


def spread(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return whom so many asks begin with: the least used model first, then the least used provider, then the best.

    Where there are fewer models than asks, models are asked again.
    """
    models: Counter[str] = Counter()
    providers: Counter[str] = Counter()
    heads: list[Candidate] = []
    for _ in range(count):
        # The first of several that are equal is the best one: they come in order.
        head = min(candidates, key=lambda one: (models[one.model.id], providers[one.provider.id]))
        models[head.model.id] += 1
        providers[head.provider.id] += 1
        heads.append(head)
    return heads
