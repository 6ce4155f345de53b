"""Looks from a thread of its own whether the event loop comes round, and says where it stands if it does not.

Everything runs in one loop, so whatever blocks it stops every call. The loop cannot tell of that while it lasts. The
thread writes to the log where the loop stands, once for each time; when the loop comes round again it tells how long it
took. A service manager hears a sign of life with each beat, and none in between.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final, Self

LIMIT: Final = 1.0
"""Seconds that the loop may take to come round."""
_FRAMES: Final = 12
"""Of the stack, the innermost ones."""

_log: Final = logging.getLogger(__name__)


def _unheard(seconds: float, where: str) -> None:
    del seconds, where


def _silent() -> None:
    """Tell nobody."""


class Watchdog:
    """Watches the loop that it is entered in, as a context manager.

    `tell` hears, in the loop, of each time that it was blocked for longer than `limit`: the seconds, and the function
    that it stood in. `alive` is called with each beat.
    """

    def __init__(
        self,
        tell: Callable[[float, str], None] = _unheard,
        *,
        alive: Callable[[], None] = _silent,
        limit: float = LIMIT,
    ) -> None:
        self._tell = tell
        self._alive = alive
        self._limit = limit
        self._beat = 0.0
        self._where = ""
        self._left = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._loop_thread = 0
        self._thread = threading.Thread(target=self._watch, name="tokenhub-watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._loop_thread = threading.get_ident()
        self._come_round()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        if self._timer is not None:
            self._timer.cancel()
        self._thread.join()

    def _come_round(self) -> None:
        now, before = time.monotonic(), self._beat
        self._beat = now
        where, self._where = self._where, ""
        if where:
            _log.warning("the event loop was blocked for %.1f s in %s", now - before, where)
            self._tell(now - before, where)
        self._alive()
        self._timer = asyncio.get_running_loop().call_later(self._limit / 4, self._come_round)

    def _watch(self) -> None:
        while not self._left.wait(self._limit / 4):
            if self._where or time.monotonic() - self._beat < self._limit:
                continue
            frame = sys._current_frames().get(self._loop_thread)
            if frame is None:
                continue
            stack = traceback.extract_stack(frame)[-_FRAMES:]
            # Names and lines only: values may be secrets.
            lines = [f"{one.filename}:{one.lineno} in {one.name}" for one in stack]
            self._where = lines[-1].rpartition(" in ")[2]
            _log.error("the event loop does not come round; it stands at\n%s", "\n".join(lines))
