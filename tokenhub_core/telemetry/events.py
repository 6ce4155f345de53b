"""The event bus: what happens, to whoever listens. Slow listeners lose events and are told how many."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

import msgspec

from tokenhub_core.telemetry.kinds import of_entry
from tokenhub_core.types import NANO, Json, Record

_RACED: Final = "hedge_lost"
"""The cause of an attempt that was let go of because another one was quicker."""
KEPT: Final = 200
"""Events that wait for one listener, and that a new one, or one that comes back, can still get."""
_ORIGINS: Final = 128
"""Processes whose last event is remembered."""

type Place = int | Mapping[str, int] | None
"""The id of the last event that was had, or the last one of each process; None: begin now."""


class Event(msgspec.Struct, frozen=True):
    """One event. `id` counts up while the server runs, from behind any that it gave out before (see `Bus`)."""

    id: int
    type: str
    told: Json | Record
    """What happened; of a record, `data` is made when somebody reads it, because mostly nobody does."""
    origin: str = ""
    """The name of the process where it happened, empty for this one. `id` counts there."""

    @property
    def data(self) -> Json:
        """Return what the event says."""
        return described(self.told)[1] if isinstance(self.told, Record) else self.told


class Bus:
    """Fans events out. `publish` never waits.

    Ids begin behind `first`, which is to grow with each start: so an id from before a restart is known for one.

    Where processes share events (`share`) each counts its own, and a listener's place is one number for each process
    whose events it has had. It means the same to all of them: whoever comes back to another one goes on just there.
    """

    def __init__(self, first: int = 0) -> None:
        self._first = self._last = first
        self._sinks: tuple[Callable[[Event], None], ...] = ()
        self._recent: deque[Event] = deque(maxlen=KEPT)
        self._listeners: set[Listener] = set()
        self._name = ""
        self._heads: dict[str, int] = {}
        """The last event of each other process, 0 where none was told; the one unheard of for longest first."""
        self._begun: Callable[[], None] = _ignored

    def share(self, name: str, begun: Callable[[], None]) -> None:
        """Let others' events be heard here. They know this process by `name`; `begun` hears of new listeners."""
        self._name, self._begun = name, begun

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

    @property
    def own(self) -> list[Event]:
        """Return the events of this process that are still kept."""
        return [event for event in self._recent if not event.origin]

    def heard(self, origin: str, events: Iterable[Event], *, past: bool) -> None:
        """Take another process's events; those that are known are left out. `past` ones are for those who go on.

        They are for listeners only: what else follows events is told of them where they happen. None at all say that
        the process is there.
        """
        self._heads[origin] = self._heads.pop(origin, 0)
        for event in events:
            if event.id <= self._heads[origin]:
                continue
            self._heads[origin] = event.id
            self._recent.append(event)
            for listener in self._listeners:
                listener.put(event, past=past)
        if len(self._heads) > _ORIGINS:
            del self._heads[next(iter(self._heads))]

    def place(self, last: str, *, replay: bool) -> Place:
        """Return where a listener begins that names its last id; with `replay` one without begins with the oldest."""
        if last.isascii() and last.isdigit() and len(last) < 19:
            return int(last)
        if self._name and (places := _places(last)):
            return places
        return {} if replay and self._name else self.oldest if replay else None

    def _publish(self, type_: str, told: Json | Record) -> None:
        self._last += 1
        event = Event(self._last, type_, told)
        self._recent.append(event)
        for sink in self._sinks:
            sink(event)
        for listener in self._listeners:
            listener.put(event)

    @contextmanager
    def listen(self, after: Place = None) -> Iterator[Listener]:
        """Return a listener for as long as the block lasts. It first gets what came behind the place `after`.

        One from before a restart is told that nobody knows what is missing, and everything that is kept is new then.
        """
        listener = Listener(self._name, {**self._heads, self._name: self._last} if self._name else {})
        if self._name:
            self._go_on(listener, after)
        elif isinstance(after, int):
            known = after if self._first <= after <= self._last else self.oldest
            listener.miss(self.oldest - known)
            if after < self._first:
                listener.put(Event(self.oldest, "lost", {"count": None, "restarted": True}))
            for event in self._recent:
                if event.id > known:
                    listener.put(event)
        self._listeners.add(listener)
        self._begun()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def _go_on(self, listener: Listener, after: Place) -> None:
        """Let a listener begin where events are shared."""
        if after is None:
            return
        places = {} if isinstance(after, int) else after
        listener.begin(places)
        if isinstance(after, int) or (places and not places.keys() & listener.heads.keys()):
            listener.put(Event(0, "lost", {"count": None, "restarted": True}))
        for event in self._recent:
            listener.put(event, past=True)
        listener.catch_up()


class Listener:
    """What waits for one reader. Where events were lost, a `lost` event with their count stands in for them."""

    def __init__(self, name: str = "", heads: Mapping[str, int] = MappingProxyType({})) -> None:
        """`heads` are the last events so far, by process, where they are shared; `name` is this process's."""
        self.heads = heads
        self._name = name
        self._waiting: deque[Event] = deque()
        self._lost = 0
        self._ready = asyncio.Event()
        self._behind = False
        """It goes on somewhere, and wants what was before."""
        self._queued = {origin: head for origin, head in heads.items() if head}
        self._told = dict(self._queued)

    def begin(self, places: Mapping[str, int]) -> None:
        """Begin behind these events, by process; of a process that is not named everything is new."""
        self._behind = True
        self._queued, self._told = dict(places), dict(places)

    def catch_up(self) -> None:
        """Count what is gone already of the processes that it has heard of."""
        for origin, number in self._queued.items():
            head = self.heads.get(origin, number)
            self.miss(head - number)
            self._queued[origin] = max(head, number)

    def put(self, event: Event, *, past: bool = False) -> None:
        """Let an event wait; the oldest one makes room."""
        if self._name and event.type != "lost":
            origin = event.origin or self._name
            known = self._queued.get(origin)
            if known is not None and event.id <= known:
                return
            self._queued[origin] = event.id
            if past and not self._behind:
                self._told[origin] = event.id
                return
            if known is not None:
                self.miss(event.id - known - 1)
        if len(self._waiting) >= KEPT:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(event)
        self._ready.set()

    def place(self, event: Event) -> str:
        """Return the id that the reader is to come back with once it has this event: what it has had by then."""
        if not self._name:
            return str(event.id)
        if event.type != "lost":
            self._told[event.origin or self._name] = event.id
        return ",".join(f"{origin}.{number}" for origin, number in self._told.items())

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


def _ignored() -> None:
    """Tell nobody."""


def _places(text: str) -> dict[str, int]:
    """Return the place that a listener names, empty where it is none."""
    found: dict[str, int] = {}
    for one in text.split(",")[:_ORIGINS]:
        origin, _, number = one.partition(".")
        if not (origin.isalnum() and number.isascii() and number.isdigit() and len(number) < 19):
            return {}
        found[origin] = int(number)
    return found


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
