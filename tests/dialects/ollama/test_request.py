from __future__ import annotations

from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.ollama import OLLAMA_CHAT, OLLAMA_GENERATE
from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.types import Dialect, Json, Need, Request, TextSlot

PNG = "iVBORw0KGgoAAAANSUhEUg=="
WAV = "UklGRiQAAABXQVZFZm10IA=="


def chat(*messages: Any, **fields: Any) -> Request:
    return OLLAMA_CHAT.open(orjson.dumps({"model": "m", "messages": messages, **fields}))


def generate(**fields: Any) -> Request:
    return OLLAMA_GENERATE.open(orjson.dumps({"model": "m", **fields}))


def user(content: Any = "Hi", **fields: Any) -> Json:
    return {"role": "user", "content": content, **fields}


def test_an_answer_is_streamed_unless_it_is_refused() -> None:
    """`stream` is true where nobody said."""
    assert chat(user()).features.stream
    assert chat(user(), stream=None).features.stream
    assert not chat(user(), stream=False).features.stream
    assert generate(prompt="a").features.stream


def test_only_a_positive_number_of_tokens_is_a_cap() -> None:
    """Zero and negative numbers mean no end."""
    assert chat(user(), options={"num_predict": 9}).features.max_output_tokens == 9
    for none in ({"num_predict": -1}, {"num_predict": 0}, {"num_predict": None}, {}, None):
        assert chat(user(), options=none).features.max_output_tokens is None


def test_a_chat_is_measured() -> None:
    """Texts, thoughts, tool calls and tools are input; images and sound are media."""
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    features = chat(
        user("Grüße", images=[PNG, WAV]),
        {"role": "Assistant", "thinking": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_name": "f", "content": "ok"},
        tools=[{}],
        format={"a": 1},
    ).features
    assert features.needs == {Need.VISION, Need.AUDIO, Need.TOOLS, Need.JSON_SCHEMA}
    assert (features.media, features.turns) == (2, 3)
    assert features.text_bytes == 7 + 2 + 1 + 7 + 1 + 2 + 4 + 7


def test_a_completion_is_measured() -> None:
    """Prompt, suffix, system prompt and template are input."""
    features = generate(prompt="abc", suffix="de", system="f", template="g", images=[PNG]).features
    assert (features.text_bytes, features.media, features.turns) == (7, 1, 1)
    assert features.needs == {Need.VISION}


@pytest.mark.parametrize("body", [b'{"model":"m"}', b'{"model":"m","messages":[],"keep_alive":0}'])
def test_a_call_that_only_loads_a_model_is_valid_but_not_translated(body: bytes) -> None:
    """A server of this dialect gets the caller's bytes; for any other one there is nothing to say."""
    for dialect, param in ((OLLAMA_CHAT, "messages"), (OLLAMA_GENERATE, "prompt")):
        request = dialect.open(body)
        assert dialect.patch(request, model="m", max_output_tokens=None) is body
        assert list(dialect.text_slots(request.data)) == []
        with pytest.raises(TokenHubError) as caught:
            dialect.parse(request)
        assert (caught.value.fault.kind, caught.value.fault.param) == (Kind.INVALID, param)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": 1}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": [{}]}, "messages[0].role"),
        ({"messages": [user(5)]}, "messages[0].content"),
        ({"messages": [user([{"type": "text"}])]}, "messages[0].content"),
        ({"messages": [user(images="x")]}, "messages[0].images"),
        ({"messages": [user(images=[1])]}, "messages[0].images[0]"),
        ({"messages": [user(thinking=1)]}, "messages[0].thinking"),
        ({"messages": [user(tool_calls=[1])]}, "messages[0].tool_calls[0]"),
        ({"messages": [user(tool_calls=[{}])]}, "messages[0].tool_calls[0].function"),
        (
            {"messages": [user(tool_calls=[{"function": {"name": 1}}])]},
            "messages[0].tool_calls[0].function.name",
        ),
        ({"tools": [1]}, "tools[0]"),
        ({"stream": "yes"}, "stream"),
        ({"model": 1}, "model"),
        ({"options": []}, "options"),
        ({"options": {"num_predict": "9"}}, "options.num_predict"),
    ],
)
def test_a_wrong_field_is_named(fields: Json, param: str) -> None:
    """With its place."""
    with pytest.raises(TokenHubError) as caught:
        OLLAMA_CHAT.open(orjson.dumps({"model": "m", "messages": [user()]} | fields))
    assert (caught.value.fault.kind, caught.value.fault.param) == (Kind.INVALID, param)


@pytest.mark.parametrize(("name", "value"), [("prompt", 1), ("system", []), ("images", [1]), ("suffix", {})])
def test_a_wrong_field_of_a_completion_is_named(name: str, value: Any) -> None:
    """As in a chat."""
    with pytest.raises(TokenHubError) as caught:
        generate(**{name: value})
    assert caught.value.fault.param.startswith(name)


def test_directives_may_stand_in_what_people_said() -> None:
    """Never in tool results, thoughts or roles that only a template knows."""
    request = chat(
        {"role": "System", "content": "s"},
        {"role": "control", "content": "thinking"},
        user("u"),
        {"role": "assistant", "content": "a", "thinking": "t"},
        {"role": "tool", "content": "r"},
        user(None),
    )
    assert list(OLLAMA_CHAT.text_slots(request.data)) == [
        TextSlot("system", ("messages", 0, "content"), "s"),
        TextSlot("user", ("messages", 2, "content"), "u"),
        TextSlot("assistant", ("messages", 3, "content"), "a"),
    ]
    assert list(OLLAMA_GENERATE.text_slots({"prompt": "p", "system": "s"})) == [
        TextSlot("system", ("system",), "s"),
        TextSlot("user", ("prompt",), "p"),
    ]


def test_an_emptied_message_goes_but_its_images_stay() -> None:
    """And there is always one message."""
    data = chat(user("a"), user("b", images=[PNG]), user("c")).data
    texts: list[tuple[tuple[str | int, ...], str]] = [(("messages", i, "content"), "") for i in (0, 1)]
    assert OLLAMA_CHAT.replace_texts(data, texts)["messages"] == [user("", images=[PNG]), user("c")]
    lone = chat(user("a")).data
    assert OLLAMA_CHAT.replace_texts(lone, texts[:1])["messages"] == [user("")]
    assert lone["messages"] == [user("a")]
    assert OLLAMA_CHAT.replace_texts({"model": "m"}, []) == {"model": "m"}


def test_an_emptied_system_prompt_goes() -> None:
    """A prompt stays, whatever is left of it."""
    data = {"prompt": "p", "system": "s"}
    assert OLLAMA_GENERATE.replace_texts(data, [(("system",), ""), (("prompt",), "q")]) == {"prompt": "q"}
    assert data == {"prompt": "p", "system": "s"}


def test_a_body_is_passed_on_byte_for_byte() -> None:
    """But for the model, and the cap among the options."""
    body = b'{ "model" : "m",  "messages":[{"role":"user","content":"model"}],"options":{"seed":1},"x":1.0 }'
    request = OLLAMA_CHAT.open(body)
    assert OLLAMA_CHAT.patch(request, model="m", max_output_tokens=None) is body
    assert OLLAMA_CHAT.patch(request, model="n", max_output_tokens=5) == (
        b'{ "model" : "n",  "messages":[{"role":"user","content":"model"}],'
        b'"options":{"seed":1,"num_predict":5},"x":1.0 }'
    )
    bare = OLLAMA_GENERATE.open(b'{"prompt":"a"}')
    patched = orjson.loads(OLLAMA_GENERATE.patch(bare, model="n", max_output_tokens=5))
    assert patched == {"prompt": "a", "model": "n", "options": {"num_predict": 5}}


def test_each_dialect_has_its_path_and_lines() -> None:
    """And nothing that could keep a quiet stream alive."""
    assert OLLAMA_CHAT.operation(model="m", stream=True) == "/api/chat"
    assert OLLAMA_GENERATE.operation(model="m", stream=False) == "/api/generate"
    request = generate(prompt="a")
    assert (request.dialect, OLLAMA_GENERATE.name) == (Dialect.OLLAMA_GENERATE, Dialect.OLLAMA_GENERATE)
    assert OLLAMA_CHAT.stream_type(request) == "application/x-ndjson"
    assert OLLAMA_CHAT.keep_alive(request) == b""
    assert not OLLAMA_CHAT.hides("", b"{}", request=request)
    assert OLLAMA_CHAT.parser("application/x-ndjson") is not None
    assert OLLAMA_CHAT.parser("text/event-stream") is None
