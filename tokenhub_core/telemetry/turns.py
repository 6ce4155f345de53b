"""Why each attempt of a call was made, as its record tells: the first, again, elsewhere, or beside another. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from tokenhub_core.types import Attempt


class Turn(StrEnum):
    """Why an attempt was made."""

    FIRST = "first"
    RETRY = "retry"
    """The one before it failed, and the same model at the same provider was asked again."""
    FAILOVER = "failover"
    """The one before it failed, and somebody else was asked."""
    HEDGE = "hedge"
    """The one before it was still under way."""


def turns(attempts: Sequence[Attempt]) -> tuple[Turn, ...]:
    """Return the turn of each attempt, in the order given; steps of one call have turns of their own.

    What began before the end of the one that began before it is a hedge: nothing else runs beside an attempt.
    """
    if len(attempts) == 1:
        return (Turn.FIRST,)
    begun = sorted(range(len(attempts)), key=[one.started_ms for one in attempts].__getitem__)
    found = [Turn.FIRST] * len(attempts)
    last: dict[str, Attempt] = {}
    for place in begun:
        attempt = attempts[place]
        if (before := last.get(attempt.step)) is not None:
            found[place] = _turn(before, attempt)
        last[attempt.step] = attempt
    return tuple(found)


def _turn(before: Attempt, attempt: Attempt) -> Turn:
    if attempt.started_ms < before.ended_ms:
        return Turn.HEDGE
    same = (before.model, before.provider) == (attempt.model, attempt.provider)
    return Turn.RETRY if same else Turn.FAILOVER
