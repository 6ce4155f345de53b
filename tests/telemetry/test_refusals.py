"""Who is refused at the door is recorded, and a flood of them is counted."""

from __future__ import annotations

from tests.audit.conftest import Hands
from tests.fakes.engine import Kept
from tokenhub_core.telemetry.refusals import EACH_SECOND, Refusals
from tokenhub_core.types import Caller, Outcome, Record


def refused(number: int) -> Record:
    return Record(
        f"r{number}",
        0.0,
        Outcome.ERROR,
        401,
        Caller("10.0.0.7"),
        "POST",
        "/",
        fault="key_unknown",
        message="no",
    )


def test_of_a_flood_the_first_of_each_second_are_recorded_and_the_rest_counted() -> None:
    """None is lost: rows and counts come to all; and the row after the flood says how many it does not show."""
    recorder, counted, clock = Kept(), list[str](), Hands()
    it = Refusals(recorder, clock, counted.append)
    clock.at = 5.0
    for number in range(1000):
        it(refused(number))
    assert [one.id for one in recorder.records] == [f"r{number}" for number in range(EACH_SECOND)]
    assert counted == ["key_unknown"] * (1000 - EACH_SECOND)
    clock.at = 5.99
    it(refused(1000))
    assert len(recorder.records) == EACH_SECOND
    clock.at = 6.0
    it(refused(1001))
    it(refused(1002))
    assert [one.message for one in recorder.records[EACH_SECOND:]] == [
        f"no ({1001 - EACH_SECOND} refused before this one were only counted)",
        "no",
    ]
