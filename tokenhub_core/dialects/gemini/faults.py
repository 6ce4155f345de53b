"""Errors as Google's APIs write and name them.

The shape is https://google.aip.dev/193: a code, a message, a status word, and typed details.
"""

from __future__ import annotations

import math
from typing import Any, Final

from tokenhub_core.dialects import sse, wire
from tokenhub_core.dialects.base import ErrorReply
from tokenhub_core.errors import Fault
from tokenhub_core.types import Failed, Headers, Json

_LONGEST_WAIT: Final = 120.0
"""Seconds; clients sleep for what they are told, so what we forward is bounded."""
_TYPES: Final = "type.googleapis.com/google.rpc."

_WORDS: Final[dict[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_STATUSES: Final[dict[str, int]] = {
    "ABORTED": 409,
    "ALREADY_EXISTS": 409,
    "CANCELLED": 499,
    "DATA_LOSS": 500,
    "DEADLINE_EXCEEDED": 504,
    "FAILED_PRECONDITION": 400,
    "INTERNAL": 500,
    "INVALID_ARGUMENT": 400,
    "NOT_FOUND": 404,
    "OUT_OF_RANGE": 400,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "UNAUTHENTICATED": 401,
    "UNAVAILABLE": 503,
    "UNIMPLEMENTED": 501,
    "UNKNOWN": 500,
}
"""The status words, and the HTTP status that goes with each (google/rpc/code.proto)."""


def error(fault: Fault, *, request_id: str) -> ErrorReply:
    """Return the fault as a whole response; the time to wait stands in a header and in the details."""
    headers: Headers = (("content-type", "application/json; charset=UTF-8"),)
    if request_id:
        headers += (("x-request-id", request_id),)
    if fault.retry_after is not None:
        headers += (("retry-after", str(_wait(fault.retry_after))),)
    return ErrorReply(fault.http_status, headers, wire.encode(_body(fault)))


def stream_error(fault: Fault, *, array: bool) -> bytes:
    """Return the fault as the last thing of a stream; `array` says that it is one which has begun."""
    body = wire.encode(_body(fault))
    return b",\r\n" + body + b"]" if array else sse.frame(body)


_TOO_LONG: Final = "The input token count exceeds the maximum number of tokens allowed"


def _body(fault: Fault) -> Json:
    status = fault.http_status
    word = _WORDS.get(status) or ("INVALID_ARGUMENT" if status < 500 else "INTERNAL")
    details: list[Json] = []
    if fault.retry_after is not None:
        wait = f"{_wait(fault.retry_after)}s"
        details.append({"@type": _TYPES + "RetryInfo", "retryDelay": wait})
    if fault.param:
        broken = [{"field": fault.param, "description": fault.message}]
        details.append({"@type": _TYPES + "BadRequest", "fieldViolations": broken})
    body: Json = {"code": status, "message": wire.worded(fault, _TOO_LONG), "status": word}
    return {"error": body | ({"details": details} if details else {})}


def _wait(seconds: float) -> int:
    return math.ceil(min(max(seconds, 0.0), _LONGEST_WAIT))


def failed(error: object) -> Failed:
    """Return what a provider reports inside a stream; the code decides, then the word, else it is 502."""
    facts: dict[str, Any] = error if isinstance(error, dict) else {"message": error}
    code, word, message = (facts.get(key) for key in ("code", "status", "message"))
    word = word if isinstance(word, str) else ""
    status = code if type(code) is int and 400 <= code < 600 else _STATUSES.get(word.upper(), 502)
    if not isinstance(message, str) or not message:
        message = f"The provider reported an error: {word or status}."
    return Failed(status, word or str(status), message)
