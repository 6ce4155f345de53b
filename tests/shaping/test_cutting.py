"""Text that is cut."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shaping.reading import pieces
from tokenhub_core.shaping.cutting import ELLIPSIS, Cut, breaks, cut
from tokenhub_core.types import (
    Delta,
    Stopped,
    StopReason,
    TextDelta,
    ToolArguments,
    ToolStarted,
    Unread,
    Usage,
    UsageSeen,
)

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f466"
NORWAY, FRANCE = "\U0001f1f3\U0001f1f4", "\U0001f1eb\U0001f1f7"
THUMB = "\U0001f44d\U0001f3fd"
ACCENT = "e\u0301"
HANGUL = "\u1112\u1161\u11ab"
CLUSTERS = (
    FAMILY,
    NORWAY,
    FRANCE,
    THUMB,
    ACCENT,
    HANGUL,
    "\ud55c\u11a8",
    "\r\n",
    "a",
    "\n",
    "ß",
    "❤\ufe0f",
    "é",
)


def said(limit: int, deltas: Sequence[Delta]) -> tuple[str, list[Delta]]:
    """Return the text that is left, and what else came."""
    station = Cut(limit)
    found = [after for delta in deltas for after in station.feed(delta)]
    found += station.flush()
    text = "".join(one.text for one in found if isinstance(one, TextDelta))
    return text, [one for one in found if not isinstance(one, TextDelta)]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_what_a_reader_takes_for_one_character_is_never_cut(cluster: str) -> None:
    """Neither a code point nor what belongs together."""
    size = len(cluster.encode())
    assert cut("x" + cluster + "y", size) == "x"
    assert cut("x" + cluster + "y", size + 1) == "x" + cluster
    assert not any(breaks(cluster, at) for at in range(1, len(cluster)))


@given(pieces(CLUSTERS), st.integers(0, 60))
def test_it_does_not_matter_where_the_text_was_cut_before(parts: list[str], limit: int) -> None:
    """A stream is cut where the whole is, within the limit, with an ellipsis behind it."""
    whole = "".join(parts)
    text, _ = said(limit, [TextDelta(part) for part in parts])
    assert text == said(limit, [TextDelta(whole)])[0]
    kept = text.removesuffix(ELLIPSIS)
    assert len(kept.encode()) <= limit
    assert whole.startswith(kept)
    assert (text == whole) is (len(whole.encode()) <= limit)


def test_an_answer_that_was_cut_has_stopped_for_its_length() -> None:
    """What is no text goes on as it is, behind the cut too."""
    call = (ToolStarted(0, "c", "f"), ToolArguments(0, "{}"))
    usage = UsageSeen(Usage(1, 2))
    text, others = said(4, [TextDelta("abc"), TextDelta("def"), *call, usage, Stopped(StopReason.END)])
    assert text == "abcd" + ELLIPSIS
    assert others == [*call, usage, Stopped(StopReason.LENGTH)]


def test_an_answer_that_fits_stops_as_it_did() -> None:
    """Nothing is added to it."""
    assert said(6, [TextDelta("abcdef"), Stopped(StopReason.END)]) == ("abcdef", [Stopped(StopReason.END)])


def test_tokens_of_a_text_that_is_held_are_told_as_lost() -> None:
    """They would be told of other words."""
    delta = TextDelta("ab", (object(),))  # type: ignore[arg-type] # whatever they are
    assert said(9, [delta]) == ("ab", [Unread("logprobs")])
