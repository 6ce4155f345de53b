"""An event loop whose time passes only when everybody waits, and then at once: an hour's scene takes a moment."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable


class _Leaping(selectors.DefaultSelector):
    """Asks the system without waiting, and lets time pass instead."""

    pass_time: Callable[[float], None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits, and for nothing that time brings")
        if not ready and timeout:
            self.pass_time(timeout)
        return ready


class LeapingLoop(asyncio.SelectorEventLoop):
    """Begins at 1,000 seconds. Only for scenes without sockets and threads."""

    def __init__(self) -> None:
        selector = _Leaping()
        selector.pass_time = self._passed
        self._at = 1000.0
        super().__init__(selector)

    def _passed(self, seconds: float) -> None:
        self._at += seconds

    def time(self) -> float:
        return self._at
