"""Waiting and retry budgets: what providers ask for is honoured within bounds, and retries never pile up."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dispatch.backoff import LONGEST, RetryBudget, jittered, parse_retry_after
from tokenhub_core.types import Headers

NOW = 1_800_000_000.0


def http_date(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(at, UTC), usegmt=True)


def asked(value: str, *more: tuple[str, str]) -> float | None:
    return parse_retry_after((("retry-after", value), *more), now=NOW)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("0.25", 0.25),
        (".5", 0.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("1e9", LONGEST),
        ("1e999", LONGEST),
        ("999999999999", LONGEST),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1_000", None),
        ("0x10", None),
        ("\u0667", None),
        ("7 seconds", None),
        ("9" * 5000, None),
        ("Mon, 99 Foo 2026 00:00:00 GMT", None),
        ("Mon, 01 Jan 99999999 00:00:00 GMT", None),
    ],
)
def test_seconds_are_read_clamped_and_garbage_is_nothing(value: str, seconds: float | None) -> None:
    """A number of seconds is honoured within 0 and an hour; what cannot be read asks for nothing."""
    assert asked(value) == seconds


def test_milliseconds_win_over_seconds() -> None:
    """`retry-after-ms` is the more precise of the two headers, unless it is garbage."""
    assert asked("7", ("retry-after-ms", "1500")) == 1.5
    assert asked("7", ("retry-after-ms", "soon")) == 7.0


def test_a_date_counts_from_the_responses_own_clock() -> None:
    """Whatever our clock says, the wait is the difference of the provider's two dates."""
    skewed = NOW + 86_400
    assert asked(http_date(skewed + 9), ("date", http_date(skewed))) == 9.0
    assert asked(http_date(NOW + 9)) == 9.0
    assert asked(http_date(NOW + 9), ("date", "garbage and more")) == 9.0


def test_a_date_in_the_past_is_now_and_a_far_one_is_an_hour() -> None:
    """Dates are clamped like numbers."""
    assert asked(http_date(NOW - 60)) == 0.0
    assert asked(http_date(NOW + 86_400 * 365)) == LONGEST


def test_the_obsolete_date_forms_are_utc() -> None:
    """RFC 9110 recipients read the RFC 850 and asctime forms, too."""
    assert parse_retry_after((("retry-after", "Sun Nov  6 08:49:37 1994"),), now=784111777.0 - 5) == 5.0
    assert parse_retry_after((("retry-after", "Sunday, 06-Nov-94 08:49:37 GMT"),), now=784111777.0 - 5) == 5.0


def test_no_header_asks_for_nothing() -> None:
    """Silence is not zero."""
    assert parse_retry_after((), now=NOW) is None


HEADER_TEXT = st.one_of(
    st.text(max_size=60), st.from_regex(r"[A-Za-z]{3}, [0-9]{2} [A-Za-z]{3} [0-9+:\- ]{0,40}")
)


@settings(max_examples=300, deadline=None)
@given(ms=HEADER_TEXT, seconds=HEADER_TEXT, date=HEADER_TEXT)
def test_any_header_text_is_survived(ms: str, seconds: str, date: str) -> None:
    """Whatever a provider sends, the answer is None or within bounds."""
    headers: Headers = (("retry-after-ms", ms), ("retry-after", seconds), ("date", date))
    wait = parse_retry_after(headers, now=NOW)
    assert wait is None or 0 <= wait <= LONGEST


def test_the_wait_doubles_and_spreads() -> None:
    """100 ms, then 200 ms, each times 0.5 to 1.5."""
    assert jittered(0.1, 1, 0.0) == pytest.approx(0.05)
    assert jittered(0.1, 1, 0.5) == pytest.approx(0.1)
    assert jittered(0.1, 2, 0.5) == pytest.approx(0.2)
    assert jittered(0.1, 2, 0.999) < 0.3
    assert jittered(0.1, 10_000, 0.5) == jittered(0.1, 11, 0.5)


def drain(budget: RetryBudget, provider: str, now: float) -> int:
    taken = 0
    while budget.withdraw(provider, now):
        taken += 1
    return taken


def test_a_quiet_provider_has_ten_retries_a_second() -> None:
    """Without any traffic the reserve of ten seconds is there, once; it comes back after ten seconds."""
    budget = RetryBudget()
    assert drain(budget, "a", 0.0) == 100
    assert drain(budget, "a", 9.9) == 0
    assert drain(budget, "a", 10.0) == 100


def test_a_fifth_of_the_traffic_may_be_retried() -> None:
    """Each five first attempts earn one retry, exactly."""
    budget = RetryBudget(per_second=0)
    for _ in range(4):
        budget.deposit("a", 0.0)
    assert not budget.withdraw("a", 0.0)
    budget.deposit("a", 0.0)
    assert drain(budget, "a", 0.0) == 1


def test_credits_live_ten_seconds() -> None:
    """What was earned is gone after ten seconds, slot by slot and after a long silence."""
    budget = RetryBudget(per_second=0)
    for second in (0.0, 5.0):
        for _ in range(50):
            budget.deposit("a", second)
    assert budget.balance("a", 9.0) == 20
    assert budget.balance("a", 10.0) == 10
    assert budget.balance("a", 15.0) == 0
    budget.deposit("a", 16.0)
    assert budget.balance("a", 1e9) == 0


def test_providers_have_budgets_of_their_own() -> None:
    """A provider in trouble takes nothing from the others."""
    budget = RetryBudget()
    drain(budget, "a", 0.0)
    assert budget.balance("b", 0.0) == 100


def test_a_refused_withdrawal_takes_nothing() -> None:
    """Asking in vain does not make the debt larger."""
    budget = RetryBudget(per_second=0)
    for _ in range(100):
        budget.withdraw("a", 0.0)
    for _ in range(5):
        budget.deposit("a", 0.0)
    assert budget.withdraw("a", 0.0)


def test_memory_is_bounded_and_the_idlest_provider_starts_anew() -> None:
    """Beyond the limit the provider unused for longest is forgotten, not the busiest."""
    budget = RetryBudget(providers=2)
    drain(budget, "a", 0.0)
    drain(budget, "b", 0.0)
    budget.deposit("a", 0.0)
    budget.deposit("c", 0.0)
    assert not budget.withdraw("a", 0.0)
    assert budget.balance("b", 0.0) == 100


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200))
def test_within_any_ten_seconds_retries_stay_within_the_budget(steps: list[tuple[float, bool]]) -> None:
    """Retries of any ten seconds never exceed a fifth of the first attempts plus the reserve of twenty."""
    budget, now = RetryBudget(per_second=2), 0.0
    deposits: list[int] = []
    retries: list[int] = []
    for pause, first in steps:
        now += pause
        if first:
            budget.deposit("a", now)
            deposits.append(int(now))
        elif budget.withdraw("a", now):
            retries.append(int(now))
            recent = int(now) - 10
            earned = 0.2 * sum(at > recent for at in deposits) + 20
            assert sum(at > recent for at in retries) <= earned
