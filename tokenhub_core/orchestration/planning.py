"""Planning: one call, to a model that is good at plans."""

from __future__ import annotations

from tokenhub_core.orchestration.asks import Ask, Batch, Composite, Goal, Machine, Way, noted, over
from tokenhub_core.orchestration.saying import spoken
from tokenhub_core.types import Mode


def planning(goal: Goal) -> Machine:
    """Return the machine of planning."""
    (told,) = yield Batch((Ask("answer", wishes=over(goal.primary, Mode.PLANNING)),))
    if told.fault is not None:
        return Composite(Way.PLANNING, noted((told,), None), fault=told.fault)
    output = {"plan": spoken(told)}
    return Composite(Way.PLANNING, noted((told,), told), told, output, "only")
