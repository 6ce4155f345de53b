"""The Anthropic Messages dialect: `POST /v1/messages`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tokenhub_core.dialects import sse, wire
from tokenhub_core.dialects.anthropic_messages import answer as _answer
from tokenhub_core.dialects.anthropic_messages import faults
from tokenhub_core.dialects.anthropic_messages import texts as _texts
from tokenhub_core.dialects.anthropic_messages import traces as _traces
from tokenhub_core.dialects.anthropic_messages.parse import parse
from tokenhub_core.dialects.anthropic_messages.render import render
from tokenhub_core.dialects.anthropic_messages.request import open_request
from tokenhub_core.dialects.anthropic_messages.stream import Reader
from tokenhub_core.dialects.anthropic_messages.writer import Writer
from tokenhub_core.dialects.base import (
    DialectModule,
    ErrorReply,
    EventParser,
    Rendered,
    StreamReader,
    StreamWriter,
)
from tokenhub_core.errors import Fault
from tokenhub_core.types import Answer, Call, Dialect, Json, Request, TextSlot, Traces, Usage

__all__ = ["ANTHROPIC_MESSAGES"]


class _AnthropicMessages:
    """The functions of this package, in the shape that every dialect has."""

    name = Dialect.ANTHROPIC_MESSAGES

    def open(self, body: bytes, path: str = "") -> Request:
        """Decode and check a body: `messages` and `max_tokens` have to be there."""
        return open_request(body, path)

    def text_slots(self, data: Json) -> Iterator[TextSlot]:
        """Yield `system` and the messages' own texts; never tool results, documents or thinking."""
        return _texts.text_slots(data)

    def replace_texts(self, data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
        """Return a copy with these texts replaced; what became empty goes, see `texts.replace_texts`."""
        return _texts.replace_texts(data, texts)

    def traces(self, data: Json) -> Traces:
        """Return the marks of the conversation."""
        return _traces.traces(data)

    def parse(self, request: Request) -> Call:
        """Return the canonical call."""
        return parse(request)

    def render(self, call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
        """Return the body for a provider of this dialect."""
        return render(call, model=model, max_output_tokens=max_output_tokens)

    def patch(self, request: Request, *, model: str, max_output_tokens: int | None) -> bytes:
        """Return the caller's bytes with the model and, if given, the cap changed; the same object if neither."""
        edits: Json = {"model": model}
        if max_output_tokens is not None:
            edits["max_tokens"] = max_output_tokens
        return wire.splice(request.body, request.data, edits)

    def operation(self, *, model: str, stream: bool, request: Request | None = None) -> str:
        """Return the path, which names nothing; the caller's own query (`beta=true`) is kept."""
        del model, stream
        _, mark, query = request.path.partition("?") if request else ("", "", "")
        return "/messages" + mark + query

    def parse_answer(self, data: Json) -> Answer:
        """Return the canonical answer of a Message object; raises ValueError if it is none."""
        return _answer.parse_answer(data)

    def render_answer(self, answer: Answer, *, request: Request) -> Rendered:
        """Return the answer as a Message object."""
        return _answer.render_answer(answer, request)

    def usage(self, data: Json) -> Usage:
        """Return the token counts of a Message object, zeros where it holds none."""
        return _answer.usage(data)

    def parser(self, content_type: str) -> EventParser | None:
        """Return a parser of server-sent events."""
        return sse.parser(content_type)

    def reader(self) -> StreamReader:
        """Return a reader for one stream."""
        return Reader()

    def writer(self, *, request: Request, created: int, fallback_id: str) -> StreamWriter:
        """Return a writer for one stream. This dialect tells no times, so `created` is not used."""
        return Writer(request, fallback_id)

    def stream_type(self, request: Request) -> str:
        """Return the type of server-sent events."""
        del request
        return sse.TYPE

    def keep_alive(self, request: Request) -> bytes:
        """Return a ping."""
        del request
        return b'event: ping\ndata: {"type": "ping"}\n\n'

    def hides(self, event: str, data: bytes, *, request: Request) -> bool:
        """Return False: this dialect always tells the usage, nothing has to be asked for."""
        return False

    def error(self, fault: Fault, *, request_id: str) -> ErrorReply:
        """Return the fault as a whole response."""
        return faults.error(fault, request_id)

    def stream_error(self, fault: Fault, *, request_id: str, request: Request | None = None) -> bytes:
        """Return the fault as an `error` event."""
        del request
        return faults.stream_error(fault, request_id)


ANTHROPIC_MESSAGES: Final[DialectModule] = _AnthropicMessages()
