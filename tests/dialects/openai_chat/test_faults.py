from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2
import openai
import orjson
import pytest
from openai.types.chat import ChatCompletionChunk

from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Started, TextDelta


@contextmanager
def client(answer: Callable[[httpx2.Request], httpx2.Response]) -> Iterator[openai.OpenAI]:
    """The official SDK, talking to a function instead of a network."""
    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http:
        yield openai.OpenAI(api_key="k", base_url="http://test/v1", http_client=http, max_retries=0)


def fault(kind: Kind, **facts: object) -> Fault:
    return Fault(**({"kind": kind, "blame": Blame.PROVIDER, "message": "It broke."} | facts))  # type: ignore[arg-type]  # facts of a test


@pytest.mark.parametrize(
    ("given", "raised", "type_", "code"),
    [
        (
            fault(Kind.INVALID, param="model"),
            openai.BadRequestError,
            "invalid_request_error",
            "invalid_request",
        ),
        (fault(Kind.OVERFLOW), openai.BadRequestError, "invalid_request_error", "context_length_exceeded"),
        (
            fault(Kind.AUTH, code="invalid_api_key"),
            openai.AuthenticationError,
            "invalid_request_error",
            "invalid_api_key",
        ),
        (fault(Kind.FORBIDDEN), openai.PermissionDeniedError, "invalid_request_error", "forbidden"),
        (
            fault(Kind.NOT_FOUND, code="model_not_found"),
            openai.NotFoundError,
            "invalid_request_error",
            "model_not_found",
        ),
        (fault(Kind.TOO_LARGE), openai.APIStatusError, "invalid_request_error", "too_large"),
        (fault(Kind.RATE_LIMITED), openai.RateLimitError, "rate_limit_error", "rate_limited"),
        (fault(Kind.QUOTA), openai.RateLimitError, "insufficient_quota", "insufficient_quota"),
        (fault(Kind.BUDGET), openai.APIStatusError, "insufficient_quota", "budget_exceeded"),
        (fault(Kind.TRANSIENT, cause="http_500"), openai.InternalServerError, "server_error", "http_500"),
        (fault(Kind.OVERLOADED), openai.InternalServerError, "server_error", "overloaded"),
    ],
)
def test_the_sdk_raises_its_own_error(
    given: Fault, raised: type[openai.APIStatusError], type_: str, code: str
) -> None:
    """With our message, the status of the fault, and the words that this dialect has for it."""
    reply = OPENAI_CHAT.error(given, request_id="r-1")

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(reply.status, headers=list(reply.headers), content=reply.body)

    with client(answer) as sdk, pytest.raises(raised) as caught:
        sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])

    error = caught.value
    assert "It broke." in error.message
    assert (error.status_code, error.type, error.code) == (given.http_status, type_, code)
    assert error.param == (given.param or None)
    assert error.request_id == "r-1"


def test_an_error_says_when_to_come_back() -> None:
    """In whole seconds and in milliseconds, never more than two minutes and never less than nothing."""

    def waits(seconds: float | None) -> dict[str, str]:
        reply = OPENAI_CHAT.error(fault(Kind.RATE_LIMITED, retry_after=seconds), request_id="")
        return {name: value for name, value in reply.headers if name != "content-type"}

    assert waits(None) == {}
    assert waits(1.2) == {"retry-after": "2", "retry-after-ms": "1200"}
    assert waits(9999) == {"retry-after": "120", "retry-after-ms": "120000"}
    assert waits(-1) == {"retry-after": "0", "retry-after-ms": "0"}


def test_an_error_in_a_stream_reaches_the_callers_program() -> None:
    """The SDK gives out what came before and then raises; a stream that broke never ends with `[DONE]`."""
    request = OPENAI_CHAT.open(b'{"model":"m","messages":[{"role":"user"}],"stream":true}')
    writer = OPENAI_CHAT.writer(request=request, created=1, fallback_id="f")
    stream = writer.write(Started("c")) + writer.write(TextDelta("Hel"))
    stream += OPENAI_CHAT.stream_error(fault(Kind.TRUNCATED), request_id="r-1")
    assert b"[DONE]" not in stream

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)

    seen: list[ChatCompletionChunk] = []
    with client(answer) as sdk:
        chunks = sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )
        with pytest.raises(openai.APIError, match="It broke") as caught:
            seen.extend(iter(chunks))
    assert [chunk.choices[0].delta.content for chunk in seen] == ["", "Hel"]
    assert caught.value.code == "truncated"


def test_an_error_has_the_four_fields_of_this_dialect() -> None:
    """An absent param is null."""
    reply = OPENAI_CHAT.error(fault(Kind.INTERNAL), request_id="r")
    assert orjson.loads(reply.body) == {
        "error": {"message": "It broke.", "type": "server_error", "param": None, "code": "internal"}
    }
