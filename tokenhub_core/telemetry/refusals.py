"""Rows for those who were refused before their call was read, bounded: a flood of them must not fill the log. Pure.

Of each second the first `EACH_SECOND` are recorded one by one, with who and why. The rest are counted, by fault, in the
metric `tokenhub_refusals_unrecorded_total`, and the next row that is recorded says how many there were before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import structs

from tokenhub_core.ports import Clock, Recorder
from tokenhub_core.types import Record

EACH_SECOND: Final = 20


class Refusals:
    """Where such records go; `counted` hears the fault of each that is only counted."""

    def __init__(self, recorder: Recorder, clock: Clock, counted: Callable[[str], None]) -> None:
        self._recorder = recorder
        self._clock = clock
        self._counted = counted
        self._second = 0.0
        self._taken = 0
        self._left_out = 0

    def __call__(self, record: Record) -> None:
        """Record that somebody was refused, or count it."""
        now = self._clock.monotonic()
        if now - self._second >= 1:
            self._second, self._taken = now, 0
        if self._taken >= EACH_SECOND:
            self._left_out += 1
            self._counted(record.fault)
            return
        self._taken += 1
        if self._left_out:
            message = f"{record.message} ({self._left_out} refused before this one were only counted)"
            record, self._left_out = structs.replace(record, message=message), 0
        self._recorder.post(record)


def unrecorded(record: Record) -> None:
    """Keep nothing of it."""
