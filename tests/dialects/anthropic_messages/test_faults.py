from __future__ import annotations

import anthropic
import httpx2
import orjson
import pytest
from anthropic.types.shared import ErrorResponse

from tokenhub_core.dialects import sse
from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES, faults
from tokenhub_core.errors import Blame, Fault, Kind

TYPES = {
    Kind.OVERFLOW: (400, "invalid_request_error"),
    Kind.RATE_LIMITED: (429, "rate_limit_error"),
    Kind.QUOTA: (429, "rate_limit_error"),
    Kind.OVERLOADED: (529, "overloaded_error"),
    Kind.TRANSIENT: (502, "api_error"),
    Kind.TIMEOUT: (504, "timeout_error"),
    Kind.TRUNCATED: (502, "api_error"),
    Kind.AUTH: (401, "authentication_error"),
    Kind.FORBIDDEN: (403, "permission_error"),
    Kind.REFUSED: (400, "invalid_request_error"),
    Kind.INVALID: (400, "invalid_request_error"),
    Kind.NOT_FOUND: (404, "not_found_error"),
    Kind.TOO_LARGE: (413, "request_too_large"),
    Kind.BUDGET: (402, "billing_error"),
    Kind.NO_CANDIDATE: (503, "api_error"),
    Kind.CANCELLED: (499, "api_error"),
    Kind.INTERNAL: (500, "api_error"),
}


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_its_status_and_type(kind: Kind) -> None:
    """A whole response in the dialect's own shape, with the id in head and body."""
    reply = ANTHROPIC_MESSAGES.error(Fault(kind, Blame.US, "Sorry"), request_id="req_1")
    status, error_type = TYPES[kind]
    message = "prompt is too long: Sorry" if kind is Kind.OVERFLOW else "Sorry"
    assert reply.status == status
    assert reply.headers == (("content-type", "application/json"), ("request-id", "req_1"))
    assert orjson.loads(reply.body) == {
        "type": "error",
        "error": {"type": error_type, "message": message},
        "request_id": "req_1",
    }


def test_a_status_that_the_fault_sets_decides_the_type() -> None:
    """The fault knows best what the caller should get."""
    reply = ANTHROPIC_MESSAGES.error(Fault(Kind.OVERLOADED, Blame.PROVIDER, "x", status=429), request_id="")
    assert (reply.status, orjson.loads(reply.body)["error"]["type"]) == (429, "rate_limit_error")
    reply = ANTHROPIC_MESSAGES.error(Fault(Kind.OVERLOADED, Blame.PROVIDER, "x", status=503), request_id="")
    assert (reply.status, orjson.loads(reply.body)["error"]["type"]) == (503, "overloaded_error")


@pytest.mark.parametrize(("wait", "said"), [(0.0, "0"), (0.2, "1"), (30.0, "30"), (9e9, "120"), (-1.0, "0")])
def test_retry_after_is_whole_seconds_and_bounded(wait: float, said: str) -> None:
    """The official SDK sleeps for as long as it is told, so it is never told more than two minutes."""
    reply = ANTHROPIC_MESSAGES.error(Fault(Kind.RATE_LIMITED, Blame.US, "x", retry_after=wait), request_id="")
    assert dict(reply.headers)["retry-after"] == said


@pytest.mark.parametrize("kind", list(Kind))
def test_a_stream_error_is_one_event_that_says_the_same(kind: Kind) -> None:
    """`event: error`, with the body of a whole response; the reader of this dialect understands it."""
    fault = Fault(kind, Blame.US, "Sorry")
    (event,) = sse.Parser().feed(ANTHROPIC_MESSAGES.stream_error(fault, request_id="req_1"))
    assert event.name == "error"
    body = orjson.loads(event.data)
    assert body == orjson.loads(ANTHROPIC_MESSAGES.error(fault, request_id="req_1").body)
    if kind is not Kind.TOO_LARGE:  # documented and sent by the API, but missing in the SDK's types
        ErrorResponse.model_validate(body)
    assert len(ANTHROPIC_MESSAGES.reader().read(event.name, event.data)) == 1


def test_an_unknown_error_type_is_the_providers_failure() -> None:
    """500 is the safe guess."""
    assert faults.status_of("not_invented_yet") == 500


@pytest.mark.parametrize(
    ("kind", "raised"),
    [
        (Kind.INVALID, anthropic.BadRequestError),
        (Kind.AUTH, anthropic.AuthenticationError),
        (Kind.FORBIDDEN, anthropic.PermissionDeniedError),
        (Kind.NOT_FOUND, anthropic.NotFoundError),
        (Kind.RATE_LIMITED, anthropic.RateLimitError),
        (Kind.OVERLOADED, anthropic.OverloadedError),
        (Kind.INTERNAL, anthropic.InternalServerError),
    ],
)
def test_the_official_sdk_raises_its_own_error_with_our_message(
    kind: Kind, raised: type[anthropic.APIStatusError]
) -> None:
    """What a program catches today it still catches."""
    reply = ANTHROPIC_MESSAGES.error(Fault(kind, Blame.US, "Sorry"), request_id="req_1")

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(reply.status, headers=list(reply.headers), content=reply.body)

    with (
        anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(answer)) as http,
        anthropic.Anthropic(api_key="x", max_retries=0, http_client=http) as client,
        pytest.raises(raised) as caught,
    ):
        client.messages.create(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}])
    assert caught.value.request_id == "req_1"
    assert "Sorry" in caught.value.message
