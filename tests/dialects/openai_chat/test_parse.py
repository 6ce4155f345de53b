from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.types import (
    Call,
    Choice,
    Image,
    Json,
    Opaque,
    OutputFormat,
    Reasoning,
    Refusal,
    Role,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
)

HELLO = {"role": "user", "content": "Hello"}


def parsed(*messages: Json, **fields: Any) -> Call:
    body = {"model": "m", "messages": list(messages) or [HELLO]} | fields
    return OPENAI_CHAT.parse(OPENAI_CHAT.open(orjson.dumps(body)))


def test_the_roles_become_four() -> None:
    """A developer is a system; a tool message is one result."""
    call = parsed(
        {"role": "developer", "content": "a"},
        {"role": "system", "content": "b"},
        {"role": "tool", "tool_call_id": "t", "content": "c"},
    )
    assert [turn.role for turn in call.turns] == [Role.SYSTEM, Role.SYSTEM, Role.TOOL]
    assert call.turns[2].parts == (ToolResult("t", (Text("c"),)),)


def test_a_developer_loses_nothing_elsewhere() -> None:
    """How a caller spelled a role or a cap is remembered, but it is no field that another dialect would miss."""
    call = parsed({"role": "developer", "content": "a"}, max_completion_tokens=5)
    assert dict(call.turns[0].rest) == {}
    assert dict(call.rest) == {}
    assert call.max_output_tokens == 5


def test_images_are_read_by_value_and_by_url() -> None:
    """A base64 data URL is taken apart; any other URL stays one."""
    urls = ["data:image/png;base64,AAAA", "https://x/y.png", "data:image/svg+xml,<svg/>"]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    assert parsed({"role": "user", "content": parts}).turns[0].parts == (
        Image(media_type="image/png", data="AAAA"),
        Image(url=urls[1]),
        Image(url=urls[2]),
    )


def test_an_assistants_parts_stand_in_the_order_of_their_making() -> None:
    """First the reasoning, then what it said, then what it calls."""
    call = parsed(
        {
            "role": "assistant",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                {"id": "2", "type": "custom", "custom": {}},
            ],
            "content": "text",
            "refusal": "no",
            "reasoning_content": "hm",
        }
    )
    reasoning, text, refusal, use, custom = call.turns[0].parts
    assert (reasoning, text, refusal) == (Reasoning("hm"), Text("text"), Refusal("no"))
    assert use == ToolUse("1", "f", "{}")
    assert isinstance(custom, Opaque)
    assert custom.kind == "tool_call:custom"


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, ToolChoice(Choice.AUTO)),
        ({"tool_choice": "required", "parallel_tool_calls": False}, ToolChoice(Choice.REQUIRED, "", False)),
        ({"tool_choice": "none"}, ToolChoice(Choice.NONE)),
        ({"parallel_tool_calls": True}, ToolChoice(parallel=True)),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            ToolChoice(Choice.NAMED, "f"),
        ),
    ],
)
def test_a_tool_choice_is_read(fields: Json, choice: ToolChoice | None) -> None:
    """Both fields go into one value, and leave `rest`."""
    call = parsed(**fields)
    assert call.tool_choice == choice
    assert dict(call.rest) == {}


def test_a_tool_call_may_lack_what_the_specification_wants() -> None:
    """No type, no id, no arguments: the model that made it knew."""
    bare, parsed_already = (
        parsed(
            {
                "role": "assistant",
                "tool_calls": [{"function": {"name": "f"}}, {"function": {"name": "g", "arguments": [1]}}],
            }
        )
        .turns[0]
        .parts
    )
    assert bare == ToolUse("", "f", "")
    assert parsed_already == ToolUse("", "g", "[1]")


def test_a_refusal_may_stand_in_the_content() -> None:
    """It is written back as content where it is no assistant's."""
    part = {"type": "refusal", "refusal": "no"}
    call = parsed({"role": "user", "content": [part]}, {"role": "assistant", "content": [part]})
    assert [turn.parts for turn in call.turns] == [(Refusal("no"),), (Refusal("no"),)]
    assert OPENAI_CHAT.render(call, model="m", max_output_tokens=None).data["messages"] == [
        {"role": "user", "content": [part]},
        {"role": "assistant", "content": None, "refusal": "no"},
    ]


def test_an_assistant_who_said_nothing_keeps_an_empty_text() -> None:
    """Null content is allowed beside tool calls or a refusal only."""
    call = parsed(
        {"role": "assistant", "content": ""}, {"role": "assistant", "content": None, "refusal": "no"}
    )
    rendered = OPENAI_CHAT.render(call, model="m", max_output_tokens=None)
    assert [message["content"] for message in rendered.data["messages"]] == ["", None]


def test_settings_that_have_no_canonical_form_stay_in_rest() -> None:
    """By their wire names, nested ones by their dotted names; null and empty arrays say nothing."""
    odd = {
        "tool_choice": {"type": "allowed_tools"},
        "temperature": "hot",
        "stop": [1],
        "user": 5,
        "response_format": {"type": "grammar"},
        "seed": 1.5,
        "n": True,
        "top_k": "3",
        "logprobs": 3,
        "reasoning_effort": 5,
        "metadata": ["a"],
        "service_tier": {},
        "safety_identifier": 7,
    }
    assert dict(parsed(**odd, logit_bias=None, functions=[]).rest) == odd
    schema = {"name": "n", "schema": {}, "strict": False, "description": "d"}
    call = parsed(response_format={"type": "json_schema", "json_schema": schema})
    assert call.output == OutputFormat({}, "n", False)
    assert dict(call.rest) == {"response_format.json_schema.description": "d"}
    assert parsed(response_format={"type": "text"}).output is None
    assert parsed(response_format={"type": "json_object"}).output == OutputFormat()


def test_tools_are_read() -> None:
    """Functions become tools, other kinds stay what they are."""
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
    one, two = parsed(tools=[{"type": "function", "function": function}, {"type": "custom"}]).tools
    assert one == Tool("f", "d", {"type": "object"}, True)
    assert isinstance(two, Opaque)


# --- what is read is written back

TEXT = st.text("aä€ \n", min_size=1, max_size=6)
SCHEMA = st.sampled_from([{"type": "object"}, {"type": "object", "properties": {"a": {"type": "string"}}}])
TEXT_PART = st.builds(lambda text: {"type": "text", "text": text}, TEXT)
MARKED_PART = st.builds(lambda part: part | {"prompt_cache_breakpoint": {"mode": "explicit"}}, TEXT_PART)
IMAGE_PART = st.builds(
    lambda url, more: {"type": "image_url", "image_url": {"url": url} | more},
    st.sampled_from(["https://x/y", "data:image/png;base64,AA=="]),
    st.sampled_from([{}, {"detail": "low"}, {"detail": "high", "x": 1}]),
)
OTHER_PART = st.sampled_from(
    [{"type": "file", "file": {"file_id": "f"}}, {"type": "input_audio", "input_audio": {}}]
)
CONTENT = TEXT | st.lists(TEXT_PART | MARKED_PART | IMAGE_PART | OTHER_PART, min_size=1, max_size=3)
TOOL_CALL = st.builds(
    lambda name, arguments, more: (
        {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}} | more
    ),
    TEXT,
    TEXT,
    st.sampled_from([{}, {"extra": 1}]),
)
MESSAGE = st.one_of(
    st.builds(
        lambda role, content, more: {"role": role, "content": content} | more,
        st.sampled_from(["user", "system", "developer"]),
        CONTENT,
        st.sampled_from([{}, {"name": "n"}, {"x_odd": [1]}]),
    ),
    st.builds(
        lambda content, more: {"role": "assistant", "content": content} | more,
        TEXT | st.lists(TEXT_PART, min_size=2, max_size=3),
        st.fixed_dictionaries(
            {},
            optional={
                "refusal": TEXT,
                "reasoning_content": TEXT,
                "tool_calls": st.lists(TOOL_CALL, min_size=1, max_size=2),
                "audio": st.just({"id": "a"}),
                "name": st.just("n"),
            },
        ),
    ),
    st.builds(
        lambda content: {"role": "tool", "tool_call_id": "c", "content": content},
        TEXT | st.lists(TEXT_PART, min_size=2, max_size=2),
    ),
    st.just({"role": "function", "name": "f", "content": "x"}),
)
FUNCTION = st.builds(
    lambda more: {"type": "function", "function": {"name": "f"} | more},
    st.fixed_dictionaries({}, optional={"description": TEXT, "parameters": SCHEMA, "strict": st.booleans()}),
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "stop": st.lists(TEXT, min_size=1, max_size=2),
        "user": TEXT,
        "seed": st.integers(0, 9),
        "n": st.just(2),
        "tools": st.lists(
            FUNCTION | st.just({"type": "custom", "custom": {"name": "s"}}), min_size=1, max_size=2
        ),
        "tool_choice": st.sampled_from(
            ["none", "required", {"type": "function", "function": {"name": "f"}}, {"type": "allowed_tools"}]
        ),
        "parallel_tool_calls": st.booleans(),
        "response_format": st.sampled_from(
            [
                {"type": "json_object"},
                {"type": "grammar", "x": 1},
                {"type": "json_schema", "json_schema": {"name": "n", "schema": {"a": 1}, "description": "d"}},
            ]
        ),
        "metadata": st.just({"a": "b"}),
    },
)
CAPS = st.sampled_from([{}, {"max_tokens": 7}, {"max_completion_tokens": 7}])
STREAM = st.sampled_from(
    [
        {},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
    ]
)


def plainest(body: Json) -> Json:
    """Return the body with every lone text part as a string: the one thing that may be spelled anew."""
    messages = []
    for message in body["messages"]:
        match message["content"]:
            case [{"type": "text", "text": text} as part] if len(part) == 2:
                messages.append(message | {"content": text})
            case _:
                messages.append(message)
    return body | {"messages": messages}


@given(st.lists(MESSAGE, min_size=1, max_size=4), FIELDS, CAPS, STREAM)
@settings(max_examples=200, deadline=None)
def test_what_is_read_is_written_back(messages: list[Json], fields: Json, cap: Json, stream: Json) -> None:
    """Within the dialect nothing is lost: the body of a parsed call says what the caller's body said."""
    body = {"model": "m", "messages": messages} | fields | cap | stream
    call = OPENAI_CHAT.parse(OPENAI_CHAT.open(orjson.dumps(body)))
    rendered = OPENAI_CHAT.render(call, model="m", max_output_tokens=None)
    assert rendered.losses == ()
    assert rendered.data == plainest(body)
