"""Refine: one model answers the call as it stands, and then improves its answer, once for each iteration.

Every round sees the caller's conversation and the last answer, not the ones before: what was improved away should not
come back. A round that fails ends it, and so does one that changes nothing; the best answer so far is the result.
"""

from __future__ import annotations

from typing import Final

from msgspec import structs

from tokenhub_core.orchestration.asks import (
    Ask,
    Batch,
    Composite,
    Goal,
    Line,
    Machine,
    Told,
    Way,
    noted,
    over,
    rounds,
)
from tokenhub_core.orchestration.saying import gist, spoken
from tokenhub_core.types import Mode, Role

_AGAIN: Final = (
    "Go through your last answer as a strict reviewer: what in it is wrong, missing, unclear or more than was asked"
    " for? Then answer the conversation again, better. Reply with the whole new answer alone, in the form that was"
    " asked for at first, without a word about the changes. If nothing can be improved, repeat it unchanged."
)


def refine(goal: Goal) -> Machine:
    """Return the machine of refine."""
    wishes = over(goal.primary, Mode.HIGH_CONFIDENCE)
    told: list[Told] = []
    told += yield Batch((Ask("answer", wishes=wishes),))
    best = told[0]
    if best.fault is not None:
        return Composite(Way.REFINE, noted(told, None), fault=best.fault)
    done = 0
    wishes = structs.replace(wishes, model=best.model)
    while done < rounds(goal):
        draft = (Line(Role.ASSISTANT, spoken(best)), Line(Role.USER, _AGAIN))
        (better,) = yield Batch((Ask(f"refine-{done + 1}", added=draft, wishes=wishes),))
        told.append(better)
        if better.fault is not None:
            break
        done += 1
        same = gist(better) == gist(best)
        best = better
        if same:
            break
    output = {"refined_response": spoken(best), "iterations": done, "model": best.model}
    decided = "only" if len(told) == 1 else "last"
    return Composite(Way.REFINE, noted(told, best), best, output, decided)
