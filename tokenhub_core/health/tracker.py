"""Which providers can be trusted right now, from what calls to them came to.

*Ejection* is for faults that are the provider's own: after five in a row it is out for 30 seconds times the number
of recent ejections, five minutes at most (the method of Envoy's outlier detection). Then it is half-open: one call at
a time goes through as a probe, and only a probe's verdict ends the ejection.

Who fails half of the calls may never fail five in a row, so a share of the last minute's (`Rules.eject_rate`) ejects
too, but only where another provider that is up fails at most half as often: by (errors + 1) / (calls + 2), Laplace's
rule of succession, which believes little of few calls. Where all are as bad as each other an attempt at any of them is
one more chance. Calls from before a return are not held against anybody.

A provider that is back gets its load back by steps: two calls at once, and whenever as many have been answered as may
be under way, twice as many. A fault halves them. Past `Rules.ramp` the steps are over. Whoever waited for it meanwhile
would otherwise come in one moment, and what has just recovered would break down again.

What callers get wrong moves nothing, and what a credential meets is that credential's affair (`admission.keyring`):
a rate limit, an empty balance or a refusal says nothing about health. Nor do the results of calls that were sent
before an ejection and end during it: a provider that flaps would otherwise talk itself back in. The error rate looks
at the last minute, never at a lifetime, and the number of recent ejections shrinks by one for each five minutes
without a new one.

What other processes tell (`News`) is a hint with an age. Where this one has had no answer of its own for a while it
takes an ejection over, for `Rules.hearsay` seconds at most; where it has, one fault of its own is enough. An answer
that comes meanwhile ends an ejection that was only heard of. That a provider is back lets it back in where its ejection
was only heard of; an ejection of this process's own becomes half-open, so that a probe of its own decides.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from tokenhub_core.errors import Blame, Fault
from tokenhub_core.health.window import Window
from tokenhub_core.types import Standing

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
    eject_rate: float | None = 0.5
    """Share of the last minute's calls; None: no share of them ejects."""
    eject_calls: int = 20
    """The least of them that a share is taken of."""
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
    hearsay: float = 30.0
    """The longest ejection that was only heard of."""
    own_word: float = 5.0
    """For so long after an answer of its own a process is not moved by what others tell, but warned."""


class Told(StrEnum):
    """What one process tells the others of a provider."""

    DOWN = "down"
    UP = "up"
    """A probe was answered."""
    FORGOTTEN = "forgotten"
    """It was removed or changed: what was known of it holds no more."""


class News(msgspec.Struct, frozen=True, array_like=True):
    """What a process has seen of a provider itself. Its times are as of when it is sent: clocks are not compared."""

    provider: str
    told: Told
    age: float = 0.0
    """Seconds since it happened."""
    seconds: float = 0.0
    """What is left of the ejection."""
    reason: str = ""
    episode: int = 0
    """Counts up in each process: what is told again is known by it."""


def _untold(news: News) -> None:
    del news


def _permitted(provider: str) -> bool:
    del provider
    return True


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state.

    `reason` is the label of the fault, `failure_rate`, `cooled_down`, `probe_succeeded` or `recovered`; of what others
    told it is `told`, a space, and theirs.
    """

    provider: str
    before: State
    after: State
    at: float
    reason: str

    @property
    def told(self) -> bool:
        """Tell whether it was only heard of: whoever has seen it says so."""
        return self.reason.startswith("told ")


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


class _Health:
    """Everything known of one provider."""

    __slots__ = (
        "consecutive",
        "ejected_at",
        "ejected_until",
        "ejections",
        "episode",
        "hearsay",
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
        self.window = Window(now)
        self.latency_ms: float | None = None
        self.ejections = 0
        self.ejected_at = _NEVER
        self.ejected_until = _NEVER
        self.episode = 0
        self.hearsay = False
        """The ejection was only heard of."""
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
        self._tell: Callable[[News], None] = _untold
        self._permits: Callable[[str], bool] = _permitted
        self._episodes = 0

    def renew(self, rules: Rules) -> None:
        """Go by other rules from now on."""
        self._rules = rules

    def share(self, tell: Callable[[News], None], permits: Callable[[str], bool]) -> None:
        """Let `tell` hear what this process sees itself; a half-open provider is probed where `permits` says so."""
        self._tell, self._permits = tell, permits

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
            case State.DOWN if health.hearsay:
                self._again(provider, health, now, "recovered")

    def began(self, provider: str, now: float, *, started: float | None = None) -> None:
        """Hear that the provider has begun to answer: for a probe that is verdict enough, long streams included."""
        health = self._all.get(provider)
        if health is None:
            return
        if health.state is State.HALF_OPEN and health.probed_by(started):
            self._back(provider, health, now)
        elif health.hearsay and health.state is State.DOWN:
            self._again(provider, health, now, "recovered")
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
        if health.state is State.HALF_OPEN and not self._permits(provider):
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
        if self._all.pop(provider, None) is not None:
            self._tell(News(provider, Told.FORGOTTEN, episode=self._next()))

    def prune(self, now: float) -> None:
        """Forget the providers that were not used for an hour."""
        rules = self._rules
        for provider, health in tuple(self._all.items()):
            if now - health.touched >= rules.forgotten_after:
                del self._all[provider]

    # --- what others tell

    def heard(self, news: News, now: float) -> None:
        """Take what another process has seen for what it is worth here."""
        match news.told:
            case Told.DOWN:
                self._known(news.provider, now)
                self._heard_down(news, self._settle(news.provider, now), now)
            case Told.UP if (health := self._find(news.provider, now)) is not None:
                self._heard_up(news, health, now)
            case Told.FORGOTTEN:
                self._all.pop(news.provider, None)

    def seen(self, now: float) -> list[News]:
        """Return the ejections of this process's own that last: for those who were not there, or heard nothing."""
        return [
            self._news(provider, health, now)
            for provider, health in self._all.items()
            if health.state is State.DOWN and not health.hearsay and health.ejected_until > now
        ]

    def half_open(self, now: float) -> dict[str, bool]:
        """Return the providers that wait for a probe, or whose probe is under way (True)."""
        return {
            provider: health.probed_at is not None
            for provider in tuple(self._all)
            if (health := self._settle(provider, now)).state is State.HALF_OPEN
        }

    def _heard_down(self, news: News, health: _Health, now: float) -> None:
        rules = self._rules
        if health.last_success_at > now - news.age:
            return  # it was answered here since
        if health.state is State.DOWN:
            if health.hearsay:
                until = now + min(news.seconds, rules.hearsay)
                health.ejected_until = max(health.ejected_until, until)
            return
        if health.probed_at is not None:
            return  # a probe of our own will tell
        health.consecutive = max(health.consecutive, rules.eject_after - 1)
        reason = f"told {news.reason}"
        if now - health.last_success_at < rules.own_word:
            self._move(news.provider, health, State.DEGRADED, now, reason)
            return
        seconds = min(news.seconds, rules.hearsay) * (1 + rules.jitter * self._random())
        self._out(news.provider, health, now, seconds, reason=reason, hearsay=True)

    def _heard_up(self, news: News, health: _Health, now: float) -> None:
        if health.state not in {State.DOWN, State.HALF_OPEN} or health.probed_at is not None:
            return
        if health.hearsay:
            self._again(news.provider, health, now, "told probe_succeeded")
        elif health.state is State.DOWN and health.ejected_at < now - news.age:
            health.ejected_until = now
            self._move(news.provider, health, State.HALF_OPEN, now, "told probe_succeeded")

    def _news(self, provider: str, health: _Health, now: float) -> News:
        left = health.ejected_until - now
        return News(
            provider, Told.DOWN, now - health.ejected_at, left, health.last_error, episode=health.episode
        )

    def _next(self) -> int:
        self._episodes += 1
        return self._episodes

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
                elif self._fails_often(health, now):
                    self._eject(provider, health, now, "failure_rate")
                elif health.consecutive >= rules.degraded_after:
                    self._move(provider, health, State.DEGRADED, now, fault.label)
            case State.HALF_OPEN if health.probed_by(started):
                health.consecutive += 1
                self._eject(provider, health, now, fault.label)

    def _fails_often(self, health: _Health, now: float) -> bool:
        """Tell whether too many calls have failed, and another provider does at least twice as well."""
        rules = self._rules
        calls, errors = health.window.held(now)
        if rules.eject_rate is None or calls < rules.eject_calls or errors < rules.eject_rate * calls:
            return False
        most = errors / calls / 2
        return any(
            other.state in {State.HEALTHY, State.DEGRADED} and other.window.odds(now) <= most
            for other in self._all.values()
        )

    def _eject(self, provider: str, health: _Health, now: float, reason: str) -> None:
        rules = self._rules
        health.ejections = self._recent(health, now) + 1
        seconds = min(rules.ejection * health.ejections, rules.longest_ejection)
        seconds *= 1 + rules.jitter * self._random()
        self._out(provider, health, now, seconds, reason=reason, hearsay=False)
        health.episode = self._next()
        self._tell(self._news(provider, health, now))

    def _out(
        self, provider: str, health: _Health, now: float, seconds: float, *, reason: str, hearsay: bool
    ) -> None:
        health.ejected_at, health.ejected_until, health.hearsay = now, now + seconds, hearsay
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
        """End an ejection: the probe was answered."""
        self._again(provider, health, now, "probe_succeeded")
        self._tell(News(provider, Told.UP, reason="probe_succeeded", episode=self._next()))

    def _again(self, provider: str, health: _Health, now: float, reason: str) -> None:
        health.consecutive = 0
        health.probed_at, health.hearsay = None, False
        health.window.forgive(now)
        health.back(self._rules.ramp)
        self._move(provider, health, State.HEALTHY, now, reason)

    def _known(self, provider: str, now: float) -> _Health:
        if provider not in self._all:
            self._all[provider] = _Health(now)
        return self._all[provider]

    def _touch(self, provider: str, now: float) -> _Health:
        self._known(provider, now)
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
