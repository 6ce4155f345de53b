"""What serving runs on: the event loop, uvloop's where it is installed; the allocator, and the collector of garbage."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib.util
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

_THRESHOLDS: Final = (10_000, 5, 2)
"""Objects that live before the collector looks at the young ones; how often it does before it looks at older ones too.

Python's own 2,000 are those of two calls at a time. A connection that is closed is some 150 objects in a ring, most of
them mitmproxy's, with up to 100 KB of OpenSSL's and of buffers: of those that nobody uses a few hundred may lie about.
"""

_NEVER: Final = 1_000_000_000
_SHARE: Final = 200
"""One second in so many is the collector's at most, for looking at all objects: everything waits for that."""

_M_ARENA_MAX: Final = -8
"""glibc's `mallopt`, see mallopt(3)."""


def one_arena() -> None:
    """Let threads to come share one pool of memory: each would keep one of its own, as large as it once needed.

    They would not get in each other's way there: they take turns at the interpreter. Only glibc has the choice.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def settle() -> None:
    """Leave all that exists now to live as long as the process: the collector need not walk it again and again.

    Calls make next to no cycles, so looking for them more rarely costs no memory worth speaking of.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
    gc.callbacks.append(Pace(gc.set_threshold, time.monotonic))


class Pace:
    """Keeps the collector from looking at all objects again soon where that takes long; one of `gc.callbacks`.

    With ten thousand connections it takes a quarter of a second, in which nobody is answered.
    """

    def __init__(self, set_threshold: Callable[[int, int, int], None], clock: Callable[[], float]) -> None:
        self._set_threshold = set_threshold
        self._clock = clock
        self._began = 0.0
        self._until = -math.inf

    def __call__(self, phase: str, info: Mapping[str, int]) -> None:
        """Hear that the collector begins (`start`) or has ended (`stop`), and which generation it is about."""
        now = self._clock()
        if phase == "start":
            self._began = now
        elif info["generation"] == 2:
            young, middle, _ = _THRESHOLDS
            self._until = now + (now - self._began) * _SHARE
            self._set_threshold(young, middle, _NEVER)
        elif now >= self._until:
            self._until = math.inf
            self._set_threshold(*_THRESHOLDS)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop, for `asyncio.Runner`; None for asyncio's own, as on Windows."""
    return _uvloop if importlib.util.find_spec("uvloop") else None


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop  # noqa: PLC0415 - it exists for POSIX systems only

    class Loop(uvloop.Loop):
        """uvloop's, for task factories that do not know `eager_start` yet.

        mitmproxy sets `asyncio.eager_task_factory`, and uvloop hands that argument to every factory.
        """

        def set_task_factory(self, factory: Any) -> None:
            def make(loop: Any, coro: Any, *, eager_start: bool | None = None, **more: Any) -> Any:
                del eager_start
                return factory(loop, coro, **more)

            super().set_task_factory(None if factory is None else make)

    return Loop()
