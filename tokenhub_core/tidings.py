"""Events of all processes for whoever listens at any of them.

They are told only while somebody listens: who has listeners says so every few seconds, and all tell theirs for as long
as that holds; otherwise each says only that it is there. When it begins each tells what it still keeps, so that a
listener who comes back to another process finds there what it has missed. What is lost on the way is a gap in one
process's numbers, and listeners are told of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import batched
from typing import Final

import msgspec
import orjson

from tokenhub_core.relay import Relay
from tokenhub_core.store.rows import dumps
from tokenhub_core.telemetry.events import Bus, Event

WANT: Final = 5.0
"""Seconds between two times that a process says that somebody listens."""
HOLDS: Final = 30.0
"""Seconds that this holds: so long a listener may be away and find everything at another process."""
GATHER: Final = 0.1
"""Seconds that events wait for others to be told with."""
_WANTED: Final = "events wanted"
_EVENTS: Final = "events"
_PIECE: Final = 100
"""Events in one message."""
_WAITING: Final = 2000


class Told(msgspec.Struct, frozen=True, array_like=True):
    """One event as it is told."""

    id: int
    type: str
    data: str
    """JSON."""


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Some of one process's events, in order."""

    past: bool
    events: list[Told]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Batch).decode


class Tidings:
    """One process's part. `now` is monotonic. Belongs to one event loop."""

    def __init__(self, relay: Relay, bus: Bus, now: Callable[[], float]) -> None:
        self._relay = relay
        self._bus = bus
        self._now = now
        self._until = 0.0
        self._said = 0.0
        self._waiting: deque[Event] = deque(maxlen=_WAITING)
        self._timer: asyncio.TimerHandle | None = None
        relay.hearing(_WANTED, self._wanted)
        relay.hearing(_EVENTS, self._heard)
        bus.share(relay.process, self._listened)
        bus.follow(self._happened)

    async def keep(self) -> None:
        """Say that this process is there, and whether somebody listens, for as long as the service runs."""
        while True:
            if self._bus.listeners:
                self._want()
            else:
                self._send([], past=False)
            await asyncio.sleep(WANT)

    def close(self) -> None:
        """Tell what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._tell()

    def _listened(self) -> None:
        if self._now() - self._said >= WANT:
            self._want()

    def _want(self) -> None:
        self._said = self._now()
        self._relay.tell(_WANTED, b"")
        self._begin()

    def _wanted(self, process: str, body: bytes) -> None:
        del process, body
        self._begin()

    def _begin(self) -> None:
        """Tell for a while; where it begins, what has been before that, too."""
        now = self._now()
        begins, self._until = now >= self._until, now + HOLDS
        if begins and self._bus.own:
            self._send(self._bus.own, past=True)

    def _happened(self, event: Event) -> None:
        if self._now() >= self._until:
            return
        self._waiting.append(event)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER, self._tell)

    def _tell(self) -> None:
        self._timer = None
        waiting = list(self._waiting)
        self._waiting.clear()
        if waiting:
            self._send(waiting, past=False)

    def _send(self, events: Sequence[Event], *, past: bool) -> None:
        for some in batched(events, _PIECE, strict=False) if events else ((),):
            told = [Told(one.id, one.type, dumps(one.data)) for one in some]
            self._relay.tell(_EVENTS, _encode(Batch(past, told)))

    def _heard(self, process: str, body: bytes) -> None:
        batch = _decode(body)
        events = [Event(one.id, one.type, orjson.loads(one.data), process) for one in batch.events]
        self._bus.heard(process, events, past=batch.past)
