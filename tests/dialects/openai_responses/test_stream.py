from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects.openai_responses import OPENAI_RESPONSES
from tokenhub_core.dialects.sse import Parser, frame
from tokenhub_core.types import (
    Delta,
    Failed,
    Finished,
    Json,
    ReasoningDelta,
    RefusalDelta,
    Started,
    Stopped,
    StopReason,
    TextDelta,
    ToolArguments,
    ToolStarted,
    Unread,
)

BEGIN = {"type": "response.created", "response": {"id": "resp_1", "model": "m", "created_at": 7.5}}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"a":1}'}


def event(kind: str, **fields: Any) -> Json:
    return {"type": f"response.{kind}", **fields}


def text(value: str) -> Json:
    return {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": value}]}


def completed(*output: Json) -> Json:
    return event("completed", response={"id": "resp_1", "status": "completed", "output": list(output)})


def read(*events: Json, named: bool = True) -> list[Delta]:
    reader = OPENAI_RESPONSES.reader()
    return [
        delta for each in events for delta in reader.read(each["type"] if named else "", orjson.dumps(each))
    ]


def unread(*events: Json) -> list[str]:
    return [delta.kind for delta in read(*events) if isinstance(delta, Unread)]


def texts(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


def calls(deltas: list[Delta]) -> list[tuple[str, str, str]]:
    found: dict[int, list[str]] = {}
    for delta in deltas:
        if isinstance(delta, ToolStarted):
            assert delta.index not in found
            found[delta.index] = [delta.id, delta.name, ""]
        elif isinstance(delta, ToolArguments):
            found[delta.index][2] += delta.fragment
    return [(id_, name, arguments) for id_, name, arguments in found.values()]


@pytest.mark.parametrize("named", [True, False])
def test_a_stream_begins_goes_on_and_ends(named: bool) -> None:
    """The event's name and the data's type say the same, so either will do."""
    deltas = read(
        BEGIN,
        event("in_progress", response={"id": "resp_1"}),
        event("output_text.delta", output_index=0, content_index=0, delta="Grüße"),
        completed(text("Grüße")),
        named=named,
    )
    assert deltas == [
        Started("resp_1", "m", 7),
        TextDelta("Grüße"),
        Stopped(StopReason.END, "completed"),
        Finished(),
    ]


TELLINGS: list[Json] = [
    event("output_item.added", output_index=0, item={"type": "message", "id": "msg_1", "content": []}),
    event("output_text.delta", output_index=0, item_id="msg_1", content_index=0, delta="A c"),
    event("output_text.delta", output_index=0, item_id="msg_1", content_index=0, delta="at."),
    event("output_text.done", output_index=0, item_id="msg_1", content_index=0, text="A cat."),
    event(
        "content_part.done",
        output_index=0,
        item_id="msg_1",
        content_index=0,
        part={"type": "output_text", "text": "A cat."},
    ),
    event("output_item.done", output_index=0, item=text("A cat.")),
    event("output_item.added", output_index=1, item=CALL | {"arguments": ""}),
    event("function_call_arguments.delta", output_index=1, item_id="fc_1", delta='{"a"'),
    event("function_call_arguments.delta", output_index=1, item_id="fc_1", delta=":1}"),
    event("function_call_arguments.done", output_index=1, item_id="fc_1", arguments='{"a":1}'),
    event("output_item.done", output_index=1, item=CALL),
]


@settings(max_examples=150, deadline=None)
@given(kept=st.sets(st.sampled_from(range(len(TELLINGS)))), placed=st.booleans())
def test_however_often_it_is_told_it_is_passed_on_once(kept: set[int], placed: bool) -> None:
    """Any of the events but the last may be missing, and servers may not count their items.

    Of two deltas both or none come: a lost piece in the middle could not be seen.
    """
    kept = kept | {1, 2} if kept & {1, 2} else kept
    kept = kept | {7, 8} if kept & {7, 8} else kept
    told = [each if placed else {**each, "output_index": 0} for n, each in enumerate(TELLINGS) if n in kept]
    deltas = read(BEGIN, *told, completed(text("A cat."), CALL))
    assert texts(deltas) == "A cat."
    assert calls(deltas) == [("call_1", "f", '{"a":1}')]
    assert deltas[-2:] == [Stopped(StopReason.TOOL_USE, "completed"), Finished()]


def test_the_rest_of_a_text_that_was_cut_is_passed_on() -> None:
    """Where the whole is longer than the deltas were, only its end is new."""
    deltas = read(event("output_text.delta", output_index=0, delta="A c"), completed(text("A cat.")))
    assert [delta.text for delta in deltas if isinstance(delta, TextDelta)] == ["A c", "at."]


def test_arguments_before_the_name_wait_for_it() -> None:
    """A call is started when its name is known, and nothing of it is lost."""
    deltas = read(*TELLINGS[7:9], TELLINGS[10])
    assert calls(deltas) == [("call_1", "f", '{"a":1}')]


def test_ids_of_items_may_change_from_event_to_event() -> None:
    """Items are told apart by their place."""
    events = [{**each, "item_id": f"x{n}"} for n, each in enumerate(TELLINGS)]
    final = [text("A cat.") | {"id": "y1"}, CALL | {"id": "y2"}]
    deltas = read(BEGIN, *events, completed(*final))
    assert (texts(deltas), calls(deltas)) == ("A cat.", [("call_1", "f", '{"a":1}')])


def test_parallel_calls_are_told_apart() -> None:
    """Their fragments may come in any order."""
    other = CALL | {"id": "fc_2", "call_id": "call_2"}
    deltas = read(
        event("output_item.added", output_index=0, item=CALL | {"arguments": ""}),
        event("output_item.added", output_index=1, item=other | {"arguments": ""}),
        event("function_call_arguments.delta", output_index=1, delta="{}"),
        event("function_call_arguments.delta", output_index=0, delta="[]"),
    )
    assert calls(deltas) == [("call_1", "f", "[]"), ("call_2", "f", "{}")]


def test_a_seal_is_the_one_of_the_item_that_is_done() -> None:
    """What stands in the item when it begins is not final; it comes once, with the last block's number."""
    begun = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "early"}
    done = begun | {"summary": [{"text": "A"}, {"text": "B"}], "encrypted_content": "gAAAA"}
    deltas = read(
        event("output_item.added", output_index=0, item=begun),
        event("reasoning_summary_text.delta", output_index=0, summary_index=0, delta="A"),
        event("output_item.done", output_index=0, item=done),
        completed(done),
    )
    seal = ReasoningDelta(redacted="openai_responses:gAAAA", id="rs_1", part=1, summary=True)
    assert [delta for delta in deltas if isinstance(delta, ReasoningDelta)] == [
        ReasoningDelta("A", id="rs_1", part=0, summary=True),
        ReasoningDelta("B", id="rs_1", part=1, summary=True),
        seal,
    ]


def test_a_seal_for_a_call_goes_to_the_call() -> None:
    """Where this product itself wrote the stream."""
    item = {"type": "reasoning", "id": "rs_1", "encrypted_content": "tokenhub-seal:gemini:Sig#call"}
    deltas = read(event("output_item.done", output_index=0, item=item), TELLINGS[6])
    assert deltas == [ToolStarted(0, "call_1", "f", "gemini:Sig")]


def test_a_refusal_is_read_and_is_why_it_stopped() -> None:
    """Told in deltas or whole."""
    item = {"type": "message", "id": "msg_1", "content": [{"type": "refusal", "refusal": "No."}]}
    deltas = read(event("refusal.delta", output_index=0, content_index=0, delta="N"), completed(item))
    assert deltas[:1] == [RefusalDelta("N")]
    assert RefusalDelta("o.") in deltas
    assert Stopped(StopReason.REFUSED, "completed") in deltas


def test_what_is_said_beside_the_answer_is_named() -> None:
    """What a message is to its turn, where a function lives, how it was served: as in a whole answer."""
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "namespace": "n"}
    told = text("A") | {"phase": "commentary"}
    end = completed(told, call)
    end["response"] |= {
        "service_tier": "flex",
        "temperature": 1,
        "tool_usage": {"web_search": {"num_requests": 1}},
    }
    assert unread(end) == ["phase", "namespace", "service_tier", "tool_usage"]
    end["response"] |= {"service_tier": "default"}
    assert unread(end) == ["phase", "namespace", "tool_usage"]


def test_what_cannot_be_read_is_named_once() -> None:
    """Tools of the provider's by their item, whatever their events; anything else by its own name."""
    deltas = read(
        event("output_item.added", output_index=0, item={"type": "web_search_call", "id": "ws"}),
        event("web_search_call.searching", output_index=0),
        event("custom_tool_call_input.delta", output_index=1, delta="x"),
        event("mcp_call_arguments.delta", output_index=1, delta="x"),
        event("image_generation_call.partial_image", output_index=2),
        event("output_text.annotation.added", output_index=3, annotation={}),
        event("audio.delta", delta="x"),
        event("audio.delta", delta="x"),
        event("content_part.added", part={}),
        {"type": "keepalive"},
    )
    assert [delta.kind for delta in deltas if isinstance(delta, Unread)] == [
        "part:web_search_call",
        "part:custom_tool_call",
        "part:mcp_call",
        "annotations",
        "response.audio.delta",
    ]
    assert len(deltas) == 5


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"{", "bad_json"),
        (b"[]", "bad_json"),
        (b'{"type":"response.output_text.delta"}', "bad_event"),
        (b'{"type":"response.output_text.delta","delta":7}', "bad_event"),
        (b'{"type":"response.output_item.done","item":{"type":"function_call"}}', "bad_event"),
        (b'{"type":"response.completed","response":null}', "bad_event"),
        (b'{"type":"response.completed","response":{"output":["x"]}}', "bad_event"),
    ],
)
def test_a_broken_event_is_a_failure(data: bytes, code: str) -> None:
    """It is never raised, and comes once: nothing is read after it."""
    reader = OPENAI_RESPONSES.reader()
    failed = reader.read("", data)[-1]
    assert isinstance(failed, Failed)
    assert (failed.status, failed.code) == (502, code)
    assert reader.read("", data) == ()


def test_nothing_is_read_from_nothing() -> None:
    """Comments and the word that ends other dialects' streams say nothing."""
    reader = OPENAI_RESPONSES.reader()
    assert reader.read("", b"") == ()
    assert reader.read("", b"[DONE]") == ()
    assert reader.end() == ()


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_split_of_the_bytes_gives_the_same_deltas(data: st.DataObject) -> None:
    """Where the network cuts is nobody's business."""
    stream = b"".join(
        frame(orjson.dumps(each), each["type"])
        for each in (BEGIN, *TELLINGS, completed(text("A cat."), CALL))
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parser, reader = Parser(), OPENAI_RESPONSES.reader()
    deltas: list[Delta] = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for each in parser.feed(stream[start:stop]):
            deltas += reader.read(each.name, each.data)
    assert deltas == read(BEGIN, *TELLINGS, completed(text("A cat."), CALL))


def test_an_item_that_the_stream_left_out_is_found_beside_its_like() -> None:
    """The message that was told is known by its id, so the other one of its kind is new."""
    other = text("Wait.") | {"id": "msg_0"}
    deltas = read(BEGIN, *TELLINGS[:6], completed(other, text("A cat.")))
    assert [delta.text for delta in deltas if isinstance(delta, TextDelta)] == ["A c", "at.", "Wait."]


def test_a_time_that_cannot_be_is_none() -> None:
    """A number that no integer on a wire can hold is no time."""
    begin = event("created", response={"id": "resp_1", "model": "m", "created_at": 1e308})
    assert read(begin)[0] == Started("resp_1", "m", 0)


@pytest.mark.parametrize(
    "part", [{"type": "output_text", "text": ["x"]}, {"type": "refusal", "refusal": ["x"]}]
)
def test_a_text_that_is_none_ends_the_stream(part: Json) -> None:
    """A list where the text of a whole part should be goes no further."""
    deltas = read(BEGIN, completed({"type": "message", "id": "msg_1", "content": [part]}))

    assert isinstance(deltas[-1], Failed)
    assert deltas[-1].code == "bad_event"
