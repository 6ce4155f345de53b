"""A machine driven by hand: outcomes go in, what was asked comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.orchestration.asks import Ask, Batch, Composite, Goal, Told
from tokenhub_core.orchestration.machines import machine

BROKEN = Fault(Kind.TRANSIENT, Blame.PROVIDER, "broken", cause="http_500")


def said(text: str, model: str = "") -> Callable[[Ask], Told]:
    """Return somebody who always says this."""
    return lambda ask: Told(ask.step, text, model=model or f"model of {ask.step}", provider="p", nanousd=10)


def fails(ask: Ask) -> Told:
    """Answer nothing."""
    return Told(ask.step, nanousd=1, fault=BROKEN)


def driven(goal: Goal, *answers: Callable[[Ask], Told]) -> tuple[Composite, list[Batch]]:
    """Return what came of a goal whose asks, in order, are answered so; the last one answers all others."""
    batches: list[Batch] = []
    left = list(answers)
    running = machine(goal)
    batch = next(running)
    while True:
        batches.append(batch)
        told: Sequence[Told] = [(left.pop(0) if len(left) > 1 else left[0])(ask) for ask in batch.asks]
        try:
            batch = running.send(told)
        except StopIteration as end:
            composite: Composite = end.value
            return composite, batches


def names(batches: Sequence[Batch]) -> list[list[str]]:
    """Return the names of the steps, batch by batch."""
    return [[ask.step for ask in batch.asks] for batch in batches]
