"""The form of an answer's text, read as it comes.

Body      JSON or XML without what models put around it: a code fence, an introduction, a farewell
Trimmed   Markdown, without white space around it
Plain     words without Markdown's marks
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from tokenhub_core.quirks.base import Found
from tokenhub_core.types import TextDelta

_FENCE: Final = "```"
_LANGUAGES: Final = {"{[": ("", "json", "jsonc", "json5"), "<": ("", "xml", "html", "svg")}
_OPENING: Final = re.compile(rf"^[ \t]*{_FENCE}([^\n`]{{0,40}})\n", re.MULTILINE)
_LINES: Final = re.compile(r"[^\n]*\n|[^\n]+")
_HEAD: Final = re.compile(r"[ \t]*(?:#{1,6}(?=[ \t\n]|\Z)[ \t]*|(?:>[ \t]?)+)?[ \t]*")
"""What may stand before a line's first word: white space, and the marks of a heading or a quotation."""
_MARKS: Final = re.compile(r"\*+|`+")


def body_of_json() -> Body:
    """Return what reads JSON."""
    return Body("{[")


def body_of_xml() -> Body:
    """Return what reads XML."""
    return Body("<")


class _Where(Enum):
    BEFORE = auto()
    """Nothing of the body was seen: everything is held."""
    BARE = auto()
    FENCED = auto()
    BEHIND = auto()
    """The fence was closed: what follows is dropped."""


class Body:
    """Finds the body of a text: in the first fence, or all of it where it begins with one of `openers`.

    A text with neither stays as it is, without the white space around it.
    """

    def __init__(self, openers: str) -> None:
        self._openers = openers
        self._words = Trimmed()
        self._begin()

    def _begin(self) -> None:
        self._where = _Where.BEFORE
        self._held = ""
        self._seen = 0
        """How far what is held was looked through."""
        self._other = False
        """What was looked through ends in a fence of another language."""
        self._fresh = True
        """In the fence, the next character begins a line."""

    def feed(self, text: str) -> list[Found]:
        """Return what is certain to be of the body."""
        match self._where:
            case _Where.BEFORE:
                return self._before(text)
            case _Where.BARE:
                return self._words.feed(text)
            case _Where.FENCED:
                return self._fenced(text)
            case _Where.BEHIND:
                return []

    def flush(self) -> list[Found]:
        """Return what was held back, and begin anew."""
        held = self._held
        if self._where is _Where.FENCED and held.strip() == _FENCE:
            # The last line of the text, without the line break that would have told.
            held = ""
        found = self._words.feed(held)
        self._words.flush()
        self._begin()
        return found

    def _before(self, text: str) -> list[Found]:
        self._held += text
        bare = self._held.lstrip()
        if bare and bare[0] in self._openers:
            self._where, self._held = _Where.BARE, ""
            return self._words.feed(bare)
        for found in _OPENING.finditer(self._held, self._seen):
            language = found[1].strip().lower()
            if not self._other and language in _LANGUAGES[self._openers]:
                rest, self._held, self._where = self._held[found.end() :], "", _Where.FENCED
                return self._fenced(rest)
            self._other = not self._other or bool(language)
        # A fence is a line of its own; the last one may not have come to its end.
        self._seen = self._held.rfind("\n") + 1
        return []

    def _fenced(self, text: str) -> list[Found]:
        """Return what is certain not to be the line that closes the fence."""
        said: list[str] = []
        for line in _LINES.findall(self._held + text):
            self._held = ""
            whole = line.endswith("\n")
            if self._fresh and whole and line.strip() == _FENCE:
                self._where = _Where.BEHIND
                break
            if self._fresh and not whole and _FENCE.startswith(line.strip()):
                self._held = line
                break
            said.append(line)
            self._fresh = whole
        return self._words.feed("".join(said))


class Trimmed:
    """Drops white space around a text."""

    def __init__(self) -> None:
        self._begun = False
        self._blank: list[str] = []

    def feed(self, text: str) -> list[Found]:
        """Return the text up to its last visible character."""
        if not self._begun:
            text = text.lstrip()
        words = text.rstrip()
        if not words:
            self._blank.append(text)
            return []
        said = "".join(self._blank) + words
        self._begun, self._blank = True, [text[len(words) :]]
        return [TextDelta(said)]

    def flush(self) -> list[Found]:
        """Begin anew; what was held back is the white space at the end."""
        self._begun = False
        self._blank.clear()
        return []


class Plain:
    """Drops Markdown's marks: those of headings and quotations, emphasis, code and the lines of fences.

    What stands in a fence is left alone, and so is a star between white space or digits, which means something else.
    """

    def __init__(self) -> None:
        self._words = Trimmed()
        self._begin()

    def _begin(self) -> None:
        self._held = ""
        """The line at hand up to what cannot be told yet."""
        self._fresh = True
        """Nothing of the line was told."""
        self._code = False
        self._last = ""
        """The last character of the line that was read."""

    def feed(self, text: str) -> list[Found]:
        """Return the words that are certain now."""
        said: list[str] = []
        for line in _LINES.findall(self._held + text):
            self._held = ""
            self._line(line, said)
        return self._words.feed("".join(said))

    def flush(self) -> list[Found]:
        """Return what was held back, and begin anew."""
        said: list[str] = []
        if self._held:
            # The line break decides what is still open, and is no word.
            line, self._held = self._held + "\n", ""
            self._line(line, said)
        found = self._words.feed("".join(said))
        self._words.flush()
        self._begin()
        return found

    def _line(self, line: str, said: list[str]) -> None:
        whole = line.endswith("\n")
        if self._fresh:
            bare = line.lstrip(" \t")
            if not whole and (len(bare) < len(_FENCE) and _FENCE.startswith(bare)):
                self._held = line
                return
            if bare.startswith(_FENCE):
                if whole:
                    self._code = not self._code
                else:
                    self._held = line
                return
            if not self._code:
                marks = _HEAD.match(line)
                if not whole and marks is not None and marks.end() == len(line):
                    self._held = line
                    return
                line = line[marks.end() :] if marks is not None else line
        if self._code:
            said.append(line)
        else:
            self._inline(line, said)
        self._fresh = whole
        if whole:
            self._last = ""

    def _inline(self, line: str, said: list[str]) -> None:
        """Tell a piece of a line without its marks; a run of stars is held until it is known what follows."""
        at = 0
        for marks in _MARKS.finditer(line):
            if marks.end() == len(line):
                said.append(line[at : marks.start()])
                self._last = line[marks.start() - 1] if marks.start() else self._last
                self._held = marks[0]
                return
            before = line[marks.start() - 1] if marks.start() else self._last
            if _means_itself(before, marks[0], line[marks.end()]):
                continue
            said.append(line[at : marks.start()])
            at = marks.end()
        said.append(line[at:])
        self._last = line[-1:] or self._last


def _means_itself(before: str, marks: str, after: str) -> bool:
    """Tell whether stars are no emphasis: they stand free, or between two numbers."""
    if marks[0] != "*":
        return False
    free = (not before or before.isspace()) and after.isspace()
    return free or (before.isdigit() and after.isdigit())
