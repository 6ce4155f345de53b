"""How long to wait before another try, and how many tries a provider may be burdened with."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from tokenhub_core.types import Headers, header

LONGEST: Final = 3600.0
"""Seconds. No provider makes anybody wait longer: some SDKs sleep for whatever they are told."""

_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def parse_retry_after(headers: Headers, *, now: float) -> float | None:
    """Return the seconds that a response asks to wait, within 0 and `LONGEST`; None where it does not say.

    Reads `retry-after-ms`, then `retry-after` as seconds or as an HTTP date (RFC 9110, 10.2.3). A date counts
    from the response's own `date`, so that the difference of two machines' clocks does not matter, and from
    `now` (epoch) where that is missing. What lies in the past is 0; what cannot be read is None.
    """
    millis = _number(header(headers, "retry-after-ms"))
    if millis is not None:
        return _clamp(millis / 1000)
    text = header(headers, "retry-after")
    seconds = _number(text)
    if seconds is not None:
        return _clamp(seconds)
    until = parse_date(text)
    if until is None:
        return None
    sent = parse_date(header(headers, "date"))
    return _clamp(until - (now if sent is None else sent))


def _clamp(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST)


def _number(text: str) -> float | None:
    text = text.strip()
    # float() alone would also take "nan", "1_000" and the digits of other scripts.
    return float(text) if len(text) <= 32 and _NUMBER.fullmatch(text) else None


def parse_date(text: str) -> float | None:
    """Return the moment of an HTTP date in seconds since the epoch, None for anything else."""
    if not 8 <= len(text) <= 64:
        return None
    try:
        when = parsedate_to_datetime(text)
        # RFC 9110 dates are UTC; the obsolete asctime form does not say so.
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def jittered(base: float, attempt: int, rand: float) -> float:
    """Return the seconds before retry number `attempt` (from 1): `base` doubled each time, times 0.5 to 1.5.

    `rand` lies in [0, 1). With a base of 0.1: around 100 ms, then around 200 ms.
    """
    return float(base * 2 ** min(max(attempt, 1) - 1, 10) * (0.5 + rand))


class _Bucket:
    """One provider's deposits and withdrawals of the last seconds, in a ring of one-second slots."""

    __slots__ = ("deposits", "latest", "withdrawals")

    def __init__(self, slots: int, second: int) -> None:
        self.latest = second
        self.deposits = [0] * slots
        self.withdrawals = [0] * slots

    def slot(self, second: int) -> int:
        """Empty the slots that have passed since the last use and return the index of the current one."""
        slots = len(self.deposits)
        for passed in range(self.latest + 1, min(second, self.latest + slots) + 1):
            self.deposits[passed % slots] = 0
            self.withdrawals[passed % slots] = 0
        self.latest = max(self.latest, second)
        return self.latest % slots


class RetryBudget:
    """Bounds what retries add to a provider's load, over all calls together.

    Within any `ttl` seconds a provider gets at most `ratio` retries per first attempt, plus `per_second` for
    each of those seconds, so that quiet providers can be retried too. The method and the numbers (20 %, 10 per
    second, credits that live 10 seconds) are those of Finagle's `RetryBudget` and of Linkerd. Each operation
    costs the same however much traffic there is, and at most `providers` are remembered: beyond that the one
    that was not used for longest starts anew.
    """

    def __init__(
        self, *, ratio: float = 0.2, per_second: float = 10.0, ttl: int = 10, providers: int = 1024
    ) -> None:
        self._ratio = ratio
        self._reserve = per_second * ttl
        self._ttl = ttl
        self._providers = providers
        self._buckets: dict[str, _Bucket] = {}

    def deposit(self, provider: str, now: float) -> None:
        """Count a first attempt. `now` is monotonic."""
        bucket = self._bucket(provider, now)
        bucket.deposits[bucket.slot(int(now))] += 1

    def withdraw(self, provider: str, now: float) -> bool:
        """Take one retry out of the budget; False, and nothing taken, where there is none left."""
        if self.balance(provider, now) < 1:
            return False
        bucket = self._bucket(provider, now)
        bucket.withdrawals[bucket.slot(int(now))] += 1
        return True

    def balance(self, provider: str, now: float) -> int:
        """Return how many retries could be withdrawn now."""
        bucket = self._buckets.get(provider)
        if bucket is None:
            return int(self._reserve + 1e-9)
        bucket.slot(int(now))
        # The small addend keeps 0.2 x 5 from being 0.99999….
        earned = int(self._ratio * sum(bucket.deposits) + self._reserve + 1e-9)
        return max(earned - sum(bucket.withdrawals), 0)

    def _bucket(self, provider: str, now: float) -> _Bucket:
        bucket = self._buckets.pop(provider, None)
        if bucket is None:
            bucket = _Bucket(self._ttl, int(now))
            if len(self._buckets) >= self._providers:
                del self._buckets[next(iter(self._buckets))]
        self._buckets[provider] = bucket  # Put last: the first one is the one unused for longest.
        return bucket
