"""The breaker in front of Temporal and of the database: where one fails, nobody waits to find that out again. Pure."""

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
    """Counts the failures of what stands behind it, never those of calls. Times are monotonic seconds."""

    def __init__(self, *, failures: int = FAILURES, rest: float = REST) -> None:
        self._most = failures
        self._rest = rest
        self._failures = 0
        self._until: float | None = None
        self._probing = False
        self.why = ""
        """The cause of the failure that keeps it open, empty while it is closed."""
        self.openings = 0
        """How often it has opened."""

    @property
    def closed(self) -> bool:
        """Whether everybody may try."""
        return self._until is None

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
        """Hear that it did what it was asked."""
        self._failures, self._until, self._probing, self.why = 0, None, False, ""

    def failed(self, now: float, why: str = "") -> None:
        """Hear that it did not, and why."""
        self._failures += 1
        if self._probing or self._failures >= self._most:
            self.openings += self._until is None
            self._until, self._probing, self.why = now + self._rest, False, why

    def left(self) -> None:
        """Hear that a call that was to try went away before anything was known."""
        self._probing = False
