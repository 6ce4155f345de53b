"""Thoughts that a model writes into its text, between tags.

Only an answer's beginning is thought to be thinking: a model that explains such tags further down is not
misunderstood. White space next to a tag belongs to the tag.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from tokenhub_core.quirks.base import Found, Repaired
from tokenhub_core.types import Call, ReasoningDelta, TextDelta

_TAGS: Final = (("<think>", "</think>"), ("<thinking>", "</thinking>"))


def thinking_tags(call: Call) -> Repaired:
    """Read thoughts between tags out of the answer; the call is left alone."""
    return Repaired(call, scanner=ThoughtScanner)


def thinking_opened(call: Call) -> Repaired:
    """Read thoughts before the first closing tag out of the answer; the call is left alone."""
    return Repaired(call, scanner=_opened)


def _opened() -> ThoughtScanner:
    return ThoughtScanner(opened=True)


class _Place(Enum):
    START = auto()
    """Nothing but white space was seen: thinking may begin here."""
    OPENED = auto()
    """The same, in the midst of thinking: its tag may be repeated."""
    CLOSED = auto()
    """Behind a thought: white space is dropped, and another may follow."""
    THINKING = auto()
    TALKING = auto()


class ThoughtScanner:
    """Tells thoughts from words in one answer. `opened` where it begins with thoughts without a tag."""

    def __init__(self, *, opened: bool = False) -> None:
        self._place = _Place.OPENED if opened else _Place.START
        self._closers = tuple(closer for _, closer in _TAGS)
        self._held = ""
        """What may be the beginning of a tag."""
        self._blank: list[str] = []
        """White space of which it is not known yet whether a tag follows."""
        self._thoughts = 0
        self._begun = False
        """Of the thought at hand more than white space was seen."""

    def feed(self, text: str) -> list[Found]:
        """Return the thoughts and words that are certain now."""
        text, self._held = self._held + text, ""
        found: list[Found] = []
        while text:
            match self._place:
                case _Place.START | _Place.OPENED | _Place.CLOSED:
                    text = self._start(text)
                case _Place.THINKING:
                    text = self._think(text, found)
                case _Place.TALKING:
                    found.append(TextDelta(self._with_blank(text)))
                    break
        return found

    def flush(self) -> list[Found]:
        """Return what was held back, as it came."""
        held, self._held = self._held, ""
        if self._place is _Place.THINKING:
            return [self._thought(held)] if held else []
        if held and self._place is _Place.OPENED:
            self._place = _Place.THINKING
            return [self._thought(held)]
        text = self._with_blank(held)
        if held:
            self._place = _Place.TALKING
        return [TextDelta(text)] if text else []

    def _start(self, text: str) -> str:
        """Look for an opening tag; return what is still to be read."""
        bare = text.lstrip()
        if len(bare) < len(text) and self._place is _Place.START:
            self._blank.append(text[: len(text) - len(bare)])
        for opener, closer in _TAGS:
            if bare.startswith(opener):
                self._place, self._closers, self._begun = _Place.THINKING, (closer,), False
                self._blank.clear()
                return bare[len(opener) :]
            if opener.startswith(bare):
                self._held = bare
                return ""
        self._place = _Place.THINKING if self._place is _Place.OPENED else _Place.TALKING
        return bare

    def _think(self, text: str, found: list[Found]) -> str:
        """Look for the closing tag; return what is still to be read."""
        ends = [(place, closer) for closer in self._closers if (place := text.find(closer)) >= 0]
        if ends:
            place, closer = min(ends)
            if thought := text[:place].rstrip():
                found.append(self._thought(thought))
            self._thoughts += self._begun
            self._blank.clear()
            self._place = _Place.CLOSED
            return text[place + len(closer) :]
        cut = self._half(text)
        text, self._held = text[:cut], text[cut:]
        if not self._begun:
            text = text.lstrip()
        thought = text.rstrip()
        if thought:
            found.append(self._thought(thought))
        if len(thought) < len(text):
            self._blank.append(text[len(thought) :])
        return ""

    def _half(self, text: str) -> int:
        """Return where a closing tag begins that the text breaks off in, its length where none does."""
        place = text.rfind("<", -max(map(len, self._closers)))
        if place >= 0 and any(closer.startswith(text[place:]) for closer in self._closers):
            return place
        return len(text)

    def _thought(self, text: str) -> ReasoningDelta:
        text = self._with_blank(text) if self._begun else text.lstrip()
        self._begun = True
        return ReasoningDelta(text, part=self._thoughts)

    def _with_blank(self, text: str) -> str:
        if self._blank:
            text = "".join(self._blank) + text
            self._blank.clear()
        return text
