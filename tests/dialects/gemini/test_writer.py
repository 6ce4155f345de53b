from __future__ import annotations

import orjson
import pytest

from tests.growth import Work, in_proportion
from tokenhub_core.dialects import sse
from tokenhub_core.dialects.base import StreamWriter
from tokenhub_core.dialects.gemini import GEMINI
from tokenhub_core.types import (
    Delta,
    Failed,
    File,
    Finished,
    Image,
    Json,
    Logprob,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    Started,
    Stopped,
    StopReason,
    TextDelta,
    ToolArguments,
    ToolStarted,
    Unread,
    Usage,
    UsageSeen,
)

END = (Stopped(StopReason.TOOL_USE, "tool_use"), Finished())
UNSIGNED = "skip_thought_signature_validator"


def writer(query: str = "?alt=sse") -> StreamWriter:
    path = "/v1beta/models/asked-for:streamGenerateContent" + query
    request = GEMINI.open(b'{"contents":[{"parts":[{"text":"x"}]}]}', path)
    return GEMINI.writer(request=request, created=0, fallback_id="f1")


def chunks(*deltas: Delta) -> list[Json]:
    one = writer()
    raw = b"".join(one.write(delta) for delta in deltas)
    return [orjson.loads(event.data) for event in sse.Parser().feed(raw)]


def parts(*deltas: Delta) -> list[Json]:
    return [part for chunk in chunks(*deltas) for part in chunk["candidates"][0]["content"]["parts"]]


def test_text_comes_at_once_and_the_end_tells_the_reason_and_the_tokens() -> None:
    """Other dialects count after they stop, so the last chunk waits for the end."""
    found = chunks(
        Started("r1", "served"),
        TextDelta("Hi"),
        TextDelta(""),
        UsageSeen(Usage(5, 1)),
        Stopped(StopReason.LENGTH, "length"),
        UsageSeen(Usage(5, 7)),
        Finished(),
        TextDelta("late"),
    )
    names = {"modelVersion": "served", "responseId": "r1"}
    content = {"role": "model", "parts": [{"text": "Hi"}]}
    assert found[0] == {"candidates": [{"content": content, "index": 0}], **names}
    last = {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "MAX_TOKENS", "index": 0}
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12}
    assert found[1:] == [{"candidates": [last], "usageMetadata": usage, **names}]


def test_a_stream_without_a_name_gets_ours() -> None:
    """The model that was asked for, and the id that was made for the exchange."""
    (chunk,) = chunks(TextDelta("a"))
    assert (chunk["modelVersion"], chunk["responseId"]) == ("asked-for", "f1")


@pytest.mark.parametrize("query", ["", "?alt=json"])
def test_without_events_the_stream_is_one_array(query: str) -> None:
    """Its elements are the chunks, and it is closed at the end."""
    one = writer(query)
    pieces = [one.write(delta) for delta in (TextDelta("a"), TextDelta("b"), *END)]
    assert pieces[0].startswith(b"[{")
    assert pieces[1].startswith(b",\r\n{")
    assert pieces[3].endswith(b"}]")
    assert len(orjson.loads(b"".join(pieces))) == 3
    assert len(orjson.loads(writer(query).write(Finished()))) == 1


def test_a_call_is_written_whole_once_something_else_comes() -> None:
    """Its arguments are gathered; the order stays."""
    found = parts(
        ToolStarted(0, "a", "f", "gemini:YQ=="),
        ToolArguments(0, '{"x"'),
        ToolArguments(0, ":1}"),
        TextDelta("then"),
        ToolStarted(1, "", "g"),
        *END,
    )
    assert found == [
        {"functionCall": {"id": "a", "name": "f", "args": {"x": 1}}, "thoughtSignature": "YQ=="},
        {"text": "then"},
        {"functionCall": {"name": "g", "args": {}}},
    ]


def test_a_call_with_no_arguments_so_far_waits() -> None:
    """They may still come."""
    deltas = (ToolStarted(0, "a", "f"), TextDelta("t"), ToolArguments(0, '{"x":1}'), *END)
    assert parts(*deltas)[1]["functionCall"]["args"] == {"x": 1}


def test_parallel_calls_may_interleave() -> None:
    """None is written before its arguments are whole; at the end all are, together with the reason.

    Nothing may come between a call and its result when the client gives the conversation back.
    """
    found = parts(
        ToolStarted(0, "a", "f"),
        ToolArguments(0, '{"x":"}'),
        ToolStarted(1, "b", "g"),
        ToolArguments(1, "{}"),
        TextDelta("t"),
        ToolArguments(0, '"}'),
        ToolArguments(7, "{}"),
        *END,
    )
    assert found == [
        {"functionCall": {"id": "b", "name": "g", "args": {}}, "thoughtSignature": UNSIGNED},
        {"text": "t"},
        {"functionCall": {"id": "a", "name": "f", "args": {"x": "}"}}},
    ]


def test_calls_wait_for_the_finish_where_nothing_says_stop() -> None:
    """What is not whole then is kept as text, and named."""
    one = writer()
    one.write(ToolStarted(0, "a", "f"))
    one.write(ToolArguments(0, '{"x'))
    one.write(ToolArguments(3, "{}"))
    (event,) = sse.Parser().feed(one.write(Finished()))
    candidate = orjson.loads(event.data)["candidates"][0]
    assert candidate["content"]["parts"][0]["functionCall"]["args"] == {"_raw": '{"x'}
    assert candidate["finishReason"] == "OTHER"
    assert one.losses() == ("tool_calls.arguments",)


def test_thoughts_refusals_media_and_probabilities_are_written() -> None:
    """Each as the part that it is here."""
    found = chunks(
        ReasoningDelta("hm", "gemini:YQ=="),
        ReasoningDelta(),
        RefusalDelta("No."),
        MediaDelta(Image(media_type="image/png", data="AA==")),
        TextDelta("a", (Logprob("a", -1.0),)),
    )
    assert [chunk["candidates"][0]["content"]["parts"] for chunk in found] == [
        [{"text": "hm", "thought": True, "thoughtSignature": "YQ=="}],
        [{"text": "No."}],
        [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}],
        [{"text": "a"}],
    ]
    told = found[3]["candidates"][0]["logprobsResult"]
    assert told == {"chosenCandidates": [{"token": "a", "logProbability": -1.0}]}


def test_what_cannot_be_written_is_named() -> None:
    """Once each; an error is written by whoever drives the stream."""
    one = writer()
    for delta in (
        Unread("x"),
        Unread("x"),
        MediaDelta(File(file_id="f")),
        Failed(500, "c", "m"),
        Stopped(StopReason.PAUSED),
    ):
        assert one.write(delta) == b""
    one.write(Finished())
    assert one.losses() == ("x", "part:file", "stop_reason:pause_turn")


def test_a_call_that_never_becomes_whole_costs_linear_time() -> None:
    """It is looked at once and then waits for the end."""

    def make(size: int) -> Work:
        def work() -> None:
            one = writer()
            one.write(ToolStarted(0, "a", "f"))
            for _ in range(size):
                one.write(ToolArguments(0, '{"a":"' + "x" * 500 + "}"))
                one.write(TextDelta("t"))

        return work

    in_proportion(make, 400)
