"""Denied attempts, gathered: whoever is not let in must not be able to fill the disk with being refused. Pure.

The first attempt of a source in a window is an entry at once. Those after it are counted, and become one entry a source
when the window ends. Only so many sources are told apart; the others share one place. While attempts go on, each window
is twice as long as the one before, up to an hour; a window without any begins anew. So a flood from any number of
addresses that lasts a day makes about a thousand entries.
"""

from __future__ import annotations

from typing import Final

import msgspec

FIRST: Final = 60.0
"""Seconds of the first window."""
LONGEST: Final = 3600.0
SOURCES: Final = 16
"""Sources that are told apart in one window."""
OTHERS: Final = "others"
"""Who stands for those beyond."""


class Attempt(msgspec.Struct, frozen=True):
    """What was refused: from where, why, and what was asked for (a route of ours, not the caller's words)."""

    source: str
    reason: str
    subject: str = ""
    actor: str = "anonymous"


class Denials:
    """Remembers one window. Times are seconds on any clock that does not go back."""

    def __init__(self) -> None:
        self._ends = 0.0
        self._length = FIRST
        self._seen: dict[tuple[str, str, str], tuple[Attempt, int]] = {}

    def seen(self, attempt: Attempt, now: float) -> Attempt | None:
        """Count an attempt; return what to write now, if anything. Call `due` first."""
        if not self._seen:
            self._ends = now + self._length
        key = (attempt.source, attempt.reason, attempt.actor)
        if key not in self._seen and len(self._seen) >= SOURCES:
            attempt = Attempt(OTHERS, attempt.reason, attempt.subject, OTHERS)
            key = (OTHERS, attempt.reason, OTHERS)
        found = self._seen.get(key)
        self._seen[key] = (attempt, 0) if found is None else (found[0], found[1] + 1)
        return attempt if found is None else None

    def due(self, now: float, *, leaving: bool = False) -> list[tuple[Attempt, int]]:
        """Return what a window that has ended has gathered, with how often; `leaving` ends it early."""
        if not leaving and now < self._ends:
            return []
        quiet = not self._seen and now >= self._ends + self._length
        ended = bool(self._seen)
        gathered = [(attempt, more) for attempt, more in self._seen.values() if more]
        self._seen = {}
        if ended:
            self._length = min(LONGEST, self._length * 2)
        elif quiet:
            self._length = FIRST
        return gathered
