"""How long a model's streams take to begin, as quantiles and not only on average. Pure.

Hedges wait for them, and so do the limits of `deadlines`.

Times are counted in buckets whose edges grow by a tenth, (1.1^(i-1), 1.1^i] milliseconds, so a quantile that is read
off at an upper edge is at most a tenth too large and never too small, whatever the shape (the logarithmic buckets of
DDSketch: Masson, Rim, Lee, PVLDB 12(12), 2019). Each new time weighs 1/0.995 of the one before it, so that the last
two hundred or so decide. What is kept of a model is a few dozen numbers, and the same times in the same order give
the same numbers.

An attempt that lost a race shows only that its time was longer than so much: it is censored. What it counts goes to
the buckets at or above that time, in proportion to what they hold, and to the bucket of that very time where they hold
nothing (redistribution to the right: Efron, "The two sample problem with censored data", 1967; it gives what Kaplan
and Meier's estimator gives). Left out, the slow ones would be missing, the quantile would shrink with each race that
is won, and more and more calls would be hedged. Failures, timeouts among them, are no times.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from tokenhub_core.types import Attempt, Record

LOST: Final = "hedge_lost"
"""The cause of an attempt that another one came before."""
ENOUGH: Final = 20
"""Times that must have been seen before a quantile is told."""
KEEP: Final = 2_000
"""Models at providers that are remembered. The one longest without a new time goes first."""

SEEN: Final = 10_000
"""Times that are remembered until they are saved."""
type Seen = tuple[str, str, float, bool]
"""A model, its provider, milliseconds, and whether it took longer than that."""
_GROWTH: Final = math.log(1.1)
_LAST: Final = 159
"""The bucket of an hour; nothing is longer."""
_FASTER: Final = 1 / 0.995
_HEAVY: Final = 2.0**20
"""When new times weigh so much all weights are made smaller; a power of two, so that nothing is rounded."""


class Kept(msgspec.Struct, frozen=True):
    """A spread as it is stored."""

    model: str
    provider: str
    weights: tuple[tuple[int, float], ...]
    """By bucket."""
    next: float
    """What the next time will weigh."""
    seen: int
    """Times that were seen, censored ones apart."""


class _Spread:
    """What was counted of one model at one provider."""

    __slots__ = ("next", "seen", "weights")

    def __init__(
        self, weights: Iterable[tuple[int, float]] = (), following: float = 1.0, seen: int = 0
    ) -> None:
        self.weights = dict(weights)
        self.next = following
        self.seen = seen

    def add(self, milliseconds: float, *, censored: bool) -> None:
        place, weights = _bucket(milliseconds), self.weights
        at_least = [at for at in weights if at >= place] if censored else []
        if at_least:
            more = 1 + self.next / math.fsum(weights[at] for at in at_least)
            for at in at_least:
                weights[at] *= more
        else:
            weights[place] = weights.get(place, 0.0) + self.next
        self.seen += not censored
        self.next *= _FASTER
        if self.next > _HEAVY:
            self.next /= _HEAVY
            # What has faded to nothing goes.
            self.weights = {at: less for at, one in weights.items() if (less := one / _HEAVY) > 1e-6}

    def quantile(self, share: float) -> float | None:
        if self.seen < ENOUGH:
            return None
        slower = (1 - share) * sum(self.weights.values())
        for place in sorted(self.weights, reverse=True):
            slower -= self.weights[place]
            if slower < 0:
                return math.exp(place * _GROWTH)
        return None


class Spreads:
    """The spreads of all models at their providers."""

    def __init__(self, known: Iterable[Kept] = ()) -> None:
        self._seen: deque[Seen] = deque(maxlen=SEEN)
        self._spreads = {
            (one.model, one.provider): _Spread(one.weights, one.next, one.seen)
            for one in known
            if _sound(one)
        }
        self._changed: set[tuple[str, str]] = set()

    def become(self, other: Spreads) -> None:
        """Know from now on what another one knows, which nobody else uses any more."""
        self._spreads, self._changed = other._spreads, set()

    def after(self, model: str, provider: str, share: float) -> float | None:
        """Return the milliseconds within which `share` of this model's streams begin; None where too few were seen."""
        found = self._spreads.get((model, provider))
        return None if found is None else found.quantile(share)

    def learn(self, record: Record) -> None:
        """Learn from one exchange, however it ended. Only streams show when an answer begins."""
        if not record.stream or record.plan is None:
            return
        if record.composition is not None:
            return  # its steps are whole answers
        for attempt, milliseconds, censored in _times(record.attempts):
            self.count([(attempt.model, attempt.provider, milliseconds, censored)])

    def seen(self) -> list[Seen]:
        """Return what was seen since this was last asked, so that it can be counted elsewhere: the last `SEEN`."""
        seen = list(self._seen)
        self._seen.clear()
        return seen

    def count(self, seen: Iterable[Seen]) -> None:
        """Count what was seen, on top of what is known."""
        for one in seen:
            self._seen.append(one)
            model, provider, milliseconds, censored = one
            key = (model, provider)
            # Taken out and put back, so that the order is that of the last change.
            spread = self._spreads.pop(key, None) or _Spread()
            spread.add(milliseconds, censored=censored)
            self._spreads[key] = spread
            self._changed.add(key)
            if len(self._spreads) > KEEP:
                del self._spreads[next(iter(self._spreads))]

    def unsaved(self, seen: Iterable[Seen]) -> None:
        """Remember again what was counted and could not be saved."""
        self._seen = deque([*seen, *self._seen], maxlen=SEEN)

    def kept(self) -> list[Kept]:
        """Return everything, the one longest unchanged first."""
        return [self._kept(key) for key in self._spreads]

    def changes(self) -> list[Kept]:
        """Return what has changed since this was last asked."""
        changed, self._changed = self._changed, set()
        return [self._kept(key) for key in self._spreads if key in changed]

    def _kept(self, key: tuple[str, str]) -> Kept:
        one = self._spreads[key]
        return Kept(*key, tuple(sorted(one.weights.items())), one.next, one.seen)


def _times(attempts: Iterable[Attempt]) -> Iterator[tuple[Attempt, float, bool]]:
    """Yield what attempts tell: the milliseconds to the first content, or how long there was none, and which it is."""
    for attempt in attempts:
        lost = attempt.first_byte_ms is None
        if lost and attempt.cause != LOST:
            continue
        end = attempt.ended_ms if attempt.first_byte_ms is None else attempt.first_byte_ms
        if math.isfinite(end - attempt.started_ms):
            yield attempt, end - attempt.started_ms, lost


def _bucket(milliseconds: float) -> int:
    if milliseconds <= 1:
        return 0
    return min(math.ceil(math.log(milliseconds) / _GROWTH), _LAST)


def _sound(kept: Kept) -> bool:
    """Tell whether a stored spread can be true; one that cannot is forgotten."""
    return (
        bool(kept.weights)
        and kept.seen >= 0
        and 0 < kept.next <= _HEAVY
        and all(0 <= place <= _LAST and 0 < weight < math.inf for place, weight in kept.weights)
    )
