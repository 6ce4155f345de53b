"""Fields of a request that change neither the answer nor its price: where they are not sent, nothing is lost.

They are about the caller, for the vendor's own dashboards and for its abuse reports. They are told all the same, under
another name than what is lost, and no provider is thought less of for them. What a cache is found by, how long it is
kept, and how fast a call is served are not among them: those change the price.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

UNSENT: Final[Mapping[str, str]] = {
    "client_metadata": "what a program says about itself",
    "metadata": "marks for the caller's own dashboards and bills",
    "safety_identifier": "who the end user is, for abuse reports",
    "store": "whether the vendor keeps the answer; what is not kept costs the same",
    "user": "who the end user is, for abuse reports",
}
"""The name of each, as a loss has it, and what it says. No other provider could do anything with it."""

_TOLD: Final = {name: f"unsent:{name}" for name in UNSENT}


def told(losses: Iterable[str]) -> tuple[str, ...]:
    """Return what a request lost as it is told: what nobody misses is marked."""
    return tuple(_TOLD.get(name, name) for name in losses)


def counted(losses: Iterable[str]) -> tuple[str, ...]:
    """Return what a request lost as far as it speaks against a provider."""
    return tuple(name for name in losses if name not in UNSENT)
