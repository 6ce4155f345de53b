"""Calls and results, paired."""

from __future__ import annotations

import pytest

from tokenhub_core.quirks.results import orphan_tool_results
from tokenhub_core.types import Call, Dialect, Image, Opaque, Part, Role, Text, ToolResult, ToolUse, Turn

ANTHROPIC, CHAT = Dialect.ANTHROPIC_MESSAGES, Dialect.OPENAI_CHAT
NONE = "no result was given"


def user(text: str) -> Turn:
    return Turn(Role.USER, (Text(text),))


def calls(*ids: str) -> Turn:
    return Turn(Role.ASSISTANT, tuple(ToolUse(id_, "f", "{}") for id_ in ids))


def results(*ids: str) -> Turn:
    return Turn(Role.TOOL, tuple(ToolResult(id_, (Text(f"result {id_}"),)) for id_ in ids))


def missing(*ids: str) -> Turn:
    return Turn(Role.TOOL, tuple(ToolResult(id_, (Text(NONE),), is_error=True) for id_ in ids))


def stray(*ids: str) -> Turn:
    parts: list[Part] = []
    for id_ in ids:
        parts += (Text(f"Result of the tool call {id_}, which is not shown here:"), Text(f"result {id_}"))
    return Turn(Role.USER, tuple(parts))


def mended(*turns: Turn, dialect: Dialect = CHAT) -> list[Turn]:
    return [*orphan_tool_results(Call(dialect, "m", turns)).call.turns]


@pytest.mark.parametrize(
    "turns",
    [
        [user("a"), calls("1", "2"), results("1"), results("2"), user("b")],
        [user("a"), calls("1", "2"), results("2", "1"), Turn(Role.ASSISTANT, (Text("b"),))],
        [user("a"), calls("1"), calls("2"), results("1", "2"), calls("3"), results("3")],
        [user("a"), calls(""), results("")],
        [calls("1"), Turn(Role.TOOL, (Opaque(CHAT, "message:function", {}),)), results("1")],
        [user("a"), Turn(Role.TOOL, (Opaque(CHAT, "message:function", {}),))],
        [],
    ],
)
def test_a_paired_conversation_is_left_alone(turns: list[Turn]) -> None:
    """The very same object comes back, so that the caller's own bytes can pass."""
    call = Call(CHAT, "m", tuple(turns))
    assert orphan_tool_results(call).call is call


def test_a_call_without_a_result_is_answered_with_an_error() -> None:
    """Before anybody speaks again, behind the results that are there, and at the end of the conversation."""
    assert mended(user("a"), calls("1", "2"), results("2"), user("b"), calls("3")) == [
        *(user("a"), calls("1", "2"), results("2"), missing("1"), user("b"), calls("3"), missing("3"))
    ]
    assert mended(calls("1"), results("1"), calls("2"), user("b")) == [
        *(calls("1"), results("1"), calls("2"), missing("2"), user("b"))
    ]


def test_where_results_share_a_message_the_error_joins_them() -> None:
    """One message of the user has to answer all calls there."""
    (_, answered, _) = mended(calls("1", "2"), results("2"), user("b"), dialect=ANTHROPIC)
    assert answered.parts == results("2").parts + missing("1").parts
    assert mended(calls("1", "2"), user("b"), dialect=ANTHROPIC) == [
        *(calls("1", "2"), missing("1", "2"), user("b"))
    ]


def test_a_result_without_its_call_becomes_the_users_words() -> None:
    """Behind the results that do answer a call, with all that it holds."""
    assert mended(user("a"), results("0"), user("b")) == [user("a"), stray("0"), user("b")]
    assert mended(calls("1"), results("0", "1"), results("9")) == [
        *(calls("1"), results("1"), stray("0", "9"))
    ]
    assert mended(calls("1"), results("1"), results("1")) == [calls("1"), results("1"), stray("1")]
    assert mended(results("1"), calls("1")) == [stray("1"), calls("1"), missing("1")]


def test_an_error_is_said_to_be_one_and_pictures_stay() -> None:
    """What the tool has shown is shown; only fields that no message has are lost, by name."""
    picture = Image(url="https://x/y.png")
    result = ToolResult("1", (picture,), is_error=True, rest={"cache_control": {}})
    done = orphan_tool_results(Call(ANTHROPIC, "m", (Turn(Role.TOOL, (result,)),)))
    assert done.call.turns == (
        Turn(Role.USER, (Text("Error of the tool call 1, which is not shown here:"), picture)),
    )
    assert done.losses == ("cache_control",)
