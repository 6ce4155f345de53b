"""The form of an answer's text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given

from tests.shaping.reading import pieces, read
from tokenhub_core.quirks.base import Scanner
from tokenhub_core.shaping.forms import Plain, Trimmed, body_of_json, body_of_xml

FENCED = 'Here it is:\n```json\n{"a": [1,\n 2]}\n```\nAnything else?'
WORDS = (
    "```", "`", "json", "xml", "python", "\n", " ", "{", "}", '"a"', "<a>", "</a>", "*", "**", "#", "##", "> ",
    "x", "1", "\t", "\r\n", "_", "é",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('  \n{"a": 1}\n ', '{"a": 1}'),
        ("[1]", "[1]"),
        (FENCED, '{"a": [1,\n 2]}'),
        ('```\n{"a": 1}\n```', '{"a": 1}'),
        ('```JSON\n{"a": 1}\n```  ', '{"a": 1}'),
        ('```json\n{"a": 1}', '{"a": 1}'),
        ('```python\nx = {}\n```\nand\n```json\n{"a": 1}\n```', '{"a": 1}'),
        ('{"a": "```json\\n1\\n```"}', '{"a": "```json\\n1\\n```"}'),
        ('```json\n{"a": "x ``` y"}\n```', '{"a": "x ``` y"}'),
        ("I cannot say.", "I cannot say."),
        ("three", "three"),
        ("3", "3"),
        ("", ""),
    ],
)
def test_json_is_what_stands_in_the_first_fence_or_all_of_it(text: str, left: str) -> None:
    """Introductions and farewells go; what holds neither a fence nor JSON stays, to be refused."""
    assert read(body_of_json, text) == left
    assert read(body_of_json, *text) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<a/>", "<a/>"),
        ("Sure:\n```xml\n<a>\n</a>\n```\n", "<a>\n</a>"),
        (' <?xml version="1.0"?><a/> ', '<?xml version="1.0"?><a/>'),
        ("```xml\n<a>\n``` is no end\n</a>\n```", "<a>\n``` is no end\n</a>"),
        ("{}", "{}"),
    ],
)
def test_so_is_xml(text: str, left: str) -> None:
    """The same for documents of the other kind."""
    assert read(body_of_xml, text) == left
    assert read(body_of_xml, *text) == left


def test_markdown_loses_the_white_space_around_it() -> None:
    """And nothing else."""
    assert read(Trimmed, "\n\n# A\n\n* b  \n\n") == "# A\n\n* b"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("# Title\n\nSome **bold** and *slanted* `code`.", "Title\n\nSome bold and slanted code."),
        ("###### Deep\n####### no heading", "Deep\n####### no heading"),
        ("#hashtag", "#hashtag"),
        ("  indented\n\tmore", "indented\nmore"),
        ("> quoted\n>> twice", "quoted\ntwice"),
        ("2 * 3 and 4*5 but *so*", "2 * 3 and 4*5 but so"),
        ("* one\n* two", "* one\n* two"),
        ("before\n```python\nx = a ** b  # c\n```\nafter", "before\nx = a ** b  # c\nafter"),
        ("***all***", "all"),
        ("it ends in*", "it ends in"),
        ("free ** stars **", "free ** stars **"),
        ("", ""),
    ],
)
def test_text_has_no_marks_of_markdown(text: str, left: str) -> None:
    """Stars that mean something else stay, and so does what stands in a fence."""
    assert read(Plain, text) == left
    assert read(Plain, *text) == left


@pytest.mark.parametrize("make", [body_of_json, body_of_xml, Trimmed, Plain])
@given(cut=pieces(WORDS))
def test_it_does_not_matter_where_the_text_was_cut(make: Callable[[], Scanner], cut: list[str]) -> None:
    """What is left of a stream is what is left of the whole."""
    assert read(make, *cut) == read(make, "".join(cut))


def test_json_flows_once_it_has_begun() -> None:
    """A long object is not held until its end."""
    scanner = body_of_json()
    assert [len(scanner.feed(piece)) for piece in ("Sure:\n", "```json\n", '{"a":', " 1")] == [0, 0, 1, 1]
