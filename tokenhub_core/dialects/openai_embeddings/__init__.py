"""OpenAI's embeddings: texts in, vectors out.

Vectors of two models cannot be compared, so a call is only ever served by a provider of this dialect, with the
caller's own bytes, and never streamed. The types of the official SDK are the reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tokenhub_core.dialects import wire
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
from tokenhub_core.dialects.openai_completions.request import texts_size
from tokenhub_core.dialects.openai_embeddings.silent import Silent
from tokenhub_core.dialects.traces import NOTHING
from tokenhub_core.errors import Fault, TokenHubError, client_fault
from tokenhub_core.recognise import deployment
from tokenhub_core.types import (
    Answer,
    Call,
    Dialect,
    Features,
    Json,
    Request,
    Stopped,
    StopReason,
    TextSlot,
    Traces,
    Usage,
)

__all__ = ["OPENAI_EMBEDDINGS"]


def _fixed() -> TokenHubError:
    message = "Embeddings are not translated: only a provider of this dialect can serve the call."
    return client_fault(message, cause="not_translated")


class _OpenAIEmbeddings:
    """The functions of this package, in the shape that every dialect has."""

    name = Dialect.OPENAI_EMBEDDINGS

    def open(self, body: bytes, path: str = "") -> Request:
        """Decode and check a body: `input` is a text, the numbers of its tokens, or an array of either."""
        data = wire.decode(body)
        given = data.get("input")
        if given in ("", []):
            raise client_fault("Invalid 'input': it is empty.", cause="bad_field", param="input")
        size, texts = texts_size(given, "input")
        features = Features(wire.text(data, "model") or deployment(path), text_bytes=size, turns=texts)
        return Request(self.name, body, data, features, path)

    def text_slots(self, data: Json) -> Iterator[TextSlot]:
        """Yield nothing: what is embedded is data, and a vector of it without a part would be another one."""
        del data
        return iter(())

    def replace_texts(self, data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
        """Return `data`: it has no texts that could be replaced."""
        del texts
        return data

    def traces(self, data: Json) -> Traces:
        """Return nothing: what is embedded is no conversation."""
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
        return wire.splice(request.body, request.data, wire.named(request, model))

    def operation(self, *, model: str, stream: bool, request: Request | None = None) -> str:
        """Return the path, which names nothing."""
        del model, stream, request
        return "/embeddings"

    def parse_answer(self, data: Json) -> Answer:
        """Return model and usage of a list of embeddings, without the vectors; raises ValueError if it is none."""
        vectors = data.get("data")
        if not isinstance(vectors, list) or not all(
            isinstance(vector, dict) and isinstance(vector.get("embedding"), list | str) for vector in vectors
        ):
            raise ValueError("data: expected a list of embeddings")
        id_, model = data.get("id"), data.get("model")
        return Answer(
            id=id_ if isinstance(id_, str) else "",
            model=model if isinstance(model, str) else "",
            parts=(),
            stop=Stopped(StopReason.END),
            usage=self.usage(data),
        )

    def render_answer(self, answer: Answer, *, request: Request) -> Rendered:
        """Raise `TokenHubError` (`INVALID`): no other answer holds vectors."""
        del answer, request
        raise _fixed()

    def usage(self, data: Json) -> Usage:
        """Return the tokens of the input, zeros where the answer does not tell them."""
        return _chat.usage(data.get("usage"))

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
        """Return the fault as a whole response, in the shape of chat completions."""
        return OPENAI_CHAT.error(fault, request_id=request_id)

    def stream_error(self, fault: Fault, *, request_id: str, request: Request | None = None) -> bytes:
        """Return the fault as the end of a stream that there never is."""
        del request
        return OPENAI_CHAT.stream_error(fault, request_id=request_id)


OPENAI_EMBEDDINGS: Final[DialectModule] = _OpenAIEmbeddings()
