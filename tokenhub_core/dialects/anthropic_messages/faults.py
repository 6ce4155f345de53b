"""Errors as Anthropic writes and names them.

The error types and their statuses are those of https://platform.claude.com/docs/en/api/errors.
"""

from __future__ import annotations

import math
from typing import Final

import orjson

from tokenhub_core.dialects import sse, wire
from tokenhub_core.dialects.base import ErrorReply
from tokenhub_core.errors import Fault, Kind
from tokenhub_core.types import Json

_LONGEST_WAIT: Final = 120
"""Seconds. The official SDK sleeps for whatever `retry-after` says, so what we forward is bounded."""

_OVERLOADED: Final = 529
"""The status that this dialect has of its own; the SDK raises its OverloadedError for no other."""

_TYPE_OF_STATUS: Final[dict[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}

_TYPE_OF_KIND: Final[dict[Kind, str]] = {
    Kind.OVERFLOW: "invalid_request_error",
    Kind.RATE_LIMITED: "rate_limit_error",
    Kind.QUOTA: "rate_limit_error",
    Kind.OVERLOADED: "overloaded_error",
    Kind.TRANSIENT: "api_error",
    Kind.TIMEOUT: "timeout_error",
    Kind.TRUNCATED: "api_error",
    Kind.AUTH: "authentication_error",
    Kind.FORBIDDEN: "permission_error",
    Kind.REFUSED: "invalid_request_error",
    Kind.INVALID: "invalid_request_error",
    Kind.NOT_FOUND: "not_found_error",
    Kind.TOO_LARGE: "request_too_large",
    Kind.BUDGET: "billing_error",
    Kind.NO_CANDIDATE: "api_error",
    Kind.CANCELLED: "api_error",
    Kind.INTERNAL: "api_error",
}

_STATUS_OF_TYPE: Final[dict[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": _OVERLOADED,
}


def status_of(error_type: str) -> int:
    """Return the status that an error inside a stream would have had as a response; 500 for a strange one."""
    return _STATUS_OF_TYPE.get(error_type, 500)


def error(fault: Fault, request_id: str) -> ErrorReply:
    """Return the fault as a whole response, `retry-after` in whole seconds and never above two minutes.

    An overloaded fleet answers 529, this dialect's own status for it, unless the fault sets one.
    """
    status = _OVERLOADED if fault.kind is Kind.OVERLOADED and not fault.status else fault.http_status
    headers = [("content-type", "application/json"), ("request-id", request_id)]
    if fault.retry_after is not None:
        headers.append(("retry-after", str(_whole_seconds(fault.retry_after))))
    return ErrorReply(status, tuple(headers), orjson.dumps(_body(fault, request_id)))


def stream_error(fault: Fault, request_id: str) -> bytes:
    """Return the fault as the last event of a stream; nothing may follow it."""
    return sse.frame(orjson.dumps(_body(fault, request_id)), "error")


def _body(fault: Fault, request_id: str) -> Json:
    error_type = _TYPE_OF_STATUS.get(fault.status) or _TYPE_OF_KIND[fault.kind]
    return {
        "type": "error",
        "error": {"type": error_type, "message": wire.worded(fault, "prompt is too long")},
        "request_id": request_id,
    }


def _whole_seconds(wait: float) -> int:
    return math.ceil(min(max(wait, 0.0), _LONGEST_WAIT))
