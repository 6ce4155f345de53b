from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from openai.types.chat import ChatCompletionChunk

from tokenhub_core.dialects.base import StreamWriter
from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.dialects.sse import Parser
from tokenhub_core.types import (
    Delta,
    Failed,
    Finished,
    Image,
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


def writer(*, usage: bool = False) -> StreamWriter:
    body: dict[str, Any] = {"model": "asked", "messages": [{"role": "user"}], "stream": True}
    if usage:
        body["stream_options"] = {"include_usage": True}
    return OPENAI_CHAT.writer(request=OPENAI_CHAT.open(orjson.dumps(body)), created=7, fallback_id="f1")


def chunks(stream: bytes) -> list[ChatCompletionChunk]:
    """Return the SDK's view of a stream that ends with `[DONE]` or not at all."""
    data = [event.data for event in Parser().feed(stream)]
    return [ChatCompletionChunk.model_validate(orjson.loads(each)) for each in data if each != b"[DONE]"]


def write(deltas: Iterable[Delta], *, usage: bool = False) -> list[ChatCompletionChunk]:
    given = writer(usage=usage)
    return chunks(b"".join(given.write(delta) for delta in deltas))


def test_what_an_image_says_of_itself_is_a_loss() -> None:
    """There is only its content here."""
    given = writer()
    written = given.write(
        MediaDelta(Image(media_type="image/png", data="iVBO", rest={"revised_prompt": "a cat"}))
    )
    assert b"iVBO" in written
    assert given.losses() == ("revised_prompt",)


def test_a_stream_begins_with_the_role_and_ends_with_done() -> None:
    """In between stand the texts and one finish reason."""
    given = writer()
    deltas: list[Delta] = [
        Started("c-1", "served", 9),
        TextDelta("Grüße"),
        Stopped(StopReason.END),
        Finished(),
    ]
    stream = b"".join(map(given.write, deltas))

    first, text, last = chunks(stream)

    assert stream.endswith(b"}\n\ndata: [DONE]\n\n")
    assert (first.id, first.created, first.model) == ("chatcmpl-c-1", 9, "served")
    assert first.choices[0].delta.model_dump(exclude_unset=True) == {"role": "assistant", "content": ""}
    assert (text.id, text.choices[0].delta.content) == (first.id, "Grüße")
    assert text.choices[0].finish_reason is None
    assert last.choices[0].finish_reason == "stop"
    assert given.losses() == ()


def test_what_the_provider_did_not_say_comes_from_the_fallbacks() -> None:
    """The stream begins with its first content where no `Started` came, and a second `Started` changes nothing."""
    first, second = write([TextDelta("x"), Started("late", "late", 1)])
    assert (first.id, first.created, first.model) == ("chatcmpl-f1", 7, "asked")
    assert second.choices[0].delta.content == "x"


def test_an_id_of_this_dialect_stays_as_it_is() -> None:
    """Only a foreign one gets the prefix."""
    assert write([Started("chatcmpl-9")])[0].id == "chatcmpl-9"


def test_usage_is_written_once_and_only_on_request() -> None:
    """As the maximum of all that was told, in a chunk without choices; other chunks then say null."""
    deltas: list[Delta] = [
        Started("c"),
        UsageSeen(Usage(20, 1, 8)),
        UsageSeen(Usage(20, 9, 8, 4, 3)),
        Stopped(StopReason.END),
        UsageSeen(Usage(0, 7)),
        Finished(),
    ]
    assert all(chunk.usage is None for chunk in write(deltas))

    *others, last = write(deltas, usage=True)

    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in others)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 20,
        "completion_tokens": 9,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }


def test_tool_calls_are_numbered_from_zero() -> None:
    """Whatever numbers the provider's dialect gave them, parallel ones interleave."""
    deltas: list[Delta] = [
        ToolStarted(1, "a", "f"),
        ToolStarted(4, "", "g"),
        ToolArguments(1, '{"x"'),
        ToolArguments(4, "{}"),
        Stopped(StopReason.TOOL_USE),
    ]
    _, *found, last = write(deltas)
    calls = [chunk.choices[0].delta.tool_calls for chunk in found]
    seen = [(call.index, call.id, call.function) for listed in calls if listed for call in listed]
    assert [(index, id_) for index, id_, _ in seen] == [(0, "a"), (1, "call_f1_1"), (0, None), (1, None)]
    texts = [function.arguments for _, _, function in seen if function]
    assert texts == ["", "", '{"x"', "{}"]
    assert last.choices[0].finish_reason == "tool_calls"


def test_arguments_of_no_call_are_a_loss() -> None:
    """They cannot be shown, and must not break the stream."""
    given = writer()
    assert given.write(ToolArguments(0, "{}")) == b""
    assert given.losses() == ("tool_calls.function.arguments",)


def test_reasoning_and_refusal_have_fields_of_their_own() -> None:
    """Reasoning goes where other servers of this dialect put it; a seal comes with the whole block it seals."""
    given = writer()
    deltas: list[Delta] = [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningDelta(signature="anthropic_messages:s"),
        ReasoningDelta(redacted="openai_chat:r", part=1, id="x"),
        ReasoningDelta("so", part=2, summary=True),
        ReasoningDelta(redacted="openai_responses:e", part=2, summary=True, id="rs_1"),
        RefusalDelta("no"),
    ]
    _, *thoughts, refusal = chunks(b"".join(map(given.write, deltas)))
    assert [chunk.choices[0].delta.model_extra for chunk in thoughts] == [
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
        {
            "reasoning_details": [
                {
                    "type": "reasoning.text",
                    "text": "hm",
                    "signature": "tokenhub-seal:anthropic_messages:s",
                    "index": 0,
                }
            ]
        },
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "r", "id": "x", "index": 1}]},
        {"reasoning_content": "so"},
        {
            "reasoning_details": [
                {"type": "reasoning.summary", "summary": "so", "id": "rs_1", "index": 2},
                {
                    "type": "reasoning.encrypted",
                    "data": "tokenhub-seal:openai_responses:e",
                    "id": "rs_1",
                    "index": 2,
                },
            ]
        },
    ]
    assert refusal.choices[0].delta.refusal == "no"
    assert given.losses() == ()


@pytest.mark.parametrize(
    ("stop", "word", "losses"),
    [
        (Stopped(StopReason.END), "stop", ()),
        (Stopped(StopReason.STOP_SEQUENCE, "stop_sequence", "END"), "stop", ()),
        (Stopped(StopReason.LENGTH), "length", ()),
        (Stopped(StopReason.TOOL_USE), "tool_calls", ()),
        (Stopped(StopReason.FILTERED), "content_filter", ()),
        (Stopped(StopReason.REFUSED), "content_filter", ()),
        (Stopped(StopReason.PAUSED, "pause_turn"), "stop", ("stop_reason:pause_turn",)),
        (Stopped(StopReason.OTHER, "weird"), "stop", ("stop_reason:weird",)),
    ],
)
def test_every_stop_reason_has_a_word(stop: Stopped, word: str, losses: tuple[str, ...]) -> None:
    """A reason that has none here is told as a plain stop, and as a loss."""
    given = writer()
    found = chunks(given.write(stop) + given.write(Stopped(StopReason.LENGTH)))
    assert [chunk.choices[0].finish_reason for chunk in found] == [None, word]
    assert given.losses() == losses


def test_a_stream_that_ends_without_a_reason_gets_one() -> None:
    """The SDK wants one before `[DONE]`, and after that nothing comes."""
    given = writer()
    assert chunks(given.write(Finished()))[-1].choices[0].finish_reason == "stop"
    assert given.write(TextDelta("late")) == given.write(Finished()) == b""


def test_failures_and_unread_things_are_not_written() -> None:
    """A failure is the dispatcher's to word; what could not be read goes to the losses."""
    given = writer()
    assert given.write(Failed(500, "x", "secret")) == given.write(Unread("delta.audio")) == b""
    assert given.losses() == ("delta.audio",)
