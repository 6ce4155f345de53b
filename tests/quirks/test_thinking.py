"""Thoughts between tags."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.growth import Work, in_proportion
from tokenhub_core.quirks.base import Found
from tokenhub_core.quirks.thinking import ThoughtScanner
from tokenhub_core.types import ReasoningDelta, TextDelta

type Told = list[tuple[str, str]]


def told(pieces: list[str], *, opened: bool = False) -> Told:
    """Return what is found in an answer that comes in pieces: kind and text, neighbours joined."""
    scanner = ThoughtScanner(opened=opened)
    found: list[Found] = [delta for piece in pieces for delta in scanner.feed(piece)]
    whole: Told = []
    for delta in [*found, *scanner.flush()]:
        assert isinstance(delta, TextDelta | ReasoningDelta)
        kind = "text" if isinstance(delta, TextDelta) else f"thought {delta.part}"
        if whole and whole[-1][0] == kind:
            whole[-1] = (kind, whole[-1][1] + delta.text)
        else:
            whole.append((kind, delta.text))
    return whole


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<think>a < b</think>So.", [("thought 0", "a < b"), ("text", "So.")]),
        ("<thinking>\nhm\n</thinking>\n\nSo.", [("thought 0", "hm"), ("text", "So.")]),
        ("\n <think>\n hm \n\n well </think> So. ", [("thought 0", "hm \n\n well"), ("text", "So. ")]),
        ("<think></think>\n\nSo.", [("text", "So.")]),
        ("<think>a</think>\n<think>b</think>c", [("thought 0", "a"), ("thought 1", "b"), ("text", "c")]),
        ("<think>a</thinking>b", [("thought 0", "a</thinking>b")]),
        ("<think>a</thi", [("thought 0", "a</thi")]),
        ("Use <think>x</think>.", [("text", "Use <think>x</think>.")]),
        (" <thin air", [("text", " <thin air")]),
        ("<thin", [("text", "<thin")]),
        ("</think>a", [("text", "</think>a")]),
        ("  ", [("text", "  ")]),
        ("", []),
    ],
)
def test_thoughts_at_the_beginning_are_told_from_words(text: str, wanted: Told) -> None:
    """Tags go, with the white space next to them; everything else stays what it is."""
    assert told([text]) == wanted
    assert told(list(text)) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hm\n</think>\n\nSo.", [("thought 0", "hm"), ("text", "So.")]),
        ("hm</thinking>So.", [("thought 0", "hm"), ("text", "So.")]),
        ("\n<think>\nhm</think>So.", [("thought 0", "hm"), ("text", "So.")]),
        ("</think>So.", [("text", "So.")]),
        ("<thin ice", [("thought 0", "<thin ice")]),
        ("<thin", [("thought 0", "<thin")]),
        ("never ends ", [("thought 0", "never ends")]),
    ],
)
def test_an_answer_may_begin_in_the_midst_of_a_thought(text: str, wanted: Told) -> None:
    """Where the template wrote the opening tag, only the closing one is seen."""
    assert told([text], opened=True) == wanted
    assert told(list(text), opened=True) == wanted


_TEXTS = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<thinking>",
            "</thinking>",
            "<",
            "</",
            "<th",
            "ink>",
            " ",
            "\n",
            "a",
            "é",
            "a b",
        ]
    ),
    max_size=12,
).map("".join)


@given(_TEXTS, st.lists(st.integers(1, 9), max_size=20), st.booleans())
def test_where_the_text_is_cut_does_not_matter(text: str, sizes: list[int], opened: bool) -> None:
    """Any split tells the same, and nothing is lost but tags and the white space next to them."""
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    whole = told([text], opened=opened)
    assert told([*pieces, text[at:]], opened=opened) == whole
    left = "".join(part for _, part in whole)
    assert _bare(left) == _bare(text)


def _bare(text: str) -> str:
    return re.sub(r"\s|</?think(ing)?>", "", text)


def test_what_cannot_be_a_tag_is_not_held_back() -> None:
    """Words leave at once, and of thoughts at most the white space and what a closing tag begins with stays."""
    scanner = ThoughtScanner()
    assert scanner.feed("<") == []
    assert scanner.feed("b>") == [TextDelta("<b>")]
    assert scanner.feed("<think") == [TextDelta("<think")]
    scanner = ThoughtScanner()
    assert scanner.feed("<think>a <") == [ReasoningDelta("a")]
    assert scanner.feed("/b") == [ReasoningDelta(" </b")]
    assert scanner.feed("\n</thin") == []
    assert scanner.feed("k>") == []
    assert scanner.feed("c") == [TextDelta("c")]


@pytest.mark.parametrize("unit", ["<", "</think", " ", "<think>", "a</"])
def test_adversarial_text_takes_time_in_proportion(unit: str) -> None:
    """In one piece and in many."""

    def make(size: int) -> Work:
        text = "<think>" + unit * size

        def work() -> None:
            told([text])
            scanner = ThoughtScanner()
            for piece in text:
                scanner.feed(piece)

        return work

    in_proportion(make, 2_000)
