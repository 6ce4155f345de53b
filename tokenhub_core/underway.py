"""The calls that are under way: how many there may be at once, and how all of them are told that it is over.

A call that finds all places taken waits for one, for a moment and behind those who came before it; then it is refused.
Who waits costs nothing but memory, and so there are no more who wait than there are places. A refusal is quick, because
an answer that comes too late is worth as little as none and costs as much as a good one.

At the end of a drain every call that is left is cancelled by `stop`, so that whoever runs it can still say why.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError

LEAVING: Final = Fault(
    Kind.OVERLOADED,
    Blame.US,
    "TokenHub is stopping and could not let this call come to its end",
    cause="shutting_down",
    retry_after=1.0,
)
FULL: Final = Fault(
    Kind.OVERLOADED,
    Blame.US,
    "TokenHub has as many calls under way as it may; try again in a moment",
    cause="overloaded",
    retry_after=1.0,
)


class Underway:
    """See the module. `most` calls at once, None for any number; one more waits for `patience` seconds at most.

    `queue` is how many may wait, by default as many as there are places.
    """

    def __init__(self, most: int | None = None, patience: float = 0.05, queue: int | None = None) -> None:
        self._most = most
        self._queue = most if queue is None else queue
        self._patience = patience
        self._tasks: dict[object, asyncio.Task[object] | None] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._stopped = False
        self.refused = 0
        """How many found no place."""

    def __len__(self) -> int:
        return len(self._tasks)

    def resize(self, most: int | None, patience: float) -> None:
        """Have so many places from now on; whoever has one keeps it."""
        self._most = self._queue = most
        self._patience = patience
        self._let_in()

    def calls(self) -> list[object]:
        """Return those who have a place, the one that has it longest first."""
        return list(self._tasks)

    async def enter(self, call: object) -> None:
        """Take a place; raises `TokenHubError` (503) where there is none in time, or everybody is leaving."""
        if self._stopped:
            raise TokenHubError(LEAVING)
        if self._most is not None and (len(self._tasks) >= self._most or self._waiting):
            await self._turn()
        self._tasks[call] = asyncio.current_task()

    async def _turn(self) -> None:
        if self._queue is not None and len(self._waiting) >= self._queue:
            self.refused += 1
            raise TokenHubError(FULL)
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self._patience):
                await place
        except (TimeoutError, asyncio.CancelledError) as error:
            if place.done() and not place.cancelled():
                self.leave(place)
            else:
                self._waiting = deque(one for one in self._waiting if one is not place)
            if isinstance(error, asyncio.CancelledError):
                raise
            self.refused += 1
            raise TokenHubError(FULL) from None
        del self._tasks[place]

    def runs(self, call: object) -> None:
        """Hear that the current task is the one that goes on with a call."""
        if call in self._tasks:
            self._tasks[call] = asyncio.current_task()

    def leave(self, call: object) -> None:
        """Give a place back; any number of times."""
        if self._tasks.pop(call, self) is self or self._most is None:
            return
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and (self._most is None or len(self._tasks) < self._most):
            place = self._waiting.popleft()
            if not place.done():
                # Held for it: whoever comes before it has woken up must not take it.
                self._tasks[place] = None
                place.set_result(None)

    def stop(self) -> None:
        """Cancel every call that is left; from now on nobody comes in."""
        self._stopped = True
        for task in {one for one in self._tasks.values() if one is not None}:
            task.cancel(LEAVING.cause)


def stopped(error: asyncio.CancelledError) -> bool:
    """Tell whether `stop` is why the current task is cancelled; it may then go on, to say so."""
    task = asyncio.current_task()
    if LEAVING.cause not in error.args or task is None:
        return False
    task.uncancel()
    return True
