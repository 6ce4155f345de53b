"""The breaker in front of Temporal: where it fails, calls do not wait to find that out one by one. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

FAILURES: Final = 3
"""In a row, before it opens."""
REST: Final = 30.0
"""Seconds until one call may look again."""


class State(StrEnum):
    """What is done with calls."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    """One call looks; the others wait for what it finds."""


class Breaker:
    """Counts Temporal's own failures, never those of calls. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._failures = 0
        self._until: float | None = None
        self._probing = False

    def state(self, now: float) -> State:
        """Return where it is."""
        if self._until is None:
            return State.CLOSED
        return State.HALF_OPEN if self._probing or now >= self._until else State.OPEN

    def admit(self, now: float) -> bool:
        """Tell whether a call may try; whoever may says what came of it."""
        if self._until is None:
            return True
        if self._probing or now < self._until:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """Hear that Temporal did what it was asked."""
        self._failures, self._until, self._probing = 0, None, False

    def failed(self, now: float) -> None:
        """Hear that it did not."""
        self._failures += 1
        if self._probing or self._failures >= FAILURES:
            self._until, self._probing = now + REST, False

    def left(self) -> None:
        """Hear that a call that was to try went away before anything was known."""
        self._probing = False
