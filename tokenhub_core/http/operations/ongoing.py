"""The calls that are under way."""

from __future__ import annotations

from typing import Final

import msgspec

from tokenhub_core.http.ongoing import UNDERWAY, Ongoing
from tokenhub_core.http.openapi import Area, Operation


class CallsUnderway(msgspec.Struct):
    """The calls that all workers of this server are at, the longest first; of many, some."""

    calls: int
    processes: int
    """Workers that have told theirs."""
    unheard: int
    """Workers that did not answer in time."""
    items: list[Ongoing]


AREA: Final = Area(
    "underway",
    "The calls that are under way.",
    (
        Operation(
            method="GET",
            path=UNDERWAY,
            summary="Show the calls that are under way: who asks, who is asked, for how long, what has come so far",
            answers={200: CallsUnderway},
        ),
    ),
)
