from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.errors import Blame, Kind, TokenHubError
from tokenhub_core.types import Dialect, Json, Need, Request

HELLO = {"role": "user", "content": "Hello"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}


def opened(**fields: Any) -> Request:
    return OPENAI_CHAT.open(orjson.dumps({"model": "m", "messages": [HELLO]} | fields))


def patched(body: bytes, model: str = "m", cap: int | None = None) -> bytes:
    return OPENAI_CHAT.patch(OPENAI_CHAT.open(body), model=model, max_output_tokens=cap)


# --- open


def test_a_plain_request_is_opened() -> None:
    """The body stays as it came, and the features say what routing asks."""
    body = b'{"messages":[{"role":"user","content":"Hello"}]}'
    request = OPENAI_CHAT.open(body)
    assert request.dialect is Dialect.OPENAI_CHAT
    assert request.body is body
    assert request.features.model == ""
    assert (request.features.stream, request.features.max_output_tokens) == (False, None)
    assert (request.features.text_bytes, request.features.media, request.features.turns) == (5, 0, 1)
    assert request.features.needs == frozenset()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [HELLO, "x"]}, "messages[1]"),
        ({"messages": [{"role": "robot"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"]}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "messages[0].tool_calls[0]"),
        ({"tools": {}}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"stream": "yes"}, "stream"),
        ({"model": 5}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": "9"}, "max_completion_tokens"),
    ],
)
def test_what_routing_relies_on_is_checked(fields: Json, param: str) -> None:
    """A wrong field is the caller's fault, named by its path."""
    with pytest.raises(TokenHubError) as caught:
        opened(**fields)
    fault = caught.value.fault
    assert (fault.kind, fault.blame, fault.param) == (Kind.INVALID, Blame.CLIENT, param)
    assert param in fault.message


def test_what_it_does_not_rely_on_is_left_alone() -> None:
    """Unknown parts, fields and values are the provider's to judge."""
    request = opened(
        messages=[{"role": "user", "content": [{"type": "hologram"}]}],
        temperature="hot",
        tools=[{}],
        x={"y": 1},
    )
    assert request.features.media == 0


@pytest.mark.parametrize(
    ("fields", "need", "media"),
    [
        ({"tools": [{"type": "function"}]}, Need.TOOLS, 0),
        ({"functions": [{"name": "f"}]}, Need.TOOLS, 0),
        ({"messages": [{"role": "tool", "content": "x"}]}, Need.TOOLS, 0),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, Need.TOOLS, 0),
        ({"messages": [{"role": "user", "content": [IMAGE, IMAGE]}]}, Need.VISION, 2),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, Need.FILES, 1),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, Need.AUDIO, 1),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, Need.JSON_SCHEMA, 0),
    ],
)
def test_a_need_is_seen(fields: Json, need: Need, media: int) -> None:
    """Each capability that a call cannot do without is told, and media are counted."""
    features = opened(**fields).features
    assert features.needs == {need}
    assert features.media == media


def test_nothing_is_needed_for_nothing() -> None:
    """Empty lists and plain formats ask for no capability."""
    assert opened(tools=[], response_format={"type": "json_object"}).features.needs == frozenset()


def test_text_is_counted_in_bytes_and_media_are_not() -> None:
    """Texts, tool schemas and tool arguments become tokens; a data URL does not become text."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    call = {"id": "1", "type": "function", "function": {"name": "ab", "arguments": '{"x":1}'}}
    request = opened(
        messages=[
            {"role": "system", "content": "Grüße"},
            {"role": "user", "content": [{"type": "text", "text": "four"}, IMAGE]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "ok"},
        ],
        tools=tools,
    )
    assert request.features.text_bytes == 7 + 4 + (2 + 7) + 2 + len(orjson.dumps(tools))


def test_the_newer_cap_wins() -> None:
    """`max_tokens` is the deprecated name."""
    assert opened(max_tokens=5, max_completion_tokens=7).features.max_output_tokens == 7
    assert opened(max_tokens=5, max_completion_tokens=None).features.max_output_tokens == 5


# --- texts


def test_directives_may_stand_in_conversation_texts_only() -> None:
    """Tool results, function results and other parts are no slots."""
    data = opened(
        messages=[
            {"role": "developer", "content": "a"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "b"}, IMAGE, {"type": "text", "text": "c"}],
            },
            {"role": "assistant", "content": None},
            {"role": "tool", "content": "no"},
            {"role": "function", "name": "f", "content": "no"},
            {"role": "assistant", "content": "d"},
        ]
    ).data
    slots = list(OPENAI_CHAT.text_slots(data))
    assert [(slot.role, slot.text) for slot in slots] == [
        ("developer", "a"),
        ("user", "b"),
        ("user", "c"),
        ("assistant", "d"),
    ]
    for slot in slots:
        found: Any = data
        for key in slot.path:
            found = found[key]
        assert found == slot.text


def test_only_the_changed_paths_are_copied() -> None:
    """The caller's data stay as they are, and untouched messages are shared."""
    data = opened(
        messages=[HELLO, {"role": "user", "content": [{"type": "text", "text": "old", "x": 1}, IMAGE]}],
        seed=1,
    ).data
    before = copy.deepcopy(data)

    done = OPENAI_CHAT.replace_texts(data, [(("messages", 1, "content", 0, "text"), "new")])

    assert data == before
    assert done["messages"][0] is data["messages"][0]
    assert done["messages"][1]["content"][1] is data["messages"][1]["content"][1]
    assert done["messages"][1]["content"][0] == {"type": "text", "text": "new", "x": 1}
    assert done["seed"] == 1
    assert OPENAI_CHAT.replace_texts(data, []) is data


@pytest.mark.parametrize(
    ("message", "left"),
    [
        ({"role": "user", "content": "x"}, None),
        ({"role": "system", "name": "n", "content": "x"}, None),
        ({"role": "user", "content": [{"type": "text", "text": "x"}]}, None),
        ({"role": "user", "content": "x", "odd": 1}, {"role": "user", "content": "", "odd": 1}),
        (
            {"role": "user", "content": [{"type": "text", "text": "x"}, IMAGE]},
            {"role": "user", "content": [IMAGE]},
        ),
        ({"role": "assistant", "content": "x"}, {"role": "assistant", "content": ""}),
        (
            {"role": "assistant", "content": [{"type": "text", "text": "x"}], "tool_calls": [{}]},
            {"role": "assistant", "content": None, "tool_calls": [{}]},
        ),
    ],
)
def test_what_became_empty_goes(message: Json, left: Json | None) -> None:
    """An empty part, and a message that held nothing else, would be rejected upstream."""
    data = opened(messages=[HELLO, message, {"role": "user", "content": ""}]).data
    path = [slot.path for slot in OPENAI_CHAT.text_slots(data)][1]
    done = OPENAI_CHAT.replace_texts(data, [(path, "")])
    middle = [left] if left else []
    assert done["messages"] == [HELLO, *middle, {"role": "user", "content": ""}]


def test_the_last_message_is_never_taken_away() -> None:
    """A body without messages would be no request."""
    data = opened(messages=[{"role": "system", "content": "a"}, HELLO]).data
    done = OPENAI_CHAT.replace_texts(data, [(("messages", i, "content"), "") for i in (0, 1)])
    assert done["messages"] == [{"role": "user", "content": ""}]


# --- patch


def test_nothing_to_change_gives_the_same_bytes_object() -> None:
    """The identical body goes out."""
    body = b'{ "model":"m", "messages":[{"role":"user"}], "max_tokens":9 }'
    assert patched(body) is body
    assert patched(body, cap=9) is body


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (b'"max_tokens": 9', b'"max_tokens": 5'),
        (b'"max_completion_tokens": 9', b'"max_completion_tokens": 5'),
        (b'"max_tokens": 7, "max_completion_tokens": 9', b'"max_tokens": 5, "max_completion_tokens": 5'),
        (b'"max_completion_tokens": null', b'"max_completion_tokens": null,"max_tokens":5'),
        (b'"seed": 12345678901234567890123', b'"seed": 12345678901234567890123,"max_tokens":5'),
    ],
)
def test_the_cap_keeps_the_name_that_the_caller_used(given: bytes, wanted: bytes) -> None:
    """Model and cap change in place; all other bytes stay, numbers that no double holds included."""
    start = b'{"messages" : [ {"role":"user","content":"\\u0041"} ],\n "model": '
    assert patched(start + b'"m", ' + given + b" }", "n", 5) == start + b'"n", ' + wanted + b" }"


def test_a_cap_of_ours_has_the_name_that_the_model_knows() -> None:
    """Where the caller used neither: OpenAI's newer models reject the old one, which everybody else knows."""
    start = b'{"messages":[{"role":"user","content":"A"}],"model":'
    assert patched(start + b'"m"}', "o3-mini", 5) == start + b'"o3-mini","max_completion_tokens":5}'
    assert patched(start + b'"m"}', "gpt-5", 5) == start + b'"gpt-5","max_completion_tokens":5}'
    assert patched(start + b'"m"}', "gpt-4o", 5) == start + b'"gpt-4o","max_tokens":5}'


def test_a_stream_always_asks_for_its_usage() -> None:
    """The wish is merged into the caller's own options."""
    start = b'{"model":"m","messages":[{"role":"user"}],"stream":true'
    assert patched(start + b"}") == start + b',"stream_options":{"include_usage":true}}'
    assert patched(start + b',"stream_options":{"x":1,"include_usage":false}}') == (
        start + b',"stream_options":{"x":1,"include_usage":true}}'
    )
    own = start + b',"stream_options":{"include_usage": true}}'
    assert patched(own) is own


def test_only_the_usage_chunk_that_nobody_asked_for_is_hidden() -> None:
    """A caller who asked sees it, and chunks that hold anything else are always seen."""
    silent, asking = opened(stream=True), opened(stream=True, stream_options={"include_usage": True})
    chunk = b'{"id":"x","choices": [ ],"usage":{"prompt_tokens":1}}'
    assert OPENAI_CHAT.hides("", chunk, request=silent)
    assert not OPENAI_CHAT.hides("", chunk, request=asking)
    for other in (
        b'{"choices":[],"usage":null,"prompt_filter_results":[]}',
        b'{"choices":[{"delta":{"content":"\\"choices\\":[]"}}],"usage":{"prompt_tokens":1}}',
        b'{"choices":[{"delta":{"content":"x"}}],"usage":null}',
        b'{"choices":[],',
        b"[DONE]",
        b"",
    ):
        assert not OPENAI_CHAT.hides("", other, request=silent)


# --- anything at all

WORDS = st.sampled_from(
    [
        "role",
        "content",
        "type",
        "text",
        "user",
        "assistant",
        "tool",
        "function",
        "image_url",
        "url",
        "tool_calls",
        "id",
        "name",
        "arguments",
        "detail",
        "json_schema",
        "schema",
        "response_format",
        "stop",
        "tools",
        "tool_choice",
        "stream_options",
        "include_usage",
        "custom",
        "refusal",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=15,
)
PARTS = st.dictionaries(WORDS, JSON, max_size=3).flatmap(
    lambda odd: st.sampled_from(
        [
            odd | {"type": "text", "text": "x"},
            odd | {"type": "image_url"},
            odd | {"type": "refusal"},
            odd | {"type": "y"},
        ]
    )
)
MESSAGES = st.builds(
    lambda odd, role, content: odd | {"role": role, "content": content},
    st.dictionaries(WORDS, JSON, max_size=3),
    st.sampled_from(["user", "assistant", "tool", "system", "function"]),
    st.none() | st.just("x") | st.lists(PARTS, max_size=3),
)


@given(st.lists(MESSAGES, min_size=1, max_size=3), st.dictionaries(WORDS, JSON, max_size=5))
@settings(max_examples=100, deadline=None)
def test_odd_requests_are_refused_or_carried_but_never_break_anything(
    messages: list[Json], odd: Json
) -> None:
    """Whatever a caller sends, opening it raises our error or everything after it works."""
    body = orjson.dumps(odd | {"model": "m", "messages": messages})
    try:
        request = OPENAI_CHAT.open(body)
    except TokenHubError:
        return
    call = OPENAI_CHAT.parse(request)
    assert OPENAI_CHAT.render(call, model="n", max_output_tokens=1).losses == ()
    texts = [(slot.path, "") for slot in OPENAI_CHAT.text_slots(request.data)]
    assert OPENAI_CHAT.replace_texts(request.data, texts)["messages"]
    assert orjson.loads(OPENAI_CHAT.patch(request, model="n", max_output_tokens=1))["model"] == "n"
