"""Denied attempts are counted; they never fill the disk."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.audit.denials import FIRST, LONGEST, OTHERS, SOURCES, Attempt, Denials

ONE = Attempt("10.0.0.1", "admin_token", "GET /admin/v1/info")


def test_the_first_attempt_is_told_at_once_and_the_others_together() -> None:
    """One now, the rest with their count when the window has ended."""
    denials = Denials()
    assert denials.seen(ONE, 0.0) == ONE
    for _ in range(9):
        assert denials.seen(ONE, 1.0) is None
    assert denials.due(FIRST - 0.1) == []
    assert denials.due(FIRST) == [(ONE, 9)]
    assert denials.due(FIRST + 1) == []


def test_a_single_attempt_is_told_once() -> None:
    """There is nothing to count behind it."""
    denials = Denials()
    denials.seen(ONE, 0.0)
    assert denials.due(FIRST) == []
    assert denials.seen(ONE, FIRST) == ONE


def test_sources_and_reasons_are_told_apart() -> None:
    """Up to a bound; those beyond share one place for each reason."""
    denials = Denials()
    told = [denials.seen(Attempt(f"10.0.0.{n}", "admin_token"), 0.0) for n in range(SOURCES + 3)]
    assert [attempt.source for attempt in told if attempt] == [f"10.0.0.{n}" for n in range(SOURCES)] + [
        OTHERS
    ]
    assert denials.seen(Attempt("10.0.0.0", "bad_host"), 0.0) == Attempt(OTHERS, "bad_host", actor=OTHERS)
    assert denials.seen(Attempt("10.0.0.0", "admin_token"), 0.0) is None
    assert {(attempt.source, count) for attempt, count in denials.due(FIRST)} == {
        ("10.0.0.0", 1),
        (OTHERS, 2),
    }


def test_windows_grow_while_attempts_go_on_and_begin_anew_after_quiet() -> None:
    """A minute, two, four, up to an hour; a window without any is the end of that."""
    denials, now, lengths = Denials(), 0.0, []
    for _ in range(8):
        denials.seen(ONE, now)
        denials.seen(ONE, now)
        end = now
        while not denials.due(end):
            end += 30.0
        lengths.append(end - now)
        now = end
    assert lengths == [60, 120, 240, 480, 960, 1920, LONGEST, LONGEST]
    assert denials.due(now + LONGEST) == []
    denials.seen(ONE, now + LONGEST)
    denials.seen(ONE, now + LONGEST)
    assert denials.due(now + LONGEST + FIRST) == [(ONE, 1)]


def test_who_leaves_tells_what_was_gathered() -> None:
    """Also in the middle of a window."""
    denials = Denials()
    denials.seen(ONE, 0.0)
    denials.seen(ONE, 0.0)
    assert denials.due(1.0, leaving=True) == [(ONE, 1)]
    assert denials.due(1.0, leaving=True) == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 120)), max_size=200))
def test_nothing_is_lost_and_no_attempt_is_told_twice(attempts: list[tuple[int, float]]) -> None:
    """What is told adds up to what was seen, and a window tells a bounded number of entries."""
    denials, now, told, windows = Denials(), 0.0, 0, 1
    for source, pause in attempts:
        now += pause
        gathered = denials.due(now)
        windows += bool(gathered)
        assert len(gathered) <= SOURCES + 1
        told += sum(count for _, count in gathered)
        told += denials.seen(Attempt(str(source), "admin_token"), now) is not None
    told += sum(count for _, count in denials.due(now, leaving=True))

    assert told == len(attempts)
