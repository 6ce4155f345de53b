"""Anthropic's token counting: `POST /v1/messages/count_tokens`.

The request is that of the Messages dialect without a cap, the answer one number. Every model counts in its own
way, so a call is only ever served by a provider of this dialect, or estimated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import structs

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.dialects.base import (
    DialectModule,
    ErrorReply,
    EventParser,
    Rendered,
    StreamReader,
    StreamWriter,
)
from tokenhub_core.dialects.openai_embeddings.silent import Silent
from tokenhub_core.dialects.traces import NOTHING
from tokenhub_core.errors import Fault, TokenHubError, client_fault
from tokenhub_core.types import (
    Answer,
    Call,
    Dialect,
    Json,
    Request,
    Stopped,
    StopReason,
    TextSlot,
    Traces,
    Usage,
)

__all__ = ["ANTHROPIC_COUNT_TOKENS", "estimated"]

_NO_CAP: Final = {"max_tokens": 1, "stream": False}
"""What the check of a message asks for, or might take from a count."""


def estimated(tokens: int) -> Json:
    """Return an answer that says `tokens`, none where it is negative."""
    return {"input_tokens": max(tokens, 0)}


def _fixed() -> TokenHubError:
    message = "Token counts are not translated: only a provider of this dialect can serve the call."
    return client_fault(message, cause="not_translated")


class _AnthropicCountTokens:
    """The functions of this package, in the shape that every dialect has."""

    name = Dialect.ANTHROPIC_COUNT_TOKENS

    def open(self, body: bytes, path: str = "") -> Request:
        """Decode and check a body as one of a message, but for its cap."""
        data = wire.decode(body)
        message = ANTHROPIC_MESSAGES.open(wire.encode(data | _NO_CAP), path)
        return Request(self.name, body, data, structs.replace(message.features, max_output_tokens=None), path)

    def text_slots(self, data: Json) -> Iterator[TextSlot]:
        """Yield `system` and the messages' own texts; never tool results, documents or thinking."""
        return ANTHROPIC_MESSAGES.text_slots(data)

    def replace_texts(self, data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
        """Return a copy with these texts replaced; what became empty goes as it would from a message."""
        return ANTHROPIC_MESSAGES.replace_texts(data, texts)

    def traces(self, data: Json) -> Traces:
        """Return nothing: a count is no answer, and leaves no mark."""
        del data
        return NOTHING

    def parse(self, request: Request) -> Call:
        """Raise `TokenHubError` (`INVALID`): there is no canonical form."""
        del request
        raise _fixed()

    def render(self, call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
        """Raise `TokenHubError` (`INVALID`): no other call can be one of these."""
        del call, model, max_output_tokens
        raise _fixed()

    def patch(self, request: Request, *, model: str, max_output_tokens: int | None) -> bytes:
        """Return the caller's bytes with the model changed; the same object if it is the same. No cap applies."""
        del max_output_tokens
        return wire.splice(request.body, request.data, {"model": model})

    def operation(self, *, model: str, stream: bool, request: Request | None = None) -> str:
        """Return the path, which names nothing; the caller's own query (`beta=true`) is kept."""
        del model, stream
        _, mark, query = request.path.partition("?") if request else ("", "", "")
        return "/messages/count_tokens" + mark + query

    def parse_answer(self, data: Json) -> Answer:
        """Return the count as usage of an answer without parts; raises ValueError if `data` is no count."""
        tokens = data.get("input_tokens")
        if type(tokens) is not int or tokens < 0:
            raise ValueError("input_tokens: expected a count")
        return Answer("", "", (), Stopped(StopReason.END), self.usage(data))

    def render_answer(self, answer: Answer, *, request: Request) -> Rendered:
        """Return the input tokens of the answer as a count; whatever else it holds is no part of one."""
        del request
        return Rendered(estimated(answer.usage.input_tokens))

    def usage(self, data: Json) -> Usage:
        """Return the count, which is of a call that may come, not of this one: counting uses no tokens."""
        return Usage(wire.tokens(data.get("input_tokens")))

    def parser(self, content_type: str) -> EventParser | None:
        """Return None: there are no streams."""
        del content_type
        return None

    def reader(self) -> StreamReader:
        """Return one that reads nothing."""
        return Silent()

    def writer(self, *, request: Request, created: int, fallback_id: str) -> StreamWriter:
        """Return one that writes nothing."""
        del request, created, fallback_id
        return Silent()

    def stream_type(self, request: Request) -> str:
        """Return the type of every answer."""
        del request
        return "application/json"

    def keep_alive(self, request: Request) -> bytes:
        """Return nothing."""
        del request
        return b""

    def hides(self, event: str, data: bytes, *, request: Request) -> bool:
        """Return False: nothing is asked for that the caller did not ask for."""
        del event, data, request
        return False

    def error(self, fault: Fault, *, request_id: str) -> ErrorReply:
        """Return the fault as a whole response, in the shape of messages."""
        return ANTHROPIC_MESSAGES.error(fault, request_id=request_id)

    def stream_error(self, fault: Fault, *, request_id: str, request: Request | None = None) -> bytes:
        """Return the fault as the end of a stream that there never is."""
        del request
        return ANTHROPIC_MESSAGES.stream_error(fault, request_id=request_id)


ANTHROPIC_COUNT_TOKENS: Final[DialectModule] = _AnthropicCountTokens()
