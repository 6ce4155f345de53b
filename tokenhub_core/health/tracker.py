"""Which providers can be trusted right now, from what calls to them came to.

*Ejection* is for faults that are the provider's own: after five in a row it is out for 30 seconds times the number
of recent ejections, five minutes at most (the method of Envoy's outlier detection). Then it is half-open: one call at
a time goes through as a probe, and only a probe's verdict ends the ejection.

A provider that is back gets its load back by steps: two calls at once, and whenever as many have been answered as may
be under way, twice as many. A fault halves them. Past `Rules.ramp` the steps are over. Whoever waited for it meanwhile
would otherwise come in one moment, and what has just recovered would break down again.

What callers get wrong moves nothing, and what a credential meets is that credential's affair (`admission.keyring`):
a rate limit, an empty balance or a refusal says nothing about health. Nor do the results of calls that were sent
before an ejection and end during it: a provider that flaps would otherwise talk itself back in. The error rate looks
at the last minute, never at a lifetime, and the number of recent ejections shrinks by one for each five minutes
without a new one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tokenhub_core.errors import Blame, Fault
from tokenhub_core.types import Standing

_SLOT: Final = 10.0
_SLOTS: Final = 6
_KEPT: Final = 0.9
"""How much of the average latency a new sample leaves standing."""
_NEVER: Final = -math.inf
_TRANSITIONS: Final = 256
"""Undrained transitions that are kept, the newest ones."""


class State(StrEnum):
    """How a provider is doing. The value is a metric label."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """Failing, but still used like a healthy one."""
    DOWN = "down"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Rules:
    """When providers are ejected and for how long. Times in seconds."""

    degraded_after: int = 2
    eject_after: int = 5
    """Provider faults in a row."""
    ejection: float = 30.0
    """Times the number of recent ejections."""
    longest_ejection: float = 300.0
    forgiven_after: float = 300.0
    """Without an ejection: one of the earlier ones is forgotten."""
    probe_lease: float = 600.0
    """A probe that was not heard of for so long is taken for lost."""
    forgotten_after: float = 3600.0
    """Without any use."""
    ramp: int = 64
    """Calls at once from which on a provider that came back is used like all others; 0: at once."""
    jitter: float = 0.1
    """Share of an ejection that chance adds, so that several processes do not come back in one moment."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state. `reason` is the label of the fault, `cooled_down`, `probe_succeeded` or `recovered`."""

    provider: str
    before: State
    after: State
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class View:
    """A provider's health for people. Moments are on the tracker's monotonic clock, None where they never were."""

    state: State
    consecutive_errors: int
    error_rate: float
    """Share of the calls of the last minute that failed by the provider's fault."""
    calls: int
    """Calls of the last minute that say something about the provider."""
    latency_ms: float
    ejections: int
    """Recent ones: the next ejection is longer by so many steps."""
    cooldown_until: float | None
    """The end of the ejection."""
    probing: bool
    last_error: str
    last_error_at: float | None
    last_success_at: float | None


class _Window:
    """Calls and errors of the last minute, in six slots of ten seconds."""

    __slots__ = ("calls", "errors", "latest")

    def __init__(self, now: float) -> None:
        self.latest = int(now // _SLOT)
        self.calls = [0] * _SLOTS
        self.errors = [0] * _SLOTS

    def add(self, now: float, *, error: bool) -> None:
        self.turn(now)
        self.calls[self.latest % _SLOTS] += 1
        self.errors[self.latest % _SLOTS] += error

    def turn(self, now: float) -> None:
        """Empty the slots that have passed."""
        slot = int(now // _SLOT)
        for passed in range(max(self.latest + 1, slot - _SLOTS + 1), slot + 1):
            self.calls[passed % _SLOTS] = 0
            self.errors[passed % _SLOTS] = 0
        self.latest = max(self.latest, slot)

    def rate(self, now: float) -> float:
        self.turn(now)
        calls = sum(self.calls)
        return sum(self.errors) / calls if calls else 0.0


class _Health:
    """Everything known of one provider."""

    __slots__ = (
        "consecutive",
        "ejected_until",
        "ejections",
        "last_error",
        "last_error_at",
        "last_success_at",
        "latency_ms",
        "places",
        "probed_at",
        "ramp",
        "state",
        "steps",
        "touched",
        "window",
    )

    def __init__(self, now: float) -> None:
        self.state = State.HEALTHY
        self.consecutive = 0
        self.window = _Window(now)
        self.latency_ms: float | None = None
        self.ejections = 0
        self.ejected_until = _NEVER
        self.probed_at: float | None = None
        """When the probe that is under way was admitted."""
        self.last_error = ""
        self.last_error_at = _NEVER
        self.last_success_at = _NEVER
        self.touched = now
        self.ramp = 0
        """Calls that may be under way while the load comes back; 0: any number."""
        self.steps = 0
        """Answers until there may be twice as many."""
        self.places: dict[float, int] = {}
        """Those under way, by when they were admitted."""

    def back(self, most: int) -> None:
        """Begin the steps: the probe was answered."""
        self.ramp = self.steps = 2 if most > 2 else 0
        self.places.clear()

    def landed(self, started: float | None, *, answered: bool | None, most: int) -> None:
        """Hear that a call admitted during the steps has its verdict, None where there is none."""
        at = started if started is not None else next(iter(self.places), None)
        if at is None or at not in self.places:
            return
        self.places[at] -= 1
        if not self.places[at]:
            del self.places[at]
        if answered:
            self.steps -= 1
            if self.steps <= 0:
                self.ramp = self.steps = 2 * self.ramp if 2 * self.ramp < most else 0
        elif answered is not None:
            self.ramp = self.steps = max(self.ramp // 2, 1)
        if not self.ramp:
            self.places.clear()

    def full(self, now: float, lease: float) -> bool:
        """Tell whether the steps let no other call through now; calls that were not heard of for long do not count."""
        while self.places and now - (oldest := min(self.places)) >= lease:
            del self.places[oldest]
        return bool(self.ramp) and sum(self.places.values()) >= self.ramp

    def probed_by(self, started: float | None) -> bool:
        """Tell whether the call that was admitted at `started` is the probe: none is admitted after it."""
        return self.probed_at is not None and (started is None or started >= self.probed_at)


class HealthTracker:
    """The health of all providers of one process. Times are monotonic; providers are told apart by id.

    Reports may say when their call `started`: the `now` that it was admitted with. Then a half-open provider's
    probe is told from a straggler that was sent before the ejection; without it every report is the probe's.
    """

    def __init__(self, rules: Rules = Rules(), *, random: Callable[[], float] = float) -> None:
        """`random` is uniform in [0, 1); by default there is no chance."""
        self._rules = rules
        self._random = random
        self._all: dict[str, _Health] = {}
        self._transitions: deque[Transition] = deque(maxlen=_TRANSITIONS)

    # --- what calls came to

    def succeeded(
        self, provider: str, now: float, latency_ms: float, *, started: float | None = None
    ) -> None:
        """Count a call that the provider answered. `latency_ms` is what routing compares: time to first byte."""
        health = self._touch(provider, now)
        health.window.add(now, error=False)
        health.last_success_at = now
        if math.isfinite(latency_ms) and latency_ms >= 0:
            old = health.latency_ms
            health.latency_ms = latency_ms if old is None else _KEPT * old + (1 - _KEPT) * latency_ms
        match health.state:
            case State.HEALTHY | State.DEGRADED:
                health.consecutive = 0
                health.landed(started, answered=True, most=self._rules.ramp)
                self._move(provider, health, State.HEALTHY, now, "recovered")
            case State.HALF_OPEN if health.probed_by(started):
                self._back(provider, health, now)

    def began(self, provider: str, now: float, *, started: float | None = None) -> None:
        """Hear that the provider has begun to answer: for a probe that is verdict enough, long streams included."""
        health = self._all.get(provider)
        if health is None:
            return
        if health.state is State.HALF_OPEN and health.probed_by(started):
            self._back(provider, health, now)
        elif health.places:
            health.landed(started, answered=True, most=self._rules.ramp)

    def failed(
        self,
        provider: str,
        fault: Fault,
        now: float,
        *,
        started: float | None = None,
    ) -> None:
        """Count a call that was sent and failed. Only a fault that the provider is to blame for moves its state."""
        if fault.blame is Blame.PROVIDER:
            self._count(provider, fault, now, started)
        else:
            self.released(provider, started=started)

    def admit(self, provider: str, now: float) -> bool:
        """Tell whether a call may be sent now, and take the half-open provider's one probe if it is that.

        Whoever was admitted must report: `succeeded`, `failed`, or `released` where there is no verdict.
        """
        health = self._find(provider, now)
        if health is None:
            return True
        if not self._open(health, now):
            return False
        health.touched = now
        if health.state is State.HALF_OPEN:
            health.probed_at = now
        elif health.ramp:
            health.places[now] = health.places.get(now, 0) + 1
        return True

    def released(self, provider: str, *, started: float | None = None) -> None:
        """Hear that an admitted call ended without a verdict on the provider: the next one may probe."""
        health = self._all.get(provider)
        if health is None:
            return
        if health.probed_by(started):
            health.probed_at = None
        elif health.places:
            health.landed(started, answered=None, most=self._rules.ramp)

    # --- what others may know

    def standing(self, provider: str, now: float) -> Standing:
        """Return what routing sees. Takes no probe; an unknown provider is taken for a healthy one."""
        health = self._find(provider, now)
        if health is None:
            return Standing()
        available = self._open(health, now)
        return Standing(
            available=available,
            probing=available and health.state is State.HALF_OPEN,
            error_rate=health.window.rate(now),
            latency_ms=health.latency_ms or 0.0,
        )

    def snapshot(self, now: float) -> dict[str, View]:
        """Return every known provider's health."""
        return {provider: self._view(self._settle(provider, now), now) for provider in tuple(self._all)}

    def transitions(self) -> list[Transition]:
        """Return the changes of state since the last call, oldest first, and forget them."""
        drained = list(self._transitions)
        self._transitions.clear()
        return drained

    def forget(self, provider: str) -> None:
        """Drop what is known of a provider: it was removed, or its address or credential changed."""
        self._all.pop(provider, None)

    def prune(self, now: float) -> None:
        """Forget the providers that were not used for an hour."""
        rules = self._rules
        for provider, health in tuple(self._all.items()):
            if now - health.touched >= rules.forgotten_after:
                del self._all[provider]

    # --- inside

    def _count(self, provider: str, fault: Fault, now: float, started: float | None) -> None:
        health = self._touch(provider, now)
        rules = self._rules
        health.window.add(now, error=True)
        health.last_error, health.last_error_at = fault.label, now
        match health.state:
            case State.HEALTHY | State.DEGRADED:
                health.consecutive += 1
                health.landed(started, answered=False, most=rules.ramp)
                if health.consecutive >= rules.eject_after:
                    self._eject(provider, health, now, fault.label)
                elif health.consecutive >= rules.degraded_after:
                    self._move(provider, health, State.DEGRADED, now, fault.label)
            case State.HALF_OPEN if health.probed_by(started):
                health.consecutive += 1
                self._eject(provider, health, now, fault.label)

    def _eject(self, provider: str, health: _Health, now: float, reason: str) -> None:
        rules = self._rules
        health.ejections = self._recent(health, now) + 1
        seconds = min(rules.ejection * health.ejections, rules.longest_ejection)
        health.ejected_until = now + seconds * (1 + rules.jitter * self._random())
        health.probed_at, health.ramp = None, 0
        health.places.clear()
        self._move(provider, health, State.DOWN, now, reason)

    def _recent(self, health: _Health, now: float) -> int:
        """Return how many ejections are not forgiven yet. The time spent ejected does not count."""
        calm = now - health.ejected_until
        if not health.ejections or calm < 0:
            return health.ejections
        most = math.ceil(self._rules.longest_ejection / self._rules.ejection)
        return max(min(health.ejections, most) - int(calm // self._rules.forgiven_after), 0)

    def _open(self, health: _Health, now: float) -> bool:
        if health.state is State.DOWN:
            return False
        lease = self._rules.probe_lease
        if health.state is State.HALF_OPEN:
            return health.probed_at is None or now - health.probed_at >= lease
        return not health.ramp or not health.full(now, lease)

    def _back(self, provider: str, health: _Health, now: float) -> None:
        """End an ejection."""
        health.consecutive = 0
        health.probed_at = None
        health.back(self._rules.ramp)
        self._move(provider, health, State.HEALTHY, now, "probe_succeeded")

    def _touch(self, provider: str, now: float) -> _Health:
        if provider not in self._all:
            self._all[provider] = _Health(now)
        health = self._settle(provider, now)
        health.touched = now
        return health

    def _find(self, provider: str, now: float) -> _Health | None:
        return self._settle(provider, now) if provider in self._all else None

    def _settle(self, provider: str, now: float) -> _Health:
        """Return a known provider's health, its ejection ended if its time has come."""
        health = self._all[provider]
        if health.state is State.DOWN and now >= health.ejected_until:
            self._move(provider, health, State.HALF_OPEN, now, "cooled_down")
        return health

    def _move(self, provider: str, health: _Health, state: State, now: float, reason: str) -> None:
        if health.state is not state:
            self._transitions.append(Transition(provider, health.state, state, now, reason))
            health.state = state

    def _view(self, health: _Health, now: float) -> View:
        rate = health.window.rate(now)
        return View(
            state=health.state,
            consecutive_errors=health.consecutive,
            error_rate=rate,
            calls=sum(health.window.calls),
            latency_ms=health.latency_ms or 0.0,
            ejections=self._recent(health, now),
            cooldown_until=health.ejected_until if health.state is State.DOWN else None,
            probing=health.probed_at is not None,
            last_error=health.last_error,
            last_error_at=None if health.last_error_at == _NEVER else health.last_error_at,
            last_success_at=None if health.last_success_at == _NEVER else health.last_success_at,
        )
