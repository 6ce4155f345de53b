"""Holds the engine for an addon whose hooks are not all allowed to wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from tokenhub_core.errors import Blame, ConfigError, Fault, Kind, TokenHubError
from tokenhub_core.ports import Engine

_logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AddonOptions:
    """What the user set on mitmproxy's side; an empty data directory is the platform's."""

    data_dir: str = ""
    simulate: bool = False
    origin: bool = True
    """Whether listed hosts may be reached at all; never while answers are simulated."""
    max_body: int = 32 << 20
    """Bytes of a request body that a routed call may have."""
    extra_hosts: tuple[str, ...] = ()
    """`host=dialect` items."""
    allow_private: tuple[str, ...] = ()
    """Names, addresses and networks that are not public and may be reached."""


type EngineFactory = Callable[[AddonOptions], AbstractAsyncContextManager[Engine]]
"""Builds and starts an engine in the running loop, and closes it on the way out."""


class EngineHost:
    """Starts the engine as a task, lets calls wait for it, and closes it where it was opened."""

    def __init__(self, factory: EngineFactory) -> None:
        self._factory = factory
        self._engine: Engine | None = None
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, options: AddonOptions) -> None:
        """Begin to start the engine."""
        self._task = asyncio.get_running_loop().create_task(self._hold(options), name="tokenhub engine")

    async def engine(self) -> Engine:
        """Return the engine once it runs; raises TokenHubError where it could not be started or has ended."""
        await self._ready.wait()
        if self._engine is None:
            raise TokenHubError(
                Fault(Kind.INTERNAL, Blame.US, "the engine does not run", cause="engine_down")
            )
        return self._engine

    async def stop(self) -> None:
        """Close the engine, and return when that is done."""
        self._stopping.set()
        self._ready.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _hold(self, options: AddonOptions) -> None:
        try:
            async with self._factory(options) as engine:
                self._engine = engine
                self._ready.set()
                await self._stopping.wait()
        except ConfigError as error:
            _logger.error("TokenHub cannot start: %s", error)
        except Exception:
            _logger.exception("TokenHub's engine failed")
        finally:
            self._engine = None
            self._ready.set()
