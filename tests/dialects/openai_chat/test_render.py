from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
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
    Refusal,
    Role,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)

OTHER = Dialect.ANTHROPIC_MESSAGES
MARK = {"cache_control": {"type": "ephemeral"}}


def render(*turns: Turn, cap: int | None = None, **fields: Any) -> Rendered:
    call = Call(OTHER, "asked", turns or (Turn(Role.USER, (Text("Hi"),)),), **fields)
    return OPENAI_CHAT.render(call, model="served", max_output_tokens=cap)


def messages(*turns: Turn) -> list[Json]:
    found: list[Json] = render(*turns).data["messages"]
    return found


def opaque(kind: str) -> Opaque:
    return Opaque(OTHER, kind, {"type": kind})


def user(*parts: Part) -> Turn:
    return Turn(Role.USER, parts)


def test_a_whole_foreign_call_becomes_this_body(golden: Callable[[str, object], None]) -> None:
    """What a chat provider gets of a rich call from another dialect, and what it does not get, is written down."""
    rendered = render(
        Turn(Role.SYSTEM, (Text("Be brief.", MARK), Text("Use metric units."))),
        user(Text("Look", MARK), Image(media_type="image/png", data="AAAA"), opaque("document")),
        Turn(
            Role.ASSISTANT,
            (
                Reasoning("Hm", signature="sig"),
                Reasoning(redacted="xx"),
                Text("I "),
                Text("look."),
                ToolUse("toolu_1", "look", '{"at": 1}'),
                ToolUse("toolu_2", "listen", ""),
                opaque("server_tool_use"),
            ),
        ),
        Turn(
            Role.TOOL,
            (
                ToolResult("toolu_1", (Text("a"), Image(url="https://x/y"), Text("b"))),
                ToolResult("toolu_2", (Text("too loud"), opaque("search_result")), is_error=True, rest=MARK),
            ),
        ),
        user(Text("So?")),
        stream=True,
        tools=(Tool("look", "Looks", {"type": "object"}, rest=MARK), opaque("web_search_20250305")),
        tool_choice=ToolChoice(Choice.REQUIRED, parallel=False),
        max_output_tokens=900,
        temperature=0.5,
        top_p=0.9,
        stop=("END",),
        output=OutputFormat({"type": "object"}),
        user="u",
        include_usage=True,
        rest={"top_k": 5, "thinking": {"type": "enabled"}},
    )
    golden("requests/foreign.rendered.json", {"body": rendered.data, "losses": list(rendered.losses)})


def test_a_foreign_cap_goes_under_the_name_that_every_server_knows() -> None:
    """`max_tokens`, and the dispatcher's own cap wins."""
    assert render(max_output_tokens=9).data["max_tokens"] == 9
    assert render(max_output_tokens=9, cap=5).data["max_tokens"] == 5
    assert "max_tokens" not in render().data


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_callers_own_cap_keeps_its_name(name: str) -> None:
    """Some servers know only the old name, some models reject it: the caller knew."""
    body = orjson.dumps({"model": "m", "messages": [{"role": "user"}], name: 9})
    call = OPENAI_CHAT.parse(OPENAI_CHAT.open(body))
    data = OPENAI_CHAT.render(call, model="n", max_output_tokens=5).data
    assert {key: data[key] for key in data if key.startswith("max")} == {name: 5}


def test_system_texts_in_a_row_become_one_message() -> None:
    """Many chat templates take only one."""
    turns = [Turn(Role.SYSTEM, (Text("a"), Text("b"))), Turn(Role.SYSTEM, (Text("c"),)), user(Text("x"))]
    assert messages(*turns)[0] == {"role": "system", "content": "a\n\nb\n\nc"}
    assert messages(Turn(Role.SYSTEM, (Text(""),)), user(Text("x"))) == [{"role": "user", "content": "x"}]


def test_every_tool_result_stands_before_any_image() -> None:
    """Tool messages hold text only and follow the call at once; their images come with the user's next words."""
    image = Image(url="https://x/y")
    sent = messages(
        Turn(Role.TOOL, (ToolResult("1", (image,)),)),
        Turn(Role.TOOL, (ToolResult("2", (Text("b"),)),)),
        user(Text("So?")),
    )
    assert [message["role"] for message in sent] == ["tool", "tool", "user"]
    assert sent[0]["content"]
    assert [part["type"] for part in sent[2]["content"]] == ["image_url", "text"]
    alone = messages(Turn(Role.TOOL, (ToolResult("1", (image,)),)), Turn(Role.ASSISTANT, (Text("ok"),)))
    assert [message["role"] for message in alone] == ["tool", "user", "assistant"]


def test_a_user_turn_may_hold_results_and_words() -> None:
    """The results come first."""
    sent = messages(user(Text("and"), ToolResult("1", (Text("a"),))))
    assert sent == [{"role": "tool", "tool_call_id": "1", "content": "a"}, {"role": "user", "content": "and"}]


def test_a_failed_tool_says_so_in_words() -> None:
    """The dialect has no flag for it."""
    sent = messages(Turn(Role.TOOL, (ToolResult("1", (Text("boom"),), is_error=True),)))
    assert sent[0]["content"] == "Error: boom"


def test_a_turn_of_which_nothing_is_left_is_no_message() -> None:
    """But there is always one message."""
    assert messages(Turn(Role.ASSISTANT, (Reasoning("hm"),)), user(Text("x"))) == [
        {"role": "user", "content": "x"}
    ]
    assert messages(user(opaque("document"))) == [{"role": "user", "content": ""}]


def test_parts_where_no_message_can_hold_them_are_losses() -> None:
    """Each is named; so is the name of a speaker."""
    rendered = render(
        Turn(Role.SYSTEM, (Image(url="u"),)),
        Turn(Role.USER, (ToolUse("1", "f", "{}"), Refusal("no"), Text("")), "ana"),
        Turn(Role.TOOL, (ToolResult("1", (ToolResult("2", ()), Reasoning("hm"))),)),
    )
    assert rendered.data["messages"] == [{"role": "tool", "tool_call_id": "1", "content": ""}]
    assert rendered.losses == (
        "part:image",
        "name",
        "part:tool_use",
        "part:refusal",
        "part:tool_result",
        "part:thinking",
    )


def test_a_refusal_stays_one() -> None:
    """The model's history keeps its own field for it."""
    assert messages(Turn(Role.ASSISTANT, (Refusal("no"),))) == [
        {"role": "assistant", "content": None, "refusal": "no"}
    ]


@pytest.mark.parametrize(
    ("choice", "wanted", "losses"),
    [
        (ToolChoice(Choice.AUTO), {}, ()),
        (ToolChoice(Choice.AUTO, parallel=False), {"parallel_tool_calls": False}, ()),
        (ToolChoice(Choice.NONE), {"tool_choice": "none"}, ()),
        (ToolChoice(Choice.REQUIRED), {"tool_choice": "required"}, ()),
        (
            ToolChoice(Choice.NAMED, "f"),
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            (),
        ),
        (ToolChoice(Choice.NAMED, "gone"), {}, ("tool_choice",)),
    ],
)
def test_a_tool_choice_is_written(choice: ToolChoice, wanted: Json, losses: tuple[str, ...]) -> None:
    """One that names a tool which could not be carried is a loss."""
    rendered = render(tools=(Tool("f"),), tool_choice=choice)
    assert {key: rendered.data[key] for key in rendered.data if "tool_c" in key} == wanted
    assert rendered.losses == losses


def test_without_tools_there_is_no_tool_choice() -> None:
    """Servers reject one."""
    rendered = render(tools=(opaque("bash"),), tool_choice=ToolChoice(Choice.REQUIRED, parallel=True))
    assert rendered.data.keys() == {"model", "messages"}
    assert rendered.losses == ("tool:bash", "tool_choice")


def test_a_loss_is_named_once() -> None:
    """However often it happens."""
    assert render(user(Text("a", MARK), Text("b", MARK)), rest={"top_k": 1}).losses == (
        "cache_control",
        "top_k",
    )


def test_a_json_object_is_asked_for_as_such() -> None:
    """A schema needs a name here, so it gets one."""
    assert render(output=OutputFormat()).data["response_format"] == {"type": "json_object"}
    named = render(output=OutputFormat({}, strict=True)).data["response_format"]
    assert named == {"type": "json_schema", "json_schema": {"name": "output", "schema": {}, "strict": True}}
