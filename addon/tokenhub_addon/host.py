"""Holds the engine for an addon whose hooks are not all allowed to wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

from tokenhub_core.admission.doorkeeper import KEYLESS, Doorkeeper
from tokenhub_core.admission.foreign import KEPT, Foreign
from tokenhub_core.admission.throttle import Throttle
from tokenhub_core.errors import Blame, ConfigError, Fault, Kind, TokenHubError
from tokenhub_core.modes import Rule
from tokenhub_core.ports import Engine, Overhearing, Recorder, deaf
from tokenhub_core.proof.prover import Prover
from tokenhub_core.telemetry.recorder import NullRecorder
from tokenhub_core.types import Json, Record
from tokenhub_core.watching import Watcher

_EARLY: Final = 1000
"""Records that are kept until the engine runs."""

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
    anonymous: bool = True
    """Whether callers on this machine may come without a key."""
    allow_private: tuple[str, ...] = ()
    """Names, addresses and networks that are not public and may be reached."""


@dataclass(frozen=True, slots=True)
class Office:
    """What a user interface asks an engine for, and no call does."""

    record: Callable[[str], Json | None]
    """Reads the line of the request log by its id, None where there is none; waits for the store."""
    put_mode: Callable[[Rule], Awaitable[None]]
    """Stores what is to be done with calls; raises `TokenHubError`."""


@dataclass(frozen=True, slots=True)
class Running:
    """An engine that runs, where the records of what goes past it belong, and who learns from that."""

    engine: Engine
    recorder: Recorder
    overheard: Overhearing = deaf
    watcher: Watcher | None = None
    """What is to be done with calls; without one all are routed."""
    keeper: Doorkeeper = KEYLESS
    """Says who comes in."""
    foreign: Foreign = KEPT
    """Says what is done with credentials that clients bring for their hosts."""
    throttle: Throttle = field(default_factory=Throttle)
    """Limits the callers of what goes past the engine."""
    prover: Prover | None = None
    """Hears what goes out, where that is to be proved."""
    refused: Callable[[Record], None] | None = None
    """Hears of those who are refused at the door; None: the recorder does."""
    office: Office | None = None
    """What a user interface may ask beside."""


type EngineFactory = Callable[[AddonOptions], AbstractAsyncContextManager[Running | Engine]]
"""Builds and starts an engine in the running loop, and closes it on the way out.

With an engine that comes without a recorder, nothing is kept of what goes past it.
"""


class EngineHost:
    """Starts the engine as a task, lets calls wait for it, and closes it where it was opened."""

    def __init__(self, factory: EngineFactory) -> None:
        self._factory = factory
        self._running: Running | None = None
        self._early: deque[Record] = deque(maxlen=_EARLY)
        self._ready = asyncio.Event()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, options: AddonOptions) -> None:
        """Begin to start the engine."""
        self._task = asyncio.get_running_loop().create_task(self._hold(options), name="tokenhub engine")

    @property
    def watcher(self) -> Watcher | None:
        """Return what says what is to be done with calls, None while the engine does not run."""
        return None if self._running is None else self._running.watcher

    @property
    def office(self) -> Office | None:
        """Return what a user interface may ask, None while the engine does not run."""
        return None if self._running is None else self._running.office

    async def settled(self) -> Watcher | None:
        """Return `watcher` once the engine runs, or will not."""
        await self._ready.wait()
        return self.watcher

    async def engine(self) -> Engine:
        """Return the engine once it runs; raises TokenHubError where it could not be started or has ended."""
        await self._ready.wait()
        if self._running is None:
            raise TokenHubError(
                Fault(Kind.INTERNAL, Blame.US, "the engine does not run", cause="engine_down")
            )
        return self._running.engine

    async def keeper(self) -> Doorkeeper:
        """Return who says who comes in, once the engine runs; raises TokenHubError (503) where it does not."""
        await self._ready.wait()
        if self._running is None:
            message = "the engine does not run: nobody can tell who may come in"
            raise TokenHubError(Fault(Kind.OVERLOADED, Blame.US, message, cause="engine_down", status=503))
        return self._running.keeper

    async def foreign(self) -> Foreign:
        """Return who says what is done with credentials that clients bring; raises like `keeper`."""
        await self.keeper()
        return self._running.foreign if self._running is not None else KEPT

    def refuse(self, record: Record) -> None:
        """Hand over the record of somebody who was refused at the door."""
        if self._running is not None and self._running.refused is not None:
            self._running.refused(record)
        else:
            self.post(record)

    def post(self, record: Record) -> None:
        """Hand a record over without waiting; one that comes before the engine runs is kept for it."""
        if self._running is not None:
            self._running.recorder.post(record)
        elif not self._ready.is_set():
            self._early.append(record)

    @property
    def overheard(self) -> Overhearing:
        """Return who learns from what passes through; nobody does before the engine runs."""
        return self._running.overheard if self._running is not None else deaf

    @property
    def throttle(self) -> Throttle | None:
        """Return what limits the callers of what passes through; nothing does before the engine runs."""
        return self._running.throttle if self._running is not None else None

    @property
    def prover(self) -> Prover | None:
        """Return who hears what goes out; nobody does before the engine runs, or where nothing is proved."""
        return self._running.prover if self._running is not None else None

    async def stop(self) -> None:
        """Close the engine, and return when that is done."""
        self._stopping.set()
        self._ready.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _hold(self, options: AddonOptions) -> None:
        try:
            async with self._factory(options) as given:
                running = given if isinstance(given, Running) else Running(given, NullRecorder())
                self._running = running
                self._ready.set()
                while self._early:
                    running.recorder.post(self._early.popleft())
                await self._stopping.wait()
        except ConfigError as error:
            _logger.error("TokenHub cannot start: %s", error)
        except Exception:  # calls are refused while no engine runs
            _logger.exception("TokenHub's engine failed")
        finally:
            self._running = None
            self._ready.set()
