"""The silences of a stream that has begun: the caller is told that we live, but not for ever."""

from __future__ import annotations

from tokenhub_core.dispatch.gate import Gate
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.ports import Clock
from tokenhub_core.routing.deadlines import STALLED


class Quiet:
    """Watches one committed stream, from its first content on."""

    def __init__(self, clock: Clock, patience: Patience, sign: bytes) -> None:
        self._clock = clock
        self._limits = patience
        self.sign = sign
        """What the caller gets after a silence."""
        self.longest = 0.0
        """Seconds between two pieces, as far as they were read: a slow caller makes it longer, never shorter."""
        self._chars = -1
        self._last = self._since = clock.monotonic()

    def heard(self, gate: Gate, chunk: bytes) -> None:
        """Take note of a piece, empty after a while of silence.

        Raises `TokenHubError` where nothing has come for longer than the model's streams are silent, or for too long
        no content, pings or not.
        """
        now = self._clock.monotonic()
        if chunk:
            self.longest = max(self.longest, now - self._last)
            self._last = now
        elif now - self._last >= self._limits.silence:
            raise TokenHubError(_stalled(f"nothing for {self._limits.silence:g} s"))
        if gate.output_chars != self._chars or gate.ended():
            self._chars = gate.output_chars
            self._since = now
        elif now - self._since > self._limits.whole:
            raise TokenHubError(_stalled(f"no more content for {self._limits.whole:g} s"))


def _stalled(what: str) -> Fault:
    return Fault(Kind.TIMEOUT, Blame.PROVIDER, f"the provider sent {what}", cause=STALLED)
