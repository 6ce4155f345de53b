"""What is told of each tool call, by what both sides had."""

from __future__ import annotations

import pytest

from tokenhub_core.proof.canon import call_hash
from tokenhub_core.proof.reading import Called, Side, Sides
from tokenhub_core.proof.verdicts import Verdict, judged, judged_text, worst
from tokenhub_core.types import Dialect

KEY = bytes(32)
CHAT = Dialect.OPENAI_CHAT


def called(arguments: str, name: str = "f", id_: str = "") -> Called:
    return Called(id_, name, call_hash(KEY, name, arguments), arguments)


def side(*calls: Called, whole: bool = True, text: str = "") -> Side:
    return Side(calls, text, text.encode(), whole=whole)


def told(sent: Side, given: Side, mended: Side | None = None, dialect: Dialect = CHAT) -> list[str]:
    return [one.verdict for one in judged(Sides(sent, mended or sent), given, dialect)]


A, B = called('{"a":1}'), called('{"b":2}', "g")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (side(A, B), ["same", "same"]),
        (side(called('{ "a": 1 }'), B), ["same", "same"]),
        (side(B, A), ["changed", "changed"]),
        (side(A), ["same", "changed"]),
        (side(A, B, B), ["same", "same", "changed"]),
        (side(called('{"a":1}', "h"), B), ["changed", "same"]),
        (side(A, whole=False), ["same", "partial"]),
        (side(A, called('{"b"', "g"), whole=False), ["same", "partial"]),
        (side(A, called('{"b"', "g")), ["same", "changed"]),
        (side(A, called('{"x"', "g"), whole=False), ["same", "changed"]),
        (side(A, called('{"b"', "h"), whole=False), ["same", "changed"]),
        (side(called('{"a"'), B, whole=False), ["changed", "same"]),
        (side(whole=False), ["partial", "partial"]),
    ],
)
def test_calls_are_compared_one_by_one(given: Side, wanted: list[str]) -> None:
    """In their order. Only the last of an answer that was cut short may be the beginning of what was sent."""
    assert told(side(A, B), given) == wanted


def test_a_repair_is_told_as_one_and_nothing_more_hides_behind_it() -> None:
    """The call that its provider sent unrepaired is not what was to be given either."""
    mended = side(called('{"a":1}', "f.g", "c1"))
    sent = side(called('{"a":1}', "f_g", "c1"))
    assert told(sent, mended, mended) == ["changed:quirk"]
    assert told(sent, side(called('{"a":2}', "f.g", "c1")), mended) == ["changed"]
    assert told(sent, sent, mended) == ["changed"]
    (one,) = judged(Sides(sent, mended), mended, CHAT)
    assert one.sent == sent.calls[0]


def test_calls_that_no_repair_touched_stay_the_same_beside_one_that_did() -> None:
    """One was read out of words before the other."""
    made = called('{"x":1}', id_="made")
    sides = Sides(side(A), side(made, A))
    found = judged(sides, side(made, A), CHAT)
    assert [(one.sent, one.verdict) for one in found] == [(None, "changed:quirk"), (A, "same")]


def test_a_dialect_without_tool_calls_loses_them() -> None:
    """That is a loss, and not even that where there was none to lose; one that turns up there came from nowhere."""
    assert told(side(A), side(), dialect=Dialect.OPENAI_COMPLETIONS) == ["lost"]
    assert told(side(), side(A), dialect=Dialect.OPENAI_COMPLETIONS) == ["changed"]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (side(text="Hello"), "same"),
        (side(text="Hallo"), "changed"),
        (side(text="Hell", whole=False), "partial"),
        (side(text="Hell"), "changed"),
        (side(text="Hull", whole=False), "changed"),
        (side(text="mended"), "changed:quirk"),
    ],
)
def test_words_are_compared_as_a_whole(given: Side, wanted: str) -> None:
    """And by how they begin, where the answer was cut short."""
    sent = side(text="Hello")
    mended = side(text="mended") if wanted == "changed:quirk" else sent
    assert judged_text(Sides(sent, mended), given) == wanted


def test_the_worst_is_what_is_told_of_all() -> None:
    """Nothing at all is the same as what was sent."""
    assert worst([]) is Verdict.SAME
    assert worst([Verdict.SAME, Verdict.PARTIAL, Verdict.QUIRK]) is Verdict.PARTIAL
    assert worst([Verdict.PARTIAL, Verdict.CHANGED]) is Verdict.CHANGED
