"""W3C Trace Context, level 1 (w3.org/TR/trace-context): read, judged, and written. Pure.

What a caller says of its trace is believed as far as it can do no harm: its ids are taken where they are well formed,
so that our spans hang under its own. Whether a trace is kept is ours to say, or anybody could make us keep them all.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from tokenhub_core.types import Headers

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_LONGEST: Final = 512
"""Characters of a tracestate that goes on; what is longer may be dropped (section 3.3.1.5)."""
_MEMBER: Final = re.compile(r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}")
_MOST: Final = 32
_LOW: Final = 1 << 64


class Parent(msgspec.Struct, frozen=True):
    """The span that a call was made in, as its caller says."""

    trace_id: str
    """32 hexadecimal digits,"""
    span_id: str
    """and 16."""
    sampled: bool
    """Whether the caller keeps the trace."""
    state: str = ""
    """What vendors add; carried on, never read."""


class Joined(msgspec.Struct, frozen=True):
    """A call's place in a trace."""

    trace_id: str
    span_id: str
    """Of the call itself."""
    parent_id: str = ""
    state: str = ""
    link: Parent | None = None
    """A span of another trace that it was made in."""
    wanted: bool = True
    """False: its caller does not keep the trace."""


def parent(headers: Headers) -> Parent | None:
    """Return what a call's headers say, None where they say nothing that is well formed, or say it twice."""
    told = [value for name, value in headers if name == TRACEPARENT]
    found = _FORM.fullmatch(told[0].strip()) if len(told) == 1 else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    state = ",".join(value for name, value in headers if name == TRACESTATE)
    return Parent(trace_id, span_id, bool(int(flags, 16) & 1), _state(state))


def kept(trace_id: str, share: float) -> bool:
    """Tell whether a trace is one of the share (0 to 1) that is kept: the same everywhere for the same id.

    As OpenTelemetry's TraceIdRatioBased sampler has it: by the id's lower 64 bits.
    """
    return int(trace_id[16:], 16) < round(share * _LOW)


def told(joined: Joined, *, sampled: bool) -> Headers:
    """Return the fields that tell the next server of a call's place."""
    field = (TRACEPARENT, f"00-{joined.trace_id}-{joined.span_id}-{'01' if sampled else '00'}")
    return (field, (TRACESTATE, joined.state)) if joined.state else (field,)


def _state(raw: str) -> str:
    """Return a tracestate without blanks; nothing where any of it is malformed, or it is too much of it."""
    members = [one.strip() for one in raw.split(",") if one.strip()]
    state = ",".join(members)
    fine = len(members) <= _MOST and len(state) <= _LONGEST and all(map(_MEMBER.fullmatch, members))
    return state if fine else ""
