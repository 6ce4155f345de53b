"""OpenAI's chat completions, as its own clients and as most other servers speak them.

The types of the official SDK (`openai.types.chat`) are the reference; where servers are known to differ, the
reader takes what they send and the writers write what the SDK takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

import orjson

from tokenhub_core.dialects import sse
from tokenhub_core.dialects.base import (
    DialectModule,
    ErrorReply,
    EventParser,
    Rendered,
    StreamReader,
    StreamWriter,
)
from tokenhub_core.dialects.openai_chat import answer as _answer
from tokenhub_core.dialects.openai_chat import faults as _faults
from tokenhub_core.dialects.openai_chat import parse as _parse
from tokenhub_core.dialects.openai_chat import render as _render
from tokenhub_core.dialects.openai_chat import request as _request
from tokenhub_core.dialects.openai_chat import traces as _traces
from tokenhub_core.dialects.openai_chat.stream import Reader
from tokenhub_core.dialects.openai_chat.writer import Writer
from tokenhub_core.errors import Fault
from tokenhub_core.types import Answer, Call, Dialect, Json, Request, TextSlot, Traces, Usage

__all__ = ["OPENAI_CHAT"]

_NO_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class _OpenAIChat:
    """The functions of this package, in the shape that every dialect has."""

    name = Dialect.OPENAI_CHAT

    def open(self, body: bytes, path: str = "") -> Request:
        """Decode and check a body: the messages' shape, and the few settings that routing reads."""
        return _request.open_request(body, path)

    def text_slots(self, data: Json) -> Iterator[TextSlot]:
        """Yield the texts of user, assistant, system and developer messages; never tool results."""
        return _request.text_slots(data)

    def replace_texts(self, data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
        """Return a copy with these texts replaced; what became empty goes."""
        return _request.replace_texts(data, texts)

    def traces(self, data: Json) -> Traces:
        """Return the marks of the conversation."""
        return _traces.traces(data)

    def parse(self, request: Request) -> Call:
        """Return the canonical call."""
        return _parse.parse(request)

    def render(self, call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
        """Return the body for a provider of this dialect; a stream always asks for its usage."""
        return _render.render(call, model=model, max_output_tokens=max_output_tokens)

    def patch(self, request: Request, *, model: str, max_output_tokens: int | None) -> bytes:
        """Return the caller's bytes with model, cap and the wish for usage set; the same object if all are."""
        return _request.patch(request, model=model, max_output_tokens=max_output_tokens)

    def operation(self, *, model: str, stream: bool, request: Request | None = None) -> str:
        """Return the path, which names nothing."""
        del model, stream, request
        return "/chat/completions"

    def parse_answer(self, data: Json) -> Answer:
        """Return the canonical answer of a chat completion; raises ValueError if it is none."""
        return _answer.parse_answer(data)

    def render_answer(self, answer: Answer, *, request: Request) -> Rendered:
        """Return the answer as a chat completion."""
        return _answer.render_answer(answer, request=request)

    def usage(self, data: Json) -> Usage:
        """Return the token counts of a chat completion, zeros where it holds none."""
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
        """Tell whether this is the chunk of usage alone, which a caller who did not ask for it must not see."""
        # Every chunk has a `usage` once it was asked for, so the rare empty `choices` is looked for first.
        if _NO_CHOICES.search(data) is None or _request.wants_usage(request.data):
            return False
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            return False
        return isinstance(chunk, dict) and chunk.get("choices") == [] and bool(chunk.get("usage"))

    def error(self, fault: Fault, *, request_id: str) -> ErrorReply:
        """Return the fault as a whole response."""
        return _faults.error(fault, request_id=request_id)

    def stream_error(self, fault: Fault, *, request_id: str, request: Request | None = None) -> bytes:
        """Return the fault as an event; this dialect has no place for the request's id in it."""
        del request
        return _faults.stream_error(fault)


OPENAI_CHAT: Final[DialectModule] = _OpenAIChat()
