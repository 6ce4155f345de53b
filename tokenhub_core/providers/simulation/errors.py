"""Errors as each vendor words them, whole and inside a stream."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import orjson

from tokenhub_core.providers.simulation.asking import RejectedError
from tokenhub_core.providers.simulation.frames import data_line, event, line
from tokenhub_core.types import Dialect, Json

_OPENAI: Final[Mapping[int, tuple[str, str | None]]] = MappingProxyType(
    {
        400: ("invalid_request_error", None),
        401: ("invalid_request_error", "invalid_api_key"),
        403: ("invalid_request_error", "unsupported_country_region_territory"),
        404: ("invalid_request_error", "model_not_found"),
        429: ("requests", "rate_limit_exceeded"),
    }
)
_ANTHROPIC: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        504: "timeout_error",
        529: "overloaded_error",
    }
)
_GEMINI: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        408: "DEADLINE_EXCEEDED",
        429: "RESOURCE_EXHAUSTED",
        500: "INTERNAL",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }
)

ANTHROPIC: Final = frozenset({Dialect.ANTHROPIC_MESSAGES, Dialect.ANTHROPIC_COUNT_TOKENS})
"""The dialects of Anthropic."""
OLLAMA: Final = frozenset({Dialect.OLLAMA_CHAT, Dialect.OLLAMA_GENERATE})
"""The dialects of Ollama."""


def error(dialect: Dialect, said: RejectedError, *, request_id: str) -> bytes:
    """Return the whole body of an error."""
    return orjson.dumps(_error(dialect, said, request_id))


def overflow(dialect: Dialect) -> RejectedError:
    """Return what a vendor says of a prompt that is too long."""
    if dialect in ANTHROPIC:
        return RejectedError("prompt is too long: 250000 tokens > 200000 maximum")
    if dialect is Dialect.GEMINI:
        return RejectedError(
            "The input token count (1250000) exceeds the maximum number of tokens allowed (1048576)."
        )
    if dialect in OLLAMA:
        return RejectedError("the prompt exceeds the context length of the model")
    code = "context_length_exceeded"
    if dialect is Dialect.OPENAI_RESPONSES:
        message = (
            "Your input exceeds the context window of this model. Please adjust your input and try again."
        )
        return RejectedError(message, param="input", code=code)
    message = (
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 200000 "
        "tokens. Please reduce the length of the messages."
    )
    return RejectedError(message, code=code)


def error_frame(
    dialect: Dialect, said: RejectedError, *, request_id: str, frames: int, array: bool = False
) -> bytes:
    """Return an error inside a stream of which so many frames have been sent."""
    data = _error(dialect, said, request_id)
    if dialect in ANTHROPIC:
        return event(data)
    if dialect in OLLAMA:
        return line(data)
    if dialect is Dialect.GEMINI and array:
        return (b",\r\n" if frames else b"[") + orjson.dumps(data) + b"\n]"
    if dialect is Dialect.OPENAI_RESPONSES:
        told = data["error"]
        code = told["code"] or told["type"]
        fields = {"code": code, "message": told["message"], "param": None, "sequence_number": frames}
        return event({"type": "error", **fields})
    return data_line(data)


def _error(dialect: Dialect, said: RejectedError, request_id: str) -> Json:
    status = said.status
    if dialect in ANTHROPIC:
        kind = _ANTHROPIC.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": said.message}, "request_id": request_id}
    if dialect in OLLAMA:
        return {"error": said.message}
    if dialect is Dialect.GEMINI:
        word = _GEMINI.get(status, "UNKNOWN" if status >= 500 else "INVALID_ARGUMENT")
        return {"error": {"code": status, "message": said.message, "status": word}}
    kind, implied = _OPENAI.get(
        status, ("server_error", None) if status >= 500 else ("invalid_request_error", None)
    )
    code = said.code or implied
    return {"error": {"message": said.message, "type": kind, "param": said.param or None, "code": code}}
