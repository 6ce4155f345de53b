"""Texts fed to what reads them, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from tokenhub_core.quirks.base import Scanner
from tokenhub_core.types import TextDelta


def read(make: Callable[[], Scanner], *pieces: str) -> str:
    """Return the words that are left of a text that comes in these pieces."""
    scanner = make()
    found = [one for piece in pieces for one in scanner.feed(piece)] + scanner.flush()
    assert all(isinstance(one, TextDelta) for one in found)
    return "".join(one.text for one in found if isinstance(one, TextDelta))


@st.composite
def pieces(draw: st.DrawFn, words: Sequence[str]) -> list[str]:
    """Return a text of these words, cut anywhere."""
    text = "".join(draw(st.lists(st.sampled_from(words), max_size=14)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
