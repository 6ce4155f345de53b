from __future__ import annotations

import orjson

from tokenhub_core.dialects.ollama import OLLAMA_CHAT
from tokenhub_core.errors import Blame, Fault, Kind
from tokenhub_core.types import Failed

FAULT = Fault(Kind.RATE_LIMITED, Blame.CREDENTIAL, "Slow down.", retry_after=2.5)


def test_an_error_is_a_text() -> None:
    """With the status of its kind, and when to come back."""
    reply = OLLAMA_CHAT.error(FAULT, request_id="req_1")
    assert (reply.status, orjson.loads(reply.body)) == (429, {"error": "Slow down."})
    headers = dict(reply.headers)
    assert headers["content-type"] == "application/json"
    assert (headers["retry-after"], headers["x-request-id"]) == ("3", "req_1")


def test_an_error_in_a_stream_is_its_last_line() -> None:
    """Our own reader takes it for one."""
    line = OLLAMA_CHAT.stream_error(FAULT, request_id="req_1")
    assert line == b'{"error":"Slow down."}\n'
    (failed,) = OLLAMA_CHAT.reader().read("", line)
    assert isinstance(failed, Failed)
    assert failed.message == "Slow down."
