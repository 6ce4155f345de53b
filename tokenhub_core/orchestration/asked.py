"""What a directive asks for, as a goal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tokenhub_core.orchestration.asks import Goal, Way, bound

WAYS: Final = frozenset({Way.ADVERSARIAL, Way.VOTE, Way.REFINE})
"""Those that take more than one call. Planning is one call with weights of its own, and is told as those are."""

_OWN: Final = ("mode", "voters", "iterations")


def misplaced(values: Mapping[str, Any]) -> str:
    """Return what is wrong with these wishes together, empty where nothing is."""
    mode = values.get("mode")
    if "voters" in values and mode != Way.VOTE:
        return "voters needs mode=vote"
    if "iterations" in values and mode not in {Way.ADVERSARIAL, Way.REFINE}:
        return "iterations needs mode=adversarial or mode=refine"
    return ""


def goal(values: Mapping[str, Any], *, seed: str) -> Goal | None:
    """Return what these wishes of a directive make of a call, None where it stays one call."""
    mode = values.get("mode")
    if mode not in WAYS:
        return None
    return Goal(Way(mode), seed, voters=values.get("voters", 3), iterations=values.get("iterations"))


def steps(values: Mapping[str, Any]) -> int:
    """Return the most steps that a call with these wishes can take."""
    asked = goal(values, seed="")
    return 1 if asked is None else bound(asked)


def policy(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the wishes that are a policy's.

    Who asks for a mode leaves the choice of models to the router, as with every mode.
    """
    if values.get("mode") not in WAYS:
        return values
    left = {name: value for name, value in values.items() if name not in _OWN}
    return {"model": None, **left}
