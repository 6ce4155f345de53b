"""A record as spans: one for the call, one for each attempt below it. Pure.

Names follow OpenTelemetry's semantic conventions for generative AI as of semantic conventions 1.44.0 (their status is
"development": a change of theirs is a change of the two tables here). What they have no name for is `tokenhub.*`.
Nothing that was said in a call is in a record, and so nothing of it is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from tokenhub_core.otel.context import Joined, Parent
from tokenhub_core.telemetry.turns import Turn, turns
from tokenhub_core.types import (
    NANO,
    Attempt,
    Candidate,
    Dialect,
    Outcome,
    ProviderType,
    Record,
    Usage,
)

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"

type Value = str | int | float | bool | tuple[str, ...]

_MICRO: Final = 1_000_000

_OPERATIONS: Final[Mapping[Dialect, str]] = {
    Dialect.GEMINI: "generate_content",
    Dialect.OPENAI_COMPLETIONS: "text_completion",
    Dialect.OLLAMA_GENERATE: "text_completion",
    Dialect.OPENAI_EMBEDDINGS: "embeddings",
    Dialect.ANTHROPIC_COUNT_TOKENS: "count_tokens",
}
"""What is asked for; every other dialect's is `chat`. Counting has no name in the conventions yet."""

_PROVIDERS: Final[Mapping[ProviderType, str]] = {
    ProviderType.OPENAI: "openai",
    ProviderType.ANTHROPIC: "anthropic",
    ProviderType.GEMINI: "gcp.gemini",
    ProviderType.AZURE: "azure.ai.openai",
}
_HOSTS: Final[Mapping[str, str]] = {
    "openai.com": "openai",
    "anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "openai.azure.com": "azure.ai.openai",
    "amazonaws.com": "aws.bedrock",
    "cohere.com": "cohere",
    "cohere.ai": "cohere",
    "deepseek.com": "deepseek",
    "groq.com": "groq",
    "mistral.ai": "mistral_ai",
    "perplexity.ai": "perplexity",
    "x.ai": "x_ai",
}
"""Vendors by the end of their hosts' names, for those who are spoken to in somebody else's dialect."""


class Span(msgspec.Struct, frozen=True):
    """One span. Times are nanoseconds since the epoch."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: Mapping[str, Value]
    server: bool = False
    """It is what a caller asked us; else what we asked somebody."""
    failed: bool = False
    state: str = ""
    link: Parent | None = None


class _Try(msgspec.Struct, frozen=True):
    """One attempt, and what is known of it beside itself."""

    record: Record
    attempt: Attempt
    turn: Turn
    candidate: Candidate | None


def spans(record: Record, joined: Joined, new_id: Callable[[], str]) -> tuple[Span, ...]:
    """Return the spans of a call, its own first; `new_id` gives ids of 16 hexadecimal digits."""
    begun = record.at
    call = Span(
        name=_name(record, record.requested_model or record.model),
        trace_id=joined.trace_id,
        span_id=joined.span_id,
        parent_id=joined.parent_id,
        start=_nanos(begun, 0),
        end=_nanos(begun, record.timings.total_ms),
        attributes=_filled(_CALL, record),
        server=True,
        failed=record.outcome is Outcome.ERROR,
        state=joined.state,
        link=joined.link,
    )
    return (call, *(_attempted(one, joined, new_id()) for one in _tries(record)))


def _attempted(tried: _Try, joined: Joined, span_id: str) -> Span:
    attempt, begun = tried.attempt, tried.record.at
    return Span(
        name=_name(tried.record, attempt.model),
        trace_id=joined.trace_id,
        span_id=span_id,
        parent_id=joined.span_id,
        start=_nanos(begun, attempt.started_ms),
        end=_nanos(begun, max(attempt.ended_ms, attempt.started_ms)),
        attributes=_filled(_ATTEMPT, tried),
        failed=bool(attempt.cause),
        state=joined.state,
    )


def _tries(record: Record) -> Sequence[_Try]:
    """Return the attempts; what a call in shadow would have been is none."""
    if record.shadow is not None:
        return ()
    known = {(one.model.id, one.provider.id): one for one in record.plan.candidates} if record.plan else {}
    return [
        _Try(record, attempt, turn, known.get((attempt.model, attempt.provider)))
        for attempt, turn in zip(record.attempts, turns(record.attempts), strict=True)
    ]


def _filled[T](table: Mapping[str, Callable[[T], Value | None]], given: T) -> dict[str, Value]:
    """Return what a table says of `given`, without what is not known."""
    found = ((name, read(given)) for name, read in table.items())
    return {name: value for name, value in found if value is not None and value not in ("", ())}


def _name(record: Record, model: str) -> str:
    """Return a span's name, `{operation} {model}`; what passes is named by its method."""
    if record.dialect is None:
        return record.method
    return f"{_operation(record)} {model}".strip()


def _operation(record: Record) -> str | None:
    return None if record.dialect is None else _OPERATIONS.get(record.dialect, "chat")


def _nanos(epoch: float, after_ms: float) -> int:
    """Return a moment so many milliseconds after another one, which is in seconds; a double has no room for both."""
    return round(epoch * _MICRO) * 1000 + round(after_ms * _MICRO)


def _host(candidate: Candidate | None) -> str:
    """Return the host of a provider with one endpoint; which of several was asked a record does not say."""
    if candidate is None or len(candidate.provider.endpoints) != 1:
        return ""
    return urlsplit(candidate.provider.endpoints[0]).hostname or ""


def _port(candidate: Candidate | None) -> int | None:
    if not _host(candidate) or candidate is None:
        return None
    url = urlsplit(candidate.provider.endpoints[0])
    return url.port or {"https": 443, "http": 80}.get(url.scheme)


def _vendor(tried: _Try) -> str:
    """Return the provider in the conventions' words; one that they have no word for by our own name for it."""
    candidate, provider = tried.candidate, tried.attempt.provider
    kind = _PROVIDERS.get(candidate.provider.type, "") if candidate else ""
    if kind:
        return kind
    host = _host(candidate) or provider.removeprefix("origin:")
    ends = (name for end, name in _HOSTS.items() if host == end or host.endswith(f".{end}"))
    return next(ends, provider)


def _served_by(record: Record) -> str:
    tries = [one for one in _tries(record) if one.attempt.provider == record.provider]
    return _vendor(tries[-1]) if tries else record.provider


def _count(number: int) -> int | None:
    return number or None


def _told[T](usage: Callable[[T], Usage]) -> Mapping[str, Callable[[T], Value | None]]:
    """Return the rows of token counts; the conventions count cached tokens as input, and so do we."""
    return {
        "gen_ai.usage.input_tokens": lambda one: _count(usage(one).input_tokens),
        "gen_ai.usage.output_tokens": lambda one: _count(usage(one).output_tokens),
        "gen_ai.usage.cache_read.input_tokens": lambda one: _count(usage(one).cache_read_tokens),
        "gen_ai.usage.cache_creation.input_tokens": lambda one: _count(usage(one).cache_write_tokens),
        "gen_ai.usage.reasoning.output_tokens": lambda one: _count(usage(one).reasoning_tokens),
    }


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _first(tried: _Try) -> float | None:
    first = tried.attempt.first_byte_ms
    streamed = tried.record.stream and first is not None
    return _seconds(first - tried.attempt.started_ms) if streamed and first is not None else None


_CALL: Final[Mapping[str, Callable[[Record], Value | None]]] = {
    "gen_ai.operation.name": _operation,
    "gen_ai.provider.name": _served_by,
    "gen_ai.request.model": lambda one: one.requested_model,
    "gen_ai.request.stream": lambda one: one.stream or None,
    "gen_ai.response.model": lambda one: one.model,
    "gen_ai.response.finish_reasons": lambda one: (one.stop,) if one.stop else None,
    "gen_ai.response.time_to_first_chunk": lambda one: _seconds(one.timings.ttft_ms) if one.stream else None,
    **_told(lambda one: one.usage),
    "error.type": lambda one: one.fault,
    "http.request.method": lambda one: one.method,
    "http.response.status_code": lambda one: _count(one.status),
    "url.path": lambda one: one.path.partition("?")[0],
    "server.address": lambda one: one.origin_host,
    "tokenhub.request.id": lambda one: one.id,
    "tokenhub.outcome": lambda one: one.outcome.value,
    "tokenhub.lane": lambda one: one.caller.lane.value,
    "tokenhub.program": lambda one: one.caller.program,
    "tokenhub.key.id": lambda one: one.caller.key.id if one.caller.key else None,
    "tokenhub.project": lambda one: one.caller.key.project if one.caller.key else None,
    "tokenhub.mode": lambda one: one.plan.policy.mode.value if one.plan else None,
    "tokenhub.reason": lambda one: one.reason,
    "tokenhub.alias": lambda one: one.alias,
    "tokenhub.directive": lambda one: one.directive,
    "tokenhub.provider": lambda one: one.provider,
    "tokenhub.cost_usd": lambda one: one.cost_nanousd / NANO if one.cost_nanousd else None,
    "tokenhub.usage.estimated": lambda one: one.usage_estimated or None,
    "tokenhub.route.duration": lambda one: _seconds(one.timings.route_ms or None),
    "tokenhub.attempts": lambda one: _count(len(one.attempts)),
    "tokenhub.losses": lambda one: one.losses,
    "tokenhub.identical": lambda one: one.identical or None,
    "tokenhub.simulated": lambda one: one.simulated or None,
}

_ATTEMPT: Final[Mapping[str, Callable[[_Try], Value | None]]] = {
    "gen_ai.operation.name": lambda one: _operation(one.record),
    "gen_ai.provider.name": _vendor,
    "gen_ai.request.model": lambda one: one.candidate.model.name if one.candidate else one.attempt.model,
    "gen_ai.request.stream": lambda one: one.record.stream or None,
    "gen_ai.response.time_to_first_chunk": _first,
    **_told(lambda one: one.attempt.usage),
    "error.type": lambda one: one.attempt.cause,
    "http.response.status_code": lambda one: _count(one.attempt.status),
    "server.address": lambda one: _host(one.candidate),
    "server.port": lambda one: _port(one.candidate),
    "tokenhub.provider": lambda one: one.attempt.provider,
    "tokenhub.attempt": lambda one: one.attempt.n,
    "tokenhub.attempt.turn": lambda one: one.turn.value,
    "tokenhub.attempt.change": lambda one: one.attempt.change,
    "tokenhub.attempt.blame": lambda one: one.attempt.blame,
    "tokenhub.attempt.step": lambda one: one.attempt.step,
    "tokenhub.attempt.response_id": lambda one: one.attempt.provider_request_id,
    "tokenhub.cost_usd": lambda one: one.attempt.cost_nanousd / NANO if one.attempt.cost_nanousd else None,
}
