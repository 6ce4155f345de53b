from __future__ import annotations

import orjson
import pytest
from openai.types.responses import ResponseErrorEvent

from tokenhub_core.dialects.openai_responses import OPENAI_RESPONSES
from tokenhub_core.dialects.sse import Parser
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Failed


def test_an_error_is_what_the_sdk_reads() -> None:
    """Message, type, param and code; waits in seconds and milliseconds, bounded; the request's id."""
    fault = Fault(Kind.RATE_LIMITED, Blame.PROVIDER, "Slow.", retry_after=500.2, param="model")
    reply = OPENAI_RESPONSES.error(fault, request_id="r1")
    assert reply.status == 429
    assert dict(reply.headers) == {
        "content-type": "application/json",
        "x-request-id": "r1",
        "retry-after": "120",
        "retry-after-ms": "120000",
    }
    assert orjson.loads(reply.body) == {
        "error": {
            "message": "Slow.",
            "type": "rate_limit_error",
            "param": "model",
            "code": "rate_limit_exceeded",
        }
    }


@pytest.mark.parametrize(
    ("kind", "status", "type_", "code"),
    [
        (Kind.OVERFLOW, 400, "invalid_request_error", "context_length_exceeded"),
        (Kind.QUOTA, 429, "insufficient_quota", "insufficient_quota"),
        (Kind.BUDGET, 402, "insufficient_quota", "budget_exceeded"),
        (Kind.TRANSIENT, 502, "server_error", "transient"),
        (Kind.AUTH, 401, "invalid_request_error", "auth"),
    ],
)
def test_each_kind_has_its_words(kind: Kind, status: int, type_: str, code: str) -> None:
    """Clients look for the codes that the official service sends."""
    reply = OPENAI_RESPONSES.error(Fault(kind, Blame.US, "m"), request_id="")
    error = orjson.loads(reply.body)["error"]
    assert (reply.status, error["type"], error["code"], error["param"]) == (status, type_, code, None)
    assert [name for name, _ in reply.headers] == ["content-type"]


def test_an_error_in_a_stream_is_an_event() -> None:
    """The SDK's type takes it, and our own reader sees the same failure."""
    fault = Fault(Kind.OVERLOADED, Blame.PROVIDER, "Full.", code="overloaded", param="p")
    (event,) = Parser().feed(OPENAI_RESPONSES.stream_error(fault, request_id="r"))
    assert event.name == "error"
    read = ResponseErrorEvent.model_validate_json(event.data, strict=True)
    assert (read.code, read.message, read.param) == ("overloaded", "Full.", "p")
    assert OPENAI_RESPONSES.reader().read(event.name, event.data) == [Failed(503, "overloaded", "Full.")]


@pytest.mark.parametrize(
    ("data", "failed"),
    [
        (
            {"type": "error", "code": "rate_limit_exceeded", "message": "m"},
            Failed(429, "rate_limit_exceeded", "m"),
        ),
        (
            {"type": "error", "error": {"type": "server_error", "message": "m"}},
            Failed(500, "server_error", "m"),
        ),
        ({"error": {"code": 503, "message": "m"}}, Failed(503, "503", "m")),
        ({"error": "broken"}, Failed(502, "error", "broken")),
        ({"type": "error"}, Failed(502, "error", "The provider reported an error: error.")),
        (
            {"type": "response.failed", "response": {"error": {"code": "invalid_prompt", "message": "m"}}},
            Failed(400, "invalid_prompt", "m"),
        ),
        (
            {"type": "response.cancelled", "response": {"status": "cancelled"}},
            Failed(502, "cancelled", "The provider reported an error: cancelled."),
        ),
    ],
)
def test_errors_of_providers_are_read(data: dict[str, object], failed: Failed) -> None:
    """Flat or nested, as an event or as the response's end; nothing is read after it."""
    reader = OPENAI_RESPONSES.reader()
    assert list(reader.read("", orjson.dumps(data)))[-1] == failed
    assert reader.read("", b'{"type":"response.output_text.delta","delta":"x"}') == ()
