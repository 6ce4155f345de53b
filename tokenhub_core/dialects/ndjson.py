"""JSON lines: bytes in, one event per line out, and back.

Follows the common description of newline-delimited JSON (https://github.com/ndjson/ndjson-spec): a line ends with
LF, a CR before it belongs to the line's end, and an empty line says nothing. Every event keeps the exact bytes
it came in, so that a stream can be read and passed on unchanged: joining the `raw` of all events and the `tail`
gives the input back, whatever way it was cut into chunks.
"""

from __future__ import annotations

from typing import Final

from tokenhub_core.dialects.sse import LIMIT, Event
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError

TYPE: Final = "application/x-ndjson"

_TYPES: Final = frozenset(
    {TYPE, "application/ndjson", "application/jsonl", "application/jsonlines", "application/json"}
)
"""What servers call such a stream. One JSON object, as `application/json`, is a stream of one line."""


class Parser:
    """Cuts one stream into lines. Chunks may end anywhere; the work is linear in the bytes fed."""

    def __init__(self, *, limit: int = LIMIT) -> None:
        self._limit = limit
        self._pending = bytearray()
        """The line that has begun; it holds no LF."""

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the lines that `chunk` completes; raises `TokenHubError` for one longer than the limit."""
        events: list[Event] = []
        start = 0
        while (end := chunk.find(b"\n", start) + 1) > 0:
            self._check(len(self._pending) + end - start)
            raw = chunk[start:end]
            if self._pending:
                raw = bytes(self._pending) + raw
                self._pending.clear()
            events.append(_event(raw))
            start = end
        self._check(len(self._pending) + len(chunk) - start)
        self._pending += chunk[start:]
        return events

    def flush(self) -> list[Event]:
        """Return the last line where the stream ended without its line end, nothing where it is whole."""
        raw = bytes(self._pending)
        self._pending.clear()
        return [_event(raw)] if raw else []

    def tail(self) -> bytes:
        """Return the bytes after the last whole line."""
        return bytes(self._pending)

    def _check(self, size: int) -> None:
        if size > self._limit:
            message = f"The provider sent a line of more than {self._limit} bytes."
            raise TokenHubError(
                Fault(Kind.TOO_LARGE, Blame.PROVIDER, message, cause="line_too_large", status=502)
            )


def parser(content_type: str) -> Parser | None:
    """Return a parser where this is the type of JSON lines, or of a lone JSON object."""
    return Parser() if content_type.partition(";")[0].strip().lower() in _TYPES else None


def frame(data: bytes) -> bytes:
    """Return one line. `data` is JSON without line breaks."""
    return data + b"\n"


def _event(raw: bytes) -> Event:
    return Event(raw, "", raw.strip(b" \t\r\n"))
