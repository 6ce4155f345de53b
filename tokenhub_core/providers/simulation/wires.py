"""The table of wire formats, and which one a path asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import orjson

from tokenhub_core.providers.simulation import (
    anthropic,
    anthropic_events,
    gemini,
    gemini_chunks,
    ollama,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_events,
    openai_responses,
)
from tokenhub_core.providers.simulation.asking import Ask, Reading, RejectedError
from tokenhub_core.providers.simulation.frames import Frames, Reply
from tokenhub_core.types import Dialect, Json

_SSE: Final = "text/event-stream; charset=utf-8"
_NDJSON: Final = "application/x-ndjson"
_JSON: Final = "application/json"
_BY_PATH: Final = (
    ("/chat/completions", Dialect.OPENAI_CHAT),
    ("/completions", Dialect.OPENAI_COMPLETIONS),
    ("/responses", Dialect.OPENAI_RESPONSES),
    ("/embeddings", Dialect.OPENAI_EMBEDDINGS),
    ("/messages/count_tokens", Dialect.ANTHROPIC_COUNT_TOKENS),
    ("/messages", Dialect.ANTHROPIC_MESSAGES),
    ("/api/chat", Dialect.OLLAMA_CHAT),
    ("/api/generate", Dialect.OLLAMA_GENERATE),
)
_GEMINI: Final = frozenset({"generateContent", "streamGenerateContent", "countTokens"})


def _unwritten(_: Reply) -> bytes:
    raise AssertionError("this operation is answered while it is read")


def _unstreamed(_: Reply) -> Frames:
    raise AssertionError("this operation has no stream")


@dataclass(frozen=True, slots=True)
class Wire:
    """One wire format: how a body and its target are read, and how answers to it are written."""

    read: Callable[[Json, str], Reading]
    whole: Callable[[Reply], bytes] = _unwritten
    stream: Callable[[Reply], Frames] = _unstreamed
    request_id: str = "x-request-id"
    """The header field that names a request, empty where the vendor has none."""
    broken: bytes = b'{"choices":['
    """A body that is no JSON, but looks as if it would become some."""


WIRES: Final[Mapping[Dialect, Wire]] = MappingProxyType(
    {
        Dialect.OPENAI_CHAT: Wire(openai_chat.read, openai_chat.whole_answer, openai_chat.stream),
        Dialect.ANTHROPIC_MESSAGES: Wire(
            anthropic.read,
            anthropic_events.whole_answer,
            anthropic_events.stream,
            request_id="request-id",
            broken=b'{"type":"message","content":[',
        ),
        Dialect.OPENAI_RESPONSES: Wire(
            openai_responses.read,
            openai_events.whole_answer,
            openai_events.stream,
            broken=b'{"object":"response","output":[',
        ),
        Dialect.OPENAI_COMPLETIONS: Wire(
            openai_completions.read, openai_completions.whole_answer, openai_completions.stream
        ),
        Dialect.OPENAI_EMBEDDINGS: Wire(openai_embeddings.read, broken=b'{"data":['),
        Dialect.ANTHROPIC_COUNT_TOKENS: Wire(
            anthropic.read_count, request_id="request-id", broken=b'{"input_tokens":'
        ),
        Dialect.GEMINI: Wire(
            gemini.read,
            gemini_chunks.whole_answer,
            gemini_chunks.stream,
            request_id="",
            broken=b'{"candidates":[',
        ),
        Dialect.OLLAMA_CHAT: Wire(
            ollama.read_chat, ollama.whole_answer, ollama.stream, request_id="", broken=b'{"message":{'
        ),
        Dialect.OLLAMA_GENERATE: Wire(
            ollama.read_generate, ollama.whole_answer, ollama.stream, request_id="", broken=b'{"response":'
        ),
    }
)


def dialect_at(target: str) -> Dialect | None:
    """Return the dialect of a request target, whatever stands before the operation; None where there is none."""
    path = target.partition("?")[0]
    found = gemini.TARGET.fullmatch(path)
    if found and found["operation"] in _GEMINI:
        return Dialect.GEMINI
    return next((dialect for ending, dialect in _BY_PATH if path.endswith(ending)), None)


def model_at(target: str, body: bytes) -> str:
    """Return the model that a request names in its body or its path, empty where it names none."""
    if found := gemini.TARGET.fullmatch(target.partition("?")[0]):
        return found["model"]
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(data.get("model", "")) if isinstance(data, dict) else ""


def read(dialect: Dialect, body: bytes, target: str) -> Reading:
    """Read a request; raises `RejectedError` with the vendor's words where it would refuse it."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise RejectedError("We could not parse the JSON body of your request.") from exc
    if not isinstance(data, dict):
        raise RejectedError("The body of the request must be a JSON object.")
    if dialect is not Dialect.GEMINI and not (isinstance(data.get("model"), str) and data["model"]):
        missing = (
            "model: Field required" if dialect in _FIELD_REQUIRED else "you must provide a model parameter"
        )
        raise RejectedError("model is required" if dialect in _OLLAMA else missing)
    return WIRES[dialect].read(data, target)


_FIELD_REQUIRED: Final = frozenset({Dialect.ANTHROPIC_MESSAGES, Dialect.ANTHROPIC_COUNT_TOKENS})
_OLLAMA: Final = frozenset({Dialect.OLLAMA_CHAT, Dialect.OLLAMA_GENERATE})


def stream_type(ask: Ask) -> str:
    """Return the content type of a stream."""
    if ask.dialect in _OLLAMA:
        return _NDJSON
    return _JSON if ask.array else _SSE


def missing(dialect: Dialect, model: str) -> RejectedError:
    """Return what a vendor says of a model that it does not have."""
    if dialect in _FIELD_REQUIRED:
        return RejectedError(f"model: {model}", status=404)
    if dialect in _OLLAMA:
        return RejectedError(f"model '{model}' not found", status=404)
    if dialect is Dialect.GEMINI:
        message = (
            f"models/{model} is not found for API version v1beta, or is not supported for generateContent. Call "
            "ListModels to see the list of available models and their supported methods."
        )
        return RejectedError(message, status=404)
    message = f"The model `{model}` does not exist or you do not have access to it."
    return RejectedError(message, status=404, code="model_not_found")
