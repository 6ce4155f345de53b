from __future__ import annotations

from typing import Any

import orjson

from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.types import (
    Call,
    Choice,
    Dialect,
    Image,
    Json,
    Opaque,
    OutputFormat,
    Part,
    Reasoning,
    Role,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)

ANTHROPIC = Dialect.ANTHROPIC_MESSAGES


def parse(**members: Any) -> Call:
    whole = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **members}
    return ANTHROPIC_MESSAGES.parse(ANTHROPIC_MESSAGES.open(orjson.dumps(whole)))


def part(block: Json, role: str = "assistant") -> Part:
    return parse(messages=[{"role": role, "content": [block]}]).turns[0].parts[0]


def test_a_plain_call_is_its_fields() -> None:
    """Everything with a canonical place goes there, and streams always tell their usage."""
    call = parse(
        stream=True,
        temperature=0.5,
        top_p=0.9,
        stop_sequences=["END"],
        metadata={"user_id": "u1"},
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
    )
    assert call == Call(
        dialect=ANTHROPIC,
        model="m",
        turns=(Turn(Role.USER, (Text("hi"),)),),
        stream=True,
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        stop=("END",),
        output=OutputFormat({"type": "object"}),
        user="u1",
        include_usage=True,
    )


def test_system_leads_and_system_messages_stay_in_place() -> None:
    """The top-level `system` is the first turn; a system message in the middle is a turn in the middle."""
    call = parse(
        system=[
            {"type": "text", "text": "a"},
            {"type": "text", "text": "b", "cache_control": {"type": "ephemeral"}},
        ],
        messages=[{"role": "user", "content": "hi"}, {"role": "system", "content": "now brief"}],
    )
    assert call.turns == (
        Turn(Role.SYSTEM, (Text("a"), Text("b", {"cache_control": {"type": "ephemeral"}}))),
        Turn(Role.USER, (Text("hi"),)),
        Turn(Role.SYSTEM, (Text("now brief"),)),
    )


def test_tool_results_become_a_turn_of_their_own_before_the_rest() -> None:
    """One user message with results and words is a TOOL turn and then a USER turn."""
    call = parse(
        messages=[
            {
                "role": "user",
                "name_tag": "kept",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": "fine"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "b",
                        "content": [{"type": "text", "text": "no"}],
                        "is_error": True,
                    },
                    {"type": "text", "text": "and?"},
                ],
            }
        ]
    )
    assert call.turns == (
        Turn(Role.TOOL, (ToolResult("a", (Text("fine"),)), ToolResult("b", (Text("no"),), is_error=True))),
        Turn(Role.USER, (Text("and?"),), rest={"name_tag": "kept"}),
    )


def test_a_message_of_results_alone_is_one_turn() -> None:
    """No empty user turn follows, and what else the message held stays with the results."""
    call = parse(
        messages=[{"role": "user", "x": 1, "content": [{"type": "tool_result", "tool_use_id": "a"}]}]
    )
    assert call.turns == (Turn(Role.TOOL, (ToolResult("a", ()),), rest={"x": 1}),)


def test_every_kind_of_block_has_its_part() -> None:
    """Canonical where there is a canonical form, whole and opaque where there is none."""
    assert part(
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1, "ü"]}, "caller": {"type": "direct"}}
    ) == (ToolUse("t", "f", '{"a":[1,"ü"]}', {"caller": {"type": "direct"}}))
    assert part({"type": "thinking", "thinking": "hm", "signature": "s"}) == Reasoning(
        "hm", "anthropic_messages:s"
    )
    assert part({"type": "thinking", "thinking": "hm"}) == Reasoning("hm")
    assert part({"type": "redacted_thinking", "data": "d"}) == Reasoning(redacted="anthropic_messages:d")
    source = {"type": "base64", "media_type": "image/png", "data": "AA=="}
    assert part({"type": "image", "source": source, "cache_control": {}}, "user") == (
        Image(media_type="image/png", data="AA==", rest={"cache_control": {}})
    )
    assert part({"type": "image", "source": {"type": "url", "url": "https://x/y"}}, "user") == Image(
        "https://x/y"
    )
    for kind in ("document", "server_tool_use", "web_search_tool_result", "not_invented_yet"):
        raw = {"type": kind, "id": "x"}
        assert part(raw) == Opaque(ANTHROPIC, kind, raw)


def test_a_known_block_of_an_unknown_shape_is_kept_whole() -> None:
    """An image by file id, and whatever a later version of the API adds to a source, is opaque and not lost."""
    for source in ({"type": "file", "file_id": "f"}, {"type": "url", "url": "https://x", "new": 1}):
        raw = {"type": "image", "source": source}
        assert part(raw, "user") == Opaque(ANTHROPIC, "image", raw)
    unsigned: Json = {"type": "thinking", "thinking": "t", "signature": 4}
    assert part(unsigned) == Opaque(ANTHROPIC, "thinking", unsigned)


def test_tools_keep_what_has_no_canonical_place() -> None:
    """Callers' tools are canonical, server tools opaque."""
    search = {"type": "web_search_20250305", "name": "web_search"}
    call = parse(
        tools=[
            {
                "type": "custom",
                "name": "f",
                "description": "d",
                "input_schema": {"type": "object"},
                "strict": True,
            },
            {"name": "g", "input_schema": {}, "cache_control": {"type": "ephemeral"}},
            search,
        ]
    )
    assert call.tools == (
        Tool("f", "d", {"type": "object"}, strict=True),
        Tool("g", rest={"cache_control": {"type": "ephemeral"}}),
        Opaque(ANTHROPIC, "web_search_20250305", search),
    )


def test_tool_choices() -> None:
    """Four kinds; parallel use is said the other way round; a fifth kind is kept for its own dialect."""
    assert parse().tool_choice is None
    assert parse(tool_choice={"type": "auto"}).tool_choice == ToolChoice(Choice.AUTO)
    assert parse(tool_choice={"type": "any", "disable_parallel_tool_use": True}).tool_choice == (
        ToolChoice(Choice.REQUIRED, parallel=False)
    )
    assert parse(
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": False}
    ).tool_choice == (ToolChoice(Choice.NAMED, "f", parallel=True))
    assert parse(tool_choice={"type": "none"}).tool_choice == ToolChoice(Choice.NONE)
    call = parse(tool_choice={"type": "some"})
    assert (call.tool_choice, call.rest) == (None, {"tool_choice": {"type": "some"}})


def test_what_has_no_canonical_place_is_kept_by_its_wire_name() -> None:
    """Unknown members, and what is left of half-known ones; null says nothing."""
    call = parse(
        top_k="5",
        service_tier=1,
        thinking={"type": "between_tools"},
        metadata={"user_id": "u", "trace": "t"},
        output_config={"effort": 4, "format": {"type": "json_schema", "schema": {}}, "odd": 1},
        container=None,
        brand_new=[1],
    )
    assert call.rest == {
        "top_k": "5",
        "service_tier": 1,
        "thinking": {"type": "between_tools"},
        "output_config": {"effort": 4, "odd": 1},
        "brand_new": [1],
    }
    assert (call.user, call.metadata) == ("u", {"trace": "t"})


def test_an_output_format_of_another_kind_is_kept_as_it_is() -> None:
    """Only a JSON schema is canonical; so is a user id that is text."""
    call = parse(
        output_config={"format": {"type": "grammar"}}, output_format={"x": 1}, metadata={"user_id": None}
    )
    assert call.output is None
    assert call.rest == {
        "output_config": {"format": {"type": "grammar"}},
        "output_format": {"x": 1},
    }


def test_the_older_output_format_is_the_same_format() -> None:
    """`output_format` says what `output_config.format` says today."""
    call = parse(output_format={"type": "json_schema", "schema": {"a": 1}}, output_config={"effort": "low"})
    assert call.output == OutputFormat({"a": 1})
    assert call.thinking.effort == "low"
    assert call.rest == {}
