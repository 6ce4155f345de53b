"""The event bus: what happens, to whoever listens. Slow listeners lose events and are told how many."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from tokenhub_core.telemetry.kinds import of_entry
from tokenhub_core.types import NANO, Json, Record

_RACED: Final = "hedge_lost"
"""The cause of an attempt that was let go of because another one was quicker."""
KEPT: Final = 200
"""Events that wait for one listener, and that a new one, or one that comes back, can still get."""


class Event(msgspec.Struct, frozen=True):
    """One event. `id` counts up while the server runs, from behind any that it gave out before (see `Bus`)."""

    id: int
    type: str
    told: Json | Record
    """What happened; of a record, `data` is made when somebody reads it, because mostly nobody does."""

    @property
    def data(self) -> Json:
        """Return what the event says."""
        return described(self.told)[1] if isinstance(self.told, Record) else self.told


class Bus:
    """Fans events out. `publish` never waits.

    Ids begin behind `first`, which is to grow with each start: so an id from before a restart is known for one.
    """

    def __init__(self, first: int = 0) -> None:
        self._first = self._last = first
        self._sinks: tuple[Callable[[Event], None], ...] = ()
        self._recent: deque[Event] = deque(maxlen=KEPT)
        self._listeners: set[Listener] = set()

    @property
    def listeners(self) -> int:
        """Return how many listen."""
        return len(self._listeners)

    @property
    def oldest(self) -> int:
        """Return the id before the oldest event that is still kept."""
        return self._recent[0].id - 1 if self._recent else self._last

    def publish(self, type_: str, data: Json) -> None:
        """Tell everybody."""
        self._publish(type_, data)

    def tell(self, record: Record) -> None:
        """Tell everybody of a record, and of what happened on its way. A subscriber of records."""
        self._publish(_kind(record), record)
        if len(record.attempts) > 1:
            for type_ in _passed(record):
                self._publish(type_, record)

    def audited(self, action: str, told: Json) -> None:
        """Tell everybody of an entry of the audit log, also by the kind of change that it is."""
        self.publish("audit", told)
        if kind := of_entry(action):
            self.publish(kind, told)

    def follow(self, sink: Callable[[Event], None]) -> None:
        """Call `sink` with every event from now on; it never waits and never fails."""
        self._sinks = (*self._sinks, sink)

    def _publish(self, type_: str, told: Json | Record) -> None:
        self._last += 1
        event = Event(self._last, type_, told)
        self._recent.append(event)
        for sink in self._sinks:
            sink(event)
        for listener in self._listeners:
            listener.put(event)

    @contextmanager
    def listen(self, after: int | None = None) -> Iterator[Listener]:
        """Return a listener for as long as the block lasts. It first gets what came behind the id `after`.

        An id from before a restart is told that nobody knows what is missing, and everything that is kept is new then.
        """
        listener = Listener()
        if after is not None:
            known = after if self._first <= after <= self._last else self.oldest
            listener.miss(self.oldest - known)
            if after < self._first:
                listener.put(Event(self.oldest, "lost", {"count": None, "restarted": True}))
            for event in self._recent:
                if event.id > known:
                    listener.put(event)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)


class Listener:
    """What waits for one reader. Where events were lost, a `lost` event with their count stands in for them."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._ready = asyncio.Event()

    def put(self, event: Event) -> None:
        """Let an event wait; the oldest one makes room."""
        if len(self._waiting) >= KEPT:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(event)
        self._ready.set()

    def miss(self, count: int) -> None:
        """Count events that are gone already; nothing where `count` is not above 0."""
        self._lost += max(count, 0)

    async def ready(self) -> None:
        """Return when something waits."""
        await self._ready.wait()

    def take(self) -> list[Event]:
        """Return everything that waits, in order."""
        self._ready.clear()
        taken = list(self._waiting)
        self._waiting.clear()
        if self._lost and taken:
            taken.insert(0, Event(taken[0].id - 1, "lost", {"count": self._lost}))
            self._lost = 0
        return taken


def described(record: Record) -> tuple[str, Json]:
    """Return the event of a record: its type and its data, empty values left out."""
    data: dict[str, Any] = {
        "timestamp": record.at,
        "request_id": record.id,
        "model_id": record.model,
        "provider_id": record.provider,
        "requested_model": record.requested_model,
        "mode": record.plan.policy.mode.value if record.plan else "",
        "reason": record.reason,
        "outcome": record.outcome.value,
        "status": record.status,
        "latency_ms": record.timings.total_ms,
        "ttft_ms": record.timings.ttft_ms,
        "cost_usd": record.cost_nanousd / NANO,
        "input_tokens": record.usage.input_tokens,
        "output_tokens": record.usage.output_tokens,
        "attempts": len(record.attempts),
        "error_class": record.fault,
        "error_msg": record.message,
        "directive": record.directive,
        "lane": record.caller.lane.value,
        "program": record.caller.program,
        "origin_host": record.origin_host,
        "stream": record.stream,
        "simulated": record.simulated,
        "losses": list(record.losses),
        "shadow_model_id": record.shadow.model if record.shadow else "",
        "shadow_provider_id": record.shadow.provider if record.shadow else "",
        "shadow_error": record.shadow.fault if record.shadow else "",
    }
    return _kind(record), {name: value for name, value in data.items() if value not in ("", None, [], False)}


def _passed(record: Record) -> Iterator[str]:
    """Yield the kinds of what happened to a call before it ended."""
    if any(one.cause and one.cause != _RACED for one in record.attempts):
        yield "failover"
    if any(one.change == "escalated-context-overflow" for one in record.attempts):
        yield "escalation"


def _kind(record: Record) -> str:
    return "route_error" if record.fault else "route_success"
