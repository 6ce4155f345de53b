from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.openai_responses import OPENAI_RESPONSES
from tokenhub_core.errors import Blame, Kind, TokenHubError
from tokenhub_core.types import Dialect, Json, Need, Request, TextSlot

HELLO = {"role": "user", "content": "Hello"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "done"}


def opened(**fields: Any) -> Request:
    return OPENAI_RESPONSES.open(orjson.dumps({"model": "m", "input": [HELLO]} | fields))


def user(*parts: Json) -> Json:
    return {"role": "user", "content": list(parts)}


# --- open


def test_a_plain_request_is_opened() -> None:
    """The body stays as it came, and the features say what routing asks."""
    body = b'{"input":"Hello"}'
    request = OPENAI_RESPONSES.open(body, "/v1/responses")
    assert request.dialect is Dialect.OPENAI_RESPONSES
    assert request.body is body
    assert request.path == "/v1/responses"
    assert request.features.model == ""
    assert (request.features.stream, request.features.max_output_tokens) == (False, None)
    assert (request.features.text_bytes, request.features.media, request.features.turns) == (5, 0, 1)
    assert request.features.needs == frozenset()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": {}}, "input"),
        ({"input": {"role": "user"}}, "input"),
        ({"input": []}, "input"),
        ({"input": 7}, "input"),
        ({"input": [HELLO, "x"]}, "input[1]"),
        ({"input": [{"content": "x"}]}, "input[0].type"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "message", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": 1}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": ["x"]}]}, "input[0].content[0]"),
        ({"input": [user({"text": "x"})]}, "input[0].content[0].type"),
        ({"input": [user({"type": "input_text"})]}, "input[0].content[0].text"),
        ({"input": [user({"type": "refusal"})]}, "input[0].content[0].refusal"),
        ({"input": [CALL | {"call_id": None}]}, "input[0].call_id"),
        ({"input": [CALL | {"name": 1}]}, "input[0].name"),
        ({"input": [CALL | {"arguments": {}}]}, "input[0].arguments"),
        ({"input": [RESULT | {"call_id": 1}]}, "input[0].call_id"),
        ({"input": [RESULT | {"output": {}}]}, "input[0].output"),
        ({"input": [RESULT | {"output": [{"type": "input_text"}]}]}, "input[0].output[0].text"),
        ({"input": [{"type": "reasoning", "summary": "x"}]}, "input[0].summary"),
        ({"input": [{"type": "reasoning", "summary": ["x"]}]}, "input[0].summary[0]"),
        ({"input": [{"type": "reasoning", "content": [{}]}]}, "input[0].content[0].text"),
        ({"input": [{"type": "reasoning", "encrypted_content": 1}]}, "input[0].encrypted_content"),
        ({"instructions": ["x"]}, "instructions"),
        ({"tools": {}}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"text": "json"}, "text"),
        ({"reasoning": "high"}, "reasoning"),
        ({"metadata": []}, "metadata"),
        ({"background": 1}, "background"),
        ({"stream": "yes"}, "stream"),
        ({"model": 5}, "model"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_is_relied_on_is_checked(fields: Json, param: str) -> None:
    """A wrong field is the caller's fault, named by its path."""
    with pytest.raises(TokenHubError) as caught:
        opened(**fields)
    fault = caught.value.fault
    assert (fault.kind, fault.blame, fault.param) == (Kind.INVALID, Blame.CLIENT, param)
    assert param in fault.message


def test_what_is_not_relied_on_is_left_alone() -> None:
    """Unknown items, parts, fields and values are the provider's to judge."""
    request = opened(
        input=[user({"type": "hologram"}), {"type": "hologram_call"}, {"id": "msg_1"}],
        temperature="hot",
        tools=[{}],
        text={"format": "odd"},
    )
    assert request.features.turns == 3


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "prompt"])
def test_stored_state_can_stand_for_the_input(field: str) -> None:
    """A request that names what its provider holds needs no input of its own, and passes as it is."""
    request = OPENAI_RESPONSES.open(orjson.dumps({"model": "m", field: "x"}))
    assert request.features.turns == 0
    assert list(OPENAI_RESPONSES.text_slots(request.data)) == []


def test_the_features_say_what_the_call_needs() -> None:
    """Tools, media and schemas are needs; texts of every kind count, media do not."""
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 5000}
    request = opened(
        stream=True,
        max_output_tokens=9,
        instructions="12345",
        input=[
            user({"type": "input_text", "text": "Grüße"}, image, {"type": "input_file", "file_id": "f"}),
            user({"type": "input_audio", "input_audio": {}}),
            {"type": "reasoning", "summary": [{"text": "1234"}], "content": [{"text": "12"}]},
            CALL,
            RESULT,
        ],
        text={"format": {"type": "json_schema", "name": "n", "schema": {}}},
    )
    features = request.features
    assert features.needs == {Need.TOOLS, Need.VISION, Need.FILES, Need.AUDIO, Need.JSON_SCHEMA}
    assert (features.stream, features.max_output_tokens, features.media, features.turns) == (True, 9, 3, 5)
    schema = len(b'{"type":"json_schema","name":"n","schema":{}}')
    assert features.text_bytes == 5 + 7 + 4 + 2 + len("f{}") + len("done") + schema


@pytest.mark.parametrize(
    "fields", [{"tools": [{"type": "web_search"}]}, {"input": [{"type": "custom_tool_call"}]}]
)
def test_tools_of_any_kind_need_tools(fields: Json) -> None:
    """Offered or called, functions or not."""
    assert opened(**fields).features.needs == {Need.TOOLS}


# --- texts


def test_directives_may_stand_in_instructions_and_messages() -> None:
    """Every message has slots; what tools gave out and what the model thought has none."""
    data = opened(
        instructions="I",
        input=[
            {"role": "developer", "content": "D"},
            user({"type": "input_text", "text": "U"}, {"type": "input_image", "image_url": "x"}),
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "R"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "A"}]},
            CALL,
            {**RESULT, "output": [{"type": "input_text", "text": "T"}]},
        ],
    ).data
    assert list(OPENAI_RESPONSES.text_slots(data)) == [
        TextSlot("system", ("instructions",), "I"),
        TextSlot("developer", ("input", 0, "content"), "D"),
        TextSlot("user", ("input", 1, "content", 0, "text"), "U"),
        TextSlot("assistant", ("input", 3, "content", 0, "text"), "A"),
    ]


def test_a_plain_input_is_a_slot() -> None:
    """It is the user's, and can be replaced even by nothing."""
    data = {"input": "Hello"}
    assert list(OPENAI_RESPONSES.text_slots(data)) == [TextSlot("user", ("input",), "Hello")]
    assert OPENAI_RESPONSES.replace_texts(data, [(("input",), "")]) == {"input": ""}


def test_replaced_texts_leave_the_given_data_alone() -> None:
    """A copy is changed, and what became empty goes away."""
    data = opened(
        instructions="go",
        input=[
            {"type": "message", "role": "developer", "content": "gone"},
            user({"type": "input_text", "text": "gone"}, {"type": "input_text", "text": "old"}),
            {"role": "assistant", "content": "history"},
            user({"type": "input_text", "text": "gone"}),
            RESULT,
        ],
    ).data
    before = copy.deepcopy(data)
    changed = OPENAI_RESPONSES.replace_texts(
        data,
        [
            (("instructions",), ""),
            (("input", 0, "content"), ""),
            (("input", 1, "content", 0, "text"), ""),
            (("input", 1, "content", 1, "text"), "new"),
            (("input", 2, "content"), ""),
            (("input", 3, "content", 0, "text"), ""),
        ],
    )
    assert data == before
    assert "instructions" not in changed
    assert changed["input"] == [
        user({"type": "input_text", "text": "new"}),
        {"role": "assistant", "content": ""},
        RESULT,
    ]


def test_the_last_item_of_all_stays() -> None:
    """An input never becomes empty."""
    data = opened(input=[user({"type": "input_text", "text": "x"})]).data
    changed = OPENAI_RESPONSES.replace_texts(data, [(("input", 0, "content", 0, "text"), "")])
    assert changed["input"] == [{"role": "user", "content": ""}]


def test_no_text_stands_elsewhere() -> None:
    """A path that is none of the slots' is a mistake of ours."""
    with pytest.raises(ValueError, match="no text can stand"):
        OPENAI_RESPONSES.replace_texts({}, [(("metadata",), "x")])


# --- patch


def test_only_model_and_cap_are_changed() -> None:
    """Every other byte stays, stored state included."""
    body = b'{ "previous_response_id": "resp_1",\n "model" : "a", "store":true, "max_output_tokens": 5 }'
    request = OPENAI_RESPONSES.open(body)
    assert OPENAI_RESPONSES.patch(request, model="a", max_output_tokens=None) is body
    assert OPENAI_RESPONSES.patch(request, model="b", max_output_tokens=7) == (
        b'{ "previous_response_id": "resp_1",\n "model" : "b", "store":true, "max_output_tokens": 7 }'
    )


def test_a_stream_needs_no_wish_for_its_usage() -> None:
    """The usage always comes, so nothing is added and nothing has to be hidden."""
    body = b'{"model":"a","input":"x","stream":true}'
    request = OPENAI_RESPONSES.open(body)
    assert OPENAI_RESPONSES.patch(request, model="a", max_output_tokens=None) is body
    assert not OPENAI_RESPONSES.hides("response.completed", b"{}", request=request)


def test_the_module_says_how_it_travels() -> None:
    """The path names nothing, the framing is server-sent events with comments between them."""
    request = opened()
    assert OPENAI_RESPONSES.operation(model="m", stream=True, request=request) == "/responses"
    assert OPENAI_RESPONSES.stream_type(request) == "text/event-stream"
    assert OPENAI_RESPONSES.keep_alive(request).startswith(b":")
    assert OPENAI_RESPONSES.parser("text/event-stream; charset=utf-8") is not None
    assert OPENAI_RESPONSES.parser("application/json") is None
    assert OPENAI_RESPONSES.reader().end() == ()
