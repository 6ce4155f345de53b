"""What is told of breakers: that one has opened, and that it is closed again."""

from __future__ import annotations

from tokenhub_core.health.breaker import Breaker
from tokenhub_core.health.circuits import Circuits, Turned


def test_one_that_opens_and_closes_is_told_once_each() -> None:
    """With the cause of the failure; what stays as it is, is no news."""
    breaker, circuits = Breaker(failures=1), Circuits()
    circuits.add("database", breaker)
    assert circuits.fresh() == []

    breaker.failed(0.0, "store_lost")
    assert not breaker.closed
    assert circuits.fresh() == [Turned("database", open=True, reason="store_lost", times=1)]
    breaker.failed(1.0, "store_lost")
    assert circuits.fresh() == []

    breaker.succeeded()
    assert (breaker.closed, breaker.why) == (True, "")
    assert circuits.fresh() == [Turned("database", open=False)]
    assert circuits.fresh() == []


def test_one_that_flutters_makes_two_news_in_a_look() -> None:
    """However often it has opened meanwhile: that is counted."""
    breaker, circuits = Breaker(failures=1), Circuits()
    circuits.add("database", breaker)
    for now in range(50):
        breaker.failed(float(now), "store_full")
        breaker.succeeded()

    assert circuits.fresh() == [Turned("database", open=True, times=50), Turned("database", open=False)]


def test_one_that_opened_again_before_anybody_looked_is_told_to_be_open() -> None:
    """What is told last is how it is."""
    breaker, circuits = Breaker(failures=1), Circuits()
    circuits.add("temporal", breaker)
    breaker.failed(0.0, "unavailable")
    circuits.fresh()
    breaker.succeeded()
    breaker.failed(1.0, "unavailable")

    assert circuits.fresh() == [Turned("temporal", open=True, reason="unavailable", times=1)]
