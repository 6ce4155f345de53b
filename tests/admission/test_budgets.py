"""What a budget is: its periods, its thresholds, its forecast, its words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from tokenhub_core.admission import budgets
from tokenhub_core.admission.budgets import Budget, Forecast, Period, Span, Unit
from tokenhub_core.types import NANO, ApiKey, Attempt, Caller, Outcome, Record, Usage

DAY, HOUR = 86_400_000_000, 3_600_000_000
BUDGET = Budget("b", "all", Period.DAY, Unit.USD, 10 * NANO)
BERLIN = ZoneInfo("Europe/Berlin")


def micros(text: str) -> int:
    """Return a moment; without a zone it is UTC."""
    when = datetime.fromisoformat(text)
    return (when.replace(tzinfo=when.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )


def of(period: Period, at: str, zone: str = "UTC") -> tuple[str, str]:
    """Return where the period around a moment begins and ends, as the zone's clocks show it."""
    there = ZoneInfo(zone)
    span = budgets.span(structs.replace(BUDGET, period=period), micros(at), there)
    assert span.until is not None
    return budgets.moment(span.since, there), budgets.moment(span.until, there)


@pytest.mark.parametrize(
    ("period", "at", "zone", "since", "until"),
    [
        (Period.DAY, "2026-03-15T12:00", "UTC", "2026-03-15T00:00:00+00:00", "2026-03-16T00:00:00+00:00"),
        (Period.DAY, "2026-03-15T00:00", "UTC", "2026-03-15T00:00:00+00:00", "2026-03-16T00:00:00+00:00"),
        (
            Period.DAY,
            "2026-03-14T23:59:59.999999",
            "UTC",
            "2026-03-14T00:00:00+00:00",
            "2026-03-15T00:00:00+00:00",
        ),
        # Where it is Monday already, and where it is not yet.
        (Period.WEEK, "2026-03-15T23:30", "UTC", "2026-03-09T00:00:00+00:00", "2026-03-16T00:00:00+00:00"),
        (
            Period.WEEK,
            "2026-03-15T23:30",
            "Europe/Berlin",
            "2026-03-16T00:00:00+01:00",
            "2026-03-23T00:00:00+01:00",
        ),
        (Period.MONTH, "2028-02-29T12:00", "UTC", "2028-02-01T00:00:00+00:00", "2028-03-01T00:00:00+00:00"),
        (Period.MONTH, "2026-12-31T12:00", "UTC", "2026-12-01T00:00:00+00:00", "2027-01-01T00:00:00+00:00"),
        (Period.MONTH, "2026-01-31T12:00", "UTC", "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"),
        # A day of 23 hours, and one of 25.
        (
            Period.DAY,
            "2026-03-29T12:00",
            "Europe/Berlin",
            "2026-03-29T00:00:00+01:00",
            "2026-03-30T00:00:00+02:00",
        ),
        (
            Period.DAY,
            "2026-10-25T12:00",
            "Europe/Berlin",
            "2026-10-25T00:00:00+02:00",
            "2026-10-26T00:00:00+01:00",
        ),
        # A day without a midnight begins with the jump, and one with two begins with the first.
        (
            Period.DAY,
            "2018-11-04T12:00",
            "America/Sao_Paulo",
            "2018-11-04T01:00:00-02:00",
            "2018-11-05T00:00:00-02:00",
        ),
        (
            Period.DAY,
            "2026-11-01T12:00",
            "America/Havana",
            "2026-11-01T00:00:00-04:00",
            "2026-11-02T00:00:00-05:00",
        ),
        # A day that a zone has left out.
        (
            Period.DAY,
            "2011-12-30T09:00",
            "Pacific/Apia",
            "2011-12-29T00:00:00-10:00",
            "2011-12-31T00:00:00+14:00",
        ),
    ],
)
def test_a_period_begins_at_the_zones_midnight(
    period: Period, at: str, zone: str, since: str, until: str
) -> None:
    """By the zone's calendar, whatever its clocks do that night; a week begins on Monday."""
    assert of(period, at, zone) == (since, until)


def test_a_date_that_comes_twice_is_counted_once() -> None:
    """In Newfoundland clocks went from 00:01 back to 23:01: the new day had begun, and goes on."""
    new = budgets.span(BUDGET, micros("2008-11-02T02:30:30"), ZoneInfo("America/St_Johns"))
    again = budgets.span(BUDGET, micros("2008-11-02T03:00"), ZoneInfo("America/St_Johns"))
    assert budgets.moment(micros("2008-11-02T03:00"), ZoneInfo("America/St_Johns")).startswith(
        "2008-11-01T23:"
    )
    assert new == again


periods = st.sampled_from(Period)
zones = st.sampled_from(sorted(available_timezones())).map(ZoneInfo)
moments = st.integers(0, micros("2100-01-01"))


@given(periods, zones, moments, moments)
@example(Period.DAY, ZoneInfo("America/St_Johns"), micros("2008-11-02T03:00"), 0)
@example(Period.DAY, ZoneInfo("Pacific/Apia"), micros("2011-12-30T10:00"), 0)
def test_spans_are_all_time_once(period: Period, zone: ZoneInfo, at: int, reset: int) -> None:
    """Every moment lies in its span; both ends lie in spans of their own, which meet it without a gap."""
    budget = structs.replace(BUDGET, period=period, counted_from=reset)
    span = budgets.span(budget, at, zone)
    assert span.holds(at)
    assert budgets.span(budget, span.since, zone) == span
    assert not span.holds(span.since - 1)
    if span.until is not None:
        assert not span.holds(span.until)
        assert span.holds(span.until - 1)
        assert budgets.span(budget, span.until - 1, zone) == span
        assert budgets.span(budget, span.until, zone).since == span.until
    if span.since > 0:
        assert budgets.span(budget, span.since - 1, zone).until == span.since


@given(zones, st.integers(micros("1970-03-01"), micros("2100-01-01")))
def test_periods_have_the_length_of_their_name(zone: ZoneInfo, at: int) -> None:
    """But for what a zone does to its clocks, at most a day."""
    for period, low, high in ((Period.DAY, 1, 1), (Period.WEEK, 7, 7), (Period.MONTH, 28, 31)):
        span = budgets.span(structs.replace(BUDGET, period=period), at, zone)
        assert span.until is not None
        assert low * DAY - DAY < span.until - span.since <= high * DAY + DAY


def test_a_total_has_no_end_and_begins_where_it_was_reset() -> None:
    """What was before the reset is counted apart."""
    total = structs.replace(BUDGET, period=Period.TOTAL, counted_from=100)
    assert budgets.span(total, 100, UTC) == Span(100, None)
    assert budgets.span(total, 99, UTC) == Span(0, 100)


@pytest.mark.parametrize(
    ("key", "owners"),
    [
        (None, ("all",)),
        (ApiKey("k1"), ("all", "key:k1")),
        (ApiKey("k1", project="web"), ("all", "key:k1", "project:web")),
    ],
)
def test_a_call_counts_for_its_key_its_project_and_all(key: ApiKey | None, owners: tuple[str, ...]) -> None:
    """Somebody anonymous has neither of the first two."""
    assert budgets.owners(Caller(key=key)) == owners


def record(**more: object) -> Record:
    return structs.replace(Record("r", 0.0, Outcome.OK, 200, Caller(), "POST", "/"), **more)


def tried(tokens: int, output: int = 0) -> Attempt:
    return Attempt(1, "m", "p", 0, 1, usage=Usage(tokens, output))


def test_a_record_counts_all_its_attempts() -> None:
    """The money and tokens of each, also of those that came to nothing; and it is one request."""
    one = record(attempts=(tried(10), tried(3, 4)), usage=Usage(3, 4), cost_nanousd=99)
    assert [budgets.used(unit, one) for unit in Unit] == [99, 17, 1]


def test_a_record_of_what_passed_counts_what_was_heard() -> None:
    """A call that nobody was asked for counts nothing; one that broke off with its usage told does."""
    assert [budgets.used(unit, record(outcome=Outcome.PASSED)) for unit in Unit] == [0, 0, 1]
    assert [budgets.used(unit, record(outcome=Outcome.CANCELLED, usage=Usage(5, 6))) for unit in Unit] == [
        0,
        11,
        1,
    ]
    assert [budgets.used(unit, record(outcome=Outcome.ERROR)) for unit in Unit] == [0, 0, 0]


@pytest.mark.parametrize(
    ("spent", "warned", "reached"),
    [
        (0, 0, ()),
        (49, 0, ()),
        (50, 0, (50,)),
        (96, 0, (50, 80, 95)),
        (96, 80, (95,)),
        (96, 95, ()),
        (100, 95, (100,)),
        (250, 0, (50, 80, 95, 100)),
        (250, 100, ()),
    ],
)
def test_a_threshold_is_crossed_once(spent: int, warned: int, reached: tuple[int, ...]) -> None:
    """At its share of the limit and not before; all of it is always one."""
    assert budgets.crossed(structs.replace(BUDGET, limit=100), spent, warned) == reached


def test_a_budget_without_thresholds_warns_when_it_is_used_up() -> None:
    """Then only; and naming it as a threshold changes nothing."""
    bare = structs.replace(BUDGET, limit=100, thresholds=())
    assert (budgets.crossed(bare, 99, 0), budgets.crossed(bare, 100, 0)) == ((), (100,))
    assert budgets.crossed(structs.replace(bare, thresholds=(100,)), 100, 0) == (100,)


@given(st.integers(0, 1000), st.sets(st.integers(1, 100), max_size=4), st.integers(0, 1100))
def test_the_first_threshold_is_where_the_first_is_crossed(limit: int, marks: set[int], spent: int) -> None:
    """Neither an amount earlier nor one later."""
    budget = structs.replace(BUDGET, limit=limit, thresholds=tuple(sorted(marks)))
    assert (spent >= budgets.first(budget)) == bool(budgets.crossed(budget, spent, 0))


def test_a_forecast_follows_the_rate_so_far() -> None:
    """Half of the day gone with 8 of 10 spent: 16 by its end, and the limit after 15 hours."""
    whole = Span(0, DAY)
    assert budgets.forecast(structs.replace(BUDGET, limit=10), 8, whole, DAY // 2) == Forecast(16, 15 * HOUR)
    assert budgets.forecast(structs.replace(BUDGET, limit=10), 4, whole, DAY // 2) == Forecast(8, None)
    # Met just at the end: not before it.
    assert budgets.forecast(structs.replace(BUDGET, limit=10), 5, whole, DAY // 2) == Forecast(10, None)
    # Met already: no moment to wait for.
    assert budgets.forecast(structs.replace(BUDGET, limit=10), 10, whole, DAY // 2) == Forecast(20, None)
    assert budgets.forecast(structs.replace(BUDGET, limit=10), 0, whole, DAY // 2) == Forecast(0, None)
    # A part of a microsecond is a whole one: at the moment that is told it is met.
    assert budgets.forecast(structs.replace(BUDGET, limit=4), 3, Span(0, None), HOUR) == Forecast(
        None, -(-4 * HOUR // 3)
    )


def test_there_is_no_forecast_at_first() -> None:
    """A hundredth of the period, an hour where there is no end: from then on there is one."""
    assert budgets.forecast(BUDGET, 5, Span(0, DAY), DAY // 100 - 1) is None
    assert budgets.forecast(BUDGET, 5, Span(0, DAY), DAY // 100) is not None
    assert budgets.forecast(BUDGET, 5, Span(7, None), HOUR + 6) is None
    assert budgets.forecast(BUDGET, 5, Span(7, None), HOUR + 7) == Forecast(None, 7 + 2 * NANO * HOUR)
    # A clock that was put back, and a period of no length.
    assert budgets.forecast(BUDGET, 5, Span(7, 50), 7) is None
    assert budgets.forecast(BUDGET, 5, Span(7, 50), 6) is None
    assert budgets.forecast(BUDGET, 5, Span(7, 50), 8) is not None


@given(st.integers(1, 10**15), st.integers(0, 10**15), st.integers(1, 400 * DAY), st.floats(0.02, 1))
def test_a_forecast_is_met_when_it_says(limit: int, spent: int, length: int, share: float) -> None:
    """At the moment that it tells the rate has used the limit, and one before it has not."""
    elapsed = max(1, int(length * share))
    ahead = budgets.forecast(structs.replace(BUDGET, limit=limit), spent, Span(0, length), elapsed)
    assert ahead is not None
    if ahead.met_at is not None:
        assert spent < limit
        assert spent * ahead.met_at >= limit * elapsed > spent * (ahead.met_at - 1)
        assert ahead.at_end is not None
        assert ahead.at_end >= limit - 1
    elif spent < limit:
        assert spent * (length - 1) < limit * elapsed


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, ""),
        ({"owner": "key:k1"}, ""),
        ({"owner": "project:Web team"}, ""),
        ({"owner": "project:" + "x" * 200}, ""),
        ({"owner": "project:" + "x" * 201}, "owner"),
        ({"owner": "key:"}, "owner"),
        ({"owner": "key"}, "owner"),
        ({"owner": "user:me"}, "owner"),
        ({"owner": "all:"}, "owner"),
        ({"owner": "key:a\n"}, "owner"),
        ({"limit": 0}, ""),
        ({"limit": budgets.MOST}, ""),
        ({"limit": -1}, "limit"),
        ({"limit": budgets.MOST + 1}, "limit"),
        ({"thresholds": ()}, ""),
        ({"thresholds": tuple(range(1, 11))}, ""),
        ({"thresholds": tuple(range(1, 12))}, "thresholds"),
        ({"thresholds": (1, 100)}, ""),
        ({"thresholds": (0, 100)}, "thresholds"),
        ({"thresholds": (50, 101)}, "thresholds"),
        ({"thresholds": (80, 50)}, "thresholds"),
        ({"thresholds": (50, 50)}, "thresholds"),
    ],
)
def test_a_budget_is_checked(changes: dict[str, object], wrong: str) -> None:
    """What is wrong begins with the field that is, and says what it may be."""
    words = {
        "": "",
        "owner": "owner: all, key:ID or project:NAME",
        "limit": "limit: not negative, and not beyond all measure",
        "thresholds": "thresholds: at most ten, ascending, from 1 to 100",
    }
    assert budgets.checked(structs.replace(BUDGET, **changes)) == words[wrong]
    assert budgets.MOST == 1_000_000_000_000_000_000


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (Unit.USD, 0, "$0.00"),
        (Unit.USD, 10 * NANO, "$10.00"),
        (Unit.USD, 1_234 * NANO + NANO // 2, "$1,234.50"),
        (Unit.USD, 1, "$0.000000001"),
        (Unit.USD, -NANO // 4, "-$0.25"),
        (Unit.TOKENS, 1_200, "1,200 tokens"),
        (Unit.REQUESTS, 7, "7 requests"),
    ],
)
def test_amounts_are_told_to_people_exactly(unit: Unit, value: int, text: str) -> None:
    """With cents at least, and with everything behind them that there is."""
    assert budgets.amount(unit, value) == text


def test_a_caller_is_told_what_is_left() -> None:
    """In whole micro-dollars, never more than there is, and when it begins anew."""
    assert (
        budgets.header(BUDGET, 1_999, Span(0, 60_000_000))
        == 'left=1, limit=10000000, unit=microusd, id="b", resets=60'
    )
    tokens = structs.replace(BUDGET, unit=Unit.TOKENS, limit=500)
    assert budgets.header(tokens, -5, Span(0, None)) == 'left=0, limit=500, unit=tokens, id="b"'


def test_a_refusal_names_everything() -> None:
    """Whose budget, what is spent, held and asked for, and when it begins anew."""
    budget = structs.replace(BUDGET, owner="key:k1", period=Period.MONTH, zone="Europe/Berlin")
    told = budgets.refusal(budget, 9 * NANO, NANO // 2, NANO, resets="2026-12-01T00:00:00+01:00")
    assert told == (
        "The budget of key k1 has $0.50 left: $9.00 of $10.00 of this month are spent, $0.50 are held for calls"
        " under way, and this call may use $1.00. It begins anew at 2026-12-01T00:00:00+01:00 (Europe/Berlin)."
    )
    colons = structs.replace(budget, owner="project:a:b")
    assert budgets.refusal(colons, 0, 0, 1, resets="").startswith("The budget of project a:b has $10.00 left")
    total = structs.replace(BUDGET, period=Period.TOTAL)
    assert budgets.refusal(total, 11 * NANO, 0, None, resets="") == (
        "The budget of all calls has $0.00 left: $11.00 of $10.00 are spent, and nobody knows what the model that"
        " was asked for costs. It does not begin anew by itself."
    )
