"""What finished calls teach about models: tokens per byte, lengths of answers, times. Pure.

Every lesson is an exponentially weighted moving average: new = old + w·(seen - old), with w = max(1/n, 0.1) for the
n-th observation, so that the first ones count alike and later the last twenty or so decide. Beside each stands the
same average of |seen - old| / seen, the relative error that the estimate would have had.

    tokens    per (model, kind of content): (input tokens - 4·turns) / bytes of text, of calls without media
    media     per model: what calls with media have above their text, per medium
    output    per (model, program) and per model: tokens of an answer that was not cut short
    ttft      per (model, provider) and per provider: milliseconds to a stream's first content
    pace      per (model, provider) and per provider: milliseconds per output token after that
    warmth    per (model, provider, time since): the share of a call's input that the conversation's next call there
              reads from a cache; the times are up to 1, 5, 15 and 60 minutes

An attempt that lost a race only tells that its first content would have come no sooner: it counts where that is later
than the average, and says nothing else. The spread of these times, which hedging waits for, is learned in `spread`.

A time is expected as ttft + output·pace. Milliseconds per token are averaged and not tokens per second, because it is
times that add up: the pace's inverse is the harmonic mean of the rates.

Only counts that a provider told are learned from, never our own estimates. What it told is held within what can be
true (`_BOUNDS`): a provider that miscounts must not make a model look as if nothing, or everything, fitted into it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from tokenhub_core.routing import estimate
from tokenhub_core.routing.estimate import Writing
from tokenhub_core.routing.spread import LOST
from tokenhub_core.types import Attempt, Bond, Features, Outcome, Record, StopReason

KEEP: Final = 10_000
"""Averages that are kept; programs and models are named by strangers. The one longest unchanged goes first."""
SEEN: Final = 20_000
"""Observations that are remembered until they are saved."""
_SLOWEST: Final = 0.1
_FEW_TOKENS: Final = 8
"""Shorter answers say nothing of pace."""
_FEW_BYTES: Final = 64
"""Shorter texts say nothing of bytes per token: what the provider adds to a prompt weighs more."""
_WORST: Final = 10.0


class Measure(StrEnum):
    """What is averaged."""

    TOKENS = "tokens"
    MEDIA = "media"
    OUTPUT = "output"
    TTFT = "ttft"
    PACE = "pace"
    WARMTH = "warmth"


_BOUNDS: Final = {
    Measure.TOKENS: (0.05, 1.5),
    Measure.MEDIA: (0.0, 1e6),
    Measure.OUTPUT: (0.0, 1e6),
    Measure.TTFT: (0.0, 3.6e6),
    Measure.PACE: (0.0, 6e4),
    Measure.WARMTH: (0.0, 1.0),
}

_AGES: Final = (60, 300, 900, 3600)
"""Seconds: vendors keep a cache for five minutes and more, a busy one for less, and a paid one for an hour."""


class Key(msgspec.Struct, frozen=True):
    """Of what an average is. `model` is empty for a whole provider, `subject` a kind, program or provider."""

    measure: Measure
    model: str
    subject: str = ""


class Average(msgspec.Struct, frozen=True):
    """A moving average of `count` observations and that of its relative error."""

    mean: float
    error: float = 0.0
    count: int = 1

    def after(self, seen: float) -> Average:
        """Return the average with one more observation."""
        count = self.count + 1
        weight = max(1 / count, _SLOWEST)
        off = min(abs(seen - self.mean) / max(abs(seen), 1e-9), _WORST)
        # The first observation had no estimate, so it has no error either.
        error = off if self.count == 1 else self.error + max(1 / self.count, _SLOWEST) * (off - self.error)
        return Average(self.mean + weight * (seen - self.mean), error, count)


class Learner:
    """All averages, and the estimates made of them. Implements `routing.estimate.Estimates`."""

    def __init__(self, known: Iterable[tuple[Key, Average]] = ()) -> None:
        self._averages = {key: average for key, average in known if _sound(key, average)}
        self._changed: set[Key] = set()
        self._seen: deque[tuple[Key, float]] = deque(maxlen=SEEN)

    def become(self, other: Learner) -> None:
        """Know from now on what another one knows, which nobody else uses any more."""
        self._averages, self._changed = other._averages, set()

    # --- what routing reads

    def tokens_per_byte(self, model: str, writing: Writing) -> float | None:
        """Return the input tokens of one byte of text, None where nothing was learned."""
        found = self._averages.get(Key(Measure.TOKENS, model, writing))
        return None if found is None else found.mean

    def tokens_per_medium(self, model: str) -> float | None:
        """Return the input tokens of one medium, None where nothing was learned."""
        found = self._averages.get(Key(Measure.MEDIA, model))
        return None if found is None else found.mean

    def input_error(self, model: str, writing: Writing) -> float:
        """Return the average relative error of the input estimate, 0 where nothing was learned."""
        found = self._averages.get(Key(Measure.TOKENS, model, writing))
        return 0.0 if found is None else found.error

    def answer(self, program: str, model: str) -> tuple[float, float] | None:
        """Return mean and relative error of answers' lengths: this program's, else everybody's, else None."""
        found = self._averages.get(Key(Measure.OUTPUT, model, program))
        if found is None and program:
            found = self._averages.get(Key(Measure.OUTPUT, model))
        return None if found is None else (found.mean, found.error)

    def latency_ms(self, model: str, provider: str, tokens: float) -> float | None:
        """Return the expected time of an answer: this model's, else its provider's, else None."""
        for name in (model, ""):
            first = self._averages.get(Key(Measure.TTFT, name, provider))
            pace = self._averages.get(Key(Measure.PACE, name, provider))
            if first is not None or pace is not None:
                return (first.mean if first else 0.0) + tokens * (pace.mean if pace else 0.0)
        return None

    def warmth(self, model: str, provider: str, age: float) -> float | None:
        """Return the share of the former call's input that is read from a cache, None where nothing was learned."""
        found = self._averages.get(_warmth(model, provider, age))
        return None if found is None else found.mean

    # --- what it learns from

    def learn(self, record: Record) -> None:
        """Learn from one finished exchange; from those that were not answered there is nothing to learn here."""
        plan, ended = record.plan, Outcome.PASSED if record.shadow else Outcome.OK
        if (
            record.outcome is not ended
            or plan is None
            or not record.attempts
            or record.composition is not None
        ):
            return  # of several calls none is the one that the plan tells of
        last = record.attempts[-1]
        if last.cause:
            return
        for attempt in record.attempts[:-1]:
            if attempt.cause == LOST:
                self._learn_late(attempt)
        counted = bool(last.usage) and not record.usage_estimated
        if counted and plan.features is not None:
            self._learn_input(last, plan.features)
        bond = plan.bond
        if counted and bond is not None and (bond.model, bond.provider) == (last.model, last.provider):
            self._learn_warmth(bond, last.usage.cache_read_tokens)
        # Of what passed it may be unknown why it stopped.
        cut = record.stop == StopReason.LENGTH.value or (record.shadow is not None and not record.stop)
        if counted and not last.change and not cut:
            for program in {record.caller.program, ""}:
                self._see(Key(Measure.OUTPUT, last.model, program), last.usage.output_tokens)
        tokens = last.usage.output_tokens if counted else 0
        self._learn_times(last, tokens, streamed=record.stream)

    def _learn_input(self, last: Attempt, features: Features) -> None:
        model = last.model
        tokens = last.usage.input_tokens - estimate.TURN_TOKENS * features.turns
        if tokens <= 0:
            return
        if not features.media:
            if features.text_bytes >= _FEW_BYTES:
                key = Key(Measure.TOKENS, model, estimate.writing(features))
                self._see(key, tokens / features.text_bytes)
            return
        rate = self.tokens_per_byte(model, estimate.writing(features)) or 1 / estimate.BYTES_PER_TOKEN
        self._see(Key(Measure.MEDIA, model), (tokens - rate * features.text_bytes) / features.media)

    def _learn_warmth(self, bond: Bond, cached: int) -> None:
        if bond.tokens >= estimate.LEAST_CACHED:
            self._see(_warmth(bond.model, bond.provider, bond.age), cached / bond.tokens)

    def _learn_times(self, last: Attempt, tokens: int, *, streamed: bool) -> None:
        whole = last.ended_ms - last.started_ms
        for name in (last.model, ""):
            key = Key(Measure.TTFT, name, last.provider)
            if streamed and last.first_byte_ms is not None:
                first = last.first_byte_ms - last.started_ms
                self._see(key, first)
            else:
                known = self._averages.get(key)
                # An answer in one piece does not say when it began: as streams have taught, if they have.
                first = min(known.mean, whole) if known else 0.0
            if tokens >= _FEW_TOKENS:
                self._see(Key(Measure.PACE, name, last.provider), (whole - first) / tokens)

    def _learn_late(self, lost: Attempt) -> None:
        for name in (lost.model, ""):
            key, least = Key(Measure.TTFT, name, lost.provider), lost.ended_ms - lost.started_ms
            if (known := self._averages.get(key)) is not None and least > known.mean:
                self._see(key, least)

    def _see(self, key: Key, seen: float) -> None:
        if not math.isfinite(seen):
            return
        low, high = _BOUNDS[key.measure]
        seen = max(low, min(high, seen))
        self._count(key, seen)

    def _count(self, key: Key, seen: float) -> None:
        self._seen.append((key, seen))
        # Taken out and put back, so that the order is that of the last change.
        old = self._averages.pop(key, None)
        self._averages[key] = Average(seen) if old is None else old.after(seen)
        self._changed.add(key)
        if len(self._averages) > KEEP:
            eldest = next(iter(self._averages))
            del self._averages[eldest]

    # --- what is kept

    def averages(self) -> dict[Key, Average]:
        """Return every average, the one longest unchanged first."""
        return dict(self._averages)

    def seen(self) -> list[tuple[Key, float]]:
        """Return what was seen since this was last asked, so that it can be counted elsewhere: the last `SEEN`."""
        seen = list(self._seen)
        self._seen.clear()
        return seen

    def count(self, seen: Iterable[tuple[Key, float]]) -> None:
        """Count what was seen before, on top of what is known."""
        for key, value in seen:
            self._count(key, value)

    def unsaved(self, seen: Iterable[tuple[Key, float]]) -> None:
        """Remember again what was counted and could not be saved."""
        self._seen = deque([*seen, *self._seen], maxlen=SEEN)

    def changes(self) -> list[tuple[Key, Average]]:
        """Return what has changed since this was last asked."""
        changed, self._changed = self._changed, set()
        return [(key, self._averages[key]) for key in changed if key in self._averages]


def _warmth(model: str, provider: str, age: float) -> Key:
    limit = next((limit for limit in _AGES if age <= limit), _AGES[-1])
    return Key(Measure.WARMTH, model, f"{provider} {limit}")


def _sound(key: Key, average: Average) -> bool:
    """Tell whether a stored average can be true; one that cannot is forgotten."""
    low, high = _BOUNDS[key.measure]
    return low <= average.mean <= high and 0 <= average.error <= _WORST and average.count >= 1
