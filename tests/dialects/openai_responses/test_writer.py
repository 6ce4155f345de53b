from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ParsedResponse, ResponseStreamEvent
from pydantic import TypeAdapter

from tokenhub_core.dialects.base import StreamWriter
from tokenhub_core.dialects.openai_responses import OPENAI_RESPONSES
from tokenhub_core.dialects.sse import Parser
from tokenhub_core.types import (
    Audio,
    Delta,
    Failed,
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

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
END: tuple[Delta, ...] = (Stopped(StopReason.END), Finished())


def writer() -> StreamWriter:
    body = {"model": "asked", "input": "Hello", "stream": True, "temperature": 0.5}
    request = OPENAI_RESPONSES.open(orjson.dumps(body))
    return OPENAI_RESPONSES.writer(request=request, created=7, fallback_id="f1")


def written(deltas: Iterable[Delta], given: StreamWriter | None = None) -> list[Json]:
    """Return the events, each checked: its name is its type, the SDK takes it, and they are numbered."""
    given = given or writer()
    events = Parser().feed(b"".join(given.write(delta) for delta in deltas))
    found: list[Json] = []
    for number, event in enumerate(events):
        EVENT.validate_json(event.data, strict=True)
        body = orjson.loads(event.data)
        assert (event.name, number) == (body["type"], body["sequence_number"])
        found.append(body)
    return found


def final(deltas: Iterable[Delta]) -> ParsedResponse[None]:
    """Return what the SDK's accumulator makes of the stream."""
    state: ResponseStreamState[None] = ResponseStreamState(input_tools=omit, text_format=omit)
    for body in written(deltas):
        state.handle_event(EVENT.validate_python(body))
    response = state._completed_response  # what `get_final_response` returns
    assert response is not None
    return response


def kinds(events: Iterable[Json]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_text_is_opened_told_and_closed() -> None:
    """The grammar of the simplest stream there is, in the order of the official service."""
    events = written([Started("c-1", "served", 9), TextDelta("Grü"), TextDelta("ße"), *END])
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["delta"] for event in events[4:6]] == ["Grü", "ße"]
    assert events[6]["text"] == "Grüße"
    response = events[-1]["response"]
    assert (response["id"], response["model"], response["created_at"]) == ("resp_c-1", "served", 9)
    assert (response["status"], response["temperature"]) == ("completed", 0.5)
    assert response["output"] == [events[8]["item"]]


def test_a_stream_without_a_start_names_itself() -> None:
    """Id, model and time come from the request."""
    response = written([TextDelta("x"), *END])[-1]["response"]
    assert (response["id"], response["model"], response["created_at"]) == ("resp_f1", "asked", 7)


def test_the_sdks_final_response_holds_everything() -> None:
    """Thoughts, texts, refusals, images and calls, each with its own id, and the usage."""
    response = final(
        [
            Started("resp_1", "m", 9),
            ReasoningDelta("First.", id="rs_1", summary=True),
            ReasoningDelta("Then.", id="rs_1", part=1, summary=True),
            ReasoningDelta(redacted="openai_responses:gAAAA", id="rs_1", part=1),
            TextDelta("A cat.", (Logprob("A", -1.0),)),
            RefusalDelta("No more."),
            MediaDelta(Image(media_type="image/webp", data="QQ==")),
            ToolStarted(0, "c1", "f", "gemini:Sig"),
            ToolArguments(0, '{"a":1}'),
            ToolStarted(1, "", "g"),
            UsageSeen(Usage(10, 5, 4, 0, 3)),
            Stopped(StopReason.TOOL_USE),
            Finished(),
        ]
    )
    dumped = [item.to_dict() for item in response.output]
    assert [item["type"] for item in dumped] == [
        "reasoning",
        "message",
        "image_generation_call",
        "reasoning",
        "function_call",
        "function_call",
    ]
    assert len({item["id"] for item in dumped}) == 6
    assert dumped[0] == {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "First."}, {"type": "summary_text", "text": "Then."}],
        "encrypted_content": "gAAAA",
    }
    assert dumped[3]["encrypted_content"] == "tokenhub-seal:gemini:Sig#call"
    assert [(item["call_id"], item["arguments"]) for item in dumped[4:]] == [
        ("c1", '{"a":1}'),
        ("call_1_1", "{}"),
    ]
    assert response.output_text == "A cat."
    assert response.usage is not None
    assert (response.usage.total_tokens, response.usage.input_tokens_details.cached_tokens) == (15, 4)


def test_thinking_of_other_makers_is_shown_as_a_summary_and_sealed() -> None:
    """A signature, an encrypted thought and a new block are items of their own; the seals are marked."""
    response = final(
        [
            ReasoningDelta("Hm"),
            ReasoningDelta("."),
            ReasoningDelta(signature="anthropic_messages:EqMB"),
            ReasoningDelta(redacted="anthropic_messages:Zz", part=1),
            ReasoningDelta("More.", part=2),
            TextDelta("x"),
            *END,
        ]
    )
    dumped = [item.to_dict() for item in response.output[:-1]]
    assert [[piece["text"] for piece in item["summary"]] for item in dumped] == [["Hm."], [], ["More."]]  # type: ignore[attr-defined]  # a dict of objects
    assert [item.get("encrypted_content") for item in dumped] == [
        "tokenhub-seal:anthropic_messages:EqMB#signed",
        "tokenhub-seal:anthropic_messages:Zz",
        None,
    ]


def test_parallel_calls_may_interleave() -> None:
    """Each fragment goes to its own item, and both are whole at the end."""
    deltas: list[Delta] = [ToolStarted(0, "a", "f"), ToolStarted(1, "b", "g"), ToolArguments(0, '{"x"')]
    deltas += [ToolArguments(1, "{}"), ToolArguments(0, ":1}"), *END]
    dumped = [item.to_dict() for item in final(deltas).output]
    assert [(item["call_id"], item["arguments"]) for item in dumped] == [("a", '{"x":1}'), ("b", "{}")]


def test_a_whole_call_is_closed_before_something_else_comes() -> None:
    """Its client need not wait for the end, and text after it is a message of its own."""
    events = written([ToolStarted(0, "a", "f"), ToolArguments(0, "{}"), TextDelta("x"), *END])
    order = kinds(events)
    assert order.index("function_call_arguments.done") < order.index("output_text.delta")
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["function_call", "message"]


def test_arguments_that_nobody_could_use_are_named() -> None:
    """Those of a call that was never started, or is whole already; blanks are none."""
    given = writer()
    deltas: list[Delta] = [
        ToolStarted(0, "a", "f"),
        ToolArguments(0, "{}"),
        TextDelta("x"),
        ToolArguments(0, " "),
    ]
    written(deltas, given)
    assert given.losses() == ()
    written([ToolArguments(3, "x")], given)
    assert given.losses() == ("tool_calls.arguments",)


@pytest.mark.parametrize(
    ("stop", "kind", "reason"),
    [
        (StopReason.END, "completed", None),
        (StopReason.LENGTH, "incomplete", {"reason": "max_output_tokens"}),
        (StopReason.FILTERED, "incomplete", {"reason": "content_filter"}),
        (StopReason.REFUSED, "incomplete", {"reason": "content_filter"}),
    ],
)
def test_the_last_event_says_why_it_stopped(stop: StopReason, kind: str, reason: Json | None) -> None:
    """And the item that was cut says so, too."""
    events = written([TextDelta("x"), Stopped(stop), Finished()])
    assert kinds(events)[-1] == kind
    assert events[-1]["response"]["incomplete_details"] == reason
    assert events[-2]["item"]["status"] == kind


def test_a_call_that_was_cut_short_is_not_made_whole() -> None:
    """Nobody shall run a call whose arguments never came."""
    (item,) = written([ToolStarted(0, "a", "f"), Stopped(StopReason.LENGTH), Finished()])[-1]["response"][
        "output"
    ]
    assert (item["arguments"], item["status"]) == ("", "incomplete")


def test_what_has_no_place_is_named() -> None:
    """Nothing is written for it, nor for a failure, nor after the end."""
    given = writer()
    odd: list[Delta] = [Unread("citations"), MediaDelta(Audio("audio/wav", "x")), Failed(500, "x", "y")]
    odd += [TextDelta(""), RefusalDelta(""), ReasoningDelta(), Stopped(StopReason.PAUSED, "pause_turn")]
    assert b"".join(given.write(delta) for delta in odd[:-1]) == b""
    written([odd[-1], Finished()], given)
    assert given.losses() == ("citations", "part:audio", "stop_reason:pause_turn")
    assert given.write(TextDelta("late")) == b""


DELTAS: st.SearchStrategy[Delta] = st.one_of(
    st.builds(TextDelta, st.text(max_size=3)),
    st.builds(RefusalDelta, st.text(max_size=3)),
    st.builds(
        ReasoningDelta,
        st.text(max_size=3),
        st.sampled_from(["", "anthropic_messages:x"]),
        id=st.sampled_from(["", "rs_1", "rs_2"]),
        part=st.integers(0, 2),
    ),
    st.builds(ToolStarted, st.integers(0, 2), st.sampled_from(["", "x", "y"]), st.just("f")),
    st.builds(ToolArguments, st.integers(0, 2), st.sampled_from(["", "{", "}", "{}"])),
    st.just(MediaDelta(Image(media_type="image/png", data="QQ=="))),
    st.just(UsageSeen(Usage(1, 1))),
)


@settings(max_examples=100, deadline=None)
@given(deltas=st.lists(DELTAS, max_size=8))
def test_any_deltas_make_a_stream_that_the_sdk_takes(deltas: list[Delta]) -> None:
    """Whatever comes, each item is opened once, closed once, and stands in the response at the end."""
    events = written([*deltas, *END])
    added = [event["output_index"] for event in events if event["type"] == "response.output_item.added"]
    done = {
        event["output_index"]: event["item"]
        for event in events
        if event["type"] == "response.output_item.done"
    }
    assert added == list(range(len(added)))
    assert [done[place] for place in added] == events[-1]["response"]["output"]
    whole = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    told = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "".join(told) == whole
