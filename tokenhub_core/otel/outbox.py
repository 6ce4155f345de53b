"""What waits to be sent. Bounded: what finds no room is counted and gone, and nobody ever waits for room."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from typing import Final

import msgspec

from tokenhub_core.otel.context import Joined
from tokenhub_core.telemetry.exposition import Families
from tokenhub_core.types import Record

ROOM: Final = 2048
"""Items."""
BATCH: Final = 256
"""As many as are sent together."""


class Call(msgspec.Struct, frozen=True):
    """A finished call, and its place in a trace."""

    record: Record
    joined: Joined


class Line(msgspec.Struct, frozen=True):
    """One line of the log. `at` in seconds since the epoch, `level` as the standard library counts."""

    at: float
    level: int
    level_name: str
    logger: str
    message: str


class Counted(msgspec.Struct, frozen=True):
    """The metrics of one moment, in seconds since the epoch; counted since `since`."""

    at: float
    since: float
    families: Families


type Item = Call | Line | Counted
SIGNALS: Final[Mapping[type, str]] = {Call: "traces", Line: "logs", Counted: "metrics"}


class Outbox:
    """Filled in the event loop, and for the log in any thread; emptied in one thread."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._waiting: deque[Item] = deque()
        self._awake = threading.Event()
        self._counts: Counter[tuple[str, str]] = Counter()

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """Return what became of the items so far, by signal and result: sent, failed, dropped."""
        return dict(self._counts)

    def put(self, item: Item) -> None:
        """Let an item wait, if there is room."""
        if len(self._waiting) >= self._room:
            self.count(SIGNALS[type(item)], "dropped", 1)
            return
        self._waiting.append(item)
        if len(self._waiting) >= BATCH:
            self._awake.set()

    def take(self, seconds: float) -> list[Item]:
        """Return up to a batch of items; waits so long for a whole one, or until it is woken."""
        self._awake.wait(seconds)
        taken: list[Item] = []
        while self._waiting and len(taken) < BATCH:
            taken.append(self._waiting.popleft())
        if len(self._waiting) < BATCH:
            self._awake.clear()
        return taken

    def wake(self) -> None:
        """Let whoever takes take what there is."""
        self._awake.set()

    def count(self, signal: str, result: str, items: int) -> None:
        """Count what became of some items."""
        self._counts[signal, result] += items
