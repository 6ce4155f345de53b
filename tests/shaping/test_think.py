"""Thoughts taken out of an answer's text."""

from __future__ import annotations

import pytest
from hypothesis import given

from tests.shaping.reading import pieces, read
from tokenhub_core.shaping.think import ThinkScanner

WORDS = ("<think>", "</think>", "<thinking>", "</thinking>", "<thi", "nk>", "<", "</", " ", "\n", "Oslo", ">")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Oslo", "Oslo"),
        ("<think>north?</think>Oslo", "Oslo"),
        ("<think>\nnorth?\n</think>\n\nOslo", "Oslo"),
        ("<thinking>north?</thinking> Oslo", "Oslo"),
        ("It is <think>north?</think> Oslo.", "It is Oslo."),
        ("<think>a</think>one <think>b</think>two", "one two"),
        ("<think>never closed", ""),
        ("Oslo <think>never closed", "Oslo "),
        ("<think>a</thinking>b</think>c", "c"),
        ("a <thin edge", "a <thin edge"),
        ("ends in <think", "ends in <think"),
        ("no </think> of its own", "no </think> of its own"),
        ("<think></think>", ""),
        ("", ""),
    ],
)
def test_thoughts_go_with_the_white_space_behind_them(text: str, left: str) -> None:
    """Wherever they stand; one that is never closed reaches to the end, and half a tag is words."""
    assert read(ThinkScanner, text) == left
    assert read(ThinkScanner, *text) == left


@given(pieces(WORDS))
def test_it_does_not_matter_where_the_text_was_cut(cut: list[str]) -> None:
    """What is left of a stream is what is left of the whole."""
    assert read(ThinkScanner, *cut) == read(ThinkScanner, "".join(cut))


def test_words_flow_while_a_thought_is_not_open() -> None:
    """Only what may be a tag is held back."""
    scanner = ThinkScanner()
    assert [len(scanner.feed(piece)) for piece in ("Os", "lo ", "<", "think>x", "</think>", "y")] == [
        1,
        1,
        0,
        0,
        0,
        1,
    ]


def test_a_second_text_begins_anew() -> None:
    """A thought that was never closed does not reach over the end of its text."""
    scanner = ThinkScanner()
    scanner.feed("<think>open")
    scanner.flush()
    assert scanner.feed("Oslo ")
