"""How much each credential may still send: windows as answers told them, less what we have sent since.

An answer tells what was left when its call was counted. Calls that were sent after that one are not in the figure, so
they are subtracted, whether they are on their way or have ended; otherwise a hundred parallel calls would all see the
same ten that remain. Calls are numbered in the order in which they were sent, and those before the one whose answer
was heard are taken for counted, except where they were sent within a second of it and are not answered: two connections
may overtake each other.

A window that refills (a token bucket) has, at `told + s` seconds,

    remaining + (limit - remaining) * s / resets

and is full at its reset; another one has what it was told to have until its reset, and its limit from then on. A call
that is larger than a whole limit fits where the window is full: then the provider decides.

What is told of a model counts that model's calls only. Nothing is known of a credential until its first answer, and
nothing is kept of one whose answers tell nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from tokenhub_core.admission.headers import MINUTE, PERIODS, Metric, Seen
from tokenhub_core.dispatch.backoff import LONGEST
from tokenhub_core.errors import Blame, Fault, Kind

OVERTAKING: Final = 1.0
"""Seconds within which a call may reach the provider before one that was sent earlier."""
_LOST: Final = 900.0
"""Seconds after which a call is not awaited any more, whatever became of it."""
_MODELS: Final = 200
"""Models of one credential that are told apart; callers choose names at the hosts that they call."""
_HAIR: Final = 1e-9

_PLACE: Final = {metric: place for place, metric in enumerate(Metric)}

type Costs = tuple[float, ...]
"""What a call costs in each `Metric`, in their order."""


class Call(msgspec.Struct, frozen=True):
    """The size of one call, as estimated before it is made. `model` is the name that the provider knows."""

    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def costs(self) -> Costs:
        """Return what it costs in each metric."""
        total = float(self.input_tokens + self.output_tokens)
        return (1.0, total, float(self.input_tokens), float(self.output_tokens), 0.0)


class Room(msgspec.Struct, frozen=True):
    """How soon a call can be taken: in `wait` seconds, 0 is now. `why` is the metric that it waits for.

    `some`: the window is not empty, there is only less left than the call is estimated to need.
    """

    wait: float = 0.0
    why: str = ""
    some: bool = False
    share: float = 1.0
    """Of the fullest use: what is left in the window that has, relatively, the least left."""


class Shown(msgspec.Struct, frozen=True):
    """One window for people. `resets` in seconds from now."""

    metric: Metric
    window: str
    model: str
    limit: float | None
    remaining: float
    resets: float


FREE: Final = Room()
COOLING: Final = "cooling"
"""The `why` of a credential whose provider said when to come back."""

_QUOTA: Final = "exhausted"
_REFUSED: Final = frozenset({"refused", "denied"})


def limited(waits: Sequence[tuple[str, Room]]) -> Fault:
    """Return the fault of a call that all these providers, by name, could only take later."""
    provider, room = min(waits, key=lambda one: one[1].wait)
    wait, reasons = min(room.wait, LONGEST), {one.why for _, one in waits}
    others = len({name for name, _ in waits}) - 1
    who = f"{provider} or {others} more" if others else provider
    why = ", ".join(sorted(reasons))
    message = f"no credential of {who} can take this call for another {math.ceil(wait)} s ({why})"
    if reasons <= _REFUSED:
        # Nothing that a caller could slow down for: our own credentials are no good.
        return Fault(Kind.NO_CANDIDATE, Blame.US, message, cause="credentials_parked", retry_after=wait)
    if reasons <= {_QUOTA, *_REFUSED}:
        return Fault(
            Kind.QUOTA,
            Blame.CREDENTIAL,
            message,
            cause="credentials_parked",
            retry_after=wait,
            code="insufficient_quota",
        )
    return Fault(Kind.RATE_LIMITED, Blame.CREDENTIAL, message, cause="limits_reached", retry_after=wait)


class _Flight:
    """A call that was sent: its place in the order, and all that had been sent up to and with it."""

    __slots__ = ("before", "costs", "sent")

    def __init__(self, sent: float, costs: Costs, before: Costs) -> None:
        self.sent = sent
        self.costs = costs
        self.before = before


class _Window:
    """What one answer told, and which call's answer that was."""

    __slots__ = ("limit", "period", "refills", "remaining", "resets", "sent", "seq", "spent", "told")

    def __init__(self, seen: Seen, now: float) -> None:
        self.limit = seen.limit
        self.remaining = seen.remaining or 0.0
        self.refills = seen.refills and seen.limit is not None
        self.period = PERIODS.get(seen.window) or max(MINUTE, seen.resets or 0.0)
        self.told = now
        self.resets = now + (self.period if seen.resets is None else seen.resets)
        self.seq = 0
        self.sent = now
        self.spent = 0.0
        """All that had been sent, in this metric, up to the call that was told."""

    def holds(self, now: float) -> float:
        """Return what is left at `now`, own calls since then not counted."""
        if not self.refills or self.limit is None or now >= self.resets:
            return self.remaining
        past = (now - self.told) / (self.resets - self.told)
        return self.remaining + (self.limit - self.remaining) * max(past, 0.0)

    def until(self, wanted: float, now: float) -> float:
        """Return the seconds until `wanted` is left."""
        left = max(self.resets - now, 0.0)
        if not self.refills or self.limit is None or self.limit <= self.remaining:
            return left
        rate = (self.limit - self.remaining) / max(self.resets - self.told, _HAIR)
        return min(max((wanted - self.holds(now)) / rate, 0.0), left)


class _Lane:
    """The windows that count the same calls: all of a credential's, or those to one model."""

    def __init__(self) -> None:
        self.windows: dict[tuple[Metric, str], _Window] = {}
        self._spent: list[float] = [0.0] * len(Metric)
        self._flights: dict[int, _Flight] = {}
        self._seq = 0

    def take(self, costs: Costs, now: float) -> int:
        self._seq += 1
        self._spent = [have + more for have, more in zip(self._spent, costs, strict=True)]
        self._flights[self._seq] = _Flight(now, costs, tuple(self._spent))
        first = next(iter(self._flights))
        if now - self._flights[first].sent > _LOST:
            del self._flights[first]
        return self._seq

    def land(self, seq: int) -> None:
        self._flights.pop(seq, None)

    def tell(self, seen: Seen, seq: int, now: float) -> None:
        """Take an answer's word; of two answers, that to the call sent later holds."""
        key = (seen.metric, seen.window)
        old = self.windows.get(key)
        flight = self._flights.get(seq)
        if old is not None and flight is not None and seq < old.seq and now < old.resets:
            return
        new = self.windows[key] = _Window(seen, now)
        place = _PLACE[seen.metric]
        if flight is not None:
            new.seq, new.sent, new.spent = seq, flight.sent, flight.before[place]
        else:
            # Not a call of ours: what has ended is in its figure, what is on its way may not be.
            new.spent = self._spent[place] - sum(one.costs[place] for one in self._flights.values())

    def room(self, costs: Costs, now: float) -> Room:
        """Return how soon all windows can take a call of these costs."""
        worst = FREE
        for (metric, _), window in [*self.windows.items()]:
            left = self._left(metric, window, now)
            if left is None:
                continue
            wanted = max(costs[_PLACE[metric]], _HAIR)
            if window.limit is not None:
                wanted = min(wanted, max(window.limit, _HAIR))
            share = left / window.limit if window.limit else 1.0
            if left < wanted:
                missing = wanted - left + window.holds(now)
                one = Room(max(window.until(missing, now), _HAIR), metric.value, left > 0, share)
            else:
                one = Room(share=share)
            worst = _worse(worst, one)
        return worst

    def _left(self, metric: Metric, window: _Window, now: float) -> float | None:
        """Return what is left, own calls counted; None where nothing is known any more."""
        place = _PLACE[metric]
        if now >= window.resets:
            if window.limit is None:
                self.windows.pop(next(key for key, one in self.windows.items() if one is window))
                return None
            # Full again. What is on its way may be counted in the old window or in the new one.
            window.remaining = window.limit
            window.told, window.resets = now, now + window.period
            window.seq = 0
            window.spent = self._spent[place] - sum(one.costs[place] for one in self._flights.values())
        since = self._spent[place] - window.spent
        return window.holds(now) - since - self._overtaken(place, window)

    def _overtaken(self, place: int, window: _Window) -> float:
        """Return the cost of calls that were sent just before the one that was told and may not be counted yet."""
        total = 0.0
        for seq, flight in self._flights.items():
            if seq >= window.seq:
                break
            if flight.sent >= window.sent - OVERTAKING:
                total += flight.costs[place]
        return total

    def shown(self, model: str, now: float) -> Iterator[Shown]:
        for (metric, name), window in [*self.windows.items()]:
            left = self._left(metric, window, now)
            if left is not None:
                yield Shown(metric, name, model, window.limit, max(left, 0.0), window.resets - now)


class Numbers(msgspec.Struct, frozen=True):
    """The places of one call in the orders that its answer may tell of."""

    model: str
    places: tuple[tuple[str, int], ...]
    sent: float


class Limits:
    """The windows of one credential. Times are monotonic."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}

    def room(self, call: Call, now: float) -> Room:
        """Return how soon a call of this size can be sent."""
        costs, worst = call.costs, FREE
        for name in ("", call.model) if call.model else ("",):
            if (lane := self._lanes.get(name)) is not None:
                worst = _worse(worst, lane.room(costs, now))
        return worst

    def take(self, call: Call, now: float) -> Numbers:
        """Count a call as sent."""
        costs = call.costs
        places = tuple(
            (name, self._lanes[name].take(costs, now))
            for name in dict.fromkeys(("", call.model))
            if name in self._lanes
        )
        return Numbers(call.model, places, now)

    def tell(self, seen: Sequence[Seen], numbers: Numbers | None, model: str, now: float) -> None:
        """Take the word of an answer to a call to `model`; `numbers` None: the call was not taken from here."""
        places = dict(numbers.places) if numbers is not None else {}
        for one in seen:
            name = (one.model or model) if one.by_model else ""
            if one.remaining is None or (one.by_model and not name):
                continue
            if name not in self._lanes:
                if len(self._lanes) >= _MODELS:
                    self._lanes.pop(next(iter(self._lanes)))
                self._lanes[name] = _Lane()
            self._lanes[name].tell(one, places.get(name, 0), now)

    def land(self, numbers: Numbers) -> None:
        """Hear that a call was answered or is over: it is not on its way any more."""
        for name, seq in numbers.places:
            if (lane := self._lanes.get(name)) is not None:
                lane.land(seq)

    def shown(self, now: float) -> list[Shown]:
        """Return every window."""
        return [one for name, lane in self._lanes.items() for one in lane.shown(name, now)]


def _worse(one: Room, other: Room) -> Room:
    """Return the later of two, with the smaller share; where both wait, something must be left in both."""
    late = other if other.wait > one.wait else one
    some = all(room.some for room in (one, other) if room.wait > 0)
    return Room(late.wait, late.why, late.wait > 0 and some, min(one.share, other.share))
