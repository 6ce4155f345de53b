"""OpenAI's responses: `POST /v1/responses`.

The types of the official SDK (`openai.types.responses`) are the reference; where servers are known to differ,
the reader takes what they send and the writers write what the SDK takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tokenhub_core.dialects import sse
from tokenhub_core.dialects.base import (
    DialectModule,
    ErrorReply,
    EventParser,
    Rendered,
    StreamReader,
    StreamWriter,
)
from tokenhub_core.dialects.openai_responses import answer as _answer
from tokenhub_core.dialects.openai_responses import faults as _faults
from tokenhub_core.dialects.openai_responses import parse as _parse
from tokenhub_core.dialects.openai_responses import render as _render
from tokenhub_core.dialects.openai_responses import request as _request
from tokenhub_core.dialects.openai_responses import traces as _traces
from tokenhub_core.dialects.openai_responses.stream import Reader
from tokenhub_core.dialects.openai_responses.writer import Writer
from tokenhub_core.errors import Fault
from tokenhub_core.types import Answer, Call, Dialect, Json, Request, TextSlot, Traces, Usage

__all__ = ["OPENAI_RESPONSES"]


class _OpenAIResponses:
    """The functions of this package, in the shape that every dialect has."""

    name = Dialect.OPENAI_RESPONSES

    def open(self, body: bytes, path: str = "") -> Request:
        """Decode and check a body: the items' shape, and the few settings that routing reads."""
        return _request.open_request(body, path)

    def text_slots(self, data: Json) -> Iterator[TextSlot]:
        """Yield the instructions and the texts of messages; never what a tool gave out."""
        return _request.text_slots(data)

    def replace_texts(self, data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
        """Return a copy with these texts replaced; what became empty goes."""
        return _request.replace_texts(data, texts)

    def traces(self, data: Json) -> Traces:
        """Return the marks of the conversation."""
        return _traces.traces(data)

    def parse(self, request: Request) -> Call:
        """Return the canonical call; raises `TokenHubError` (`INVALID`) for one that leans on stored state."""
        return _parse.parse(request)

    def render(self, call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
        """Return the body for a provider of this dialect; of another dialect's call nothing is stored there."""
        return _render.render(call, model=model, max_output_tokens=max_output_tokens)

    def patch(self, request: Request, *, model: str, max_output_tokens: int | None) -> bytes:
        """Return the caller's bytes with the model and, if given, the cap changed; the same object if neither."""
        return _request.patch(request, model=model, max_output_tokens=max_output_tokens)

    def operation(self, *, model: str, stream: bool, request: Request | None = None) -> str:
        """Return the path, which names nothing."""
        del model, stream, request
        return "/responses"

    def parse_answer(self, data: Json) -> Answer:
        """Return the canonical answer of a response; raises ValueError if it is none, or not over."""
        return _answer.parse_answer(data)

    def render_answer(self, answer: Answer, *, request: Request) -> Rendered:
        """Return the answer as a response."""
        return _answer.render_answer(answer, request=request)

    def usage(self, data: Json) -> Usage:
        """Return the token counts of a response, zeros where it holds none."""
        return _answer.usage(data)

    def parser(self, content_type: str) -> EventParser | None:
        """Return a parser of server-sent events."""
        return sse.parser(content_type)

    def reader(self) -> StreamReader:
        """Return a reader for one stream."""
        return Reader()

    def writer(self, *, request: Request, created: int, fallback_id: str) -> StreamWriter:
        """Return a writer for one stream; `created` is in seconds since the epoch."""
        return Writer(request=request, created=created, fallback_id=fallback_id)

    def stream_type(self, request: Request) -> str:
        """Return the type of server-sent events."""
        del request
        return sse.TYPE

    def keep_alive(self, request: Request) -> bytes:
        """Return a comment."""
        del request
        return sse.COMMENT

    def hides(self, event: str, data: bytes, *, request: Request) -> bool:
        """Return False: this dialect always tells the usage, nothing has to be asked for."""
        del event, data, request
        return False

    def error(self, fault: Fault, *, request_id: str) -> ErrorReply:
        """Return the fault as a whole response."""
        return _faults.error(fault, request_id=request_id)

    def stream_error(self, fault: Fault, *, request_id: str, request: Request | None = None) -> bytes:
        """Return the fault as an `error` event; this dialect has no place for the request's id in it."""
        del request_id, request
        return _faults.stream_error(fault)


OPENAI_RESPONSES: Final[DialectModule] = _OpenAIResponses()
