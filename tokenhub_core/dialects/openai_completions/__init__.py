"""OpenAI's first dialect, completions: a text, and how it goes on.

The types of the official SDK (`openai.types.completion`) are the reference. Base models and local servers still
speak it; what it shares with chat completions is read and written by their functions.
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
from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.dialects.openai_chat import words as _chat
from tokenhub_core.dialects.openai_completions import answer as _answer
from tokenhub_core.dialects.openai_completions import request as _request
from tokenhub_core.dialects.openai_completions.parse import parse
from tokenhub_core.dialects.openai_completions.render import render
from tokenhub_core.dialects.openai_completions.stream import Reader
from tokenhub_core.dialects.openai_completions.writer import Writer
from tokenhub_core.dialects.traces import NOTHING
from tokenhub_core.errors import Fault
from tokenhub_core.types import Answer, Call, Dialect, Json, Request, TextSlot, Traces, Usage

__all__ = ["OPENAI_COMPLETIONS"]


class _OpenAICompletions:
    """The functions of this package, in the shape that every dialect has."""

    name = Dialect.OPENAI_COMPLETIONS

    def open(self, body: bytes, path: str = "") -> Request:
        """Decode and check a body: the prompt's shape, and the few settings that routing reads."""
        return _request.open_request(body, path)

    def text_slots(self, data: Json) -> Iterator[TextSlot]:
        """Yield every prompt that is a text."""
        return _request.text_slots(data)

    def replace_texts(self, data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
        """Return a copy with these prompts replaced."""
        return _request.replace_texts(data, texts)

    def traces(self, data: Json) -> Traces:
        """Return nothing: a prompt has no turns."""
        del data
        return NOTHING

    def parse(self, request: Request) -> Call:
        """Return the canonical call; raises `TokenHubError` (`INVALID`) where no other dialect can serve it."""
        return parse(request)

    def render(self, call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
        """Return the body for a provider of this dialect: the conversation as one text."""
        return render(call, model=model, max_output_tokens=max_output_tokens)

    def patch(self, request: Request, *, model: str, max_output_tokens: int | None) -> bytes:
        """Return the caller's bytes with model, cap and the wish for usage set; the same object if all are."""
        return OPENAI_CHAT.patch(request, model=model, max_output_tokens=max_output_tokens)

    def operation(self, *, model: str, stream: bool, request: Request | None = None) -> str:
        """Return the path, which names nothing."""
        del model, stream, request
        return "/completions"

    def parse_answer(self, data: Json) -> Answer:
        """Return the canonical answer of a completion; raises ValueError if it is none."""
        return _answer.parse_answer(data)

    def render_answer(self, answer: Answer, *, request: Request) -> Rendered:
        """Return the answer as a completion."""
        return _answer.render_answer(answer, request=request)

    def usage(self, data: Json) -> Usage:
        """Return the token counts of a completion, zeros where it holds none."""
        return _chat.usage(data.get("usage"))

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
        return OPENAI_CHAT.hides(event, data, request=request)

    def error(self, fault: Fault, *, request_id: str) -> ErrorReply:
        """Return the fault as a whole response."""
        return OPENAI_CHAT.error(fault, request_id=request_id)

    def stream_error(self, fault: Fault, *, request_id: str, request: Request | None = None) -> bytes:
        """Return the fault as the last event of a stream."""
        del request
        return OPENAI_CHAT.stream_error(fault, request_id=request_id)


OPENAI_COMPLETIONS: Final[DialectModule] = _OpenAICompletions()
