"""What the last minute's calls to a provider came to. Pure; times are monotonic seconds."""

from __future__ import annotations

from typing import Final

_SLOT: Final = 10.0
_SLOTS: Final = 6


class Window:
    """Calls and errors of the last minute, in six slots of ten seconds."""

    __slots__ = ("calls", "errors", "latest", "since")

    def __init__(self, now: float) -> None:
        self.latest = int(now // _SLOT)
        self.since = self.latest
        """The first slot that is held against the provider."""
        self.calls = [0] * _SLOTS
        self.errors = [0] * _SLOTS

    def add(self, now: float, *, error: bool) -> None:
        """Count a call."""
        self.turn(now)
        self.calls[self.latest % _SLOTS] += 1
        self.errors[self.latest % _SLOTS] += error

    def turn(self, now: float) -> None:
        """Empty the slots that have passed."""
        slot = int(now // _SLOT)
        for passed in range(max(self.latest + 1, slot - _SLOTS + 1), slot + 1):
            self.calls[passed % _SLOTS] = 0
            self.errors[passed % _SLOTS] = 0
        self.latest = max(self.latest, slot)

    def forgive(self, now: float) -> None:
        """Hold nothing against the provider that has been until now."""
        self.since = int(now // _SLOT) + 1

    def held(self, now: float) -> tuple[int, int]:
        """Return the calls and errors that count against the provider."""
        self.turn(now)
        slots = range(max(self.since, self.latest - _SLOTS + 1), self.latest + 1)
        places = [slot % _SLOTS for slot in slots]
        return sum(self.calls[place] for place in places), sum(self.errors[place] for place in places)

    def odds(self, now: float) -> float:
        """Return how likely the next call is to fail: a half where nothing is known."""
        calls, errors = self.held(now)
        return (errors + 1) / (calls + 2)

    def rate(self, now: float) -> float:
        """Return the share of errors, 0 where there were no calls."""
        self.turn(now)
        calls = sum(self.calls)
        return sum(self.errors) / calls if calls else 0.0
