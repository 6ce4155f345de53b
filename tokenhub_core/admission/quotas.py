"""What callers have used of the limits that the operator sets them, counted exactly and in bounded memory.

The limits that providers set us are another matter: see `admission.limits`.

A limit of `rate` units a minute is a leaky bucket of one minute: it holds `rate` units, a unit taken raises its level
by one, and `rate` units a minute drain from it. So at most `rate + rate * t` units are taken in any `t` minutes. A
level is kept in shares: a unit is as many as a minute has nanoseconds, so `rate` of them drain every nanosecond and
nothing is ever rounded. Times are integers, nanoseconds on a clock that never jumps.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from tokenhub_core.types import KeyLimits

SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
"""Nanoseconds; also the shares of one unit."""

_LOOKS: Final = 4
"""How many accounts are looked at for one that is new: more than one, so that those at rest become fewer."""


def nanoseconds(seconds: float) -> int:
    """Return a time of a clock as the accounts count it."""
    return int(seconds * SECOND)


class Bucket:
    """One limit's level. The rate comes with each question, because the operator may change it at any time."""

    __slots__ = ("_at", "_shares")

    def __init__(self) -> None:
        self._shares = 0
        self._at = 0

    def level(self, rate: int, now: int) -> int:
        """Return the shares that have not drained yet."""
        return max(self._shares - rate * max(now - self._at, 0), 0)

    def wait(self, units: int, rate: int, now: int) -> int | None:
        """Return the nanoseconds until so many units fit: 0 where they do, None where they never will."""
        if units > rate:
            return None
        over = self.level(rate, now) + (units - rate) * MINUTE
        if over <= 0:
            return 0
        return -(-over // rate) if rate else None

    def take(self, units: int, rate: int, now: int) -> None:
        """Count units; whether they fit is the caller's to ask first."""
        self._shares = self.level(rate, now) + units * MINUTE
        self._at = max(now, self._at)

    def settle(self, taken: int, used: int, rate: int, *, since: int, now: int) -> None:
        """Let the units taken at `since` have been `used` in truth.

        More are counted now. Of fewer, only what cannot have drained yet is given back: at most what was taken less
        all that has drained since. With more than that, two calls could use the same room, the one as it was
        given back, the other as it had drained.
        """
        if used >= taken:
            self.take(used - taken, rate, now)
            return
        left = taken * MINUTE - rate * max(now - since, 0)
        back = min((taken - used) * MINUTE, max(left, 0))
        self._shares = max(self.level(rate, now) - back, 0)
        self._at = max(now, self._at)

    def left(self, rate: int, now: int) -> int:
        """Return how many whole units fit now."""
        return max(rate * MINUTE - self.level(rate, now), 0) // MINUTE

    def until_empty(self, rate: int, now: int) -> int:
        """Return the nanoseconds until all that was taken has drained; a minute for a limit of nothing."""
        return -(-self.level(rate, now) // rate) if rate else MINUTE


class Account:
    """What one caller has used, and what it may use."""

    __slots__ = ("begun", "calls", "limits", "requests", "tokens")

    def __init__(self) -> None:
        self.limits = KeyLimits()
        self.requests = Bucket()
        self.tokens = Bucket()
        self.calls = 0
        """Those that are under way."""
        self.begun = False
        """Whether anybody has come here yet."""

    def fill(self, now: int) -> None:
        """Begin with nothing at hand: what there was may have been used elsewhere."""
        for bucket, rate in (
            (self.requests, self.limits.requests_per_minute),
            (self.tokens, self.limits.tokens_per_minute),
        ):
            if rate is not None:
                bucket.take(bucket.left(rate, now), rate, now)

    def rests(self, now: int) -> bool:
        """Tell whether the account is like a new one, so that nobody gains by its being forgotten."""
        limits = self.limits
        counted = ((self.requests, limits.requests_per_minute), (self.tokens, limits.tokens_per_minute))
        return not self.calls and all(rate is None or not bucket.level(rate, now) for bucket, rate in counted)


class Accounts:
    """The accounts of many callers. Only one at rest is ever forgotten: to come back later resets no limit.

    Where there are as many as there may be and none rests, those who come new share one account.
    """

    def __init__(self, most: int = 65_536) -> None:
        self._most = most
        self._known: dict[str, Account] = {}
        self._common = Account()

    def __len__(self) -> int:
        return len(self._known)

    def of(self, subject: str, limits: KeyLimits, now: int) -> Account:
        """Return the account of a caller, who may use this much from now on."""
        account = self._known.get(subject)
        if account is None:
            self._tidy(now)
            if len(self._known) < self._most:
                account = self._known[subject] = Account()
            else:
                account = self._common
        account.limits = limits
        return account

    def _tidy(self, now: int) -> None:
        """Look at those that were not looked at for longest: forget them, or put them last."""
        for subject in [*islice(self._known, _LOOKS)]:
            account = self._known.pop(subject)
            if not account.rests(now):
                self._known[subject] = account
