"""How long a credential rests that was refused or has nothing left, and who may try it again.

A rate limit that ends by itself is no parking. What parks is

- a *refusal* (401, an invalid key): the same key would be refused again;
- a *denial* (403): of this model only, since a key may be good for others;
- an *exhausted* balance, quota or spend limit.

It ends when the answer says so, else when the vendor's table says that such a limit starts anew, else after a back-off
that doubles each time. In every case one call goes first: a probe. If it is answered the parking is over; if it meets
the same again the credential is parked for longer, and nobody else has noticed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

import msgspec

from tokenhub_core.admission.headers import HOUR, MINUTE, Seen, pacific_midnight
from tokenhub_core.errors import Fault, Kind
from tokenhub_core.types import Dialect

LEASE: Final = 600.0
"""Seconds after which a probe that was not heard of is taken for lost."""
_LONGEST_BACKOFF: Final = 6 * HOUR
_FARTHEST: Final = 62 * 24 * HOUR
"""Seconds. No parking is longer, whatever an answer says."""
_DENIALS: Final = frozenset({401, 403})


class Reason(StrEnum):
    """Why a credential is parked. The value is a metric label."""

    EXHAUSTED = "exhausted"
    REFUSED = "refused"
    DENIED = "denied"


_FIRST: Final[Mapping[Reason, float]] = MappingProxyType(
    # A denial may be about one call's content: it is tried again soon.
    {Reason.EXHAUSTED: 5 * MINUTE, Reason.REFUSED: MINUTE, Reason.DENIED: 10.0}
)
"""Seconds of the first back-off."""


class Place(msgspec.Struct, frozen=True):
    """What is parked: a credential, for all models (`model` empty) or for one."""

    provider: str
    credential: str
    model: str = ""


class Parked(msgspec.Struct, frozen=True):
    """A parking. Moments in seconds since the epoch."""

    place: Place
    reason: Reason
    cause: str
    """The label of the fault."""
    since: float
    until: float
    failures: int = 1
    """How many times in a row."""


class By(StrEnum):
    """Who parked or unparked."""

    AUTOMATIC = "automatic"
    OPERATOR = "operator"


class Change(msgspec.Struct, frozen=True):
    """A parking that began, was prolonged (`parked`) or is over (not `parked`), and who did it."""

    parking: Parked
    parked: bool
    at: float
    by: By = By.AUTOMATIC
    why: str = ""


class Sentence(msgspec.Struct, frozen=True):
    """What a fault means for its credential: `until` is when it ends, None where a back-off decides."""

    reason: Reason
    until: float | None
    by_model: bool


def sentence(dialect: Dialect, fault: Fault, seen: Sequence[Seen] = (), *, at: float) -> Sentence | None:
    """Return what parks a credential, None where the fault says nothing against it or passes by itself.

    `seen` are the windows that the answer told.
    """
    match fault.kind:
        case Kind.AUTH if fault.cause != "no_credential":
            return Sentence(Reason.REFUSED, _asked(fault, at), by_model=False)
        case Kind.FORBIDDEN if fault.upstream_status in _DENIALS:
            return Sentence(Reason.DENIED, _asked(fault, at), by_model=True)
        case Kind.QUOTA if any(one.window == "day" and one.by_model for one in seen):
            # Google's: a day's quota is each model's own, and its RetryInfo is that of a minute's.
            return Sentence(Reason.EXHAUSTED, pacific_midnight(at), by_model=True)
        case Kind.QUOTA:
            told = _told(fault.message) if dialect in _ANTHROPIC else None
            usual = _next_month(at) if fault.code.lower() in _MONTHLY else None
            return Sentence(Reason.EXHAUSTED, told or _asked(fault, at) or usual, by_model=False)
    return None


def parked(known: Parked | None, place: Place, given: Sentence, cause: str, *, at: float) -> Parked:
    """Return the parking of a credential that has just earned `given`; `known` is the one that it comes from."""
    failures = 1 if known is None else min(known.failures + 1, 1000)
    backoff = min(_FIRST[given.reason] * 2.0 ** min(failures - 1, 30), _LONGEST_BACKOFF)
    until = at + backoff if given.until is None else min(max(given.until, at + 1.0), at + _FARTHEST)
    since = at if known is None else known.since
    return Parked(place, given.reason, cause, since, until, failures)


_ANTHROPIC: Final = frozenset({Dialect.ANTHROPIC_MESSAGES, Dialect.ANTHROPIC_COUNT_TOKENS})
_MONTHLY: Final = frozenset(
    {
        "billing_hard_limit_reached",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
    }
)
"""Codes of limits that start anew with the calendar month (UTC). A prepaid balance does not: it has no date."""

_REGAIN: Final = re.compile(
    r"regain access on (\d{4}-\d\d-\d\d)(?: at (\d\d:\d\d)(?: UTC)?)?", re.ASCII | re.IGNORECASE
)
"""How Anthropic's message says when a spend limit ends."""


def _told(message: str) -> float | None:
    found = _REGAIN.search(message)
    if found is None:
        return None
    try:
        when = datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00'}:00")
    except ValueError:
        return None
    return when.replace(tzinfo=UTC).timestamp()


def _asked(fault: Fault, at: float) -> float | None:
    return at + fault.retry_after if fault.retry_after else None


def _next_month(at: float) -> float:
    now = datetime.fromtimestamp(at, UTC)
    return datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC).timestamp()
