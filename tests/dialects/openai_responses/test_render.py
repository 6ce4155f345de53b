from __future__ import annotations

from typing import Any

import pytest

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_responses import OPENAI_RESPONSES
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
    Part,
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

HELLO = Turn(Role.USER, (Text("Hello"),))
OWN_SEAL = "openai_responses:gAAAA"


def rendered(
    *turns: Turn, model: str = "gpt-5.6", dialect: Dialect = Dialect.OPENAI_CHAT, **more: Any
) -> Rendered:
    call = Call(dialect, "asked", turns or (HELLO,), **more)
    return OPENAI_RESPONSES.render(call, model=model, max_output_tokens=None)


def items(*turns: Turn, **more: Any) -> list[Json]:
    found: list[Json] = rendered(*turns, **more).data["input"]
    return found


def assistant(*parts: Part) -> Turn:
    return Turn(Role.ASSISTANT, parts)


def test_nothing_of_a_foreign_call_is_stored_and_its_thoughts_can_come_back() -> None:
    """Whoever speaks another dialect knows nothing of what this provider would keep."""
    result = rendered(stream=True)
    assert result.data == {
        "model": "gpt-5.6",
        "input": [{"type": "message", "role": "user", "content": "Hello"}],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "stream": True,
    }
    assert result.losses == ()


@pytest.mark.parametrize(
    "model", ["gpt-4o-mini", "gpt-4.1", "openai/gpt-4.1-nano", "ft:gpt-4o:x", "gpt-5-chat-latest"]
)
def test_models_that_do_not_think_are_not_asked_for_their_thoughts(model: str) -> None:
    """They answer 400 to it."""
    assert "include" not in rendered(model=model).data


def test_leading_system_turns_are_the_instructions() -> None:
    """Later ones are the developer's messages, in their place."""
    result = rendered(
        Turn(Role.SYSTEM, (Text("A"), Text("B"))),
        Turn(Role.SYSTEM, (Text("C"),)),
        HELLO,
        Turn(Role.SYSTEM, (Text("D"),)),
    ).data
    assert result["instructions"] == "A\n\nB\n\nC"
    assert result["input"][1:] == [{"type": "message", "role": "developer", "content": "D"}]


def test_a_conversation_has_at_least_one_item() -> None:
    """Instructions alone are none."""
    assert items(Turn(Role.SYSTEM, (Text("A"),))) == [{"type": "message", "role": "user", "content": ""}]


def test_what_a_user_sends_is_input() -> None:
    """Texts, images, documents and sound each have their part."""
    turn = Turn(
        Role.USER,
        (
            Text("see"),
            Image("https://e.com/a.png"),
            Image(media_type="image/png", data="QQ==", detail="low"),
            File(media_type="application/pdf", data="JVBE"),
            File("https://e.com/b.pdf", name="b.pdf"),
            File(file_id="file-1"),
            Audio("audio/mpeg", "SUQz"),
        ),
    )
    assert items(turn)[0]["content"] == [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": "https://e.com/a.png", "detail": "auto"},
        {"type": "input_image", "image_url": "data:image/png;base64,QQ==", "detail": "low"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,JVBE", "filename": "file.pdf"},
        {"type": "input_file", "file_url": "https://e.com/b.pdf", "filename": "b.pdf"},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}},
    ]


def test_what_the_model_did_is_told_in_order() -> None:
    """Messages, sealed thoughts and calls are items of their own; results stand before what the user says."""
    turn = assistant(
        Reasoning("Hm.", redacted=OWN_SEAL, id="rs_1", summary=True),
        Text("I look."),
        Refusal("Not that."),
        ToolUse("c1", "look", ""),
        Text("Done."),
    )
    results = Turn(Role.USER, (Text("next"), ToolResult("c1", (Text("a"), Text("b")), is_error=False)))
    assert items(turn, results) == [
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "gAAAA",
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "I look.", "annotations": []},
                {"type": "refusal", "refusal": "Not that."},
            ],
        },
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Done.", "annotations": []}],
        },
        {"type": "function_call_output", "call_id": "c1", "output": "a\nb"},
        {"type": "message", "role": "user", "content": "next"},
    ]


def test_thoughts_of_one_item_come_together_again() -> None:
    """A client of another dialect gives the shown text and the seal back as two thoughts."""
    turn = assistant(Reasoning("Hm."), Reasoning(redacted=OWN_SEAL), Reasoning(signature=OWN_SEAL))
    assert items(turn) == [
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "gAAAA",
        },
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAAA"},
    ]


@pytest.mark.parametrize(
    ("thought", "losses"),
    [
        (Reasoning("Hm."), ("part:thinking",)),
        (Reasoning("Hm.", "anthropic_messages:EqMB"), ("part:thinking", "thinking.signature")),
        (Reasoning(signature="anthropic_messages:EqMB"), ("thinking.signature",)),
        (Reasoning(redacted="gemini:x"), ("part:redacted_thinking",)),
    ],
)
def test_thoughts_that_nobody_here_sealed_are_a_loss(thought: Reasoning, losses: tuple[str, ...]) -> None:
    """A provider takes back only its own; the text and its seals are named apart."""
    result = rendered(assistant(thought, Text("x")))
    assert [item["type"] for item in result.data["input"]] == ["message"]
    assert result.losses == losses


def test_the_proof_that_a_tool_call_carries_is_a_loss() -> None:
    """There is no place for it beside a function call."""
    result = rendered(assistant(ToolUse("call_1", "look", "{}", signature="gemini:c2ln")))
    assert result.losses == ("thinking.signature",)


def test_a_thought_that_another_dialect_sealed_does_not_pass_here_either() -> None:
    """A caller of this dialect was shown it by another provider; this one could not open it."""
    body = b"""{"input":[{"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"x"}],
        "encrypted_content":"tokenhub-seal:anthropic_messages:EqMB#signed"},{"role":"user","content":"go"}]}"""
    call = OPENAI_RESPONSES.parse(OPENAI_RESPONSES.open(body))
    result = OPENAI_RESPONSES.render(call, model="m", max_output_tokens=None)
    assert result.data["input"] == [{"type": "message", "role": "user", "content": "go"}]
    assert result.losses == ("part:thinking", "thinking.signature")


def test_errors_of_tools_are_told_in_words() -> None:
    """There is no mark for them; with an image the words are a part of their own."""
    image = Image(media_type="image/png", data="QQ==")
    results = (ToolResult("a", (Text("no"),), is_error=True), ToolResult("b", (image,), is_error=True))
    first, second = items(Turn(Role.TOOL, results))
    assert first["output"] == "Error: no"
    assert [part["type"] for part in second["output"]] == ["input_text", "input_image"]


def test_call_ids_fit_and_still_agree() -> None:
    """Ids that are too long become short ones, missing ones are counted; a result finds its call."""
    long = "toolu_" + "x" * 80
    found = items(
        assistant(ToolUse(long, "f", "{}"), ToolUse("", "g", "{}"), ToolUse("", "h", "{}")),
        Turn(Role.TOOL, (ToolResult(long, ()), ToolResult("", ()), ToolResult("", ()))),
    )
    ids = [item["call_id"] for item in found]
    assert ids[:3] == ids[3:]
    assert len(set(ids)) == 3
    assert all(len(id_) <= 64 for id_ in ids)


def test_functions_are_not_strict_unless_it_is_said() -> None:
    """Here silence would mean strict, elsewhere it does not; and a function always has a schema."""
    result = rendered(
        tools=(
            Tool("f", "F.", {"type": "object"}, True),
            Tool("g", rest={"cache_control": {}}),
            Opaque(Dialect.OPENAI_CHAT, "custom", {}),
        ),
        tool_choice=ToolChoice(Choice.NAMED, "f", parallel=False),
    )
    assert result.data["tools"] == [
        {
            "type": "function",
            "name": "f",
            "description": "F.",
            "parameters": {"type": "object"},
            "strict": True,
        },
        {
            "type": "function",
            "name": "g",
            "parameters": {"type": "object", "properties": {}},
            "strict": False,
        },
    ]
    assert result.data["tool_choice"] == {"type": "function", "name": "f"}
    assert result.data["parallel_tool_calls"] is False
    assert result.losses == ("cache_control", "tool:custom")


@pytest.mark.parametrize(("kind", "losses"), [(Choice.REQUIRED, ("tool_choice",)), (Choice.AUTO, ())])
def test_a_choice_without_tools_is_left_out(kind: Choice, losses: tuple[str, ...]) -> None:
    """It would be rejected."""
    result = rendered(tool_choice=ToolChoice(kind))
    assert "tool_choice" not in result.data
    assert result.losses == losses


def test_settings_have_their_places() -> None:
    """What both dialects know is carried."""
    data = rendered(
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=100,
        output=OutputFormat({"type": "object"}, "", True),
        logprobs=2,
        metadata={"a": "b"},
        service_tier="flex",
        user="u",
    ).data
    assert data["text"] == {
        "format": {"type": "json_schema", "name": "output", "schema": {"type": "object"}, "strict": True}
    }
    assert data["include"] == ["reasoning.encrypted_content", "message.output_text.logprobs"]
    wanted = {"temperature": 0.5, "top_p": 0.9, "max_output_tokens": 100, "top_logprobs": 2, "user": "u"}
    wanted |= {"metadata": {"a": "b"}, "service_tier": "flex"}
    assert {name: data[name] for name in wanted} == wanted
    assert rendered(output=OutputFormat()).data["text"] == {"format": {"type": "json_object"}}


def test_settings_without_a_place_are_losses() -> None:
    """Each under its name; members of other dialects by theirs, except those that only steer the wire."""
    result = rendered(
        stop=("x",),
        top_k=1,
        seed=0,
        n=2,
        frequency_penalty=0.1,
        presence_penalty=0.1,
        service_tier="turbo",
        rest={"logit_bias": {}, "stream_options": {}},
    )
    assert set(result.losses) == {
        "stop",
        "top_k",
        "seed",
        "n",
        "frequency_penalty",
        "presence_penalty",
        "service_tier",
        "logit_bias",
    }
    assert rendered(n=1, frequency_penalty=0.0).losses == ()


@pytest.mark.parametrize(
    ("part", "loss"),
    [
        (Audio("audio/flac", "x"), "part:audio"),
        (Audio(id="audio_1"), "part:audio"),
        (Image(), "part:image"),
        (File(), "part:file"),
        (Reasoning("x"), "part:thinking"),
        (Opaque(Dialect.OPENAI_CHAT, "hologram", {}), "part:hologram"),
    ],
)
def test_parts_without_a_place_are_losses(part: Part, loss: str) -> None:
    """Named by their kind."""
    assert rendered(Turn(Role.USER, (part, Text("x")))).losses == (loss,)


def test_a_file_of_another_makers_provider_is_a_loss() -> None:
    """Its id means nothing here."""
    turn = Turn(Role.USER, (Text("x"), File(file_id="file_011")))
    assert rendered(turn, dialect=Dialect.ANTHROPIC_MESSAGES).losses == ("part:file",)


def test_a_cap_below_the_least_is_raised() -> None:
    """It would be rejected; a caller of this dialect is told so by the provider itself."""
    result = rendered(max_output_tokens=1)
    assert (result.data["max_output_tokens"], result.losses) == (16, ("max_output_tokens",))
    own = rendered(dialect=Dialect.OPENAI_RESPONSES, max_output_tokens=1)
    assert (own.data["max_output_tokens"], own.losses) == (1, ())


def test_the_engines_cap_goes_before_the_callers() -> None:
    """It knows what the model can do."""
    call = Call(Dialect.OPENAI_CHAT, "m", (HELLO,), max_output_tokens=100)
    assert OPENAI_RESPONSES.render(call, model="m", max_output_tokens=50).data["max_output_tokens"] == 50


@pytest.mark.parametrize(
    ("thinking", "reasoning", "losses"),
    [
        (Thinking(), None, ()),
        (Thinking(True, "low", show=True), {"effort": "low", "summary": "auto"}, ()),
        (Thinking(False), {"effort": "none"}, ()),
        (Thinking(True), {"effort": "medium"}, ()),
        (Thinking(True, budget_tokens=-1), {"effort": "medium"}, ()),
        (Thinking(budget_tokens=0), {"effort": "none"}, ()),
        (Thinking(True, budget_tokens=1024), {"effort": "low"}, ("thinking.budget_tokens",)),
        (Thinking(True, budget_tokens=8000), {"effort": "medium"}, ("thinking.budget_tokens",)),
        (Thinking(True, budget_tokens=32000), {"effort": "high"}, ("thinking.budget_tokens",)),
        (Thinking(True, show=False), {"effort": "medium"}, ()),
    ],
)
def test_thinking_is_an_effort(thinking: Thinking, reasoning: Json | None, losses: tuple[str, ...]) -> None:
    """A budget becomes the nearest one, and is named."""
    result = rendered(thinking=thinking)
    assert (result.data.get("reasoning"), result.losses) == (reasoning, losses)


def test_what_has_the_same_name_and_place_here_is_adopted() -> None:
    """Cache keys and marks are this dialect's own words, whoever used them."""
    mark = {"mode": "explicit"}
    turn = Turn(Role.USER, (Text("x", {"prompt_cache_breakpoint": mark, "cache_control": {}}),))
    result = rendered(turn, rest={"prompt_cache_key": "k", "safety_identifier": "s", "odd": 1})
    assert result.data["input"][0]["content"] == [
        {"type": "input_text", "text": "x", "prompt_cache_breakpoint": mark}
    ]
    assert (result.data["prompt_cache_key"], result.data["safety_identifier"]) == ("k", "s")
    assert result.losses == ("cache_control", "odd")
