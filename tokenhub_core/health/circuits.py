"""What stands behind a breaker, by name, and what is news of each. Pure."""

from __future__ import annotations

import msgspec

from tokenhub_core.health.breaker import Breaker


class Turned(msgspec.Struct, frozen=True):
    """That something is not asked any more, or is asked again."""

    name: str
    open: bool
    reason: str = ""
    """The cause of the failure that opened it."""
    times: int = 0
    """How often it has opened since the last news: it may have closed in between."""


class Circuits:
    """The breakers of one process. However often they turn, there are two news of each at most in one look."""

    def __init__(self) -> None:
        self._all: dict[str, Breaker] = {}
        self._told: dict[str, tuple[int, bool]] = {}
        """Name → how often it had opened, whether it was closed."""

    def add(self, name: str, breaker: Breaker) -> None:
        """Let news of this one be told, too."""
        self._all[name] = breaker
        self._told[name] = (0, True)

    def fresh(self) -> list[Turned]:
        """Return what is new since this was asked last."""
        found: list[Turned] = []
        for name, breaker in self._all.items():
            openings, was_closed = self._told[name]
            why, closed, times = breaker.why, breaker.closed, breaker.openings - openings
            if times:
                found.append(Turned(name, open=True, reason=why, times=times))
            if closed and (times or not was_closed):
                found.append(Turned(name, open=False))
            self._told[name] = (openings + times, closed)
        return found
