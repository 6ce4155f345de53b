"""Answers that are XML."""

from __future__ import annotations

import pytest

from tokenhub_core.shaping import xml

BOMB = '<!DOCTYPE a [<!ENTITY b "b"><!ENTITY c "&b;&b;">]><a>&c;</a>'


@pytest.mark.parametrize(
    "text",
    [
        "<a/>",
        '<?xml version="1.0" encoding="utf-8"?>\n<a b="c">d &amp; &#233;</a>',
        "<a><!-- x --><b/></a>",
        "<é/>",
    ],
)
def test_a_document_is_well_formed(text: str) -> None:
    """One root, and what belongs to it."""
    assert xml.fault(text) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("<a><b></a></b>", "mismatched tag, line 1, column 9"),
        ("<a/><b/>", "junk after document element"),
        ("<a>&b;</a>", "undefined entity"),
        (BOMB, "a document type is not read"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "a document type is not read"),
        ('<?xml version="1.0" encoding="utf-7"?><a/>', "an encoding that is not read"),
        ("<a>" * 65 + "</a>" * 65, "more than 64 elements"),
        ("", "no element found"),
        ("Sorry.", "syntax error"),
        ("<a>" + " " * xml.MAX_CHARS + "</a>", "longer than"),
    ],
)
def test_anything_else_is_told(text: str, told: str) -> None:
    """No entity is expanded and no file is named, whatever the document says of itself."""
    assert told in xml.fault(text)
