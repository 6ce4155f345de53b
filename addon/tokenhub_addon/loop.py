"""The event loop that serving runs on: uvloop where it is installed, else asyncio's own."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable
from typing import Any


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
