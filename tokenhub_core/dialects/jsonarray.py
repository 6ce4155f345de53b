"""A JSON array that arrives in pieces: bytes in, one event for each element out.

Google's servers stream so where nobody asks for server-sent events: `[`, an element, `,`, an element, …, `]`. As
with events of other framings the exact bytes are kept: joining the `raw` of all events and the `tail` gives the
input back, whatever way it was cut into chunks. An event's `raw` begins with what stands before its element (the
bracket or the comma, and blanks); the closing bracket is an event without data.

Nothing is judged here. A body that is one object and no array is one event, and so is whatever cannot be cut:
who reads the data finds out that it is no JSON.
"""

from __future__ import annotations

import re
from typing import Final

from tokenhub_core.dialects.sse import LIMIT, Event
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError

_BLANK: Final = b" \t\r\n"
_LEAD: Final = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*+[\[,]?[ \t\r\n]*+")
"""What stands before an element of the array."""
_BOM: Final = b"\xef\xbb\xbf"
_FIRST: Final = re.compile(rb"[^ \t\r\n]")
_MARK: Final = re.compile(rb'["{}\[\],]')
_QUOTE: Final = re.compile(rb'["\\]')

_ARRAY: Final = 0x5B
_OPENING: Final = frozenset(b"[{")
_CLOSING: Final = frozenset(b"]}")
_COMMA: Final = 0x2C
_QUOTED: Final = 0x22


class Parser:
    """Cuts one array into its elements. Chunks may end anywhere; the work is linear in the bytes fed."""

    def __init__(self, *, limit: int = LIMIT) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._scan = 0
        """Where to go on looking, from the first byte that is pending."""
        self._level: int | None = None
        """How many brackets are open within the array; None before the body's first character."""
        self._quoted = False
        self._whole = False
        """The body is no array but one value."""
        self._over = False
        """The array is closed."""

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the elements that `chunk` completes; raises `TokenHubError` for one longer than the limit."""
        self._pending += chunk
        events: list[Event] = []
        start = 0
        if self._level is None and not self._begin():
            self._check(len(self._pending))
            return events
        while (end := self._cut(start)) >= 0:
            self._check(end - start)
            events.append(self._event(bytes(self._pending[start:end])))
            start = end
        self._check(len(self._pending) - start)
        del self._pending[:start]
        self._scan -= start
        return events

    def flush(self) -> list[Event]:
        """Return what was left without its end as one more event, nothing where all has been given out."""
        raw = self.tail()
        self._pending.clear()
        self._scan = 0
        return [self._event(raw)] if raw else []

    def tail(self) -> bytes:
        """Return the bytes after the last event."""
        return bytes(self._pending)

    def _begin(self) -> bool:
        """Look at the first character that is no blank; tell whether it is there."""
        if self._scan < len(_BOM) and self._pending.startswith(_BOM[:1]):
            if len(self._pending) <= len(_BOM):
                return False
            self._scan = len(_BOM) if self._pending.startswith(_BOM) else 0
        found = _FIRST.search(self._pending, self._scan)
        if found is None:
            self._scan = len(self._pending)
            return False
        self._level = 0
        self._whole = found[0][0] != _ARRAY
        self._scan = found.start() + (0 if self._whole else 1)
        return True

    def _cut(self, start: int) -> int:
        """Return where the event that begins at `start` ends, -1 where that is not yet known."""
        if self._over:
            return -1
        buffer = self._pending
        while found := (_QUOTE if self._quoted else _MARK).search(buffer, self._scan):
            at = found.start()
            mark = buffer[at]
            if self._quoted:
                self._quoted = mark != _QUOTED
                # What a backslash hides may be yet to come: the search goes on after it.
                self._scan = at + (1 if mark == _QUOTED else 2)
                continue
            if (end := self._step(start, at, mark)) >= 0:
                return end
        self._scan = max(self._scan, len(buffer))
        return -1

    def _step(self, start: int, at: int, mark: int) -> int:
        """Take the mark at `at`, outside of strings; return the end of the event where that is known now."""
        level = self._level or 0
        if mark in _CLOSING and level == 0 and not self._whole:
            if self._data(bytes(self._pending[start:at])):
                self._scan = at
                return at
            self._over = True
            self._scan = len(self._pending)
            return at + 1
        if mark == _COMMA and level == 0 and not self._whole:
            begun = bool(self._data(bytes(self._pending[start:at])))
            self._scan = at if begun else at + 1
            return at if begun else -1
        self._scan = at + 1
        if mark == _QUOTED:
            self._quoted = True
        elif mark in _OPENING:
            self._level = level + 1
        elif mark in _CLOSING:
            self._level = level - 1
            if level == 1:
                self._over = self._whole
                return at + 1
        return -1

    def _event(self, raw: bytes) -> Event:
        data = self._data(raw)
        return Event(raw, "", b"" if data in (b"]", b"}") else data)

    @staticmethod
    def _data(raw: bytes) -> bytes:
        lead = _LEAD.match(raw)
        return raw[lead.end() if lead else 0 :].rstrip(_BLANK)

    def _check(self, size: int) -> None:
        if size > self._limit:
            message = f"The provider sent an array element of more than {self._limit} bytes."
            raise TokenHubError(
                Fault(Kind.TOO_LARGE, Blame.PROVIDER, message, cause="json_element_too_large", status=502)
            )


def parser(content_type: str) -> Parser | None:
    """Return a parser where this is the type of a JSON body."""
    return Parser() if content_type.lower().split(";")[0].strip() == "application/json" else None
