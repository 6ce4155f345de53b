"""Google's Gemini dialect: `generateContent`, and `streamGenerateContent` in both of its framings.

The types of the official SDK (`google.genai.types`) are the reference. The model and the wish for a stream stand
in the path, not in the body.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tokenhub_core.dialects import jsonarray, sse
from tokenhub_core.dialects.base import (
    DialectModule,
    ErrorReply,
    EventParser,
    Rendered,
    StreamReader,
    StreamWriter,
)
from tokenhub_core.dialects.gemini import answer as _answer
from tokenhub_core.dialects.gemini import faults as _faults
from tokenhub_core.dialects.gemini import parse as _parse
from tokenhub_core.dialects.gemini import render as _render
from tokenhub_core.dialects.gemini import request as _request
from tokenhub_core.dialects.gemini import target as _target
from tokenhub_core.dialects.gemini import traces as _traces
from tokenhub_core.dialects.gemini.stream import Reader
from tokenhub_core.dialects.gemini.writer import Writer
from tokenhub_core.errors import Fault
from tokenhub_core.types import Answer, Call, Dialect, Json, Request, TextSlot, Traces, Usage

__all__ = ["GEMINI"]


class _Gemini:
    """The functions of this package, in the shape that every dialect has."""

    name = Dialect.GEMINI

    def open(self, body: bytes, path: str = "") -> Request:
        """Decode and check a body; `path` tells the model, and whether and how the caller wants a stream."""
        return _request.open_request(body, path)

    def text_slots(self, data: Json) -> Iterator[TextSlot]:
        """Yield the system instruction and the contents' own texts; never results of functions or thoughts."""
        return _request.text_slots(data)

    def replace_texts(self, data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
        """Return a copy with these texts replaced; what became empty goes, see `request.replace_texts`."""
        return _request.replace_texts(data, texts)

    def traces(self, data: Json) -> Traces:
        """Return the marks of the conversation."""
        return _traces.traces(data)

    def parse(self, request: Request) -> Call:
        """Return the canonical call."""
        return _parse.parse(request)

    def render(self, call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
        """Return the body for a provider of this dialect."""
        return _render.render(call, model=model, max_output_tokens=max_output_tokens)

    def patch(self, request: Request, *, model: str, max_output_tokens: int | None) -> bytes:
        """Return the caller's bytes with, if given, the cap changed; usually the same object."""
        return _request.patch(request, model=model, max_output_tokens=max_output_tokens)

    def operation(self, *, model: str, stream: bool, request: Request | None = None) -> str:
        """Return the path and query; the caller's own query is kept, credentials in it are not."""
        return _target.written(model, stream=stream, path=request.path if request else "")

    def parse_answer(self, data: Json) -> Answer:
        """Return the canonical answer of a response object; raises ValueError if it is none."""
        return _answer.parse_answer(data)

    def render_answer(self, answer: Answer, *, request: Request) -> Rendered:
        """Return the answer as a response object."""
        return _answer.render_answer(answer, request=request)

    def usage(self, data: Json) -> Usage:
        """Return the token counts of a response object, zeros where it holds none."""
        return _answer.usage(data)

    def parser(self, content_type: str) -> EventParser | None:
        """Return a parser of server-sent events, or of a JSON array: a body of that type may be a stream."""
        return sse.parser(content_type) or jsonarray.parser(content_type)

    def reader(self) -> StreamReader:
        """Return a reader for one stream."""
        return Reader()

    def writer(self, *, request: Request, created: int, fallback_id: str) -> StreamWriter:
        """Return a writer for one stream. This dialect tells no times, so `created` is not used."""
        return Writer(request=request, fallback_id=fallback_id)

    def stream_type(self, request: Request) -> str:
        """Return the type of the framing that the caller's path asks for."""
        return "application/json; charset=UTF-8" if _target.is_array(request.path) else sse.TYPE

    def keep_alive(self, request: Request) -> bytes:
        """Return a comment; in an array a line end, which JSON allows between any two elements."""
        return b"\n" if _target.is_array(request.path) else sse.COMMENT

    def hides(self, event: str, data: bytes, *, request: Request) -> bool:
        """Return False: this dialect always tells the usage, nothing has to be asked for."""
        return False

    def error(self, fault: Fault, *, request_id: str) -> ErrorReply:
        """Return the fault as a whole response."""
        return _faults.error(fault, request_id=request_id)

    def stream_error(self, fault: Fault, *, request_id: str, request: Request | None = None) -> bytes:
        """Return the fault as an event; for a `request` that reads an array as its last element and its end.

        An array is taken to have begun: its first element was written.
        """
        return _faults.stream_error(fault, array=request is not None and _target.is_array(request.path))


GEMINI: Final[DialectModule] = _Gemini()
