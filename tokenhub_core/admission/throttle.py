"""The operator's limits on callers: requests and tokens a minute, calls at once, the length of an answer.

Whoever shows a key of ours is limited by it, whoever shows none by the address. A call that is let in stays until it
ends, however it ends: then its place is free, and the tokens that were reserved for it become those that it used.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NoReturn, override

from tokenhub_core.admission.addresses import Addresses, networks
from tokenhub_core.admission.pool import Stocks, expected, part
from tokenhub_core.admission.quotas import MINUTE, SECOND, Account, Accounts, Bucket
from tokenhub_core.config import Settings
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.types import Caller, Dialect, Headers, KeyLimits

_AGAIN: Final = 1.0
"""Seconds after which somebody whose calls are all under way may ask again: when one ends nobody knows."""
_ANTHROPIC: Final = frozenset({Dialect.ANTHROPIC_MESSAGES, Dialect.ANTHROPIC_COUNT_TOKENS})
_PREFIXES: Final = ("x-ratelimit-", "anthropic-ratelimit-")
_NONE: Final = KeyLimits()
_SOON: Final = 1.0
"""Seconds after which somebody may ask again for whom too little was drawn, though more is there."""


class Whose(StrEnum):
    """Who is limited. Its name stands in causes and messages."""

    KEY = "key"
    ADDRESS = "address"
    ADMIN = "admin"
    """An address at the admin API."""


class What(StrEnum):
    """Which limit it is. Its name stands in causes and header fields."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"
    OUTPUT = "output"


type Refusals = Callable[[str], None]
"""Hears of each refusal by its cause: whose limit it was, and which, as in `key_tokens`. There are few of them."""


def _unheard(cause: str) -> None:
    del cause


class Stay:
    """One call of somebody who is limited, from its arrival to its end."""

    __slots__ = ("_account", "_in", "_refused", "_since", "_tokens", "_whose")

    def __init__(self, account: Account, whose: Whose, refused: Refusals) -> None:
        self._account = account
        self._whose = whose
        self._refused = refused
        self._in = False
        self._tokens = 0
        self._since = 0

    @property
    def most_output(self) -> int | None:
        """Return the tokens that the answer may have, None for no limit."""
        return self._account.limits.max_output_tokens

    def refusal(self, now: int) -> Fault | None:
        """Return why the call is not let in now, None where it would be; counts nothing."""
        limits, account = self._account.limits, self._account
        if (fault := self._crowded()) is not None or (rate := limits.requests_per_minute) is None:
            return fault
        wait = account.requests.wait(1, rate, now)
        if wait == 0:
            return None
        message = f"this {self._whose} may make {_counted(rate, 'request')} a minute"
        return self._fault(What.REQUESTS, message, None if wait is None else wait / SECOND)

    def enter(self, now: int) -> None:
        """Let the call in; raises `TokenHubError` (429) where it may not come in now."""
        if (fault := self.refusal(now)) is not None:
            self._refuse(fault)
        account = self._account
        if (rate := account.limits.requests_per_minute) is not None:
            account.requests.take(1, rate, now)
        account.calls += 1
        self._in = True
        self._since = now

    def reserve(self, tokens: int, now: int) -> None:
        """Set tokens aside; raises `TokenHubError` where they are not there now (429) or never will be (413)."""
        rate = self._account.limits.tokens_per_minute
        if rate is None:
            return
        wait = self._account.tokens.wait(tokens, rate, now)
        message = self._too_many(rate, tokens)
        if wait is None:
            self._refuse(self._never(message))
        if wait:
            self._refuse(self._fault(What.TOKENS, message, wait / SECOND))
        self._account.tokens.take(tokens, rate, now)
        self._tokens, self._since = tokens, now

    def check_output(self, wanted: int) -> None:
        """Raise `TokenHubError` (400) where the caller asks for a longer answer than it may have."""
        most = self.most_output
        if most is not None and wanted > most:
            message = f"this {self._whose} may ask for {_counted(most, 'output token')}, and not for {wanted}"
            self._refuse(Fault(Kind.INVALID, Blame.CLIENT, message, cause=f"{self._whose}_{What.OUTPUT}"))

    def leave(self, used: int, now: int) -> None:
        """End the call, which used so many tokens. Only the first time counts."""
        if not self._in:
            return
        self._in = False
        account = self._account
        account.calls -= 1
        if (rate := account.limits.tokens_per_minute) is not None:
            account.tokens.settle(self._tokens, used, rate, since=self._since, now=now)

    def headers(self, dialect: Dialect, *, now: int, at: float) -> Headers:
        """Return what is left, in the caller's dialect; `at` is the calendar's time in seconds."""
        limits, account = self._account.limits, self._account
        shown = _anthropic if dialect in _ANTHROPIC else _openai
        told: list[tuple[str, str]] = []
        for what, bucket, rate in (
            (What.REQUESTS, account.requests, limits.requests_per_minute),
            (What.TOKENS, account.tokens, limits.tokens_per_minute),
        ):
            if rate is not None:
                told += shown(what, bucket, rate, now, at)
        return tuple(told)

    def _crowded(self) -> Fault | None:
        """Return why the call is not let in beside those that are under way."""
        most = self._account.limits.concurrency
        if most is None or self._account.calls < most:
            return None
        message = f"this {self._whose} may have {_counted(most, 'call')} under way at once"
        return self._fault(What.CONCURRENCY, message, _AGAIN if most else None)

    def _too_many(self, rate: int, tokens: int) -> str:
        return (
            f"this {self._whose} may use {_counted(rate, 'token')} a minute, and the call may need {tokens}"
        )

    def _never(self, message: str) -> Fault:
        return Fault(Kind.TOO_LARGE, Blame.CLIENT, message, cause=f"{self._whose}_{What.TOKENS}_too_many")

    def _fault(self, what: What, message: str, wait: float | None) -> Fault:
        cause = f"{self._whose}_{what}"
        return Fault(
            Kind.RATE_LIMITED,
            Blame.CLIENT,
            message,
            cause=cause,
            code="rate_limit_exceeded",
            retry_after=wait,
        )

    def _refuse(self, fault: Fault) -> NoReturn:
        self._refused(fault.label)
        raise TokenHubError(fault)


class SharedStay(Stay):
    """A call whose requests and tokens are drawn from a common pool: it decides with what is at hand of them."""

    __slots__ = ("_limits", "_stock", "_stocks", "_subject")

    def __init__(
        self, account: Account, whose: Whose, refused: Refusals, limits: KeyLimits, drawn: tuple[Stocks, str]
    ) -> None:
        """`account` counts calls under way, `limits` are the whole ones."""
        super().__init__(account, whose, refused)
        self._limits = limits
        self._stocks, self._subject = drawn
        self._stock = self._stocks.of(self._subject)

    @override
    def refusal(self, now: int) -> Fault | None:
        rate = self._limits.requests_per_minute
        if (fault := self._crowded()) is not None or rate is None:
            return fault
        self._stock.expire(now / SECOND)
        if self._stock.requests:
            return None
        message = f"this {self._whose} may make {_counted(rate, 'request')} a minute"
        return self._fault(What.REQUESTS, message, (self._stock.waits[0] or _SOON) if rate else None)

    @override
    def enter(self, now: int) -> None:
        if (fault := self.refusal(now)) is not None:
            self._refuse(fault)
        if self._limits.requests_per_minute is not None:
            self._stock.requests -= 1
        self._account.calls += 1
        self._in = True
        self._since = now

    @override
    def reserve(self, tokens: int, now: int) -> None:
        rate, stock = self._limits.tokens_per_minute, self._stock
        if rate is None:
            return
        message = self._too_many(rate, tokens)
        if tokens > rate:
            self._refuse(self._never(message))
        stock.expire(now / SECOND)
        stock.hint = min(expected(stock.hint, tokens), rate)
        if stock.tokens < tokens:
            self._refuse(self._fault(What.TOKENS, message, stock.waits[1] or _SOON))
        stock.tokens -= tokens
        self._tokens, self._since = tokens, now

    @override
    def leave(self, used: int, now: int) -> None:
        if not self._in:
            return
        self._in = False
        self._account.calls -= 1
        if (rate := self._limits.tokens_per_minute) is not None:
            # As `Bucket.settle`: of what was not used only that goes back which cannot have drained.
            drained = rate * max(now - self._since, 0) // MINUTE
            # The stock that it began with may be gone, with the pool or in time.
            self._stocks.of(self._subject).more -= min(self._tokens - used, max(self._tokens - drained, 0))
            self._stocks.settle(self._subject, self._limits)

    @override
    def headers(self, dialect: Dialect, *, now: int, at: float) -> Headers:
        limits, left = self._limits, self._stock.left
        shown = _anthropic if dialect in _ANTHROPIC else _openai
        told: list[tuple[str, str]] = []
        for what, room, rate in (
            (What.REQUESTS, left[0], limits.requests_per_minute),
            (What.TOKENS, left[1], limits.tokens_per_minute),
        ):
            if rate is not None:
                bucket = Bucket()
                bucket.take(max(rate - room, 0), rate, now)
                told += shown(what, bucket, rate, now, at)
        return tuple(told)


class Throttle:
    """Knows who is limited by what. `keys` and `addresses` are the defaults; a key's own limits stand above them."""

    def __init__(
        self,
        keys: KeyLimits = _NONE,
        addresses: KeyLimits = _NONE,
        *,
        admin: int | None = None,
        finder: Addresses | None = None,
        refused: Refusals = _unheard,
    ) -> None:
        self._keys = keys
        self._addresses = addresses
        self._admin = None if admin is None else KeyLimits(requests_per_minute=admin)
        self._finder = finder or Addresses()
        self._refused = refused
        self._by_key = Accounts()
        self._by_address = Accounts()
        self._by_admin = Accounts()
        self._stocks: Stocks | None = None

    def share(self, stocks: Stocks) -> None:
        """Count together with other processes, by what is drawn from a common pool."""
        self._stocks = stocks

    def renew(self, other: Throttle) -> None:
        """Take over another one's limits; what was counted so far stays counted."""
        self._keys, self._addresses, self._admin = other._keys, other._addresses, other._admin
        self._finder = other._finder

    def subject(self, caller: Caller, headers: Headers) -> tuple[str, KeyLimits] | None:
        """Return under which name a caller draws, and its limits; None where it has none."""
        who = self._who(caller, headers)
        return None if who is None else (f"{who[0]}:{who[1]}", who[2])

    def address(self, peer: str, headers: Headers) -> str:
        """Return the address that a request counts for."""
        return self._finder.subject(peer, headers)

    def visit(self, caller: Caller, headers: Headers, now: int, *, drawn: bool = True) -> Stay | None:
        """Return the call of this caller, None where nothing limits it.

        `drawn`: it has arrived before; one that has not uses this process's even part where limits are shared.
        """
        if (who := self._who(caller, headers)) is None:
            return None
        whose, subject, limits = who
        stocks = self._stocks
        processes = 1 if stocks is None else stocks.processes
        accounts = self._by_key if whose is Whose.KEY else self._by_address
        own = part(limits, processes) if processes > 1 else limits
        account = accounts.of(subject, own, now)
        if stocks is None:
            return Stay(account, whose, self._refused)
        if drawn and stocks.up:
            account.begun = False
            return SharedStay(account, whose, self._refused, limits, (stocks, f"{whose}:{subject}"))
        if not account.begun:
            account.begun = True
            account.fill(now)
        return Stay(account, whose, self._refused)

    def _who(self, caller: Caller, headers: Headers) -> tuple[Whose, str, KeyLimits] | None:
        if (key := caller.key) is not None:
            limits = self._keys if key.limits == _NONE else _over(self._keys, key.limits)
            return None if limits == _NONE else (Whose.KEY, key.id, limits)
        if self._addresses == _NONE:
            return None
        return Whose.ADDRESS, self.address(caller.peer, headers), self._addresses

    def admin(self, peer: str, headers: Headers, now: int) -> None:
        """Count a request to the admin API; raises `TokenHubError` (429) where there are too many."""
        if self._admin is None:
            return
        account = self._by_admin.of(self.address(peer, headers), self._admin, now)
        stay = Stay(account, Whose.ADMIN, self._refused)
        stay.enter(now)
        stay.leave(0, now)


def throttle(settings: Settings, refused: Refusals) -> Throttle:
    """Return the limits that the operator has set."""
    keys = KeyLimits(
        settings.key_requests_per_minute,
        settings.key_tokens_per_minute,
        settings.key_concurrency,
        settings.key_max_output_tokens,
    )
    addresses = KeyLimits(
        settings.address_requests_per_minute,
        settings.address_tokens_per_minute,
        settings.address_concurrency,
        settings.address_max_output_tokens,
    )
    return Throttle(
        keys,
        addresses,
        admin=settings.admin_requests_per_minute,
        finder=Addresses(networks(settings.trusted_proxies)),
        refused=refused,
    )


def without_limits(headers: Headers) -> Headers:
    """Return header fields without those that tell what is left of somebody's limits."""
    return tuple(field for field in headers if not field[0].startswith(_PREFIXES))


def _over(default: KeyLimits, own: KeyLimits) -> KeyLimits:
    """Return a key's limits, with the default's where it has none of its own."""
    return KeyLimits(
        default.requests_per_minute if own.requests_per_minute is None else own.requests_per_minute,
        default.tokens_per_minute if own.tokens_per_minute is None else own.tokens_per_minute,
        default.concurrency if own.concurrency is None else own.concurrency,
        default.max_output_tokens if own.max_output_tokens is None else own.max_output_tokens,
    )


def _openai(what: What, bucket: Bucket, rate: int, now: int, at: float) -> Headers:
    del at
    return (
        (f"x-ratelimit-limit-{what}", str(rate)),
        (f"x-ratelimit-remaining-{what}", str(bucket.left(rate, now))),
        (f"x-ratelimit-reset-{what}", _duration(bucket.until_empty(rate, now))),
    )


def _anthropic(what: What, bucket: Bucket, rate: int, now: int, at: float) -> Headers:
    # Whole seconds, rounded up: nobody comes back too early.
    moment = math.ceil(at + bucket.until_empty(rate, now) / SECOND)
    when = datetime.fromtimestamp(0, UTC) + timedelta(seconds=moment)
    return (
        (f"anthropic-ratelimit-{what}-limit", str(rate)),
        (f"anthropic-ratelimit-{what}-remaining", str(bucket.left(rate, now))),
        (f"anthropic-ratelimit-{what}-reset", f"{when:%Y-%m-%dT%H:%M:%SZ}"),
    )


def _duration(nanoseconds: int) -> str:
    """Return a time as OpenAI writes it: `6m0s`, `1.5s`, `17ms`."""
    milliseconds = -(-nanoseconds // 1_000_000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
