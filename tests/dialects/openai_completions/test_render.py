from __future__ import annotations

from typing import Any

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_completions import OPENAI_COMPLETIONS
from tokenhub_core.types import (
    Call,
    Choice,
    Dialect,
    Image,
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


def render(*turns: Turn, cap: int | None = None, **fields: Any) -> Rendered:
    call = Call(Dialect.ANTHROPIC_MESSAGES, "asked", turns or (Turn(Role.USER, (Text("Hi"),)),), **fields)
    return OPENAI_COMPLETIONS.render(call, model="served", max_output_tokens=cap)


def test_a_lone_text_is_the_prompt() -> None:
    """Nothing is added to it, and nothing lost."""
    assert render() == Rendered({"model": "served", "prompt": "Hi"}, ())


def test_a_conversation_is_told_in_one_text() -> None:
    """Speakers are named, and the assistant has the last word; what no text can hold is a loss."""
    found = render(
        Turn(Role.SYSTEM, (Text("Be brief.", {"cache_control": {}}),)),
        Turn(Role.USER, (Text("a"), Image(url="u"), Text("b")), "ana"),
        Turn(Role.ASSISTANT, (Reasoning("hm"), Text("c"), Refusal("d"), ToolUse("1", "f", "{}"))),
        Turn(Role.TOOL, (ToolResult("1", (Text("r"),)),)),
        Turn(Role.USER, (Text("e"),), rest={"x": 1}),
    )
    assert found.data["prompt"] == "Be brief.\n\nUser: a\nb\n\nAssistant: cd\n\nUser: e\n\nAssistant:"
    assert found.losses == (
        *("cache_control", "name", "part:image", "part:thinking", "part:tool_use", "part:tool_result"),
        *("x", "messages"),
    )


def test_words_that_the_assistant_has_begun_are_gone_on_with() -> None:
    """No new turn begins after them."""
    found = render(Turn(Role.USER, (Text("a"),)), Turn(Role.ASSISTANT, (Text("b"),)))
    assert found.data["prompt"] == "User: a\n\nAssistant: b"
    assert render(Turn(Role.USER, ())).data["prompt"] == ""


def test_settings_are_written_and_the_others_are_losses() -> None:
    """The dispatcher's cap wins, and a stream tells its usage."""
    found = render(
        cap=5,
        max_output_tokens=9,
        stream=True,
        temperature=0.5,
        top_p=0.9,
        stop=("x",),
        seed=1,
        n=2,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        logprobs=3,
        user="u",
        top_k=4,
        tools=(Tool("f"),),
        tool_choice=ToolChoice(Choice.REQUIRED),
        output=OutputFormat(),
        thinking=Thinking(True),
        metadata={"a": "b"},
        service_tier="flex",
        rest={"container": 1},
    )
    assert found.data == {
        "model": "served",
        "prompt": "Hi",
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["x"],
        "seed": 1,
        "n": 2,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "logprobs": 3,
        "user": "u",
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert found.losses == (
        *("tools", "tool_choice", "response_format", "top_k", "thinking", "metadata", "service_tier"),
        "container",
    )
    assert render(tool_choice=ToolChoice(), service_tier="auto").losses == ()
