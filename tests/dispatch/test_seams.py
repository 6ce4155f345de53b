"""Where one attempt's text goes on with another's: what is kept, and how the two are fitted together."""

from __future__ import annotations

from typing import Final

import pytest

from tokenhub_core.dialects.sse import Event
from tokenhub_core.dispatch.seams import MAX_BEGUN, Begun, Seam, innermost
from tokenhub_core.quirks import prefill
from tokenhub_core.quirks.table import QUIRKS
from tokenhub_core.types import (
    Delta,
    Finished,
    Json,
    Logprob,
    ReasoningDelta,
    RefusalDelta,
    Started,
    Stopped,
    StopReason,
    TextDelta,
    ToolStarted,
    Unread,
    Usage,
    UsageSeen,
)

_EVENT: Final = Event(b"", "", b"")


class Written:
    """What is written, as it comes."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []

    def write(self, event: Event, deltas: tuple[Delta, ...]) -> bytes:
        del event
        self.deltas += deltas
        return b""

    def losses(self) -> tuple[str, ...]:
        return ("something",)


def begun(text: str = "so far", usage: Usage = Usage(3, 2)) -> Begun:
    return Begun(text, Written(), b"", usage)


@pytest.mark.parametrize(
    ("before", "pieces", "told"),
    [
        ("a ", [" b"], "b"),
        ("a ", ["b"], "b"),
        ("a \n\n", [" ", "\n", "\n", "b"], "b"),
        ("a \n", [" b"], "b"),
        ("a ", ["  b"], " b"),
        ("a ", ["\nb"], "\nb"),
        ("a ", ["", " ", " b"], " b"),
        ("a", [" b"], " b"),
    ],
)
def test_blanks_that_were_read_are_not_read_twice(before: str, pieces: list[str], told: str) -> None:
    """What both have in common at the seam is left out of the rest, wherever that is cut."""
    seam = Seam(begun(before))
    fitted = [one for piece in pieces for one in seam.fit((TextDelta(piece),))]
    assert "".join(one.text for one in fitted if isinstance(one, TextDelta)) == told


def test_what_is_no_text_passes_the_seam() -> None:
    """Only text has blanks."""
    seam = Seam(begun("a "))
    others = (Started("id"), UsageSeen(Usage(1, 1)))
    assert seam.fit(others) == others


def test_the_text_is_that_of_all_parts() -> None:
    """Who goes on next is told all of it."""
    seam = Seam(begun("one "))
    seam.follow((Started(), TextDelta("two"), UsageSeen(Usage()), Unread("ping", beside=True)))
    assert seam.text() == "one two"


@pytest.mark.parametrize(
    "delta",
    [
        ReasoningDelta("hm"),
        RefusalDelta("no"),
        ToolStarted(0, "id", "tool"),
        Stopped(StopReason.END),
        Finished(),
        Unread("something"),
        TextDelta("text", (Logprob("text", -0.1),)),
    ],
    ids=lambda delta: type(delta).__name__,
)
def test_where_there_is_more_than_text_nobody_goes_on(delta: Delta) -> None:
    """Not from there, nor from any later place."""
    seam = Seam()
    seam.follow((TextDelta("so far"), delta))
    seam.follow((TextDelta(" and on"),))
    assert seam.text() == ""


def test_what_is_too_long_or_blank_is_not_gone_on_with() -> None:
    """A megabyte is kept at most; blanks alone are no beginning."""
    long, blank = Seam(), Seam()
    long.follow((TextDelta("x" * MAX_BEGUN),))
    assert len(long.text()) == MAX_BEGUN
    long.follow((TextDelta("x"),))
    blank.follow((TextDelta(" \n"),))
    assert (long.text(), blank.text()) == ("", "")


def test_the_rest_has_no_beginning_and_the_usage_of_all() -> None:
    """One start, and the counts once, before the end: those of the parts before on top."""
    before = begun(usage=Usage(3, 2, 1))
    output = Seam(before).output()
    assert output is not None
    output.write(_EVENT, (Started("other"), UsageSeen(Usage(10, 1))))
    output.write(_EVENT, (TextDelta("on"), UsageSeen(Usage(10, 7))))
    assert isinstance(before.output, Written)
    assert before.output.deltas == [TextDelta("on")], "of one that comes to nothing no count would be kept"
    output.write(_EVENT, (Stopped(StopReason.END), Finished()))
    total = UsageSeen(Usage(13, 9, 1))
    assert before.output.deltas[1:] == [total, Stopped(StopReason.END), total, Finished()]
    assert output.losses() == ("something",)


def test_a_rest_without_counts_tells_none() -> None:
    """What was estimated of the parts before is no count of a provider."""
    before = begun()
    output = Seam(before).output()
    assert output is not None
    output.write(_EVENT, (TextDelta("on"), Finished()))
    assert isinstance(before.output, Written)
    assert before.output.deltas == [TextDelta("on"), Finished()]


def test_parts_are_written_by_the_one_that_began() -> None:
    """However many there are."""
    first = begun()
    second = Seam(first).output()
    assert second is not None
    assert innermost(second) is first.output
    assert innermost(first.output) is first.output
    assert Seam().output() is None


def test_each_kind_of_server_is_told_in_its_own_way() -> None:
    """By the message, by two fields, or not at all; the body that was given stays as it is."""
    body: Json = {
        "model": "m",
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    }
    flagged = {**body, "continue_final_message": True, "add_generation_prompt": False}
    last = {"role": "assistant", "content": "b", "prefix": True}
    assert prefill.marked(body, {"prefill"}) == body
    assert prefill.marked(body, {"prefill_flag"}) == flagged
    assert prefill.marked(body, {"prefill_prefix"}) == {**body, "messages": [body["messages"][0], last]}
    assert "prefix" not in body["messages"][-1]
    names = {"prefill", "prefill_prefix", "prefill_flag"}
    assert {name for name in QUIRKS if prefill.goes_on({name})} == names
