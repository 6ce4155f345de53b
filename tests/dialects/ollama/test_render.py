from __future__ import annotations

from typing import Any

import pytest

from tokenhub_core.dialects.base import DialectModule, Rendered
from tokenhub_core.dialects.ollama import OLLAMA_CHAT, OLLAMA_GENERATE
from tokenhub_core.types import (
    Audio,
    Call,
    Choice,
    Dialect,
    File,
    Image,
    Json,
    Opaque,
    OutputFormat,
    Reasoning,
    Refusal,
    Role,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)

OTHER = Dialect.ANTHROPIC_MESSAGES
MARK = {"cache_control": {"type": "ephemeral"}}
PNG = Image(media_type="image/png", data="AAAA")


def render(*turns: Turn, to: DialectModule = OLLAMA_CHAT, cap: int | None = None, **fields: Any) -> Rendered:
    call = Call(OTHER, "asked", turns or (Turn(Role.USER, (Text("Hi"),)),), **fields)
    return to.render(call, model="served", max_output_tokens=cap)


def messages(*turns: Turn) -> list[Json]:
    found: list[Json] = render(*turns).data["messages"]
    return found


def test_a_plain_call_says_whether_it_streams() -> None:
    """Because saying nothing would mean that it does."""
    wanted = {"model": "served", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    assert render().data == wanted
    assert render(stream=True).data == wanted | {"stream": True}
    assert render(to=OLLAMA_GENERATE).data == {"model": "served", "prompt": "Hi", "stream": False}


def test_settings_become_options() -> None:
    """The dispatcher's cap wins."""
    given = render(
        cap=5,
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=4,
        stop=("a",),
        seed=1,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logprobs=2,
        output=OutputFormat({"type": "object"}, "named", True),
    )
    assert given.data["options"] == {
        "num_predict": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "stop": ["a"],
        "seed": 1,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.2,
    }
    assert (given.data["logprobs"], given.data["top_logprobs"]) == (True, 2)
    assert given.data["format"] == {"type": "object"}
    assert given.losses == ()
    assert render(output=OutputFormat()).data["format"] == "json"


def test_a_foreign_conversation_becomes_messages() -> None:
    """Text and images side by side, whole arguments, and results that name their tool."""
    given = render(
        Turn(Role.SYSTEM, (Text("a"), Text("b", MARK))),
        Turn(Role.USER, (Text("Look"), PNG, Text("closely"))),
        Turn(
            Role.ASSISTANT,
            (Reasoning("hm", signature="s"), Text("I "), Text("see."), ToolUse("1", "f", '{"a":1}')),
        ),
        Turn(Role.USER, (ToolResult("1", (Text("x"), PNG), is_error=True), Text("So?"))),
        Turn(Role.ASSISTANT, (Refusal("no"),)),
    )
    assert given.data["messages"] == [
        {"role": "system", "content": "a\n\nb"},
        {"role": "user", "content": "Look\nclosely", "images": ["AAAA"]},
        {
            "role": "assistant",
            "content": "I see.",
            "thinking": "hm",
            "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "Error: x", "images": ["AAAA"], "tool_call_id": "1", "tool_name": "f"},
        {"role": "user", "content": "So?"},
        {"role": "assistant", "content": "no"},
    ]
    assert given.losses == ("cache_control", "thinking.signature")


def test_arguments_that_are_no_object_are_kept_as_text() -> None:
    """Whoever reads them sees what the model wrote."""
    given = render(Turn(Role.ASSISTANT, (ToolUse("1", "f", '{"a', signature="s"), ToolUse("2", "g", ""))))
    calls = given.data["messages"][0]["tool_calls"]
    assert [call["function"]["arguments"] for call in calls] == [{"_raw": '{"a'}, {}]
    assert given.losses == ("tool_calls.arguments", "thinking.signature")


def test_parts_where_no_message_can_hold_them_are_losses() -> None:
    """Each is named; a turn of which nothing is left is no message, but there is always one."""
    given = render(
        Turn(Role.SYSTEM, (Opaque(OTHER, "x", {}),)),
        Turn(
            Role.USER,
            (Image(url="u"), File(file_id="f"), Audio("audio/wav", "AA"), ToolUse("1", "f", "{}")),
            "ana",
        ),
        Turn(Role.ASSISTANT, (Reasoning(redacted="r"),), rest={"phase": 1}),
    )
    assert given.data["messages"] == [{"role": "user", "content": ""}]
    assert given.losses == (
        *("part:x", "name", "part:image", "part:file", "part:audio", "part:tool_use"),
        *("part:redacted_thinking", "phase"),
    )
    assert messages(Turn(Role.ASSISTANT, ())) == [{"role": "user", "content": ""}]


@pytest.mark.parametrize(
    ("thinking", "think", "losses"),
    [
        (Thinking(), None, ()),
        (Thinking(True), True, ()),
        (Thinking(False), False, ()),
        (Thinking(effort="none"), False, ()),
        (Thinking(effort="medium"), "medium", ()),
        (Thinking(effort="max"), "max", ()),
        (Thinking(effort="minimal"), "low", ("thinking.effort",)),
        (Thinking(effort="xhigh"), "high", ("thinking.effort",)),
        (Thinking(effort="odd"), True, ("thinking.effort",)),
        (Thinking(True, budget_tokens=900), True, ("thinking.budget_tokens",)),
        (Thinking(budget_tokens=-1), True, ()),
        (Thinking(budget_tokens=0), False, ()),
        (Thinking(show=True), None, ()),
        (Thinking(True, show=False), True, ("thinking.show",)),
    ],
)
def test_thinking_is_switched_or_levelled(thinking: Thinking, think: object, losses: tuple[str, ...]) -> None:
    """A level that servers do not know becomes the nearest one, and that is told."""
    given = render(thinking=thinking)
    assert (given.data.get("think"), given.losses) == (think, losses)


@pytest.mark.parametrize(
    ("choice", "kept", "losses"),
    [
        (ToolChoice(Choice.AUTO, parallel=True), True, ()),
        (ToolChoice(Choice.AUTO, parallel=False), True, ("parallel_tool_calls",)),
        (ToolChoice(Choice.REQUIRED), True, ("tool_choice",)),
        (ToolChoice(Choice.NAMED, "f"), True, ("tool_choice",)),
        (ToolChoice(Choice.NONE), False, ("tools",)),
    ],
)
def test_only_a_free_choice_of_tools_can_be_said(
    choice: ToolChoice, kept: bool, losses: tuple[str, ...]
) -> None:
    """Where none may be called, none is shown."""
    given = render(tools=(Tool("f"),), tool_choice=choice)
    assert ("tools" in given.data, given.losses) == (kept, losses)


def test_a_tool_is_a_function() -> None:
    """What else a tool says is lost."""
    given = render(
        tools=(Tool("f", "F", {"type": "object"}, True, MARK), Tool("g"), Opaque(OTHER, "bash", {}))
    )
    assert given.data["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "F", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "g", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert given.losses == ("cache_control", "tools[].strict", "tool:bash")


def test_a_setting_without_a_place_is_a_loss() -> None:
    """Where it says something."""
    assert render(n=1, service_tier="auto").losses == ()
    given = render(n=2, user="u", metadata={"a": "b"}, service_tier="flex", rest={"container": 1})
    assert given.losses == ("n", "user", "metadata", "service_tier", "container")


def test_a_conversation_becomes_one_prompt() -> None:
    """With the system prompt in its own field, and the fact that turns are turns no more as a loss."""
    given = render(
        Turn(Role.SYSTEM, (Text("s"),)),
        Turn(Role.USER, (PNG, Text("a"))),
        Turn(Role.ASSISTANT, (Text("b"),)),
        Turn(Role.USER, (Text("c"),)),
        to=OLLAMA_GENERATE,
        tools=(Tool("f"),),
    )
    assert given.data == {
        "model": "served",
        "system": "s",
        "prompt": "User: a\n\nAssistant: b\n\nUser: c\n\nAssistant:",
        "images": ["AAAA"],
        "stream": False,
    }
    assert given.losses == ("messages", "tools")


def test_within_the_family_options_are_kept_and_the_rest_is_told() -> None:
    """A chat can be a completion, and the other way round."""
    chat = OLLAMA_CHAT.open(
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"options":{"num_ctx":9,"num_gpu":1,"num_predict":-1},'
        b'"keep_alive":"1m","shift":false,"x_new":1}'
    )
    given = OLLAMA_GENERATE.render(OLLAMA_CHAT.parse(chat), model="n", max_output_tokens=None)
    assert given.data == {
        "model": "n",
        "prompt": "a",
        "stream": True,
        "shift": False,
        "keep_alive": "1m",
        "options": {"num_ctx": 9, "num_gpu": 1, "num_predict": -1},
    }
    assert given.losses == ("x_new",)
    generate = OLLAMA_GENERATE.open(b'{"prompt":"a","system":"s","template":"t"}')
    other = OLLAMA_CHAT.render(OLLAMA_GENERATE.parse(generate), model="n", max_output_tokens=3)
    assert other.data["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    assert other.losses == ("template",)


def test_a_cap_of_the_dispatcher_goes_before_the_callers_wish_for_none() -> None:
    """`num_predict` is one field for both."""
    request = OLLAMA_GENERATE.open(b'{"prompt":"a","options":{"num_predict":-1}}')
    given = OLLAMA_GENERATE.render(OLLAMA_GENERATE.parse(request), model="n", max_output_tokens=3)
    assert given.data["options"] == {"num_predict": 3}
