"""A record as spans, in the words of the conventions."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from tokenhub_core.otel import mapping
from tokenhub_core.otel.context import Joined
from tokenhub_core.otel.mapping import Span, Value
from tokenhub_core.routing.spread import LOST
from tokenhub_core.types import (
    ApiKey,
    Attempt,
    Caller,
    Candidate,
    Dialect,
    Lane,
    Model,
    Outcome,
    Plan,
    Policy,
    Provider,
    ProviderType,
    Record,
    Shadow,
    Terms,
    Timings,
    Usage,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
JOINED = Joined(TRACE, "00000000000000aa", "00000000000000bb", "a=1")
USAGE = Usage(100, 20, 60, 10, 5)


def candidate(model: str, provider: str, kind: ProviderType, *endpoints: str) -> Candidate:
    served = Provider(provider, kind, endpoints)
    return Candidate(Model(model, provider, f"{model}-2"), served, 0.0, Terms(), 0)


CANDIDATES = (
    candidate("m", "p", ProviderType.OPENAI, "https://api.openai.com/v1"),
    candidate("m", "q", ProviderType.OPENAI_COMPATIBLE, "https://api.groq.com/openai/v1"),
)
RECORD = Record(
    "req_1",
    1_700_000_000.25,
    Outcome.OK,
    200,
    Caller(lane=Lane.HANDOFF, program="agent/1", key=ApiKey("key_1", project="blue")),
    "POST",
    "/v1/chat/completions?x=1",
    dialect=Dialect.OPENAI_CHAT,
    stream=True,
    requested_model="alias",
    model="m",
    provider="q",
    reason="failover",
    usage=USAGE,
    cost_nanousd=1_500_000,
    timings=Timings(route_ms=0.5, ttft_ms=700.0, total_ms=1200.0),
    attempts=(
        Attempt(1, "m", "p", 1.0, 101.0, status=500, cause="http_500", blame="provider", message="the text"),
        Attempt(2, "m", "q", 101.0, 1190.0, 700.0, 200, usage=USAGE, head_ms=600.0),
    ),
    plan=Plan(Policy(), CANDIDATES, (), 1, 1, "routed-weight-5"),
    losses=("top_k",),
    stop="end",
)


def spans(record: Record = RECORD) -> tuple[Span, ...]:
    ids = (f"{number:016x}" for number in range(1, 100))
    return mapping.spans(record, JOINED, lambda: next(ids))


def shown(span: Span, *names: str) -> tuple[Value | None, ...]:
    return tuple(span.attributes.get(name) for name in names)


def test_a_call_is_a_span_and_each_attempt_is_one_below_it() -> None:
    """To the microsecond when it was; the caller's span is above, and its state goes along."""
    call, first, second = spans()
    begun = 1_700_000_000_250_000_000
    assert (call.name, call.server, call.failed) == ("chat alias", True, False)
    assert (call.trace_id, call.span_id, call.parent_id) == (TRACE, JOINED.span_id, JOINED.parent_id)
    assert (call.start, call.end) == (begun, begun + 1_200_000_000)
    assert {span.parent_id for span in (first, second)} == {JOINED.span_id}
    assert {span.state for span in (call, first, second)} == {"a=1"}
    assert (first.name, first.server, first.failed, second.failed) == ("chat m", False, True, False)
    assert (second.start, second.end) == (begun + 101_000_000, begun + 1_190_000_000)


def test_a_calls_attributes_are_those_of_the_conventions() -> None:
    """And ours beside them; what is not known is left out."""
    call = spans()[0].attributes
    assert call == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "groq",
        "gen_ai.request.model": "alias",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "m",
        "gen_ai.response.finish_reasons": ("end",),
        "gen_ai.response.time_to_first_chunk": 0.7,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 60,
        "gen_ai.usage.cache_creation.input_tokens": 10,
        "gen_ai.usage.reasoning.output_tokens": 5,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.path": "/v1/chat/completions",
        "tokenhub.request.id": "req_1",
        "tokenhub.outcome": "ok",
        "tokenhub.lane": "handoff",
        "tokenhub.program": "agent/1",
        "tokenhub.key.id": "key_1",
        "tokenhub.project": "blue",
        "tokenhub.mode": "normal",
        "tokenhub.reason": "failover",
        "tokenhub.provider": "q",
        "tokenhub.cost_usd": 0.0015,
        "tokenhub.route.duration": 0.0005,
        "tokenhub.attempts": 2,
        "tokenhub.losses": ("top_k",),
    }


def test_an_attempt_says_who_was_asked_and_why_it_failed() -> None:
    """By the vendor's name in the conventions, its host, and the model's name there; nothing of what was said."""
    _, first, second = spans()
    names = (
        "gen_ai.provider.name",
        "server.address",
        "server.port",
        "gen_ai.request.model",
        "tokenhub.provider",
    )
    assert shown(first, *names) == ("openai", "api.openai.com", 443, "m-2", "p")
    assert shown(second, *names) == ("groq", "api.groq.com", 443, "m-2", "q")
    told = ("error.type", "http.response.status_code", "tokenhub.attempt.turn", "tokenhub.attempt.blame")
    assert shown(first, *told) == ("http_500", 500, "first", "provider")
    assert shown(second, *told) == (None, 200, "failover", None)
    assert second.attributes["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.599)
    assert "the text" not in str(spans())


@pytest.mark.parametrize(
    ("kind", "endpoints", "vendor"),
    [
        (ProviderType.ANTHROPIC, ("https://proxy.example",), "anthropic"),
        (ProviderType.GEMINI, ("https://generativelanguage.googleapis.com",), "gcp.gemini"),
        (ProviderType.AZURE, ("https://x.openai.azure.com",), "azure.ai.openai"),
        (ProviderType.OPENAI_COMPATIBLE, ("https://api.x.ai/v1",), "x_ai"),
        (ProviderType.OPENAI_COMPATIBLE, ("https://notx.ai/v1",), "p"),
        (ProviderType.VLLM, ("http://10.0.0.1:8000", "http://10.0.0.2:8000"), "p"),
    ],
)
def test_a_vendor_has_its_name_in_the_conventions(
    kind: ProviderType, endpoints: tuple[str, ...], vendor: str
) -> None:
    """One that they have no name for keeps ours; of several endpoints none is said to be the one."""
    plan = Plan(Policy(), (candidate("m", "p", kind, *endpoints),), (), 1, 1, "x")
    attempts = (Attempt(1, "m", "p", 1.0, 2.0),)
    attempt = spans(structs.replace(RECORD, plan=plan, attempts=attempts))[1]
    assert shown(attempt, "gen_ai.provider.name") == (vendor,)
    assert ("server.address" in attempt.attributes) is (len(endpoints) == 1)


@pytest.mark.parametrize(
    ("more", "name", "operation"),
    [
        ({"dialect": Dialect.GEMINI}, "generate_content alias", "generate_content"),
        ({"dialect": Dialect.OPENAI_EMBEDDINGS}, "embeddings alias", "embeddings"),
        ({"dialect": Dialect.ANTHROPIC_MESSAGES, "requested_model": ""}, "chat m", "chat"),
        ({"dialect": None, "outcome": Outcome.PASSED}, "POST", None),
    ],
)
def test_a_span_is_named_for_what_was_asked(more: dict[str, Any], name: str, operation: str | None) -> None:
    """The operation and the model; what passes is named by its method alone, since its path may be anything."""
    call = spans(structs.replace(RECORD, **more))[0]
    assert (call.name, *shown(call, "gen_ai.operation.name")) == (name, operation)


def test_a_call_that_failed_says_so_and_one_whose_caller_left_does_not() -> None:
    """What the caller chose is no error of the service."""
    failed, left = (
        spans(structs.replace(RECORD, outcome=outcome, fault=fault, status=502))[0]
        for outcome, fault in ((Outcome.ERROR, "http_500"), (Outcome.CANCELLED, "client_cancelled"))
    )
    assert (failed.failed, *shown(failed, "error.type")) == (True, "http_500")
    assert (left.failed, *shown(left, "error.type")) == (False, "client_cancelled")


def test_a_hedge_runs_beside_the_first_and_a_shadow_makes_no_spans() -> None:
    """The first was outrun; what would only have been tried was not."""
    attempts = (Attempt(1, "m", "p", 1.0, 90.0, cause=LOST), Attempt(2, "m", "q", 50.0, 80.0, 80.0))
    record = structs.replace(RECORD, attempts=attempts)
    assert [span.attributes["tokenhub.attempt.turn"] for span in spans(record)[1:]] == ["first", "hedge"]
    assert len(spans(structs.replace(record, shadow=Shadow("m", "p")))) == 1
