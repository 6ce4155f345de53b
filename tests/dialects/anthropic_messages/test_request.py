from __future__ import annotations

from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.types import Dialect, Features, Need

HELLO = {"role": "user", "content": "Hello"}
PIXEL = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}


def body(**members: Any) -> bytes:
    whole = {"model": "claude-x", "max_tokens": 64, "messages": [HELLO], **members}
    return orjson.dumps({name: value for name, value in whole.items() if value is not ...})


def features(**members: Any) -> Features:
    return ANTHROPIC_MESSAGES.open(body(**members)).features


def fault(given: bytes) -> Fault:
    with pytest.raises(TokenHubError) as caught:
        ANTHROPIC_MESSAGES.open(given)
    assert (caught.value.fault.kind, caught.value.fault.blame) == (Kind.INVALID, Blame.CLIENT)
    return caught.value.fault


def test_a_request_keeps_the_very_bytes_it_came_in() -> None:
    """Whoever passes a request on unchanged passes on the caller's own object."""
    given = body()
    request = ANTHROPIC_MESSAGES.open(given)
    assert request.body is given
    assert request.dialect is Dialect.ANTHROPIC_MESSAGES
    assert request.data["messages"] == [HELLO]


def test_the_plainest_request_needs_nothing() -> None:
    """Features of a one-line request: its model, its cap, its five bytes of text."""
    assert features() == Features("claude-x", max_output_tokens=64, text_bytes=5, turns=1)


def test_a_missing_model_is_left_to_routing_and_a_zero_cap_is_a_cap() -> None:
    """`model` may be absent; `max_tokens` 0 only warms the cache and is not the same as none."""
    found = features(model=..., max_tokens=0, stream=True)
    assert (found.model, found.max_output_tokens, found.stream) == ("", 0, True)


def test_one_walk_sees_every_need_and_counts_no_base64() -> None:
    """Tools, images (inside tool results too), documents and schemas are needs; media bytes are not text."""
    found = features(
        system=[{"type": "text", "text": "Be brief."}],
        tools=[{"name": "look", "input_schema": {"type": "object"}}],
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
        messages=[
            {"role": "user", "content": [{"type": "document", "source": {**PIXEL, "data": "A" * 5000}}]},
            {
                "role": "assistant",
                "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "ü"}}],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": "t1",
                        "content": [
                            {"type": "image", "source": {**PIXEL, "data": "A" * 5000}},
                            {"type": "text", "text": "grün"},
                        ],
                    }
                ],
            },
        ],
    )
    assert found.needs == {Need.TOOLS, Need.VISION, Need.FILES, Need.JSON_SCHEMA}
    assert (found.media, found.turns) == (2, 3)
    schema, tool_input = b'{"name":"look","input_schema":{"type":"object"}}', '{"at":"ü"}'.encode()
    assert found.text_bytes == len("Be brief.") + len(schema) + len(tool_input) + len("grün".encode())


@pytest.mark.parametrize(
    ("block", "need", "text_bytes"),
    [
        ({"type": "tool_result", "tool_use_id": "t"}, Need.TOOLS, 0),
        ({"type": "document", "source": {"type": "text", "data": "four"}}, Need.FILES, 4),
        (
            {
                "type": "document",
                "source": {"type": "content", "content": [{"type": "text", "text": "six 66"}]},
            },
            Need.FILES,
            6,
        ),
        ({"type": "search_result", "source": "s", "title": "t", "content": "five5"}, None, 5),
        ({"type": "thinking", "thinking": "hm", "signature": "s" * 99}, None, 2),
        ({"type": "redacted_thinking", "data": "s" * 99}, None, 0),
        ({"type": "not_invented_yet", "anything": 1}, None, 0),
    ],
)
def test_every_kind_of_block_is_weighed_by_its_text(
    block: dict[str, Any], need: Need | None, text_bytes: int
) -> None:
    """Text counts wherever it stands; signatures, media and unknown blocks do not."""
    found = features(messages=[{"role": "user", "content": [block]}])
    assert found.needs == ({need} if need else frozenset())
    assert found.text_bytes == text_bytes


def test_the_older_name_of_the_output_format_counts_too() -> None:
    """`output_format` is the beta's name for `output_config.format`."""
    assert Need.JSON_SCHEMA in features(output_format={"type": "json_schema", "schema": {}}).needs
    assert Need.JSON_SCHEMA not in features(output_config={"effort": "low"}).needs


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"messages": ...}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [HELLO, {"role": "user", "content": ["hi"]}]}, "messages[1].content[0]"),
        ({"messages": [{"role": "user", "content": [{"text": "hi"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": "{}"}]}
                ]
            },
            "messages[0].content[0].input",
        ),
        ({"max_tokens": ...}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "64"}, "max_tokens"),
        ({"model": 4}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"system": 1}, "system"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": True}, "top_p"),
        ({"stop_sequences": [1]}, "stop_sequences[0]"),
        ({"metadata": "me"}, "metadata"),
        ({"output_config": []}, "output_config"),
        ({"tools": {}}, "tools"),
        ({"tools": [1]}, "tools[0]"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "a"}]}, "tools[0].input_schema"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {}}, "tool_choice.type"),
        (
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": 1}},
            "tool_choice.disable_parallel_tool_use",
        ),
    ],
)
def test_a_malformed_field_is_named(members: dict[str, Any], param: str) -> None:
    """What the caller got wrong is an INVALID fault whose `param` is the path of the field."""
    found = fault(body(**members))
    assert found.param == param
    assert param in found.message


def test_a_missing_cap_is_told_in_the_dialects_own_words() -> None:
    """Callers who know this API know this sentence."""
    assert fault(body(max_tokens=...)).message == "max_tokens: Field required"


def test_server_tools_need_no_schema() -> None:
    """A tool with a type of its own is the provider's business."""
    assert features(tools=[{"type": "web_search_20250305", "name": "web_search"}]).needs == {Need.TOOLS}


def test_patching_edits_the_callers_bytes_and_nothing_else() -> None:
    """Model and cap are spliced in; odd spacing, key order and number forms stay as they were."""
    given = b'{ "max_tokens" : 10 ,"model":"a", "x":1.50, "messages":[{"role":"user","content":"hi"}] }'
    request = ANTHROPIC_MESSAGES.open(given)
    patched = ANTHROPIC_MESSAGES.patch(request, model="b", max_output_tokens=5)
    assert patched == given.replace(b'"a"', b'"b"').replace(b": 10", b": 5")


def test_patching_nothing_gives_the_same_object_back() -> None:
    """Same model, no new cap: the bytes that go out are the bytes that came in."""
    request = ANTHROPIC_MESSAGES.open(body())
    assert ANTHROPIC_MESSAGES.patch(request, model="claude-x", max_output_tokens=None) is request.body
    assert ANTHROPIC_MESSAGES.patch(request, model="claude-x", max_output_tokens=64) is request.body


def test_no_event_is_hidden() -> None:
    """Usage always flows in this dialect, so nothing has to be asked for and taken out again."""
    request = ANTHROPIC_MESSAGES.open(body(stream=True))
    assert not ANTHROPIC_MESSAGES.hides("message_delta", b"{}", request=request)


def test_the_query_of_a_caller_goes_along_with_its_body() -> None:
    """Those who use betas ask for them in it; a body of ours is not asked in anybody's words."""
    request = ANTHROPIC_MESSAGES.open(body(), "/v1/messages?beta=true")
    assert ANTHROPIC_MESSAGES.operation(model="m", stream=True, request=request) == "/messages?beta=true"
    plain = ANTHROPIC_MESSAGES.open(body(), "/v1/messages")
    assert ANTHROPIC_MESSAGES.operation(model="m", stream=True, request=plain) == "/messages"
    assert ANTHROPIC_MESSAGES.operation(model="m", stream=True) == "/messages"
