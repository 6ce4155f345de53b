from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tokenhub_core.dialects import sse
from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.dialects.base import StreamWriter
from tokenhub_core.types import (
    Delta,
    Failed,
    Finished,
    Json,
    ReasoningDelta,
    RefusalDelta,
    Request,
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

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
BODY = b'{"model":"asked-for","max_tokens":9,"messages":[{"role":"user","content":"x"}]}'
UNSIGNED = "{} + tokenhub-seal:carried:e30="
"""The signature of a thought that nobody signed, so that Anthropic is never given it back."""
END = (Stopped(StopReason.END, "stop"), Finished())


def request() -> Request:
    return ANTHROPIC_MESSAGES.open(BODY)


def writer() -> StreamWriter:
    return ANTHROPIC_MESSAGES.writer(request=request(), created=1, fallback_id="fb_1")


def written(*deltas: Delta) -> bytes:
    one = writer()
    return b"".join(one.write(delta) for delta in deltas)


def events(raw: bytes) -> list[Json]:
    """Return the events of a written stream, each checked against the SDK's own types."""
    found = []
    for event in sse.Parser().feed(raw):
        body = orjson.loads(event.data)
        assert body["type"] == event.name
        EVENT.validate_python(body, strict=True)
        found.append(body)
    return found


def message(raw: bytes) -> Message:
    """Return what the official SDK makes of a whole written stream."""

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=raw)

    with (
        anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(answer)) as http,
        anthropic.Anthropic(api_key="x", max_retries=0, http_client=http) as client,
        client.messages.stream(
            model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}]
        ) as stream,
    ):
        return stream.get_final_message()


def shape(raw: bytes) -> list[str]:
    """Return the stream as one short line per event."""
    lines = []
    for event in events(raw):
        match event:
            case {"type": "content_block_start", "index": index, "content_block": {"type": kind}}:
                lines.append(f"{index} {kind}")
            case {"type": "content_block_delta", "index": index, "delta": {"type": _, **delta}}:
                lines.append(f"{index} + {next(iter(delta.values()))}")
            case {"type": "content_block_stop", "index": index}:
                lines.append(f"{index} .")
            case _:
                lines.append(event["type"])
    return lines


def test_a_plain_stream_from_start_to_end() -> None:
    """Every event in its place, the model and the id as the provider said them, the counts at the end."""
    raw = written(
        Started("chatcmpl-1", "gpt-x"),
        TextDelta("Hel"),
        TextDelta("lo"),
        END[0],
        UsageSeen(Usage(12, 3, 4, 1, 2)),
        END[1],
    )
    first, *_, last_but_one, last = events(raw)
    assert first["message"] == {
        "id": "msg_chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "gpt-x",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": 0,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
        },
    }
    assert shape(raw)[1:-2] == ["0 text", "0 + Hel", "0 + lo", "0 ."]
    assert last_but_one == {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": 1,
            "cache_read_input_tokens": 4,
            "output_tokens": 3,
            "output_tokens_details": {"thinking_tokens": 2},
        },
    }
    assert last == {"type": "message_stop"}


def test_each_delta_is_written_when_it_comes() -> None:
    """Nothing but the start and the stop reason is ever held back in a stream of one block after the other."""
    one = writer()
    assert one.write(Started("msg_1", "m")) == b""
    assert shape(one.write(TextDelta("a"))) == ["message_start", "0 text", "0 + a"]
    assert shape(one.write(TextDelta("b"))) == ["0 + b"]
    assert shape(one.write(ToolStarted(0, "t", "f"))) == ["0 .", "1 tool_use"]
    assert shape(one.write(ToolArguments(0, '{"x":'))) == ['1 + {"x":']
    assert shape(one.write(ToolArguments(0, "1}"))) == ["1 + 1}"]
    assert shape(one.write(ToolStarted(1, "u", "g"))) == ["1 .", "2 tool_use"]
    assert shape(one.write(Stopped(StopReason.TOOL_USE))) == ["2 ."]
    assert one.write(UsageSeen(Usage(1, 1))) == b""
    assert shape(one.write(Finished())) == ["message_delta", "message_stop"]


def test_the_start_tells_the_input_counts_where_they_come_first() -> None:
    """`message_start` waits for the first content, so counts that the provider sends first are in it."""
    first = events(written(Started("msg_1", "m"), UsageSeen(Usage(10, 1, 4)), TextDelta("a")))[0]
    assert first["message"]["usage"]["input_tokens"] == 6
    assert first["message"]["usage"]["cache_read_input_tokens"] == 4


def test_without_a_start_the_fallback_and_the_callers_model_stand_in() -> None:
    """Some providers never say who they are."""
    first = events(written(TextDelta("a")))[0]["message"]
    assert (first["id"], first["model"]) == ("msg_fb_1", "asked-for")


def test_an_empty_answer_is_still_a_whole_stream() -> None:
    """No content at all: a start, a stop reason, an end."""
    assert shape(written(Started(), *END)) == ["message_start", "message_delta", "message_stop"]
    assert message(written(*END)).content == []


def test_switching_kinds_closes_the_open_block() -> None:
    """Indices are contiguous, blocks never overlap; a signature ends its thought, redacted thoughts stand alone."""
    raw = written(
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningDelta(signature="anthropic_messages:sig"),
        ReasoningDelta("more"),
        ReasoningDelta("other", part=1),
        ReasoningDelta(redacted="anthropic_messages:xx", part=2),
        TextDelta("a"),
        ReasoningDelta("again"),
        RefusalDelta("no"),
        *END,
    )
    assert shape(raw)[1:-2] == [
        "0 thinking", "0 + h", "0 + m", "0 + sig", "0 .",
        "1 thinking", "1 + more", UNSIGNED.format(1), "1 .",
        "2 thinking", "2 + other", UNSIGNED.format(2), "2 .",
        "3 redacted_thinking", "3 .",
        "4 text", "4 + a", "4 .",
        "5 thinking", "5 + again", UNSIGNED.format(5), "5 .",
        "6 text", "6 + no", "6 .",
    ]  # fmt: skip
    kinds = [block.type for block in message(raw).content]
    assert kinds == [*["thinking"] * 3, "redacted_thinking", "text", "thinking", "text"]


def test_parallel_calls_that_interleave_come_out_one_after_the_other() -> None:
    """The later call waits until the earlier one's arguments are a whole value, and not a delta longer."""
    one = writer()
    for delta in (ToolStarted(0, "a", "f"), ToolArguments(0, '{"x":"}')):
        one.write(delta)
    assert one.write(ToolStarted(1, "b", "g")) == b""
    assert one.write(ToolArguments(1, '{"y"')) == b""
    assert shape(one.write(ToolArguments(0, "\\"))) == ["0 + \\"]
    assert shape(one.write(ToolArguments(0, '"]"'))) == ['0 + "]"']
    assert shape(one.write(ToolArguments(0, "}"))) == ["0 + }", "0 .", "1 tool_use", '1 + {"y"']
    assert shape(one.write(ToolArguments(1, ":2}"))) == ["1 + :2}"]


def test_words_between_interleaved_calls_wait_for_their_turn() -> None:
    """Text after an unfinished call is not lost and not out of order."""
    raw = written(
        ToolStarted(0, "a", "f"), TextDelta("x"), TextDelta("y"), ToolArguments(0, "{}"), TextDelta("z"), *END
    )
    assert shape(raw)[1:-2] == ["0 tool_use", "0 + {}", "0 .", "1 text", "1 + x", "1 + y", "1 + z", "1 ."]


def test_calls_that_never_become_whole_come_out_at_the_end() -> None:
    """No arguments at all, or broken ones, hold the others back until the model stops; nothing is lost."""
    raw = written(
        ToolStarted(0, "a", "f"), ToolStarted(1, "b", "g"), ToolArguments(1, '{"y":2}'), TextDelta("t"), *END
    )
    content = message(raw).content
    assert [block.type for block in content] == ["tool_use", "tool_use", "text"]
    assert [block.input for block in content if block.type == "tool_use"] == [{}, {"y": 2}]


def test_a_fragment_for_a_call_that_is_closed_is_a_loss() -> None:
    """Nothing can be added to a whole value; blanks after it are no loss."""
    one = writer()
    for delta in (ToolStarted(0, "a", "f"), ToolArguments(0, "{}"), TextDelta("x"), ToolArguments(0, " ")):
        one.write(delta)
    assert one.losses() == ()
    assert one.write(ToolArguments(0, "?")) == b""
    assert one.losses() == ("tool_calls.arguments",)


def test_a_fragment_for_a_call_that_never_began_is_a_loss() -> None:
    """There is no block that it could go to."""
    one = writer()
    assert one.write(ToolArguments(7, "{}")) == b""
    assert one.losses() == ("tool_calls.arguments",)


def test_a_thought_that_was_signed_while_it_waited_stays_as_it_was_signed() -> None:
    """What comes after the signature is another thought, also behind an unfinished call."""
    raw = written(
        ToolStarted(0, "a", "f"),
        ReasoningDelta("one", "anthropic_messages:sig"),
        ReasoningDelta("two"),
        ToolArguments(0, "{}"),
        *END,
    )
    thoughts = [block for block in message(raw).content if block.type == "thinking"]
    assert [(block.thinking, block.signature) for block in thoughts] == [
        ("one", "sig"),
        ("two", "tokenhub-seal:carried:e30="),
    ]


def test_counts_never_fall_below_zero() -> None:
    """Some providers count cached tokens that they do not count as input."""
    raw = written(TextDelta("a"), UsageSeen(Usage(3, 1, 10)), *END)
    assert events(raw)[-2]["usage"]["input_tokens"] == 0


def test_a_call_without_an_id_gets_one() -> None:
    """Its result has to be sent back by id; two calls never share one."""
    raw = written(
        Started("chatcmpl-1"), ToolStarted(0, "", "f"), ToolArguments(0, "{}"), ToolStarted(1, "", "g"), *END
    )
    ids = [block.id for block in message(raw).content if block.type == "tool_use"]
    assert ids == ["toolu_chatcmpl-1_0", "toolu_chatcmpl-1_1"]


@pytest.mark.parametrize(
    ("stop", "word"),
    [
        (Stopped(StopReason.END, "stop"), "end_turn"),
        (Stopped(StopReason.LENGTH, "length"), "max_tokens"),
        (Stopped(StopReason.LENGTH, "model_context_window_exceeded"), "model_context_window_exceeded"),
        (Stopped(StopReason.TOOL_USE, "tool_calls"), "tool_use"),
        (Stopped(StopReason.FILTERED, "content_filter"), "refusal"),
        (Stopped(StopReason.REFUSED), "refusal"),
        (Stopped(StopReason.PAUSED), "pause_turn"),
        (Stopped(StopReason.OTHER, "insufficient_system_resource"), "end_turn"),
    ],
)
def test_stop_reasons(stop: Stopped, word: str) -> None:
    """Every reason has a word; a strange one is an ordinary end and a loss."""
    one = writer()
    raw = one.write(TextDelta("a")) + one.write(stop) + one.write(Finished())
    assert events(raw)[-2]["delta"]["stop_reason"] == word
    lost = (f"stop_reason:{stop.raw}",) if stop.reason is StopReason.OTHER else ()
    assert one.losses() == lost


def test_a_stop_sequence_is_told() -> None:
    """With the sequence itself."""
    raw = written(TextDelta("a"), Stopped(StopReason.STOP_SEQUENCE, "stop", "END"), Finished())
    assert events(raw)[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


def test_a_stream_that_ends_without_a_reason_ends_ordinarily() -> None:
    """The end of the stream is what counts."""
    assert message(written(TextDelta("a"), Finished())).stop_reason == "end_turn"


def test_nothing_is_written_after_the_end_and_nothing_for_a_failure() -> None:
    """A failure's event is `stream_error`, written by whoever drives the stream."""
    one = writer()
    assert one.write(Failed(500, "api_error", "x")) == b""
    one.write(Finished())
    assert one.write(TextDelta("late")) == b""
    assert one.write(Finished()) == b""


def test_what_was_unread_is_lost_once() -> None:
    """The losses name each kind once, in order."""
    one = writer()
    for kind in ("citations", "audio", "citations"):
        one.write(Unread(kind))
    assert one.losses() == ("citations", "audio")


FRAGMENTS = {0: ['{"a"', ':"}\\', '"["}'], 1: ["{", '"b":', "[1,{}]", "}"], 2: [], 3: ['{"c":{}}', " "]}


@settings(max_examples=150, deadline=None)
@given(st.permutations([number for number, parts in FRAGMENTS.items() for _ in range(len(parts) + 1)]))
def test_however_calls_interleave_the_sdk_reads_each_whole(order: list[int]) -> None:
    """Any interleaving of four parallel calls gives four blocks with their own arguments."""
    left = {number: list(parts) for number, parts in FRAGMENTS.items()}
    begun: list[int] = []
    deltas: list[Delta] = []
    for number in order:
        if number not in begun:
            begun.append(number)
            deltas.append(ToolStarted(number, f"id{number}", "f"))
        else:
            deltas.append(ToolArguments(number, left[number].pop(0)))
    raw = written(*deltas, *END)
    blocks: list[Json] = []
    texts: list[str] = []
    for event in events(raw):
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(event["content_block"])
            texts.append("")
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            texts[-1] += event["delta"]["partial_json"]
    assert [block["id"] for block in blocks] == [f"id{number}" for number in begun]
    assert [text.strip() for text in texts] == ["".join(FRAGMENTS[number]).strip() for number in begun]
