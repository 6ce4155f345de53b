"""One limit for callers of many processes: a common pool that each process draws from before a call.

A pool keeps for every subject what `quotas` keeps for one process: a leaky bucket of requests and one of tokens. It is
asked once for each call of somebody who is limited, and answers in one atomic step. What is drawn is used within `GOOD`
seconds or is lost, so at most `rate + rate * (t + GOOD / 60)` units are used in any `t` minutes.

`Reservoir` is the pool of the processes of one server, kept by their supervisor; Redis does the same in Lua, with the
same whole numbers. Levels are in milliseconds of a minute for each unit: a rate of `rate` units drains `rate` of them
every millisecond. Pure; times are milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

import msgspec

from tokenhub_core.types import KeyLimits

MINUTE: Final = 60_000
"""Milliseconds; also the parts of one unit."""
GOOD: Final = 2.0
"""Seconds for which what was drawn may be used."""
RENEW: Final = 2.5
"""Seconds between two words of a process that it is there."""
PRESENT: Final = 10_000
"""Milliseconds after its last word for which a process counts as there."""
_ROOM: Final = 1.25
_REMEMBERED: Final = 60.0
"""Seconds for which it is remembered how many tokens a subject's calls set aside."""
_IDLE: Final = 2 * MINUTE
_LOOKS: Final = 4


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """What a process asks of one subject. Rates are units a minute, -1 where there is none."""

    subject: str
    requests: int = -1
    tokens: int = -1
    want_requests: int = 0
    want_tokens: int = 0
    more_tokens: int = 0
    """Used and never drawn, or drawn and not used where below 0."""


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """What there was. Waits are milliseconds until what was wanted and not there is there, 0 where it was."""

    requests: int = 0
    tokens: int = 0
    wait_requests: int = 0
    wait_tokens: int = 0
    left_requests: int = 0
    left_tokens: int = 0
    processes: int = 1


class _Level:
    __slots__ = ("at", "level")

    def __init__(self) -> None:
        self.level = 0
        self.at = 0

    def draw(self, rate: int, want: int, more: int, now: int) -> tuple[int, int, int]:
        """Return what was given of what there is, the wait for all of it, and what is left."""
        self.level = max(self.level - rate * max(now - self.at, 0), 0)
        self.at = max(self.at, now)
        self.level = max(self.level + more * MINUTE, 0)
        over = self.level + (want - rate) * MINUTE
        left = max(rate * MINUTE - self.level, 0) // MINUTE
        given = min(want, left)
        self.level += given * MINUTE
        return given, max(-(-over // max(rate, 1)), 0), left - given


class _Kept:
    __slots__ = ("requests", "seen", "tokens")

    def __init__(self) -> None:
        self.requests = _Level()
        self.tokens = _Level()
        self.seen = 0


class Reservoir:
    """A pool in one process. Whoever was not heard of for two minutes has full buckets again, and is forgotten."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._present: dict[str, int] = {}

    def draw(self, process: str, claim: Claim, now: int) -> Grant:
        """Give what there is of what is wanted."""
        self._present[process] = now
        for name in [name for name, at in self._present.items() if at + PRESENT <= now]:
            del self._present[name]
        processes = len(self._present)
        if not claim.subject:
            return Grant(processes=processes)
        self._forget(now)
        kept = self._kept.pop(claim.subject, None) or _Kept()
        self._kept[claim.subject] = kept
        kept.seen = now
        requests = tokens = (0, 0, 0)
        if claim.requests >= 0:
            requests = kept.requests.draw(claim.requests, claim.want_requests, 0, now)
        if claim.tokens >= 0:
            # Whoever may not come in takes no tokens either.
            want = 0 if requests[1] else claim.want_tokens
            tokens = kept.tokens.draw(claim.tokens, want, claim.more_tokens, now)
        return Grant(requests[0], tokens[0], requests[1], tokens[1], requests[2], tokens[2], processes)

    def _forget(self, now: int) -> None:
        for subject in [*islice(self._kept, _LOOKS)]:
            if self._kept[subject].seen + _IDLE < now:
                del self._kept[subject]


class Nonces:
    """What is known of nonces, in one process: a value for each until its end."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bytes, int]] = {}

    def put(self, name: str, value: bytes, now: int, until: int, *, replace: bool) -> bytes:
        """Put a value where there is none, or with `replace` anyway; return what stands then."""
        for old in [*islice(self._kept, _LOOKS)]:
            kept = self._kept.pop(old)
            if kept[1] > now:
                self._kept[old] = kept
        known = self._kept.get(name)
        if known is not None and known[1] > now and not replace:
            return known[0]
        self._kept[name] = (value, until)
        return value


class Stock:
    """What a process has at hand of one subject, between drawing and using."""

    __slots__ = ("hint", "left", "more", "requests", "tokens", "until", "waits")

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        self.until = 0.0
        """When what is at hand is lost."""
        self.more = 0
        """Tokens to be settled with the pool."""
        self.hint = 0
        """The tokens that calls of this subject mostly set aside."""
        self.waits = (0.0, 0.0)
        """Seconds until a request, and the tokens of the last one, are there."""
        self.left = (0, 0)
        """Requests and tokens that were left in the pool."""

    def put(self, grant: Grant, now: float) -> None:
        """Take what was drawn at `now`, in seconds."""
        self.expire(now)
        self.requests += grant.requests
        self.tokens += grant.tokens
        self.waits = (grant.wait_requests / 1000, grant.wait_tokens / 1000)
        self.left = (grant.left_requests, grant.left_tokens)
        self.until = now + GOOD

    def expire(self, now: float, rate: int = 0) -> None:
        """Let go of what was not used in time; of tokens, that goes back which cannot have drained in the pool."""
        if now >= self.until:
            if rate and self.tokens:
                drained = math.ceil(rate * (now - self.until + GOOD) / 60)
                self.more -= max(self.tokens - drained, 0)
            self.requests = self.tokens = 0

    def rests(self, now: float) -> bool:
        """Tell whether there is nothing to be kept, nor soon to be used again."""
        return not self.more and now >= self.until + _REMEMBERED


class Stocks:
    """What a process has at hand of every subject. `settle` is told of those whose calls have ended."""

    def __init__(self, processes: int, settle: Callable[[str, KeyLimits], None]) -> None:
        self._kept: dict[str, Stock] = {}
        self.settle = settle
        self.processes = processes
        """How many draw from the pool, as far as is known."""
        self.up = True
        """Whether the pool answers."""

    def of(self, subject: str) -> Stock:
        """Return what is at hand of a subject."""
        found = self._kept.get(subject)
        if found is None:
            found = self._kept[subject] = Stock()
        return found

    def items(self) -> Iterable[tuple[str, Stock]]:
        """Return every subject with what is at hand."""
        return self._kept.items()

    def drop(self, subject: str) -> None:
        """Forget a subject."""
        del self._kept[subject]

    def clear(self) -> None:
        """Forget everything: it was drawn from a pool that is gone."""
        self._kept.clear()


def part(limits: KeyLimits, processes: int) -> KeyLimits:
    """Return a process's even part of each limit, at least one of each."""

    def of(limit: int | None) -> int | None:
        return limit if not limit else max(limit // processes, 1)

    return KeyLimits(
        of(limits.requests_per_minute),
        of(limits.tokens_per_minute),
        of(limits.concurrency),
        limits.max_output_tokens,
    )


def expected(hint: int, reserved: int) -> int:
    """Return how many tokens are drawn for a subject's next call: a little more than its calls set aside."""
    return max(round(reserved * _ROOM), hint - hint // 8)
