"""Faults in this dialect's own shape: as a response, as a stream's last event, and as a provider tells them."""

from __future__ import annotations

import math
from typing import Any, Final

from tokenhub_core.dialects import sse, wire
from tokenhub_core.dialects.base import ErrorReply
from tokenhub_core.errors import Fault, Kind
from tokenhub_core.types import Failed, Headers, Json

_LONGEST_WAIT: Final = 120.0
"""Seconds; this dialect's official SDK gives up on a longer `retry-after` anyway, others sleep through it."""

_CODES: Final = {
    Kind.OVERFLOW: "context_length_exceeded",
    Kind.QUOTA: "insufficient_quota",
    Kind.RATE_LIMITED: "rate_limit_exceeded",
}
"""Codes that clients are known to look for, whatever the fault's cause."""

_STATUSES: Final = {
    "authentication_error": 401,
    "bio_policy": 400,
    "content_filter": 400,
    "context_length_exceeded": 400,
    "data_residency_mismatch": 400,
    "empty_image_file": 400,
    "failed_to_download_image": 400,
    "image_content_policy_violation": 400,
    "image_file_not_found": 400,
    "image_file_too_large": 400,
    "image_parse_error": 400,
    "image_too_large": 400,
    "image_too_small": 400,
    "insufficient_quota": 429,
    "internal_error": 500,
    "internal_server_error": 500,
    "invalid_api_key": 401,
    "invalid_base64_image": 400,
    "invalid_encrypted_content": 400,
    "invalid_image": 400,
    "invalid_image_format": 400,
    "invalid_image_mode": 400,
    "invalid_image_url": 400,
    "invalid_prompt": 400,
    "invalid_request_error": 400,
    "misalignment_policy_violation": 400,
    "model_not_found": 404,
    "not_found_error": 404,
    "overloaded": 503,
    "overloaded_error": 503,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "requests": 429,
    "server_error": 500,
    "server_is_overloaded": 503,
    "service_unavailable": 503,
    "slow_down": 503,
    "timeout": 504,
    "tokens": 429,
    "unsupported_image_media_type": 400,
    "usage_limit_reached": 429,
    "vector_store_timeout": 504,
}
"""The `code` and `type` words of servers (`openai.types.responses.ResponseError` and others that are seen), and
the status that each goes with as a response."""


def error(fault: Fault, *, request_id: str) -> ErrorReply:
    """Return the fault as a whole response."""
    headers: Headers = (("content-type", "application/json"),)
    if request_id:
        headers += (("x-request-id", request_id),)
    if fault.retry_after is not None:
        wait = min(max(fault.retry_after, 0.0), _LONGEST_WAIT)
        headers += (
            ("retry-after", str(math.ceil(wait))),
            ("retry-after-ms", str(math.ceil(wait * 1000))),
        )
    inner = {
        "message": fault.message,
        "type": _type(fault),
        "param": fault.param or None,
        "code": _code(fault),
    }
    return ErrorReply(fault.http_status, headers, wire.encode({"error": inner}))


def stream_error(fault: Fault) -> bytes:
    """Return the fault as the `error` event that ends a stream. Its number is 0: only a stream knows its own."""
    body = {
        "type": "error",
        "code": _code(fault),
        "message": fault.message,
        "param": fault.param or None,
        "sequence_number": 0,
    }
    return sse.frame(wire.encode(body), "error")


def _code(fault: Fault) -> str:
    return fault.code or _CODES.get(fault.kind) or fault.label


def _type(fault: Fault) -> str:
    if fault.kind in {Kind.QUOTA, Kind.BUDGET}:
        return "insufficient_quota"
    status = fault.http_status
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def failed(error: object, fallback: Json) -> Failed:
    """Return what a provider says in its stream; `error` is an object or a text, `fallback` what it stands in.

    The status is the numeric code where there is one, else it comes from the words. Without either it is 502.
    """
    facts: dict[str, Any] = error if isinstance(error, dict) else fallback
    words = [facts.get("code"), facts.get("status"), facts.get("type")]
    message = facts.get("message") if isinstance(error, dict) or not error else error
    code = next((str(word) for word in words if isinstance(word, str | int) and word), "error")
    if not isinstance(message, str) or not message:
        message = f"The provider reported an error: {code}."
    status = next((found for word in words if (found := _status(word))), 502)
    return Failed(status, code, message)


def _status(word: object) -> int:
    if isinstance(word, str):
        if not word.isdecimal():
            return _STATUSES.get(word.lower(), 0)
        word = int(word) if len(word) == 3 else 0
    return word if isinstance(word, int) and 400 <= word < 600 else 0
