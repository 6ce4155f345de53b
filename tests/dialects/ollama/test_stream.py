from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects.ndjson import Parser
from tokenhub_core.dialects.ollama import OLLAMA_CHAT, OLLAMA_GENERATE
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

PNG = "iVBORw0KGgoAAAANSUhEUg=="


def read(*lines: Any) -> list[Delta]:
    """Return the deltas of a chat's lines, without the first one's `Started`."""
    reader = OLLAMA_CHAT.reader()
    found = [line if isinstance(line, bytes) else orjson.dumps(line) for line in lines]
    deltas = [delta for line in found for delta in reader.read("", line)]
    assert list(reader.end()) == []
    return deltas[1:] if deltas and isinstance(deltas[0], Started) else deltas


def said(**message: Any) -> Json:
    return {"model": "m", "message": {"role": "assistant", "content": "", **message}, "done": False}


def test_a_stream_starts_with_the_model_and_the_time() -> None:
    """Answers have no ids here."""
    reader = OLLAMA_CHAT.reader()
    line = said() | {"created_at": "1970-01-01T00:00:05Z"}
    assert list(reader.read("", orjson.dumps(line))) == [Started("", "m", 5)]
    assert list(reader.read("", orjson.dumps(line))) == []


def test_each_kind_of_content_is_told_apart() -> None:
    """Thoughts go before text, whole tool calls and images after it."""
    call = {"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}
    assert read(
        said(thinking="hm", content="a", images=[PNG], tool_calls=[call]), said(tool_calls=[call])
    ) == [
        ReasoningDelta("hm"),
        TextDelta("a"),
        MediaDelta(Image(media_type="image/png", data=PNG)),
        ToolStarted(0, "1", "f"),
        ToolArguments(0, '{"a":1}'),
        ToolStarted(1, "1", "f"),
        ToolArguments(1, '{"a":1}'),
    ]


def test_a_completion_is_read_from_its_response() -> None:
    """Its thoughts stand beside it."""
    reader = OLLAMA_GENERATE.reader()
    assert list(reader.read("", b'{"response":"a","thinking":"hm","done":false}'))[1:] == [
        ReasoningDelta("hm"),
        TextDelta("a"),
    ]


def test_the_last_line_tells_usage_and_reason() -> None:
    """A tool call ends with `stop` too."""
    end = said() | {"done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 4}
    ending = [UsageSeen(Usage(3, 4)), Stopped(StopReason.END, "stop"), Finished()]
    assert read(said(content="a"), end)[1:] == ending
    assert read(said(tool_calls=[{"function": {"name": "f"}}]), end)[-2] == Stopped(
        StopReason.TOOL_USE, "stop"
    )
    assert read({"done": True, "done_reason": "load"}) == [Stopped(StopReason.OTHER, "load"), Finished()]


def test_log_probabilities_wait_for_their_text() -> None:
    """Servers send them while they still hold the text back."""
    one, two = {"token": "a", "logprob": -1}, {"token": "b", "logprob": -2.5}
    assert read(said() | {"logprobs": [one]}, said(content="ab") | {"logprobs": [two]}) == [
        TextDelta("ab", (Logprob("a", -1), Logprob("b", -2.5)))
    ]
    assert read(said() | {"logprobs": [one]}, {"done": True})[0] == Unread("logprobs")
    thoughts = said(thinking="hm") | {"logprobs": [one]}
    assert read(thoughts, thoughts) == [
        ReasoningDelta("hm"),
        Unread("thinking.logprobs"),
        ReasoningDelta("hm"),
    ]


def test_what_has_no_canonical_form_is_told_once() -> None:
    """By its wire path."""
    assert read(said(x_note=1), said(x_note=1), said(x_none=None)) == [Unread("message.x_note")]


@pytest.mark.parametrize(
    ("line", "failed"),
    [
        ({"error": "gone"}, Failed(502, "error", "gone")),
        ({"error": "busy", "status": 503}, Failed(503, "503", "busy")),
        ({"error": {"message": "slow", "code": 429}}, Failed(429, "429", "slow")),
    ],
)
def test_an_error_inside_the_stream_is_a_failure(line: Json, failed: Failed) -> None:
    """It is a text; what stands beside it tells the status."""
    assert read(said(content="a"), line)[1:] == [failed]


@pytest.mark.parametrize("data", [b"{", b"[]", b"null", b"\xff", b"<html>"])
def test_what_is_no_line_is_a_failure(data: bytes) -> None:
    """Never an exception."""
    (delta,) = read(data)
    assert isinstance(delta, Failed)
    assert (delta.status, delta.code) == (502, "bad_json")
    assert read(b"") == []


# --- writing -----------------------------------------------------------------------------------------------


def write(*deltas: Delta, dialect: str = "chat") -> tuple[list[Json], tuple[str, ...]]:
    module = OLLAMA_CHAT if dialect == "chat" else OLLAMA_GENERATE
    writer = module.writer(request=module.open(b'{"model":"asked"}'), created=5, fallback_id="f")
    stream = b"".join(map(writer.write, deltas))
    assert stream.endswith(b"\n") or not stream
    return [orjson.loads(event.data) for event in Parser().feed(stream)], writer.losses()


def test_a_stream_is_lines_up_to_the_one_that_is_done() -> None:
    """Usage and reason stand in the last one, whenever they came."""
    lines, losses = write(
        Started("id", "served", 6),
        ReasoningDelta("hm"),
        TextDelta("a", (Logprob("a", -1),)),
        UsageSeen(Usage(3, 1)),
        Stopped(StopReason.LENGTH),
        UsageSeen(Usage(3, 4)),
        Finished(),
        TextDelta("late"),
    )
    head = {"model": "served", "created_at": "1970-01-01T00:00:06Z"}
    assert lines[:2] == [
        {**head, "message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": False},
        {
            **head,
            "message": {"role": "assistant", "content": "a"},
            "done": False,
            "logprobs": [{"token": "a", "logprob": -1.0, "bytes": [97]}],
        },
    ]
    assert lines[2] == {
        **head,
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "length",
        "total_duration": 0,
        "load_duration": 0,
        "prompt_eval_duration": 0,
        "eval_duration": 0,
        "prompt_eval_count": 3,
        "eval_count": 4,
    }
    assert (len(lines), losses) == (3, ())


def test_tool_calls_are_written_whole() -> None:
    """However their fragments came; arguments that are no object are kept as text, and that is told."""
    lines, losses = write(
        ToolStarted(0, "x", "f"),
        ToolStarted(3, "", "g"),
        ToolArguments(0, '{"a"'),
        ToolArguments(3, "[1"),
        ToolArguments(0, ":1}"),
        ToolArguments(7, "{}"),
        TextDelta("a"),
        Stopped(StopReason.TOOL_USE),
        Finished(),
    )
    assert [line["message"].get("tool_calls") for line in lines] == [
        None,
        [
            {"id": "x", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}},
            {"function": {"index": 1, "name": "g", "arguments": {"_raw": "[1"}}},
        ],
        None,
    ]
    assert losses == ("tool_calls.function.arguments", "tool_calls.arguments")
    assert "tool_calls" in write(ToolStarted(0, "x", "f"), Finished())[0][0]["message"]


def test_tool_calls_do_not_wait_for_the_end() -> None:
    """The last line is held back until the call is recorded; what the model said is not."""
    writer = OLLAMA_CHAT.writer(request=OLLAMA_CHAT.open(b"{}"), created=5, fallback_id="f")
    assert writer.write(ToolStarted(0, "x", "f")) == writer.write(ToolArguments(0, "{}")) == b""
    assert b'"tool_calls"' in writer.write(Stopped(StopReason.TOOL_USE))
    assert b'"tool_calls"' not in writer.write(Finished())


def test_a_completion_is_written_as_responses() -> None:
    """Thoughts stand beside them."""
    lines, _ = write(ReasoningDelta("hm"), TextDelta("a"), Finished(), dialect="generate")
    assert [(line["response"], line.get("thinking"), line["done"]) for line in lines] == [
        ("", "hm", False),
        ("a", None, False),
        ("", None, True),
    ]
    assert lines[0]["model"] == "asked"
    assert all("message" not in line for line in lines)


def test_what_a_line_cannot_say_is_a_loss() -> None:
    """Once for each name; a refusal is text, an image by value is one here too."""
    lines, losses = write(
        RefusalDelta("no"),
        MediaDelta(Image(media_type="image/png", data=PNG, rest={"revised_prompt": "a cat"})),
        MediaDelta(Image(url="u")),
        MediaDelta(File(file_id="f")),
        ReasoningDelta(signature="s"),
        ReasoningDelta(redacted="r"),
        ToolStarted(0, "1", "f", "sig"),
        Unread("message.x"),
        Unread("message.x"),
        Failed(500, "x", "y"),
        TextDelta(""),
        Stopped(StopReason.REFUSED, "refusal"),
        Finished(),
    )
    assert [line["message"].get("content") for line in lines] == ["no", "", "", ""]
    assert lines[1]["message"]["images"] == [PNG]
    assert losses == (
        *("revised_prompt", "part:image", "part:file", "thinking.signature", "part:redacted_thinking"),
        *("message.x", "stop_reason:refusal"),
    )


def test_a_late_start_changes_nothing() -> None:
    """The lines of a stream say the same of it."""
    lines, _ = write(TextDelta("a"), Started("id", "late", 9), Finished())
    assert {(line["model"], line["created_at"]) for line in lines} == {("asked", "1970-01-01T00:00:05Z")}


WORDS = st.sampled_from(
    [
        "message",
        "content",
        "thinking",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "done",
        "error",
        "logprobs",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 600) | WORDS | st.just(""),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)


@given(
    st.lists(st.dictionaries(WORDS, JSON, max_size=4) | st.builds(lambda m: {"message": m}, JSON), max_size=5)
)
@settings(max_examples=120, deadline=None)
def test_odd_lines_never_raise_and_can_be_written(lines: list[Any]) -> None:
    """Whatever a server sends, there are deltas, and a caller's stream of them is well formed."""
    write(*read(*lines), Finished())


def test_arguments_that_are_too_deep_end_the_stream() -> None:
    """They can be read and not be written again; the reader says so and raises nothing."""
    deep = b"[" * 300 + b"]" * 300
    line = orjson.dumps(said(tool_calls=[{"function": {"name": "f", "arguments": {"a": 0}}}]))

    (failed,) = read(line.replace(b'"a":0', b'"a":' + deep))

    assert isinstance(failed, Failed)
    assert (failed.status, failed.code) == (502, "bad_event")
