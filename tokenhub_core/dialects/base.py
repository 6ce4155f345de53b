"""What every dialect module offers. A dialect is a value with these functions; it holds no state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tokenhub_core.dialects.sse import Event
from tokenhub_core.errors import Fault
from tokenhub_core.types import Answer, Call, Delta, Dialect, Headers, Json, Request, TextSlot, Traces, Usage


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request body in some dialect, and the names of what it could not carry."""

    data: Json
    losses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error in a dialect's own shape."""

    status: int
    headers: Headers
    body: bytes


class EventParser(Protocol):
    """Cuts the bytes of one stream into events, whatever frames them: SSE, lines, or the elements of an array."""

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that `chunk` completes; raises `TokenHubError` for one that is too long."""
        ...

    def flush(self) -> list[Event]:
        """Return what the end of the body completes: an event whose last delimiter was left out."""
        ...


class StreamReader(Protocol):
    """Reads one provider's stream. Feed it whole events; broken ones come out as `Failed`, never raised."""

    def read(self, event: str, data: bytes) -> Sequence[Delta]:
        """Return the deltas of one event (`event` is its name, empty where the dialect uses none)."""
        ...

    def end(self) -> Sequence[Delta]:
        """Hear that the body has ended: `Finished` in a dialect without a terminal event, if all has come."""
        ...


class StreamWriter(Protocol):
    """Writes one client's stream: deltas in, bytes of whole events out."""

    def write(self, delta: Delta) -> bytes:
        """Return what the caller reads for this delta; may be empty."""
        ...

    def losses(self) -> tuple[str, ...]:
        """Return the names of what this stream could not carry so far."""
        ...


class DialectModule(Protocol):
    """One wire format, as client side and as provider side."""

    name: Dialect

    # --- requests, client side
    def open(self, body: bytes, path: str = "") -> Request:
        """Decode and check a request; raises `TokenHubError` (`INVALID`) that names the fault and place.

        `path` is the request target with its query, for dialects that say something in it.
        """
        ...

    def text_slots(self, data: Json) -> Iterator[TextSlot]:
        """Yield the texts that directives may stand in, in conversation order."""
        ...

    def replace_texts(self, data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
        """Return a copy of `data` with the texts at these paths replaced; empty parts and messages go away."""
        ...

    def traces(self, data: Json) -> Traces:
        """Return what tells which conversation a call belongs to; nothing is read before it is asked for."""
        ...

    def parse(self, request: Request) -> Call:
        """Return the canonical call."""
        ...

    # --- requests, provider side
    def render(self, call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
        """Return the provider's request body. `max_output_tokens` overrides the call's own cap when given."""
        ...

    def patch(self, request: Request, *, model: str, max_output_tokens: int | None) -> bytes:
        """Return the caller's own body with at most the model and the cap changed, the rest byte for byte.

        Where the dialect reports a stream's usage only on request, the request for it is added.
        """
        ...

    def operation(self, *, model: str, stream: bool, request: Request | None = None) -> str:
        """Return the path of this operation below a provider's base, like `/chat/completions`.

        `request` is the caller's own where it speaks the same dialect: what its path says besides the model is kept.
        """
        ...

    # --- answers
    def parse_answer(self, data: Json) -> Answer:
        """Return the canonical answer of a whole (non-stream) success body; raises ValueError if it is none."""
        ...

    def render_answer(self, answer: Answer, *, request: Request) -> Rendered:
        """Return the whole body that the caller's SDK expects."""
        ...

    def usage(self, data: Json) -> Usage:
        """Return the token counts of a whole success body, zeros where it holds none."""
        ...

    def parser(self, content_type: str) -> EventParser | None:
        """Return what cuts a success body of this type into events, None where such a body is no stream."""
        ...

    def reader(self) -> StreamReader:
        """Return a reader for one stream."""
        ...

    def writer(self, *, request: Request, created: int, fallback_id: str) -> StreamWriter:
        """Return a writer for one stream. Ids and times that the provider gave none of come from here."""
        ...

    def stream_type(self, request: Request) -> str:
        """Return the content type of a stream for this caller."""
        ...

    def keep_alive(self, request: Request) -> bytes:
        """Return bytes between two events that its readers skip, empty where the framing has no such thing."""
        ...

    def hides(self, event: str, data: bytes, *, request: Request) -> bool:
        """Tell whether this event of a same-dialect stream is one that we asked for and the caller did not."""
        ...

    # --- errors
    def error(self, fault: Fault, *, request_id: str) -> ErrorReply:
        """Return the fault as a whole response."""
        ...

    def stream_error(self, fault: Fault, *, request_id: str, request: Request | None = None) -> bytes:
        """Return the fault as the last event of a stream that has begun; `request` tells how it is framed."""
        ...
