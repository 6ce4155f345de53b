"""Budgets: who may use how much of what in which time. Pure: time and zones are arguments.

Moments are whole microseconds since the epoch, as they are stored; money is nano-dollars. A call belongs to the moment
at which it arrived, however long it takes, so that what is counted follows from the records alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Final

import msgspec

from tokenhub_core.types import NANO, Caller, Outcome, Record

EVERYBODY: Final = "all"
"""The owner of a budget that every call counts in."""
KEY: Final = "key:"
PROJECT: Final = "project:"
THRESHOLDS: Final = (50, 80, 95)
"""Per cent at which a budget warns where nothing else is said."""
FULL: Final = 100
"""Per cent at which every budget warns."""
MOST: Final = 10**18
"""The largest limit in any unit; counts stay within 64 bits behind it."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_DAY: Final = timedelta(days=1)
_WEEK: Final = timedelta(days=7)
_EARLY: Final = 100
"""There is no forecast before this part of a period is over: the first call would be the rate."""
_HOUR: Final = 3_600_000_000
"""Microseconds; the same for a budget without an end."""


class Period(StrEnum):
    """How long a budget counts before it begins anew."""

    DAY = "day"
    WEEK = "week"
    """From Monday."""
    MONTH = "month"
    TOTAL = "total"
    """It does not begin anew by itself."""


class Unit(StrEnum):
    """What a budget counts."""

    USD = "usd"
    TOKENS = "tokens"
    """Input and output, of every attempt."""
    REQUESTS = "requests"
    """Calls that somebody was asked for; its retries and hedges are the same call."""


class Budget(msgspec.Struct, frozen=True):
    """One budget. `limit` is in nano-dollars, tokens or requests."""

    id: str
    owner: str
    """`all`, `key:ID` or `project:NAME`."""
    period: Period
    unit: Unit
    limit: int
    zone: str = "UTC"
    """The IANA zone whose midnights bound its periods."""
    thresholds: tuple[int, ...] = THRESHOLDS
    """Per cent of the limit, ascending."""
    hard: bool = True
    """Whether calls are refused that could exceed it; else it only warns."""
    created_at: int = 0
    """Calls that arrived before are not counted."""
    counted_from: int = 0
    """Its count began anew at this moment, whatever the period."""


class Span(msgspec.Struct, frozen=True):
    """The time that one count is for: `since` included, `until` not; None: without an end."""

    since: int
    until: int | None

    def holds(self, at: int) -> bool:
        """Tell whether a moment lies in it."""
        return self.since <= at and (self.until is None or at < self.until)


class Forecast(msgspec.Struct, frozen=True):
    """What comes of a budget if it is used as fast as up to now. None: there is no end, or it is not met."""

    at_end: int | None = None
    met_at: int | None = None


def owners(caller: Caller) -> tuple[str, ...]:
    """Return whose budgets a caller's calls count in."""
    key = caller.key
    if key is None:
        return (EVERYBODY,)
    return (EVERYBODY, KEY + key.id, PROJECT + key.project) if key.project else (EVERYBODY, KEY + key.id)


def span(budget: Budget, at: int, zone: tzinfo) -> Span:
    """Return the time around `at` that is counted together. All spans of a budget together are all time, once."""
    since, until = (0, None) if budget.period is Period.TOTAL else _period(budget.period, at, zone)
    if at >= budget.counted_from:
        return Span(max(since, budget.counted_from), until)
    return Span(since, budget.counted_from if until is None else min(until, budget.counted_from))


def _period(period: Period, at: int, zone: tzinfo) -> tuple[int, int]:
    first = _first(period, (_EPOCH + at * _MICROSECOND).astimezone(zone).date())
    while at >= (until := _midnight(_after(period, first), zone)):
        # The clock was put back over midnight: a date that has been comes again, and the new one has begun.
        first = _after(period, first)
    return _midnight(first, zone), until


def _first(period: Period, day: date) -> date:
    if period is Period.DAY:
        return day
    return day - day.weekday() * _DAY if period is Period.WEEK else day.replace(day=1)


def _after(period: Period, first: date) -> date:
    if period is Period.MONTH:
        return (first + 31 * _DAY).replace(day=1)
    return first + (_WEEK if period is Period.WEEK else _DAY)


def _midnight(day: date, zone: tzinfo) -> int:
    """Return the first moment of a day: of two midnights the first, and without one the moment of the jump."""
    return (datetime(day.year, day.month, day.day, tzinfo=zone) - _EPOCH) // _MICROSECOND


def used(unit: Unit, record: Record) -> int:
    """Return what a record counts for in a unit: the truth that every ledger must agree with."""
    if unit is Unit.USD:
        return record.cost_nanousd
    told = [one.usage for one in record.attempts] or [record.usage]
    if unit is Unit.TOKENS:
        return sum(one.input_tokens + one.output_tokens for one in told)
    return int(bool(record.attempts) or bool(record.usage) or record.outcome is Outcome.PASSED)


def crossed(budget: Budget, spent: int, warned: int) -> tuple[int, ...]:
    """Return the thresholds, in per cent, that are reached and lie above `warned`; 100 is always one."""
    marks = sorted({*budget.thresholds, FULL})
    return tuple(mark for mark in marks if mark > warned and spent * 100 >= mark * budget.limit)


def first(budget: Budget) -> int:
    """Return the amount that reaches the lowest threshold."""
    return -(-min(*budget.thresholds, FULL, FULL) * budget.limit // 100)


def forecast(budget: Budget, spent: int, counted: Span, at: int) -> Forecast | None:
    """Return where the rate since the span's beginning leads; None while that is too short to tell one."""
    elapsed = at - counted.since
    length = None if counted.until is None else counted.until - counted.since
    if elapsed <= 0 or elapsed < (_HOUR if length is None else length // _EARLY):
        return None
    met = counted.since + -(-budget.limit * elapsed // spent) if spent else None
    if met is not None and (spent >= budget.limit or (counted.until is not None and met >= counted.until)):
        met = None
    return Forecast(None if length is None else spent * length // elapsed, met)


def checked(budget: Budget) -> str:
    """Return what is wrong with a budget, empty where nothing is."""
    kind, _, name = budget.owner.partition(":")
    named = f"{kind}:" in {KEY, PROJECT} and 0 < len(name) <= 200 and name.isprintable()
    if budget.owner != EVERYBODY and not named:
        return "owner: all, key:ID or project:NAME"
    if not 0 <= budget.limit <= MOST:
        return "limit: not negative, and not beyond all measure"
    marks: Sequence[int] = budget.thresholds
    if len(marks) > 10 or list(marks) != sorted(set(marks)) or not all(0 < one <= FULL for one in marks):
        return "thresholds: at most ten, ascending, from 1 to 100"
    return ""


# --- words --------------------------------------------------------------------------------------------------


def amount(unit: Unit, value: int) -> str:
    """Return an amount for people: `$1.25`, `1,200 tokens`."""
    if unit is not Unit.USD:
        return f"{value:,} {unit}"
    whole, part = divmod(abs(value), NANO)
    digits = f"{part:09d}".rstrip("0")
    return f"{'-' if value < 0 else ''}${whole:,}.{digits:0<2}"


def moment(at: int, zone: tzinfo) -> str:
    """Return a moment as a zone's clocks show it, to the second."""
    return (_EPOCH + at * _MICROSECOND).astimezone(zone).isoformat(timespec="seconds")


def header(budget: Budget, left: int, counted: Span) -> str:
    """Return what callers are told of a budget: a dictionary of structured fields (RFC 9651).

    Dollars in whole micro-dollars, rounded down; `resets` in seconds since the epoch.
    """
    scale = 1000 if budget.unit is Unit.USD else 1
    told = f"left={max(left, 0) // scale}, limit={budget.limit // scale}, unit={_token(budget)}"
    resets = "" if counted.until is None else f", resets={counted.until // 1_000_000}"
    return f'{told}, id="{budget.id}"{resets}'


def _token(budget: Budget) -> str:
    return "microusd" if budget.unit is Unit.USD else budget.unit.value


_TIMES: Final = {Period.DAY: " of this day", Period.WEEK: " of this week", Period.MONTH: " of this month"}


def refusal(budget: Budget, spent: int, held: int, most: int | None, *, resets: str) -> str:
    """Return why a call is refused. `most` is what it may use, None where its price is not known."""
    whose = "all calls" if budget.owner == EVERYBODY else budget.owner.replace(":", " ", 1)
    told = (
        f"The budget of {whose} has {amount(budget.unit, max(budget.limit - spent - held, 0))} left:"
        f" {amount(budget.unit, spent)} of {amount(budget.unit, budget.limit)}"
        f"{_TIMES.get(budget.period, '')} are spent"
    )
    if held:
        told += f", {amount(budget.unit, held)} are held for calls under way"
    if most is None:
        told += ", and nobody knows what the model that was asked for costs"
    else:
        told += f", and this call may use {amount(budget.unit, most)}"
    again = f"It begins anew at {resets} ({budget.zone})." if resets else "It does not begin anew by itself."
    return f"{told}. {again}"
