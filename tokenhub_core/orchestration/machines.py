"""Which machine runs a goal."""

from __future__ import annotations

from tokenhub_core.orchestration.adversarial import adversarial
from tokenhub_core.orchestration.asks import Goal, Machine, Way
from tokenhub_core.orchestration.planning import planning
from tokenhub_core.orchestration.refine import refine
from tokenhub_core.orchestration.vote import vote


def machine(goal: Goal) -> Machine:
    """Return the machine of a goal, not begun."""
    match goal.way:
        case Way.PLANNING:
            return planning(goal)
        case Way.ADVERSARIAL:
            return adversarial(goal)
        case Way.VOTE:
            return vote(goal)
        case Way.REFINE:
            return refine(goal)
