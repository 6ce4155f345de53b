from __future__ import annotations

from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.openai_responses import OPENAI_RESPONSES
from tokenhub_core.errors import Blame, Kind, TokenHubError
from tokenhub_core.types import (
    Call,
    Choice,
    Dialect,
    File,
    Image,
    Json,
    Opaque,
    OutputFormat,
    Reasoning,
    Role,
    Text,
    Thinking,
    ToolChoice,
    ToolResult,
    ToolUse,
)


def parsed(**fields: Any) -> Call:
    body = orjson.dumps({"model": "m", "input": "Hello"} | fields)
    return OPENAI_RESPONSES.parse(OPENAI_RESPONSES.open(body))


def said(text: str, role: str = "assistant") -> Json:
    return {"role": role, "content": text}


def called(id_: str) -> Json:
    return {"type": "function_call", "id": "fc_1", "call_id": id_, "name": "f", "arguments": "{}"}


def answered(id_: str, output: object = "ok") -> Json:
    return {"type": "function_call_output", "call_id": id_, "output": output}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"input": [said("x", "user"), {"type": "item_reference", "id": "msg_1"}]}, "input[1]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[0]"),
    ],
)
def test_what_a_provider_holds_cannot_be_told_elsewhere(fields: Json, param: str) -> None:
    """The caller hears which field leans on stored state, and what to do instead."""
    with pytest.raises(TokenHubError) as caught:
        parsed(**fields)
    fault = caught.value.fault
    assert (fault.kind, fault.blame, fault.param) == (Kind.INVALID, Blame.CLIENT, param)
    assert fault.cause == "stored_state"
    assert "provider" in fault.message


@pytest.mark.parametrize(
    "fields",
    [
        {"store": True},
        {"store": False},
        {"background": False},
        {"truncation": "disabled"},
        {"stream_options": {"include_obfuscation": True}},
        {"include": ["reasoning.encrypted_content"]},
        {"text": {"format": {"type": "text"}}},
        {"top_logprobs": 0},
        {"reasoning": {"summary": "concise"}},
        {"input": [{**said("x", "user"), "status": "completed", "id": "msg_1"}]},
        {"input": [called("c")]},
    ],
)
def test_what_changes_nothing_is_no_loss(fields: Json) -> None:
    """Another dialect has nothing to name, and this one puts it back."""
    call = parsed(**fields)
    assert list(call.rest) == []
    assert all(not turn.rest for turn in call.turns)
    assert all(
        not part.rest for turn in call.turns for part in turn.parts if isinstance(part, Text | ToolUse)
    )
    rendered = OPENAI_RESPONSES.render(call, model="m", max_output_tokens=None).data
    for name in fields.keys() - {"input"}:
        assert rendered[name] == fields[name]


def test_items_of_an_assistant_become_one_turn() -> None:
    """Thoughts, a message and calls belong together, and so do the results."""
    call = parsed(
        instructions="I",
        input=[
            said("D", "developer"),
            said("U", "user"),
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
            said("I look."),
            called("c1"),
            {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "y"},
            called("c2"),
            answered("c1"),
            answered("c2"),
            said("Well."),
            said("A cat."),
        ],
    )
    assert [turn.role for turn in call.turns] == [
        Role.SYSTEM,
        Role.SYSTEM,
        Role.USER,
        Role.ASSISTANT,
        Role.TOOL,
        Role.ASSISTANT,
        Role.ASSISTANT,
    ]
    assert [type(part) for part in call.turns[3].parts] == [Reasoning, Text, ToolUse, Reasoning, ToolUse]
    assert [part.id for part in call.turns[4].parts if isinstance(part, ToolResult)] == ["c1", "c2"]


def test_a_calls_id_is_its_call_id() -> None:
    """The item's own id names the item, and no other dialect hears of it."""
    use = parsed(input=[called("call_9")]).turns[0].parts[0]
    assert isinstance(use, ToolUse)
    assert (use.id, dict(use.rest)) == ("call_9", {})


def test_a_tool_may_give_out_more_than_text() -> None:
    """A list of parts is read as one, and an image stays an image."""
    image = {"type": "input_image", "image_url": "data:image/png;base64,QQ=="}
    result = parsed(input=[answered("c", [{"type": "input_text", "text": "see"}, image])]).turns[0].parts[0]
    assert isinstance(result, ToolResult)
    assert result.content == (Text("see"), Image(media_type="image/png", data="QQ=="))


def test_a_reasoning_item_may_be_several_thoughts() -> None:
    """Each piece is one; the item's seal is on the last, and names this dialect as its maker."""
    item = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "A"}],
        "content": [{"type": "reasoning_text", "text": "R"}],
        "encrypted_content": "gAAAA",
    }
    assert parsed(input=[item]).turns[0].parts == (
        Reasoning("R", id="rs_1"),
        Reasoning("A", redacted="openai_responses:gAAAA", id="rs_1", summary=True),
    )


@pytest.mark.parametrize(
    ("sealed", "signature", "redacted"),
    [
        ("tokenhub-seal:anthropic_messages:EqMB#signed", "anthropic_messages:EqMB", ""),
        ("tokenhub-seal:anthropic_messages:EqMB", "", "anthropic_messages:EqMB"),
    ],
)
def test_a_seal_of_another_dialect_is_what_it_was(sealed: str, signature: str, redacted: str) -> None:
    """A signature stays one even where the thought that it is on was never shown."""
    item = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": sealed}
    assert parsed(input=[item]).turns[0].parts == (
        Reasoning(signature=signature, redacted=redacted, id="rs_1"),
    )


def test_the_seal_of_a_call_goes_to_the_call() -> None:
    """It travels in an item of its own before the call."""
    item = {"type": "reasoning", "summary": [], "encrypted_content": "tokenhub-seal:gemini:Sig#call"}
    parts = parsed(input=[item, called("c")]).turns[0].parts
    assert [(part.id, part.signature) for part in parts if isinstance(part, ToolUse)] == [("c", "gemini:Sig")]
    assert len(parts) == 1


def test_what_only_this_dialect_understands_is_kept() -> None:
    """Items and tools of other kinds, and images that the provider holds, are opaque, with their kind."""
    call = parsed(
        input=[
            {"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]},
            {"type": "web_search_call", "id": "ws_1"},
            {"type": "computer_call_output", "call_id": "c", "output": {}},
        ],
        tools=[{"type": "web_search"}],
    )
    kinds = [(turn.role, part.kind) for turn in call.turns for part in turn.parts if isinstance(part, Opaque)]
    assert kinds == [
        (Role.USER, "input_image"),
        (Role.ASSISTANT, "web_search_call"),
        (Role.TOOL, "computer_call_output"),
    ]
    assert call.tools == (Opaque(Dialect.OPENAI_RESPONSES, "web_search", {"type": "web_search"}),)


def test_files_come_by_value_by_address_and_by_id() -> None:
    """The data of a data URL are bare, with their type beside them."""
    parts = [
        {"type": "input_file", "file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"},
        {"type": "input_file", "file_url": "https://e.com/b.pdf"},
        {"type": "input_file", "file_id": "file-1"},
    ]
    assert parsed(input=[{"role": "user", "content": parts}]).turns[0].parts == (
        File(media_type="application/pdf", data="JVBE", name="a.pdf"),
        File("https://e.com/b.pdf"),
        File(file_id="file-1"),
    )


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({"tool_choice": "none"}, ToolChoice(Choice.NONE)),
        (
            {"tool_choice": "required", "parallel_tool_calls": True},
            ToolChoice(Choice.REQUIRED, parallel=True),
        ),
        ({"tool_choice": {"type": "function", "name": "f"}}, ToolChoice(Choice.NAMED, "f")),
        ({"parallel_tool_calls": False}, ToolChoice(parallel=False)),
        ({"tool_choice": {"type": "web_search"}}, None),
    ],
)
def test_tool_choices(fields: Json, choice: ToolChoice | None) -> None:
    """Choices of hosted tools stay where they are, for another dialect to name."""
    call = parsed(**fields)
    assert call.tool_choice == choice
    assert ("tool_choice" in call.rest) == (choice is None)


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"top_logprobs": 3}, 3),
        ({"include": ["message.output_text.logprobs"]}, 0),
        ({"include": ["message.output_text.logprobs"], "top_logprobs": 0}, 0),
        ({"include": ["reasoning.encrypted_content"]}, None),
    ],
)
def test_log_probabilities_are_asked_for_in_two_ways(fields: Json, count: int | None) -> None:
    """By how many, or by wanting them included."""
    assert parsed(**fields).logprobs == count


@pytest.mark.parametrize(
    ("reasoning", "thinking"),
    [
        ({"effort": "high", "summary": "detailed"}, Thinking(True, "high", show=True)),
        ({"effort": "none"}, Thinking(False, "none")),
        ({"generate_summary": "auto"}, Thinking(show=True)),
        ({}, Thinking()),
    ],
)
def test_thinking(reasoning: Json, thinking: Thinking) -> None:
    """The effort says whether to think, the wish for a summary that it is to be shown."""
    assert parsed(reasoning=reasoning).thinking == thinking


@pytest.mark.parametrize(
    ("form", "output", "left"),
    [
        ({"type": "json_object"}, OutputFormat(), []),
        (
            {"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True, "description": "d"},
            OutputFormat({"a": 1}, "n", True),
            ["text.format.description"],
        ),
        ({"type": "grammar"}, None, ["text.format"]),
    ],
)
def test_output_formats(form: Json, output: OutputFormat | None, left: list[str]) -> None:
    """What has no canonical place is named by its path."""
    call = parsed(text={"format": form, "verbosity": "low"})
    assert call.output == output
    assert list(call.rest) == ["text.verbosity", *left]


@pytest.mark.parametrize(
    ("fields", "user", "left"),
    [
        ({"user": "u"}, "u", []),
        ({"safety_identifier": "s"}, "s", []),
        ({"user": "u", "safety_identifier": "s"}, "u", ["safety_identifier"]),
    ],
)
def test_the_user_has_two_names(fields: Json, user: str, left: list[str]) -> None:
    """Each is put back as the caller spelled it."""
    call = parsed(**fields)
    assert (call.user, list(call.rest)) == (user, left)
    rendered = OPENAI_RESPONSES.render(call, model="m", max_output_tokens=None).data
    assert {name: rendered[name] for name in fields} == fields
