"""Ollama's own two dialects: `POST /api/chat` and `POST /api/generate`.

The reference is `docs/api.md` of the server and the types in its `api` package. A chat has messages, a completion
a prompt; everything else they share, and both stream unless they are told not to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tokenhub_core.dialects import ndjson
from tokenhub_core.dialects.base import (
    DialectModule,
    ErrorReply,
    EventParser,
    Rendered,
    StreamReader,
    StreamWriter,
)
from tokenhub_core.dialects.ollama import answer as _answer
from tokenhub_core.dialects.ollama import faults as _faults
from tokenhub_core.dialects.ollama import request as _request
from tokenhub_core.dialects.ollama import traces as _traces
from tokenhub_core.dialects.ollama import words as _words
from tokenhub_core.dialects.ollama.parse import parse
from tokenhub_core.dialects.ollama.render import render
from tokenhub_core.dialects.ollama.stream import Reader
from tokenhub_core.dialects.ollama.writer import Writer
from tokenhub_core.dialects.traces import NOTHING
from tokenhub_core.errors import Fault
from tokenhub_core.types import Answer, Call, Dialect, Json, Request, TextSlot, Traces, Usage

__all__ = ["OLLAMA_CHAT", "OLLAMA_GENERATE"]


class _Ollama:
    """The functions of this package, in the shape that every dialect has."""

    def __init__(self, name: Dialect, path: str) -> None:
        self.name = name
        self._path = path

    def open(self, body: bytes, path: str = "") -> Request:
        """Decode and check a body: the shape of messages or prompt, and the few settings that routing reads."""
        return _request.open_request(self.name, body, path)

    def text_slots(self, data: Json) -> Iterator[TextSlot]:
        """Yield the texts of system, user and assistant messages, or of system prompt and prompt."""
        return _request.text_slots(self.name, data)

    def replace_texts(self, data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
        """Return a copy with these texts replaced; what became empty goes."""
        return _request.replace_texts(self.name, data, texts)

    def traces(self, data: Json) -> Traces:
        """Return the marks of a chat; a completion has one turn."""
        return _traces.traces(data) if self.name is Dialect.OLLAMA_CHAT else NOTHING

    def parse(self, request: Request) -> Call:
        """Return the canonical call; raises `TokenHubError` (`INVALID`) for one that only loads a model."""
        return parse(request)

    def render(self, call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
        """Return the body for a server of this dialect."""
        return render(self.name, call, model=model, max_output_tokens=max_output_tokens)

    def patch(self, request: Request, *, model: str, max_output_tokens: int | None) -> bytes:
        """Return the caller's bytes with the model and, if given, the cap changed; the same object if neither."""
        return _request.patch(request, model=model, max_output_tokens=max_output_tokens)

    def operation(self, *, model: str, stream: bool, request: Request | None = None) -> str:
        """Return the path, which names nothing."""
        del model, stream, request
        return self._path

    def parse_answer(self, data: Json) -> Answer:
        """Return the canonical answer of a whole body; raises ValueError if it is none."""
        return _answer.parse_answer(self.name, data)

    def render_answer(self, answer: Answer, *, request: Request) -> Rendered:
        """Return the answer as one object."""
        return _answer.render_answer(self.name, answer, request=request)

    def usage(self, data: Json) -> Usage:
        """Return the token counts of a whole body, zeros where it holds none."""
        return _words.usage(data)

    def parser(self, content_type: str) -> EventParser | None:
        """Return a parser of lines. A streamed call that only loads a model is answered with one object."""
        return ndjson.parser(content_type)

    def reader(self) -> StreamReader:
        """Return a reader for one stream."""
        return Reader(self.name)

    def writer(self, *, request: Request, created: int, fallback_id: str) -> StreamWriter:
        """Return a writer for one stream; `created` is in seconds since the epoch. Answers have no ids here."""
        del fallback_id
        return Writer(request=request, created=created)

    def stream_type(self, request: Request) -> str:
        """Return the type of JSON lines."""
        del request
        return ndjson.TYPE

    def keep_alive(self, request: Request) -> bytes:
        """Return nothing: there is no line that every client skips."""
        del request
        return b""

    def hides(self, event: str, data: bytes, *, request: Request) -> bool:
        """Return False: this dialect always tells the usage, nothing has to be asked for."""
        return False

    def error(self, fault: Fault, *, request_id: str) -> ErrorReply:
        """Return the fault as a whole response."""
        return _faults.error(fault, request_id=request_id)

    def stream_error(self, fault: Fault, *, request_id: str, request: Request | None = None) -> bytes:
        """Return the fault as the last line of a stream."""
        del request_id, request
        return _faults.stream_error(fault)


OLLAMA_CHAT: Final[DialectModule] = _Ollama(Dialect.OLLAMA_CHAT, "/api/chat")
OLLAMA_GENERATE: Final[DialectModule] = _Ollama(Dialect.OLLAMA_GENERATE, "/api/generate")
