"""One case of the lab: a fault, what must come of it, and how it is shown that the case could fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.world import CALM, SLOTS, Turn, World, world
from tokenhub_core.dispatch.job import Patience
from tokenhub_core.types import Lane

ALL = (Lane.DIRECT, Lane.HANDOFF, Lane.INSPECT)

type Run = Callable[["Lab", int], Awaitable[None]]
"""Repeats a case so many times; an `AssertionError` says what fell short."""
type Off = Callable[["Lab"], AbstractContextManager[Any]]
"""Switches the case's protection off for the length of a block."""


@dataclass(frozen=True)
class Case:
    """See the module."""

    id: str
    fault: str
    """What goes wrong, in one sentence."""
    claim: str
    """What must come of it."""
    protection: str
    """What the product has against it,"""
    control: str
    """and what the negative control does to that."""
    run: Run
    off: Off | None
    """None: the case brings its own control along, and `run` has seen it go red."""
    lanes: tuple[Lane, ...] = ALL
    n: int = 20
    """Repetitions of the quick profile."""
    red: int = 6
    """Repetitions of the control."""
    quick: bool = False
    """Cheap enough for every run of the tests."""
    limit: float = 120.0
    """Seconds for all repetitions; a stuck case is one that fails."""


@dataclass
class Lab:
    """Where cases run: a folder, and one TokenHub for all those that do not need one of their own."""

    folder: Path
    seed: int = 0
    told: dict[str, Any] = field(default_factory=dict)
    """What the case that runs has measured."""
    given: dict[str, Any] = field(default_factory=dict)
    """What a control has put in the place of something."""
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _world: World | None = None
    _made: int = 0

    async def world(self) -> World:
        """Return the shared one."""
        if self._world is None:
            self._world = await self._stack.enter_async_context(world(self.room(), seed=self.seed))
        return self._world

    @asynccontextmanager
    async def alone(self, **how: Any) -> AsyncIterator[World]:
        """Run one with settings of its own; the shared one ends, since there is one proxy in a process."""
        await self.close()
        async with world(self.room(), **how) as it:
            yield it

    async def close(self) -> None:
        """End the shared one."""
        self._world = None
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    def room(self) -> Path:
        """Return an empty folder."""
        self._made += 1
        made = self.folder / f"room-{self._made}"
        made.mkdir(mode=0o700)
        return made

    async def turns(
        self, n: int, play: Callable[[Turn], Awaitable[None]], *, patience: Patience = CALM, **given: Any
    ) -> None:
        """Play so many turns, as many at a time as there are slots; the first that fails is told."""
        it = await self.world()
        with patient(it, patience):
            for start in range(0, n, SLOTS):
                ends = await asyncio.gather(
                    *(play(it.turn(at, **given)) for at in range(start, min(start + SLOTS, n))),
                    return_exceptions=True,
                )
                for end in ends:
                    if isinstance(end, BaseException):
                        raise end


@contextmanager
def patient(it: World, patience: Patience) -> Any:
    """Let attempts take so long within the block; nobody who has switched patience off is contradicted."""
    executor = it.executor
    before = executor.patience
    if before is not ENDLESS:
        executor.patience = patience
    try:
        yield
    finally:
        executor.patience = before


ENDLESS = Patience(connect=1e6, ttft=1e6, stall=1e6, whole=1e6, gather=0.001, tick=1e6)
"""No deadline at all: what a control sets."""
