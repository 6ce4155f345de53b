"""The commit gate: what of a provider's stream the caller may see, and when.

One gate serves one attempt. Bytes go in as they arrive, bytes for the caller come out.

* Until real content has come, everything is held. A failure in that time leaves no trace: the gate is thrown
  away with what it holds, and the next candidate begins with an empty one.
* From the first content on the answer is committed, and everything flows as it comes.
* The terminal event is held once more, until the caller of `tail` knows that the exchange is on record. Where a
  dialect has none, all is held from the event on with which the answer may be over.
* A stream that ends without its terminal event was cut short, however clean the connection's end looked.

Same dialect on both sides and nothing to repair: every event passes with the very bytes it came in. Otherwise
events are read into deltas and written anew. Where somebody else may have to go on with a stream, what writes that rest
hears all of it, and the next attempt's gate writes on where the last one's stopped (`seams`).
"""

from __future__ import annotations

from functools import partial
from typing import Final

from tokenhub_core.dialects.base import DialectModule, EventParser, StreamWriter
from tokenhub_core.dialects.sse import Event
from tokenhub_core.dispatch.seams import Begun, Beside, Output, Seam, innermost, listens
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.quirks.repairs import UNTOUCHED, AnswerRepairs, RepairedReader
from tokenhub_core.shaping.shape import Said
from tokenhub_core.types import (
    Delta,
    Failed,
    Finished,
    Left,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    Request,
    Started,
    Stopped,
    TextDelta,
    ToolArguments,
    ToolStarted,
    Unread,
    Usage,
    UsageSeen,
)

MAX_HELD: Final = 1 << 20
"""Bytes that may arrive before the first content."""


_END: Final = Event(b"", "", b"")
"""The end of a body, where that is what ends a dialect's stream."""


class _Verbatim:
    """Same dialect: the event as it came, unless we asked for it and the caller did not."""

    def __init__(self, dialect: DialectModule, request: Request) -> None:
        self._dialect = dialect
        self._request = request

    def write(self, event: Event, deltas: tuple[Delta, ...]) -> bytes:
        """Return the event's own bytes."""
        if any(isinstance(delta, UsageSeen) for delta in deltas) and self._dialect.hides(
            event.name, event.data, request=self._request
        ):
            return b""
        return event.raw

    def losses(self) -> tuple[str, ...]:
        """Return nothing: bytes that pass lose nothing."""
        return ()


class _Translated:
    """Another dialect: the deltas, written anew."""

    def __init__(self, writer: StreamWriter) -> None:
        self._writer = writer
        self._unread: dict[str, None] = {}

    def write(self, event: Event, deltas: tuple[Delta, ...]) -> bytes:
        """Return the deltas in the caller's dialect."""
        del event
        for delta in deltas:
            if isinstance(delta, Unread):
                self._unread[delta.kind] = None
        return b"".join(self._writer.write(delta) for delta in deltas)

    def losses(self) -> tuple[str, ...]:
        """Return what could not be carried."""
        return (*self._unread, *self._writer.losses())


class Gate:
    """The gate of one streamed attempt. Not reusable."""

    def __init__(
        self,
        *,
        source: DialectModule,
        target: DialectModule,
        request: Request,
        parser: EventParser,
        created: int,
        fallback_id: str,
        repairs: AnswerRepairs = UNTOUCHED,
    ) -> None:
        self._parser = parser
        self._reader = repairs.reader(source.reader())
        self._shaped = repairs.shaped
        self.said: Said | None = None
        """What the caller was told; set by who wants to know."""
        self._same = source.name is target.name and repairs.idle
        self._hid = False
        self._target = target.name
        self._writer = partial(target.writer, request=request, created=created, fallback_id=fallback_id)
        self._output: Output = _Verbatim(target, request) if self._same else _Translated(self._writer())
        self._seam: Seam | None = None
        self._held = bytearray()
        self._received = 0
        self._over = False
        """If the body ended now, the answer would be whole."""
        self.committed = False
        """Whether the caller may have seen content."""
        self.finished = False
        """Whether the terminal event has come."""
        self.failed: Failed | None = None
        """What the provider reported inside the stream."""
        self.stop: Stopped | None = None
        self.usage = Usage()
        self.model = ""
        """The name that the provider gave the model."""
        self._id = ""
        self._calls: list[str] = []
        self._seals: list[str] = []
        self.output_chars = 0
        """Characters of what the model has produced so far: the estimate's base where no usage comes."""

    @property
    def identical(self) -> bool:
        """Return whether every byte for the caller is the provider's own."""
        return self._same and not self._hid

    @property
    def losses(self) -> tuple[str, ...]:
        """Return what could not be carried so far."""
        return self._output.losses()

    @property
    def left(self) -> Left:
        """Return what of the answer comes back with the conversation's next call."""
        return Left(self._id, tuple(self._calls), tuple(self._seals))

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes from the provider, return bytes for the caller; empty while the answer is not committed.

        Raises `TokenHubError` where the stream cannot be read (an event over the limit, too much before the
        first content). Nothing is read behind an in-stream error or the terminal event.
        """
        self._received += len(chunk)
        for event in self._parser.feed(chunk):
            if not self.ended():
                self._take(event)
        if not self.committed:
            if self._received > MAX_HELD:
                raise TokenHubError(
                    Fault(
                        Kind.TRANSIENT,
                        Blame.US,
                        "the provider sent a megabyte without anything that could be carried over",
                        cause="no_content",
                    )
                )
            return b""
        if self.finished or self._over or (self.said is not None and self.stop is not None):
            # Where what was said is checked, no word of why the model stopped may go before it.
            return b""
        out = bytes(self._held)
        self._held.clear()
        return out

    def insert(self, sign: bytes) -> bytes:
        """Return bytes of our own for between two events: the answer is then not the provider's alone."""
        self._hid = self._hid or bool(sign)
        return sign

    def flush(self) -> None:
        """Hear that the connection has ended: a last event without its delimiter counts if it is the terminal one.

        A dialect without a terminal event ends here, if all of its answer has come.
        """
        for event in self._parser.flush():
            if self._over and not event.data:
                self._held += self._output.write(event, ())
            elif not self.ended() and event.data:
                deltas = tuple(self._reader.read(event.name, event.data))
                if self.said is not None:
                    _hear(self.said, deltas)
                if any(isinstance(delta, Finished) for delta in deltas):
                    self.finished = True
                    self._held += self._output.write(event, deltas)
        if not self.ended() and (last := tuple(self._reader.end())):
            self.finished = True
            if self.said is not None:
                _hear(self.said, last)
            self._held += self._output.write(_END, last)

    def join(self, seam: Seam, held: bytes = b"") -> None:
        """Write so that somebody else can go on, and on from where another attempt broke off; before anything is fed.

        `held` is what was written of that one and has not left yet.
        """
        self._seam = seam
        self._held += held
        if (rest := seam.output()) is not None:
            self._same, self._output = False, rest
        elif self._same and listens(self._target):
            self._output = Beside(self._output, _Translated(self._writer()))
        elif self._same:
            self._same, self._output = False, _Translated(self._writer())

    def begun(self, usage: Usage) -> Begun | None:
        """Return what of a stream that broke off somebody can go on with, None where that is nothing or not text alone.

        `usage` is what it has used, with all that went before it.
        """
        text = self._seam.text() if self._seam is not None and self.committed else ""
        return Begun(text, innermost(self._output), bytes(self._held), usage) if text else None

    def ended(self) -> bool:
        """Tell whether nothing more of the provider's bytes will be read: its last event came, or an error."""
        return self.finished or self.failed is not None

    def tail(self) -> bytes:
        """Return what was held back for the end: the terminal event and what arrived in one piece with it."""
        out = bytes(self._held)
        self._held.clear()
        return out

    def cut(self) -> Fault | None:
        """Return the fault of a stream whose connection has ended, None where it ended as it should."""
        if self.finished and self.committed:
            return None
        if self.finished:
            return Fault(
                Kind.TRUNCATED, Blame.PROVIDER, "the provider's answer holds nothing", cause="empty_answer"
            )
        return Fault(
            Kind.TRUNCATED,
            Blame.PROVIDER,
            "the provider's stream ended before its last event",
            cause="truncated",
        )

    def _take(self, event: Event) -> None:
        deltas = self._read(event)
        for delta in deltas:
            match delta:
                case TextDelta(text) | RefusalDelta(text) | ToolArguments(fragment=text):
                    self.committed = True
                    self.output_chars += len(text)
                case ReasoningDelta(text, signature, redacted):
                    self.committed = True
                    self.output_chars += len(text)
                    if signature or redacted:
                        self._seals += filter(None, (signature, redacted))
                case ToolStarted(_, id_, name, signature):
                    self.committed = True
                    self.output_chars += len(name)
                    self._calls += filter(None, (id_,))
                    self._seals += filter(None, (signature,))
                case MediaDelta():
                    self.committed = True
                case Stopped():
                    self.stop = delta
                    self.committed = True
                    self._over = bool(self._reader.end())
                case UsageSeen(usage):
                    self.usage = self.usage.merge(usage)
                case Finished():
                    self.finished = True
                case Failed():
                    self.failed = delta
                    return
                case Started(id_, model):
                    self._id = id_ or self._id
                    self.model = model or self.model
                case Unread(beside=beside):
                    # Bytes that pass as they came need not be understood to be content.
                    self.committed = self.committed or (self._same and not beside)
        if self._shaped or self.said is not None or self._seam is not None:
            self._notice(deltas)
        out = self._output.write(event, deltas)
        if not out and event.raw:
            self._hid = True
        self._held += out

    def _read(self, event: Event) -> tuple[Delta, ...]:
        deltas = tuple(self._reader.read(event.name, event.data)) if event.data else ()
        return deltas if self._seam is None else self._seam.fit(deltas)

    def _notice(self, deltas: tuple[Delta, ...]) -> None:
        """Take note of what the caller is told, and of what was left out of it."""
        if self.said is not None:
            _hear(self.said, deltas)
        if self._seam is not None:
            self._seam.follow(deltas)
        if self._shaped and isinstance(self._reader, RepairedReader) and self._reader.words:
            # What was left out was said nonetheless: it is paid, and a long thought is no silence.
            self.committed = True
            self.output_chars = max(self.output_chars, self._reader.words)


def _hear(said: Said, deltas: tuple[Delta, ...]) -> None:
    for delta in deltas:
        said.hear(delta)
