from __future__ import annotations

from typing import Any

import orjson
import pytest

from tokenhub_core.dialects import jsonarray, sse
from tokenhub_core.dialects.gemini import GEMINI
from tokenhub_core.dialects.gemini.faults import failed, stream_error
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Failed

WORDS = {
    Kind.OVERFLOW: "INVALID_ARGUMENT",
    Kind.RATE_LIMITED: "RESOURCE_EXHAUSTED",
    Kind.QUOTA: "RESOURCE_EXHAUSTED",
    Kind.OVERLOADED: "UNAVAILABLE",
    Kind.TRANSIENT: "UNAVAILABLE",
    Kind.TIMEOUT: "DEADLINE_EXCEEDED",
    Kind.TRUNCATED: "UNAVAILABLE",
    Kind.AUTH: "UNAUTHENTICATED",
    Kind.FORBIDDEN: "PERMISSION_DENIED",
    Kind.REFUSED: "INVALID_ARGUMENT",
    Kind.INVALID: "INVALID_ARGUMENT",
    Kind.NOT_FOUND: "NOT_FOUND",
    Kind.TOO_LARGE: "INVALID_ARGUMENT",
    Kind.BUDGET: "FAILED_PRECONDITION",
    Kind.NO_CANDIDATE: "UNAVAILABLE",
    Kind.CANCELLED: "CANCELLED",
    Kind.INTERNAL: "INTERNAL",
}


@pytest.mark.parametrize("kind", list(Kind))
def test_every_fault_has_googles_shape(kind: Kind) -> None:
    """A code, a message and a status word that goes with the code."""
    fault = Fault(kind, Blame.US, "No.")
    reply = GEMINI.error(fault, request_id="r1")
    assert reply.status == fault.http_status
    sign = "The input token count exceeds the maximum number of tokens allowed: "
    message = f"{sign if kind is Kind.OVERFLOW else ''}No."
    assert orjson.loads(reply.body) == {
        "error": {"code": fault.http_status, "message": message, "status": WORDS[kind]}
    }
    assert ("x-request-id", "r1") in reply.headers


@pytest.mark.parametrize(("status", "word"), [(418, "INVALID_ARGUMENT"), (529, "INTERNAL")])
def test_a_status_without_a_word_gets_the_one_of_its_class(status: int, word: str) -> None:
    """Some providers' statuses are nobody else's."""
    body = GEMINI.error(Fault(Kind.INVALID, Blame.US, "No.", status=status), request_id="").body
    assert orjson.loads(body)["error"]["status"] == word


@pytest.mark.parametrize(("wait", "said"), [(1.2, "2"), (9999.0, "120"), (-1.0, "0")])
def test_the_time_to_wait_stands_in_the_header_and_in_the_details(wait: float, said: str) -> None:
    """In whole seconds, and never above two minutes."""
    reply = GEMINI.error(Fault(Kind.RATE_LIMITED, Blame.PROVIDER, "Slow.", retry_after=wait), request_id="")
    assert dict(reply.headers)["retry-after"] == said
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": said + "s"}
    assert orjson.loads(reply.body)["error"]["details"] == [info]


def test_the_field_at_fault_stands_in_the_details() -> None:
    """As Google's own servers tell it."""
    reply = GEMINI.error(Fault(Kind.INVALID, Blame.CLIENT, "Bad.", param="contents[0]"), request_id="")
    (details,) = orjson.loads(reply.body)["error"]["details"]
    assert details["fieldViolations"] == [{"field": "contents[0]", "description": "Bad."}]


def test_a_stream_ends_with_the_error_in_its_own_framing() -> None:
    """An event, or the last element of the array and its end."""
    fault = Fault(Kind.TRUNCATED, Blame.PROVIDER, "Cut.")
    (event,) = sse.Parser().feed(GEMINI.stream_error(fault, request_id="r"))
    array = b'[{"candidates":[]}' + stream_error(fault, array=True)
    assert orjson.loads(array)[1] == orjson.loads(event.data)
    assert GEMINI.reader().read("", event.data) == [Failed(502, "UNAVAILABLE", "Cut.")]
    assert len(jsonarray.Parser().feed(array)) == 3


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (
            {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "q"},
            Failed(429, "RESOURCE_EXHAUSTED", "q"),
        ),
        ({"status": "UNAVAILABLE", "message": "q"}, Failed(503, "UNAVAILABLE", "q")),
        ({"code": 503}, Failed(503, "503", "The provider reported an error: 503.")),
        ({"code": 7, "status": ["x"]}, Failed(502, "502", "The provider reported an error: 502.")),
        ("broken", Failed(502, "502", "broken")),
        (None, Failed(502, "502", "The provider reported an error: 502.")),
    ],
)
def test_an_error_in_a_stream_is_read_for_what_it_would_have_been(error: Any, seen: Failed) -> None:
    """The code decides, then the word."""
    assert failed(error) == seen
