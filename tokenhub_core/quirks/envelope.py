"""One tool call in a model's text, read piece by piece.

The usual order (name, then arguments) is told as it comes. Any other is told when its object is whole, because
nothing can be taken back once it was told.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Any, Final, assert_never

import orjson

from tokenhub_core.quirks.base import Found
from tokenhub_core.types import ToolArguments, ToolStarted

_USUAL: Final = re.compile(
    r'\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*"([^"\\]{1,128})"\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
_LONGEST_START: Final = 512
"""Characters in which an object must have shown that it is of the usual kind."""
_LONGEST_HELD: Final = 1 << 16
"""Characters of an object of another kind; a longer one is taken for words."""
_OUTSIDE: Final = re.compile(r'["{}\[\]<`]')
_INSIDE: Final = re.compile(r'["\\]')
_SPACE: Final = re.compile(r"\s*")


class Outcome(Enum):
    """How far a call has come."""

    OPEN = auto()
    """More of it may follow."""
    CLOSED = auto()
    """It has ended."""
    WORDS = auto()
    """It was none: `Envelope.undone` says what stood there."""


class _State(Enum):
    MORE = auto()
    WHOLE = auto()
    BROKEN = auto()
    """A character that JSON has only in strings stands outside of one."""


class _Balance:
    """Finds the end of a JSON object without reading what is in it."""

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._quoted = False
        self._escaped = False

    def read(self, text: str, at: int, end: int) -> tuple[int, _State]:
        """Read on from `at`, at most to `end`; return how far, and what was found there."""
        while at < end:
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            mark = (_INSIDE if self._quoted else _OUTSIDE).search(text, at, end)
            if mark is None:
                break
            at = mark.end()
            match mark[0]:
                case '"':
                    self._quoted = not self._quoted
                case "\\":
                    self._escaped = True
                case "<" | "`":
                    return mark.start(), _State.BROKEN
                case "{" | "[":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    if self._depth <= 0:
                        return at, _State.WHOLE
        return end, _State.MORE


class _Place(Enum):
    BEFORE = auto()
    """The object has not begun."""
    HEAD = auto()
    """In the object; it is not known yet whose call it is."""
    ARGUMENTS = auto()
    BEHIND = auto()
    """The arguments have ended, the object around them has not."""
    REST = auto()
    """In what else the object says."""
    CLOSING = auto()


class Envelope:
    """One call, or several in a row, between an opening (`raw`) and its `closer`.

    `name` is the tool's where the opening says it: then the object holds the arguments alone. `number` counts the
    calls of the answer.
    """

    def __init__(self, offered: frozenset[str], *, raw: str, name: str, closer: str, number: int) -> None:
        self._offered = offered
        self._raw = [raw]
        self._name = name
        self._closer = closer
        self._place = _Place.BEFORE
        self._balance = _Balance()
        self._start = ""
        """The first characters of the object."""
        self._size = 0
        self.number = number
        """How many calls the answer has held."""
        self.told = False
        """The last call was told; nothing of it is words any more."""

    def undone(self) -> str:
        """Return what of this call was read and not told."""
        return "" if self.told else "".join(self._raw)

    def read(self, text: str, at: int, found: list[Found]) -> tuple[int, Outcome]:
        """Read on from `at`; return how far the call reaches, and what has become of it."""
        while at < len(text):
            before, place = at, self._place
            match place:
                case _Place.BEFORE:
                    at, outcome = self._before(text, at, found)
                case _Place.HEAD:
                    at, outcome = self._head(text, at, found)
                case _Place.ARGUMENTS:
                    at, outcome = self._arguments(text, at, found)
                case _Place.BEHIND:
                    at, outcome = self._behind(text, at)
                case _Place.REST:
                    at, state = self._balance.read(text, at, len(text))
                    self._place = _Place.REST if state is _State.MORE else _Place.CLOSING
                    outcome = Outcome.OPEN
                case _Place.CLOSING:
                    at, outcome = self._closing(text, at)
                case _:
                    assert_never(place)
            if outcome is not Outcome.OPEN or (at == before and self._place is place):
                return at, outcome
        return at, Outcome.OPEN

    def _before(self, text: str, at: int, found: list[Found]) -> tuple[int, Outcome]:
        at = self._space(text, at, keep=True)
        if at == len(text):
            return at, Outcome.OPEN
        if text[at] == "{":
            if self._name:
                self._tell(self._name, found)
                self._place = _Place.ARGUMENTS
            else:
                self._place = _Place.HEAD
            return at, Outcome.OPEN
        if self._name and self._closer.startswith(text[at : at + len(self._closer)]):
            if text.startswith(self._closer, at):
                self._tell(self._name, found)
                found.append(ToolArguments(self.number - 1, "{}"))
                return at + len(self._closer), Outcome.CLOSED
            return at, Outcome.OPEN
        return at, Outcome.WORDS

    def _head(self, text: str, at: int, found: list[Found]) -> tuple[int, Outcome]:
        early = self._size < _LONGEST_START
        room = (_LONGEST_START if early else _LONGEST_HELD) - self._size
        end, state = self._balance.read(text, at, min(len(text), at + room))
        if early:
            self._start += text[at:end]
            if usual := _USUAL.match(self._start):
                # It could not be told before this piece, so its end stands in it.
                end = at + usual.end() - self._size
                self._raw.append(text[at:end])
                if usual[1] not in self._offered:
                    return end, Outcome.WORDS
                self._tell(usual[1], found)
                self._place = _Place.ARGUMENTS
                return end, Outcome.OPEN
        self._raw.append(text[at:end])
        self._size += end - at
        if state is _State.WHOLE:
            if self._whole(found):
                self._place = _Place.CLOSING
                return end, Outcome.OPEN
            return end, Outcome.WORDS
        if state is _State.BROKEN or self._size >= _LONGEST_HELD:
            return end, Outcome.WORDS
        return end, Outcome.OPEN

    def _whole(self, found: list[Found]) -> bool:
        """Tell the call of a whole object; return whether it is one."""
        try:
            call = orjson.loads("".join(self._raw[1:]))
        except orjson.JSONDecodeError:
            return False
        if isinstance(inner := call.get("function"), dict):
            call = inner
        name, arguments = call.get("name"), _text(call.get("arguments", call.get("parameters")))
        if not isinstance(name, str) or name not in self._offered or arguments is None:
            return False
        self._tell(name, found)
        found.append(ToolArguments(self.number - 1, arguments))
        return True

    def _tell(self, name: str, found: list[Found]) -> None:
        found.append(ToolStarted(self.number, "", name))
        self.number += 1
        self.told = True
        self._balance = _Balance()

    def _arguments(self, text: str, at: int, found: list[Found]) -> tuple[int, Outcome]:
        end, state = self._balance.read(text, at, len(text))
        if end > at:
            found.append(ToolArguments(self.number - 1, text[at:end]))
        if state is _State.BROKEN or (state is _State.WHOLE and self._name):
            self._place = _Place.CLOSING
        elif state is _State.WHOLE:
            self._place = _Place.BEHIND
        return end, Outcome.OPEN

    def _behind(self, text: str, at: int) -> tuple[int, Outcome]:
        at = self._space(text, at)
        match text[at : at + 1]:
            case "":
                pass
            case "}":
                at += 1
                self._place = _Place.CLOSING
            case ",":
                self._balance = _Balance(depth=1)
                self._place = _Place.REST
            case _:
                self._place = _Place.CLOSING
        return at, Outcome.OPEN

    def _closing(self, text: str, at: int) -> tuple[int, Outcome]:
        at = self._space(text, at)
        rest = text[at : at + len(self._closer)]
        if rest == self._closer:
            return at + len(rest), Outcome.CLOSED
        if self._closer.startswith(rest):
            return at, Outcome.OPEN
        if rest[0] == "{" and not self._name:
            # Another call in the same envelope.
            self._raw, self._start, self._size = [""], "", 0
            self._balance = _Balance()
            self._place = _Place.HEAD
            self.told = False
            return at, Outcome.OPEN
        return at, Outcome.CLOSED

    def _space(self, text: str, at: int, *, keep: bool = False) -> int:
        space = _SPACE.match(text, at)
        end = space.end() if space else at
        if keep and end > at:
            self._raw.append(text[at:end])
        return end


def _text(arguments: Any) -> str | None:
    """Return arguments as JSON text of an object, None where they are none."""
    if arguments is None:
        return "{}"
    if isinstance(arguments, dict):
        return orjson.dumps(arguments).decode()
    if isinstance(arguments, str):
        try:
            return arguments if isinstance(orjson.loads(arguments or "{}"), dict) else None
        except orjson.JSONDecodeError:
            return None
    return None
