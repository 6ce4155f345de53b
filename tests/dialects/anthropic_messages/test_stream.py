from __future__ import annotations

import itertools
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects import sse
from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.types import (
    Delta,
    Failed,
    Finished,
    Json,
    ReasoningDelta,
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

STOP = {"type": "message_stop"}


def read(*events: Json, named: bool = True) -> list[Delta]:
    reader = ANTHROPIC_MESSAGES.reader()
    deltas: list[Delta] = []
    for event in events:
        deltas += reader.read(event["type"] if named else "", orjson.dumps(event))
    return deltas


def message_start(**usage: Any) -> Json:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": []}
    return {"type": "message_start", "message": {**message, "usage": usage}}


def start(index: int, **block: Any) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": block}


def more(index: int, kind: str, **fields: Any) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def stop(index: int) -> Json:
    return {"type": "content_block_stop", "index": index}


def message_delta(reason: str | None = "end_turn", sequence: str | None = None, **usage: Any) -> Json:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": sequence},
        "usage": usage,
    }


PLAIN = (
    message_start(input_tokens=5, output_tokens=1),
    start(0, type="text", text=""),
    {"type": "ping"},
    more(0, "text_delta", text="Hel"),
    more(0, "text_delta", text=""),
    more(0, "text_delta", text="lo"),
    stop(0),
    message_delta(output_tokens=3),
    STOP,
)
TOOLS = (
    message_start(input_tokens=5, output_tokens=1),
    start(0, type="thinking", thinking="", signature=""),
    more(0, "thinking_delta", thinking="hm"),
    more(0, "signature_delta", signature="sig"),
    stop(0),
    start(1, type="redacted_thinking", data="xx"),
    stop(1),
    start(2, type="text", text="At"),
    stop(2),
    start(3, type="tool_use", id="a", name="f", input={}),
    more(3, "input_json_delta", partial_json=""),
    more(3, "input_json_delta", partial_json='{"x"'),
    more(3, "input_json_delta", partial_json=":1}"),
    stop(3),
    start(4, type="tool_use", id="b", name="g", input={}),
    stop(4),
    message_delta("tool_use", output_tokens=9),
    STOP,
)


def test_a_plain_answer() -> None:
    """Start, words, counts, stop, end; pings and empty deltas are nothing."""
    assert read(*PLAIN) == [
        Started("msg_1", "claude"),
        UsageSeen(Usage(5, 1)),
        TextDelta("Hel"),
        TextDelta("lo"),
        UsageSeen(Usage(5, 3)),
        Stopped(StopReason.END, "end_turn"),
        Finished(),
    ]


def test_thoughts_and_tools() -> None:
    """Tools count from 0 whatever their blocks' indices; a call without arguments has an empty object."""
    assert read(*TOOLS)[2:-3] == [
        ReasoningDelta("hm"),
        ReasoningDelta(signature="anthropic_messages:sig"),
        ReasoningDelta(redacted="anthropic_messages:xx", part=1),
        TextDelta("At"),
        ToolStarted(0, "a", "f"),
        ToolArguments(0, '{"x"'),
        ToolArguments(0, ":1}"),
        ToolStarted(1, "b", "g"),
        ToolArguments(1, "{}"),
    ]


def test_events_without_names_are_read_by_their_type() -> None:
    """Some gateways drop the `event:` lines; the data say it all."""
    for events in (PLAIN, TOOLS):
        assert read(*events, named=False) == read(*events)


def test_arguments_that_come_whole_with_the_start_are_not_repeated() -> None:
    """A provider may put the input into the block's start; fragments that follow would double it."""
    deltas = read(
        start(0, type="tool_use", id="a", name="f", input={"x": [1]}),
        more(0, "input_json_delta", partial_json='{"x":[1]}'),
        stop(0),
    )
    assert deltas == [ToolStarted(0, "a", "f"), ToolArguments(0, '{"x":[1]}')]


def test_server_tools_and_citations_are_unread() -> None:
    """They are named once, for the losses; a server tool's own fragments are not a caller's tool call."""
    deltas = read(
        start(0, type="server_tool_use", id="s", name="web_search", input={}),
        more(0, "input_json_delta", partial_json='{"q":1}'),
        stop(0),
        start(1, type="web_search_tool_result", tool_use_id="s", content=[]),
        stop(1),
        start(2, type="text", text=""),
        more(2, "citations_delta", citation={}),
        more(2, "not_invented_yet"),
        {"type": "new_event"},
    )
    assert deltas == [
        Unread("part:server_tool_use"),
        Unread("part:web_search_tool_result"),
        Unread("citations"),
        Unread("not_invented_yet"),
        Unread("new_event"),
    ]


def test_counts_include_the_cache_and_survive_partial_repeats() -> None:
    """The wire leaves cached input out of its count; later events repeat, omit or zero what they like."""
    deltas = read(
        message_start(
            input_tokens=10, cache_read_input_tokens=100, cache_creation_input_tokens=20, output_tokens=1
        ),
        message_delta(None, input_tokens=15, output_tokens=4),
        message_delta(
            input_tokens=0,
            cache_read_input_tokens=None,
            output_tokens=7,
            output_tokens_details={"thinking_tokens": 2},
        ),
    )
    assert [delta.usage for delta in deltas if isinstance(delta, UsageSeen)] == [
        Usage(130, 1, 100, 20),
        Usage(135, 4, 100, 20),
        Usage(135, 7, 100, 20, 2),
    ]


def test_counts_of_zero_say_nothing() -> None:
    """A gateway that knows no counts yet sends zeros."""
    assert read(message_start(input_tokens=0, output_tokens=0)) == [Started("msg_1", "claude")]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("end_turn", StopReason.END),
        ("max_tokens", StopReason.LENGTH),
        ("model_context_window_exceeded", StopReason.LENGTH),
        ("tool_use", StopReason.TOOL_USE),
        ("refusal", StopReason.REFUSED),
        ("pause_turn", StopReason.PAUSED),
        ("not_invented_yet", StopReason.OTHER),
    ],
)
def test_stop_reasons(word: str, reason: StopReason) -> None:
    """Every word has its reason, and the word itself is kept."""
    assert read(message_delta(word, output_tokens=0)) == [Stopped(reason, word)]


def test_a_stop_sequence_is_told() -> None:
    """Which of its stop sequences the model met."""
    assert read(message_delta("stop_sequence", "END")) == [
        Stopped(StopReason.STOP_SEQUENCE, "stop_sequence", "END")
    ]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("overloaded_error", 529),
        ("rate_limit_error", 429),
        ("api_error", 500),
        ("authentication_error", 401),
        ("permission_error", 403),
        ("invalid_request_error", 400),
        ("request_too_large", 413),
        ("not_found_error", 404),
        ("timeout_error", 504),
        ("billing_error", 402),
        ("brand_new_error", 500),
    ],
)
def test_an_error_event_fails_with_the_status_it_would_have_had(code: str, status: int) -> None:
    """And nothing is read after it."""
    event = {"type": "error", "error": {"type": code, "message": "Sorry"}}
    assert read(event, *PLAIN) == [Failed(status, code, "Sorry")]


def test_nothing_is_read_after_the_end() -> None:
    """`message_stop` is the last word."""
    assert read(STOP, *PLAIN) == [Finished()]


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[" * 5000])
def test_what_is_not_json_fails_once(data: bytes) -> None:
    """A broken event ends the stream; what follows it cannot be trusted."""
    reader = ANTHROPIC_MESSAGES.reader()
    failed = reader.read("content_block_delta", data)
    assert [(each.status, each.code) for each in failed if isinstance(each, Failed)] == [(502, "bad_json")]
    assert reader.read("message_stop", b"{}") == ()


@pytest.mark.parametrize(
    "event",
    [
        {"type": "content_block_delta"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 1}},
        {
            "type": "content_block_delta",
            "index": [],
            "delta": {"type": "input_json_delta", "partial_json": "x"},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": [1]}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use"}},
        {"type": "content_block_start", "index": 0, "content_block": None},
        {"type": "message_start"},
        {"type": "message_delta", "delta": []},
        {"type": "message_delta", "delta": 4},
        {"type": "error"},
    ],
)
def test_a_malformed_event_fails_and_never_raises(event: Json) -> None:
    """Known events have known shapes."""
    deltas = read(event)
    if event["type"] == "message_delta" and not event["delta"]:
        assert deltas == []
    else:
        assert [(each.status, each.code) for each in deltas if isinstance(each, Failed)] == [
            (502, "bad_event")
        ]


def test_comments_are_nothing() -> None:
    """A keep-alive has neither name nor data."""
    assert ANTHROPIC_MESSAGES.reader().read("", b"") == ()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.text(max_size=3)
    | st.sampled_from(["text", "tool_use"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "index", "delta", "content_block", "message", "usage", "text", "error", "id", "name"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
KINDS = st.sampled_from(
    [
        "",
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "error",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(KINDS, JSON), max_size=4))
def test_whatever_comes_nothing_is_raised(events: list[tuple[str, Any]]) -> None:
    """The reader turns failure into a delta, and fails at most once."""
    reader = ANTHROPIC_MESSAGES.reader()
    deltas = list(
        itertools.chain.from_iterable(reader.read(name, orjson.dumps(data)) for name, data in events)
    )
    assert sum(isinstance(delta, Failed) for delta in deltas) <= 1


WIRE = b"".join(sse.frame(orjson.dumps(event), event["type"]) for event in TOOLS)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, len(WIRE)), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_deltas(cuts: list[int]) -> None:
    """Chunks may end anywhere, inside a character too."""
    parser, reader = sse.Parser(), ANTHROPIC_MESSAGES.reader()
    places = sorted({0, len(WIRE), *cuts})
    deltas: list[Delta] = []
    for begin, end in itertools.pairwise(places):
        for event in parser.feed(WIRE[begin:end]):
            deltas += reader.read(event.name, event.data)
    assert deltas == read(*TOOLS)
