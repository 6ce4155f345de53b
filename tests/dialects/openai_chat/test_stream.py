from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.types import (
    Delta,
    Failed,
    Finished,
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

OPENING = {"id": "c", "model": "m", "created": 5, "choices": [{"index": 0, "delta": {"role": "assistant"}}]}


def read(*chunks: Any, event: str = "") -> list[Delta]:
    reader = OPENAI_CHAT.reader()
    reader.read("", orjson.dumps(OPENING))
    found = [chunk if isinstance(chunk, bytes) else orjson.dumps(chunk) for chunk in chunks]
    return [delta for data in found for delta in reader.read(event, data)]


def chunk(delta: Any = None, **choice: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta or {}} | choice]}


def call(**fragment: Any) -> dict[str, Any]:
    return chunk({"tool_calls": [fragment]})


def test_a_role_starts_the_stream_and_says_nothing_else() -> None:
    """One `Started`, from the first chunk that is of the answer."""
    reader = OPENAI_CHAT.reader()
    assert list(reader.read("", orjson.dumps({"id": "", "model": "", "choices": []}))) == []
    assert list(reader.read("", orjson.dumps(OPENING))) == [Started("c", "m", 5)]
    assert list(reader.read("", orjson.dumps(OPENING))) == []


def test_a_stream_may_begin_with_its_text() -> None:
    """Some servers send no chunk for the role; the stream is started all the same, and before the text."""
    data = orjson.dumps(chunk({"content": "a"}))
    assert list(OPENAI_CHAT.reader().read("", data)) == [Started("c"), TextDelta("a")]


def test_each_kind_of_content_is_told_apart() -> None:
    """Text, refusal and both spellings of reasoning; empty pieces are none."""
    assert read(chunk({"content": "a"}), chunk({"content": ""}), chunk({"content": None})) == [TextDelta("a")]
    assert read(chunk({"content": "a", "role": "assistant"})) == [TextDelta("a")]
    assert read(chunk({"refusal": "no"})) == [RefusalDelta("no")]
    assert read(chunk({"reasoning_content": "hm"})) == [ReasoningDelta("hm")]
    assert read(chunk({"reasoning": "hm"})) == [ReasoningDelta("hm")]
    assert read(chunk({"reasoning": "hm", "reasoning_content": "hm"})) == [ReasoningDelta("hm")]


def test_content_may_come_as_parts() -> None:
    """As reasoning models of Mistral send it."""
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "thinking", "thinking": "so"},
        {"type": "text", "text": "a"},
        {"type": "text", "text": ""},
        {"type": "reference", "ids": [1]},
        "?",
    ]
    deltas = [
        ReasoningDelta("hm"),
        ReasoningDelta("so"),
        TextDelta("a"),
        Unread("part:reference"),
        Unread("part"),
    ]
    assert read(chunk({"content": parts})) == deltas


def test_a_tool_call_is_started_once_and_its_arguments_follow() -> None:
    """Some servers repeat id and name in every fragment."""
    f = {"name": "f", "arguments": ""}
    assert read(
        call(index=0, id="1", type="function", function=f),
        call(index=0, id="1", type="function", function=f | {"arguments": '{"a"'}),
        call(index=0, function={"arguments": ":1}"}),
        call(index=1, id="2", function={"name": "g", "arguments": "{}"}),
        call(index=0, function={"arguments": " "}),
    ) == [
        ToolStarted(0, "1", "f"),
        ToolArguments(0, '{"a"'),
        ToolArguments(0, ":1}"),
        ToolStarted(1, "2", "g"),
        ToolArguments(1, "{}"),
        ToolArguments(0, " "),
    ]


def test_fragments_without_an_index_belong_to_the_last_call() -> None:
    """A new id, or failing that a second name, begins another one."""
    f, g = {"name": "f", "arguments": "1"}, {"name": "g", "arguments": "2"}
    both = [ToolStarted(0, "a", "f"), ToolArguments(0, "1"), ToolStarted(1, "b", "g"), ToolArguments(1, "2")]
    assert read(call(id="a", function=f), call(id="b", function=g)) == both
    assert read(chunk({"tool_calls": [{"id": "a", "function": f}, {"id": "b", "function": g}]})) == both
    unnamed = [delta for delta in read(call(function=f), call(function=g)) if isinstance(delta, ToolStarted)]
    assert unnamed == [ToolStarted(0, "", "f"), ToolStarted(1, "", "g")]
    assert read(call(id="a", function=f), call(function={"arguments": "3"}))[-1] == ToolArguments(0, "3")


def test_calls_that_all_have_index_zero_are_told_apart_by_id() -> None:
    """As some compatible endpoints number them."""
    f = {"name": "f", "arguments": "{}"}
    deltas = read(call(index=0, id="a", function=f), call(index=0, id="b", function=f))
    assert [delta.index for delta in deltas if isinstance(delta, ToolStarted | ToolArguments)] == [0, 0, 1, 1]


def test_arguments_wait_for_the_name() -> None:
    """A call whose name never comes is no call, and that is told."""
    late = read(call(index=0, id="a", function={"arguments": "{"}), call(index=0, function={"name": "f"}))
    assert late == [ToolStarted(0, "a", "f"), ToolArguments(0, "{")]
    never = read(call(index=0, id="a", function={"arguments": "{}"}), chunk(finish_reason="stop"))
    assert never == [Unread("tool_calls.function.name"), Stopped(StopReason.END, "stop")]


def test_arguments_may_come_as_an_object() -> None:
    """They are JSON text from here on."""
    assert read(call(index=0, function={"name": "f", "arguments": {"a": 1}}))[1] == ToolArguments(
        0, '{"a":1}'
    )


def test_the_legacy_function_call_is_a_tool_call() -> None:
    """The user sees it, so it must count as content."""
    assert read(
        chunk({"function_call": {"name": "f", "arguments": "{}"}}), chunk(finish_reason="function_call")
    ) == [
        ToolStarted(0, "", "f"),
        ToolArguments(0, "{}"),
        Stopped(StopReason.TOOL_USE, "function_call"),
    ]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", StopReason.END),
        ("length", StopReason.LENGTH),
        ("tool_calls", StopReason.TOOL_USE),
        ("content_filter", StopReason.FILTERED),
        ("eos", StopReason.OTHER),
    ],
)
def test_a_finish_reason_is_read(word: str, reason: StopReason) -> None:
    """The wire's own word goes with it, and the first one counts."""
    assert read(chunk(finish_reason=word), chunk(finish_reason="stop")) == [Stopped(reason, word)]


def test_a_plain_stop_is_made_precise_by_what_came_before() -> None:
    """A named tool that was called, a refusal and a stop word all end with `stop` on the wire."""
    tool = read(call(index=0, id="1", function={"name": "f"}), chunk(finish_reason="stop"))
    assert tool[-1] == Stopped(StopReason.TOOL_USE, "stop")
    assert read(chunk({"refusal": "no"}), chunk(finish_reason="stop"))[-1] == Stopped(
        StopReason.REFUSED, "stop"
    )
    stopped = read(chunk(finish_reason="stop", stop_reason="END"))
    assert stopped == [Stopped(StopReason.STOP_SEQUENCE, "stop", "END")]
    assert read(chunk(finish_reason="")) == []


def test_usage_is_read_wherever_it_stands() -> None:
    """In a chunk of its own, beside content, and in Groq's own field."""
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    seen = UsageSeen(Usage(9, 5, 4, 2, 3))
    assert read({"choices": [], "usage": usage}) == [seen]
    assert read(chunk({"content": "a"}) | {"usage": usage}) == [TextDelta("a"), seen]
    assert read({"choices": [], "x_groq": {"usage": usage}}) == [seen]
    assert read({"choices": [], "usage": None}) == []
    assert read({"choices": [], "usage": {"prompt_tokens": 9, "prompt_cache_hit_tokens": 3}}) == [
        UsageSeen(Usage(9, 0, 3))
    ]


def test_what_has_no_canonical_form_is_told_once() -> None:
    """Further choices, annotations, what nobody knows."""
    second = {"choices": [{"index": 1, "delta": {"content": "x"}}]}
    assert read(second, second) == [Unread("choices[n>1]")]
    assert read(chunk({"audio": "?", "video": {"id": "a"}, "annotations": []})) == [Unread("delta.video")]
    assert read(chunk({"reasoning_details": [{"type": "odd"}, 4]})) == [Unread("delta.reasoning_details")]
    assert read(call(index=0, type="custom", custom={"name": "s"})) == [Unread("tool_call:custom")]


def test_done_ends_the_stream() -> None:
    """With or without blanks around it."""
    assert read(b"[DONE]") == read(b" [DONE] ") == [Finished()]
    assert read(b"", b" ") == []


@pytest.mark.parametrize(
    ("data", "failed"),
    [
        ({"error": {"message": "gone", "code": 502}}, Failed(502, "502", "gone")),
        (
            {"error": {"message": "slow", "type": "rate_limit_error", "code": None}},
            Failed(429, "rate_limit_error", "slow"),
        ),
        (
            {
                "error": {
                    "message": "long",
                    "type": "invalid_request_error",
                    "code": "context_length_exceeded",
                }
            },
            Failed(400, "context_length_exceeded", "long"),
        ),
        ({"error": {"message": "x", "type": "server_error", "code": "odd"}}, Failed(500, "odd", "x")),
        ({"error": {"message": "x", "type": "BadRequestError", "code": "400"}}, Failed(400, "400", "x")),
        ({"error": "busy", "error_type": "overloaded"}, Failed(503, "overloaded", "busy")),
        ({"object": "error", "message": "bad", "type": "odd", "code": 404}, Failed(404, "404", "bad")),
        ({"error": {"code": 7}}, Failed(502, "7", "The provider reported an error: 7.")),
        ({"error": True}, Failed(502, "error", "The provider reported an error: error.")),
    ],
)
def test_an_error_inside_the_stream_is_a_failure(data: Any, failed: Failed) -> None:
    """Its status comes from a numeric code, else from its words, else it is 502."""
    assert read(data) == [failed]


def test_an_event_named_error_is_one() -> None:
    """Whatever its data look like."""
    assert read({"message": "gone"}, event="error") == [Failed(502, "error", "gone")]
    (failed,) = read(chunk({"content": "a"}), event="error")
    assert isinstance(failed, Failed)


@pytest.mark.parametrize("data", [b"{", b"[]", b"null", b"\xff", b"<html>"])
def test_what_is_no_chunk_is_a_failure(data: bytes) -> None:
    """Never an exception."""
    (delta,) = read(data)
    assert isinstance(delta, Failed)
    assert (delta.status, delta.code) == (502, "bad_json")


WORDS = st.sampled_from(
    [
        *(
            "id",
            "choices",
            "delta",
            "index",
            "content",
            "tool_calls",
            "function",
            "name",
            "arguments",
            "type",
        ),
        *(
            "finish_reason",
            "usage",
            "error",
            "message",
            "code",
            "x_groq",
            "refusal",
            "reasoning",
            "function_call",
        ),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 600) | st.floats(0, 1) | WORDS | st.just(""),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=15,
)
CHOICE = st.dictionaries(WORDS, JSON, max_size=3) | st.builds(lambda delta: {"delta": delta}, JSON)
CHUNK = st.dictionaries(WORDS, JSON, max_size=4) | st.builds(
    lambda choices: {"id": "c", "choices": choices}, st.lists(CHOICE, max_size=2)
)


@given(st.lists(CHUNK, max_size=6))
@settings(max_examples=120, deadline=None)
def test_odd_chunks_never_raise_and_can_be_written(chunks: list[Any]) -> None:
    """Whatever a provider sends, there are deltas, and a caller's stream of them is well formed."""
    request = OPENAI_CHAT.open(b'{"messages":[{"role":"user"}]}')
    writer = OPENAI_CHAT.writer(request=request, created=1, fallback_id="f")
    for delta in read(*chunks, b"[DONE]"):
        for line in writer.write(delta).split(b"\n\n"):
            assert line in (b"", b"data: [DONE]") or orjson.loads(line.removeprefix(b"data: "))
