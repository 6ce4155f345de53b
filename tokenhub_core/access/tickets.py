"""Login links: what is behind the `#` of one is good once, and for ten minutes. Pure."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Final

from tokenhub_core.access.marks import Marks, Use
from tokenhub_core.access.values import Owner

LIFETIME: Final = 600.0
"""Seconds."""
_MOST: Final = 16
_PREFIX: Final = "thlogin_"


class Tickets:
    """Those that were given out and not used. They are not kept over a restart."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._open: dict[bytes, tuple[Owner, float]] = {}

    def issue(self, owner: Owner, entropy: bytes, now: float) -> str:
        """Return a ticket that opens one session of `owner`; the oldest one makes room. `now` is monotonic."""
        while len(self._open) >= _MOST:
            self._open.pop(next(iter(self._open)))
        # Shorter than in hex: a link of ours fits a terminal's line.
        ticket = _PREFIX + urlsafe_b64encode(entropy).decode().rstrip("=")
        self._open[self._marks.of(Use.TICKET, ticket)] = (owner, now + LIFETIME)
        return ticket

    def redeem(self, ticket: str, now: float) -> Owner | None:
        """Return whose session it opens; None where it was used, has ended or was never given out."""
        owner, until = self._open.pop(self._marks.of(Use.TICKET, ticket), (None, 0.0))
        return owner if now < until else None
