"""Two-phase money: what is reserved, what is spent."""

from __future__ import annotations

from tokenhub_core.ports import Reservation
from tokenhub_core.types import Snapshot, Usage


class OpenLedger:
    """A ledger without limits that still adds everything up, so that every attempt is accounted."""

    def __init__(self) -> None:
        self._next = 1
        self._held: dict[int, int] = {}
        self.spent_nanousd = 0

    @property
    def reserved_nanousd(self) -> int:
        """Return what is set aside for attempts under way."""
        return sum(self._held.values())

    def reserve(self, snapshot: Snapshot, nanousd: int) -> Reservation:
        """Set the estimate aside; never refuses."""
        del snapshot
        reservation = Reservation(self._next, nanousd)
        self._next += 1
        self._held[reservation.id] = nanousd
        return reservation

    def settle(self, reservation: Reservation, nanousd: int, usage: Usage) -> None:
        """Replace the reservation by the real cost. Settling twice is a bug and raises KeyError."""
        del usage
        del self._held[reservation.id]
        self.spent_nanousd += nanousd
