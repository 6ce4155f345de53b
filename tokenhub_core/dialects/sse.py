"""Server-sent events: bytes in, whole events out, and back.

Follows the WHATWG HTML living standard, "Server-sent events", section "Interpreting an event stream", with one
addition: every event keeps the exact bytes it came in, so that a stream can be read and passed on unchanged.
Joining the `raw` of all events and the `tail` gives the input back, whatever way it was cut into chunks.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError

LIMIT: Final = 8 * 1024 * 1024
"""How many bytes one event may have unless told otherwise."""

_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 0x0A
_CR: Final = 0x0D
_SPACE: Final = 0x20
_BREAK: Final = re.compile(rb"\r\n?|\n")


TYPE: Final = "text/event-stream"
COMMENT: Final = b": keep-alive\n\n"


class Event(msgspec.Struct, frozen=True):
    """One event. `raw` includes the blank line that ends it; `data` has its lines joined by LF.

    A block of comments, or of fields without `data`, is an event too, with an empty name and no data: there is
    nothing to read in it, but it must be passed on.
    """

    raw: bytes
    name: str
    data: bytes

    @property
    def is_comment(self) -> bool:
        """Tell whether there is nothing to read: a keep-alive, or a lone blank line."""
        return not self.data and not self.name


class Parser:
    """Cuts one stream into events. Chunks may end anywhere; the work is linear in the bytes fed.

    An event ends with its blank line. Where that line ends with CR, an LF may follow as the second half of a
    CRLF, so the event waits for one more byte; only after a line that ended with a bare CR it does not, because
    the stream is then known to use CR alone.
    """

    def __init__(self, *, limit: int = LIMIT) -> None:
        self._limit = limit
        self._pending = bytearray()
        """The event that has begun; the offsets below count from its first byte between two calls."""
        self._scan = 0
        self._line = 0
        self._fresh = True
        self._mixed = False
        """A CR was seen: from then on line ends are looked at one by one."""
        self._bare = False
        """The last line of this event ended with CR alone."""
        self._owed = False
        """The last event ended at a CR; an LF that comes next is the rest of that line end."""

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that `chunk` completes; raises `TokenHubError` for one longer than the limit."""
        buffer: bytes | bytearray = chunk
        if self._pending:
            self._pending += chunk
            buffer = self._pending
        if not self._mixed and b"\r" in chunk:
            self._mixed, self._line, self._scan = True, 0, 0
        find = self._mixed_end if self._mixed else self._plain_end
        events: list[Event] = []
        start = 0
        while (end := find(buffer, start)) >= 0:
            self._check(end - start)
            events.append(self._event(bytes(buffer[start:end])))
            start = end
        self._check(len(buffer) - start)
        if buffer is chunk:
            self._pending += chunk[start:]
        else:
            del self._pending[:start]
        self._scan -= start
        self._line -= start
        return events

    def flush(self) -> list[Event]:
        """Return the last event where the stream ended without its blank line, nothing where it is whole."""
        return self.feed(b"\n\n") if self._pending else []

    def tail(self) -> bytes:
        """Return the bytes after the last whole event: not empty where the stream was cut short."""
        return bytes(self._pending)

    def _plain_end(self, buffer: bytes | bytearray, start: int) -> int:
        """Return where the event at `start` ends, -1 for not yet, in a stream that has no CR so far."""
        if start < len(buffer) and buffer[start] == _LF:
            self._scan = start + 1
            return start + 1
        at = buffer.find(b"\n\n", max(start, self._scan))
        if at < 0:
            self._scan = max(start, len(buffer) - 1)
            return -1
        self._scan = at + 2
        return at + 2

    def _mixed_end(self, buffer: bytes | bytearray, start: int) -> int:
        """Return where the event at `start` ends, -1 for not yet, with any kind of line end."""
        if self._owed and start < len(buffer):
            self._owed = False
            if buffer[start] == _LF:
                self._line = self._scan = start + 1
        while found := _BREAK.search(buffer, self._scan):
            at, end = found.span()
            blank = at == self._line
            if blank and self._bare:
                end = at + 1
                self._owed = True
            elif buffer[at] == _CR and end == len(buffer) == at + 1:
                self._scan = at
                return -1
            self._bare = not blank and buffer[end - 1] == _CR
            self._line = self._scan = end
            if blank:
                return end
        self._scan = len(buffer)
        return -1

    def _event(self, raw: bytes) -> Event:
        text = raw
        if self._fresh:
            self._fresh = False
            text = raw.removeprefix(_BOM)
        # The shape of nearly every event there is: one line of data, LF only.
        if not self._mixed and text.startswith(b"data:") and text.find(b"\n") == len(text) - 2:
            return Event(raw, "", text[6 if text[5] == _SPACE else 5 : -2])
        return _read(raw, text)

    def _check(self, size: int) -> None:
        if size > self._limit:
            message = f"The provider sent a stream event of more than {self._limit} bytes."
            raise TokenHubError(
                Fault(Kind.TOO_LARGE, Blame.PROVIDER, message, cause="sse_event_too_large", status=502)
            )


def parser(content_type: str) -> Parser | None:
    """Return a parser where this is the type of an event stream."""
    return Parser() if content_type.lower().startswith("text/event-stream") else None


def frame(data: bytes, name: str = "") -> bytes:
    """Return one event as bytes. Line breaks in `data` become further data lines; `name` is one line."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(_BREAK.split(data))
    return head + b"data: " + data + b"\n\n"


def _read(raw: bytes, text: bytes) -> Event:
    """Return the event of one block. Fields other than `data` and `event` do not concern a single reply."""
    name = b""
    lines: list[bytes] = []
    for line in text.splitlines():
        key, _, value = line.partition(b":")
        if key == b"data":
            lines.append(value.removeprefix(b" "))
        elif key == b"event":
            name = value.removeprefix(b" ")
    # The standard fires nothing for a block without data, and forgets its name.
    return Event(raw, name.decode(errors="replace") if lines else "", b"\n".join(lines))
