"""From ten seconds to days: totals stay, spans cover, questions find the right resolution."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.telemetry import sketches
from tokenhub_core.telemetry.rollups import (
    DAY,
    HOUR,
    MINUTE,
    RESOLUTIONS,
    Keep,
    bounded,
    coarser,
    cover,
    resolution_for,
    step_for,
)
from tokenhub_core.telemetry.series import COUNTERS, MICROS, SKETCHES, Fact, Key, Sums, folded
from tokenhub_core.types import Shadow

NOW = 1_700_000_000.0
KEEP = Keep((2, 14, 400, None))
OUTCOMES = ("ok", "error", "cancelled", "passed")


def fact(at: float = 0.0, **changes: Any) -> Fact:
    fields: dict[str, Any] = {
        "at": round(at * MICROS),
        "outcome": "ok",
        "status": 200,
        "model_id": "m",
        "provider_id": "p",
        "key_id": None,
        "project": None,
        "origin_host": "h",
        "program": "cli",
        "mode": "normal",
        "error_class": "",
        "input_tokens": 100,
        "output_tokens": 11,
        "cache_read_tokens": 40,
        "cost_nanousd": 7,
        "ttft_ms": 200.0,
        "total_ms": 1200.0,
        "shadow": None,
    }
    return Fact(**(fields | changes))


FACTS = st.lists(
    st.builds(
        fact,
        at=st.floats(0, 3 * DAY),
        outcome=st.sampled_from(OUTCOMES),
        model_id=st.sampled_from("abc"),
        key_id=st.sampled_from([None, "k1", "k2"]),
        output_tokens=st.integers(0, 3),
        cost_nanousd=st.integers(0, 10**12),
        ttft_ms=st.none() | st.floats(0.01, 1e5),
        total_ms=st.none() | st.floats(0.01, 1e6),
    ),
    max_size=40,
)


def together(every: list[Sums]) -> Sums:
    total = Sums()
    for one in every:
        total.add(one)
    return total


def alone(facts: list[Fact]) -> Sums:
    total = Sums()
    for one in facts:
        total.count(one)
    return total


@given(FACTS)
def test_every_resolution_has_the_totals_of_the_calls(facts: list[Fact]) -> None:
    """Counters and sketches, by series too; and a day made of hours is a day made of calls."""
    fine = folded(facts)
    cells = fine
    for resolution in RESOLUTIONS:
        cells = coarser(cells, resolution)
        assert asdict(together(list(cells.values()))) == asdict(alone(facts))
        assert cells == coarser(fine, resolution)
        assert all(at % resolution == 0 for at, _ in cells)
        for key in {one.key for one in facts}:
            here = together([sums for (_, series), sums in cells.items() if series == key])
            assert here == alone([one for one in facts if one.key == key])


@given(FACTS, FACTS)
def test_adding_knows_no_order(some: list[Fact], more: list[Fact]) -> None:
    """Two processes that add to one stretch come to the same whoever is first."""
    one, two = alone(some), alone(more)
    one.add(alone(more))
    two.add(alone(some))
    assert one == two == alone(some + more)


def test_what_one_call_adds() -> None:
    """Each counter and each time by its rule."""
    cells = folded([fact(25.0, project="x", key_id="k")])
    [((at, key), sums)] = cells.items()
    assert (at, key) == (20, Key("m", "p", "k", "x", "h", "cli", "normal", "2xx", ""))
    counted = {name: getattr(sums, name) for name in COUNTERS if getattr(sums, name)}
    assert counted == {
        "calls": 1,
        "answered": 1,
        "input_tokens": 100,
        "output_tokens": 11,
        "cached_tokens": 40,
        "cost_nanousd": 7,
        "took_us": 1_200_000,
    }
    times = {name: getattr(sums, name) for name in SKETCHES}
    assert times == {
        "latency": {sketches.slot(1200): 1},
        "ttft": {sketches.slot(200): 1},
        "pace": {sketches.slot(100): 1},
    }


@pytest.mark.parametrize(
    ("changes", "counted", "timed"),
    [
        ({"outcome": "error", "status": 503}, {"errors": 1}, set()),
        ({"outcome": "cancelled", "status": 499}, {"cancelled": 1}, set()),
        ({"outcome": "passed"}, {"passed": 1, "answered": 1}, {"latency", "ttft", "pace"}),
        ({"outcome": "passed", "output_tokens": 0}, {"passed": 1}, set()),
        ({"outcome": "passed", "status": 429}, {"passed": 1}, set()),
        ({"ttft_ms": None}, {"answered": 1}, {"latency"}),
        ({"output_tokens": 1}, {"answered": 1}, {"latency", "ttft"}),
        ({"total_ms": None}, {"answered": 1}, set()),
    ],
)
def test_only_answers_are_timed(changes: Any, counted: dict[str, int], timed: set[str]) -> None:
    """A quick refusal would make the times look good."""
    sums = alone([fact(**changes)])
    names = ("answered", "errors", "cancelled", "passed")
    assert {name: getattr(sums, name) for name in names if getattr(sums, name)} == counted
    assert {name for name in SKETCHES if getattr(sums, name)} == timed


@pytest.mark.parametrize(("paid", "would", "saved"), [(9, 4, 5), (4, 9, -5), (None, 4, 0), (9, None, 0)])
def test_what_shadow_saved_is_known_where_both_prices_are(
    paid: int | None, would: int | None, saved: int
) -> None:
    """It may be less than nothing."""
    shadow = msgspec.json.encode(Shadow(paid=paid, nanousd=would)).decode()
    assert alone([fact(shadow=shadow)]).saved_nanousd == saved


@given(FACTS, st.integers(1, 4))
def test_a_day_has_so_many_series_and_loses_no_call(facts: list[Fact], most: int) -> None:
    """What is more goes into `other`, in every resolution alike; the totals stay."""
    cells = bounded(folded(facts), {}, most)
    assert together(list(cells.values())) == alone(facts)
    days = {(at // DAY, key) for at, key in cells if key != key.folded}
    assert max(Counter(day for day, _ in days).values(), default=0) <= most
    known = {DAY: {fact().key.id}}
    kept = bounded(folded([fact(DAY), fact(DAY, model_id="new")]), known, 1)
    assert {key for _, key in kept} == {fact().key, fact(model_id="new").key.folded}


@given(st.integers(0, 30 * DAY // 10), st.integers(0, 3 * DAY // 10))
def test_spans_cover_every_ten_seconds_once(begin: int, length: int) -> None:
    """None twice, none left out, none beyond; and of each resolution few."""
    since, until = begin * 10, (begin + length) * 10
    spans = sorted(cover(since, until), key=lambda one: one.since)
    at = since
    for span in spans:
        assert span.since == at < span.until
        assert span.since % span.resolution == span.until % span.resolution == 0
        at = span.until
    assert at == until or not length
    parts = sum((one.until - one.since) // one.resolution for one in spans)
    assert parts <= 2 * (5 + 59 + 23) + 3


def test_days_are_those_of_utc() -> None:
    """Whatever the zone of the machine or of a budget, and on the day on which clocks are put forward."""
    morning = datetime(2030, 3, 31, 0, 30, tzinfo=UTC).timestamp()
    cells = coarser(folded([fact(morning), fact(morning + 23 * HOUR)]), DAY)
    assert [datetime.fromtimestamp(at, UTC).isoformat() for at, _ in cells] == ["2030-03-31T00:00:00+00:00"]


@pytest.mark.parametrize(
    ("step", "ago", "resolution"),
    [
        (10, HOUR, 10),
        (30, HOUR, 10),
        (60, HOUR, 60),
        (300, 10 * DAY, 60),
        (7200, DAY, HOUR),
        (2 * DAY, 9000 * DAY, DAY),
    ],
)
def test_a_step_is_made_of_the_coarsest_resolution_that_makes_it(
    step: int, ago: float, resolution: int
) -> None:
    """So that as little as can be is read."""
    assert resolution_for(step, NOW - ago, KEEP, NOW) == resolution


@pytest.mark.parametrize(
    ("step", "ago", "words"),
    [
        (15, 0, "multiple of 10"),
        (0, 0, "multiple of 10"),
        (10, 3 * DAY, "2 days.* ask for 60"),
        (60, 500 * DAY, "86400"),
    ],
)
def test_a_step_that_is_not_kept_is_refused_with_one_that_is(step: int, ago: float, words: str) -> None:
    """And not answered with half of it."""
    with pytest.raises(TokenHubError, match=words):
        resolution_for(step, NOW - ago, KEEP, NOW)


@pytest.mark.parametrize(
    ("ago", "step"),
    [(600, 10), (HOUR, 30), (DAY, 300), (3 * DAY, 1800), (3, 10), (30 * DAY, 21_600), (9000 * DAY, DAY)],
)
def test_who_names_no_step_gets_one_that_is_kept(ago: float, step: int) -> None:
    """At most 300 points, but for what is longer than all steps."""
    assert step_for(NOW - ago, NOW, KEEP, NOW) == step
    assert resolution_for(step, NOW - ago, KEEP, NOW)


def test_a_coarser_resolution_is_kept_as_long() -> None:
    """Else a series would be in the minutes and not in the days."""
    assert Keep((2, 2, 2, 2)).since(MINUTE, NOW) == NOW - 2 * DAY
    with pytest.raises(ConfigError, match="SERIES"):
        Keep((2, 14, None, 400))


def test_a_series_has_the_same_number_always() -> None:
    """It stands in databases; and values do not run into each other."""
    assert Key("m", "p").id == Key(model="m", provider="p").id == 4950681615289985709
    assert len({Key("a", "b").id, Key("ab", "").id, Key("", "ab").id, Key("a\0b").id}) == 4
