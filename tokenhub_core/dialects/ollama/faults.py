"""Faults in this dialect's own shape, which is a text."""

from __future__ import annotations

from dataclasses import replace

from tokenhub_core.dialects import ndjson, wire
from tokenhub_core.dialects.base import ErrorReply
from tokenhub_core.dialects.openai_chat import faults as _openai
from tokenhub_core.errors import Fault


def error(fault: Fault, *, request_id: str) -> ErrorReply:
    """Return the fault as a whole response."""
    return replace(_openai.error(fault, request_id=request_id), body=_body(fault))


def stream_error(fault: Fault) -> bytes:
    """Return the fault as the last line of a stream."""
    return ndjson.frame(_body(fault))


def _body(fault: Fault) -> bytes:
    return wire.encode({"error": wire.worded(fault, "prompt too long")})
