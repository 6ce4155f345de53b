"""How long a model's streams may take to begin, and to go on: as learned, and as the operator says. Pure.

What is learned of a model at a provider is the time within which 99 of 100 of its streams begin (`spread`), and four
times that is waited for. A stream that has not begun by then is given up, if another provider is left to be asked:

    min(setting, max(floor, 4·q99, 2·missed) + input/1000)

in seconds. `input` are the call's input tokens: who reads a thousand of them a second is not late because a prompt is
long. `missed` is the limit that the model's streams ran into since the last one that began. A time that was cut off is
none that was seen, so the quantile alone would never hear of a model that has become slow. Therefore a limit that was
too short is doubled until a stream begins, as a retransmission timeout is backed off (RFC 6298, rule 5.5).

Whole answers have no such limit: how long one takes is mostly how long it is.

A stream that has begun may be silent for

    min(setting, max(floor, 4·longest))

where `longest` is the silence that only one in a thousand of the model's latest streams exceeds, which is the longest
of the last three hundred: a model may think there, and whoever is cut off then has lost an answer. A stream that was
given up counts as one that was silent for longer than that (it is censored, see `spread`), so that the next ones have
all of the setting. Silences are learned by each process anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from tokenhub_core.errors import ConfigError
from tokenhub_core.routing.spread import KEEP, Spreads
from tokenhub_core.types import Record

LATE: Final = "ttft_timeout"
"""The cause of an attempt whose stream had not begun in time."""
STALLED: Final = "stall_timeout"
"""The cause of an attempt whose stream fell silent."""
_SHARE: Final = 0.99
_LONGEST: Final = 0.999
_TIMES: Final = 4.0
_TOKENS: Final = 1000.0
"""Input tokens that a second is allowed for."""
_AFRESH: Final = 32
"""Records after which limits are read off anew: a quantile costs more than a call should pay for it each time."""


def limit(learned: float, tokens: int, *, floor: float, most: float) -> float:
    """Return the seconds for a first content: at least the smaller of `floor` and `most`, at most `most`."""
    return min(most, max(floor, learned) + tokens / _TOKENS)


class Deadlines:
    """The learned part of the limits, by model and provider. `after` reads off beginnings, see `Spreads.after`."""

    def __init__(self, after: Callable[[str, str, float], float | None]) -> None:
        self._silent = Spreads()
        self._beginnings = _Limits(after, _SHARE)
        self._silences = _Limits(self._silent.after, _LONGEST)
        self._records = 0

    def learned(self, model: str, provider: str) -> float:
        """Return the seconds within which a stream begins unless something is wrong; infinite where nobody knows."""
        return self._beginnings.seconds((model, provider))

    def silence(self, model: str, provider: str) -> float:
        """Return the same for the longest silence of a stream that has begun."""
        return self._silences.seconds((model, provider))

    def learn(self, record: Record) -> None:
        """Learn from one finished exchange, after the spreads have."""
        if not record.stream:
            return
        self._records += 1
        if self._records % _AFRESH == 0:
            self._beginnings.read_anew()
            self._silences.read_anew()
        for attempt in record.attempts:
            key = (attempt.model, attempt.provider)
            if attempt.first_byte_ms is not None:
                self._beginnings.kept(key)
            elif attempt.cause == LATE:
                self._beginnings.missed(key, attempt.ttft_limit_ms)
            if attempt.cause == STALLED and attempt.stall_limit_ms is not None:
                self._silent.count([(*key, attempt.stall_limit_ms, True)])
                self._silences.read_anew()
            elif attempt.silence_ms is not None and not attempt.cause:
                self._silent.count([(*key, attempt.silence_ms, False)])
        self._silent.seen()  # nobody else counts them


class _Limits:
    """Four times what a share of streams keeps to, or twice the last limit that was too short."""

    def __init__(self, after: Callable[[str, str, float], float | None], share: float) -> None:
        self._after = after
        self._share = share
        self._known: dict[tuple[str, str], float] = {}
        self._missed: dict[tuple[str, str], float] = {}
        """Twice the last limit that was too short, in seconds."""

    def seconds(self, key: tuple[str, str]) -> float:
        found = self._known.get(key)
        if found is None:
            after = self._after(*key, self._share)
            usual = math.inf if after is None else _TIMES * after / 1000
            found = max(usual, self._missed.get(key, 0.0))
            _put(self._known, key, found)
        return found

    def read_anew(self) -> None:
        """Read quantiles off again when they are asked for."""
        self._known.clear()

    def kept(self, key: tuple[str, str]) -> None:
        """Hear of a stream that kept to its limit."""
        if self._missed.pop(key, None) is not None:
            self._known.pop(key, None)

    def missed(self, key: tuple[str, str], limit_ms: float | None) -> None:
        """Hear of one that did not; None: the limit was the setting, and says nothing."""
        if limit_ms is None:
            return
        # Calls that were late together had one limit, and it is doubled once.
        _put(self._missed, key, max(2 * limit_ms / 1000, self._missed.get(key, 0.0)))
        self._known.pop(key, None)


def _put(kept: dict[tuple[str, str], float], key: tuple[str, str], value: float) -> None:
    kept[key] = value
    if len(kept) > KEEP:
        del kept[next(iter(kept))]


class Own(msgspec.Struct, frozen=True):
    """What the operator says of some models' streams, in seconds. None: as of all others."""

    pattern: str
    """Of ids of models, or of provider/model."""
    ttft: float | None = None
    stall: float | None = None


def own(rules: Iterable[Own], model: str, provider: str) -> Own | None:
    """Return the first rule for this model, None where there is none."""
    for rule in rules:
        if fnmatchcase(model, rule.pattern) or fnmatchcase(f"{provider}/{model}", rule.pattern):
            return rule
    return None


def parsed(items: Iterable[str]) -> tuple[Own, ...]:
    """Return the rules of `model=ttft:SECONDS+stall:SECONDS` items; raises `ConfigError` that names the item."""
    return tuple(_own(item) for item in items)


def _own(item: str) -> Own:
    pattern, _, words = item.rpartition("=")
    found: dict[str, float] = {}
    for word in words.split("+"):
        name, _, raw = word.strip().partition(":")
        seconds = _seconds(raw)
        if name not in {"ttft", "stall"} or name in found or seconds is None or not pattern.strip():
            raise ConfigError(
                f"model timeout {item!r}: must be model=ttft:SECONDS+stall:SECONDS, or one of the two,"
                " with 0.05 to 3600 seconds"
            )
        found[name] = seconds
    return Own(pattern.strip(), found.get("ttft"), found.get("stall"))


def _seconds(raw: str) -> float | None:
    try:
        seconds = float(raw)
    except ValueError:
        return None
    return seconds if 0.05 <= seconds <= 3600 else None
