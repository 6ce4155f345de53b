"""The machine's clocks."""

from __future__ import annotations

import time


class SystemClock:
    """Fills the `Clock` port."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds on a clock that never jumps."""
        return time.monotonic()
