"""Thoughts that stand in an answer's text between tags, taken out wherever they stand.

The repair `thinking_tags` reads only an answer's beginning and keeps what it finds as reasoning. This is for who wants
words alone, and says so.
"""

from __future__ import annotations

import re
from typing import Final

from tokenhub_core.quirks.base import Found
from tokenhub_core.types import TextDelta

_OPENING: Final = re.compile(r"<think(?:ing)?>")
_CLOSERS: Final = {"<think>": "</think>", "<thinking>": "</thinking>"}


class ThinkScanner:
    """Drops `<think>…</think>` and `<thinking>…</thinking>`, and the white space behind them.

    A thought that is never closed reaches to the end of its text.
    """

    def __init__(self) -> None:
        self._held = ""
        """What may be the beginning of a tag."""
        self._closer = ""
        """What ends the thought at hand; empty outside of one."""
        self._behind = False
        """A thought has just ended: white space is its own."""

    def feed(self, text: str) -> list[Found]:
        """Return the words that are certain now."""
        text, self._held = self._held + text, ""
        words: list[str] = []
        while text:
            text = self._think(text) if self._closer else self._talk(text, words)
        said = "".join(words)
        return [TextDelta(said)] if said else []

    def flush(self) -> list[Found]:
        """Return what was held back, if it is words."""
        held, self._held = self._held, ""
        thought, self._closer, self._behind = bool(self._closer), "", False
        return [TextDelta(held)] if held and not thought else []

    def _talk(self, text: str, words: list[str]) -> str:
        if self._behind:
            text = text.lstrip()
            self._behind = not text
        if found := _OPENING.search(text):
            words.append(text[: found.start()])
            self._closer = _CLOSERS[found[0]]
            return text[found.end() :]
        cut = _half(text, tuple(_CLOSERS))
        words.append(text[:cut])
        self._held = text[cut:]
        return ""

    def _think(self, text: str) -> str:
        place = text.find(self._closer)
        if place < 0:
            self._held = text[_half(text, (self._closer,)) :]
            return ""
        rest = text[place + len(self._closer) :]
        self._closer, self._behind = "", True
        return rest


def _half(text: str, tags: tuple[str, ...]) -> int:
    """Return where a tag begins that the text breaks off in, its length where none does."""
    place = text.rfind("<", -max(map(len, tags)))
    return place if place >= 0 and any(tag.startswith(text[place:]) for tag in tags) else len(text)
