"""Names and ids that a provider would refuse."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from tokenhub_core.quirks import words
from tokenhub_core.types import (
    Call,
    Choice,
    Dialect,
    Opaque,
    Role,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)

LONG = "mcp__files__" + "read_" * 20


def asked(*ids: str, tool: str = "sum") -> Call:
    """Return a call whose model has called a tool under these ids and got its results."""
    uses = tuple(ToolUse(id_, tool, "{}") for id_ in ids)
    results = tuple(Turn(Role.TOOL, (ToolResult(id_, (Text("3"),)),)) for id_ in ids)
    return Call(
        Dialect.OPENAI_CHAT,
        "m",
        (Turn(Role.USER, (Text("go"),)), Turn(Role.ASSISTANT, uses), *results),
        tools=(Tool(tool), Opaque(Dialect.OPENAI_CHAT, "custom", {})),
    )


def ids(call: Call) -> list[list[str]]:
    """Return the ids of the uses, and those of the results."""
    parts = [part for turn in call.turns for part in turn.parts]
    return [[part.id for part in parts if isinstance(part, kind)] for kind in (ToolUse, ToolResult)]


def test_a_sound_call_is_left_alone() -> None:
    """The very same object comes back, so that the caller's own bytes can pass."""
    call = asked("call_1", "", tool="get-weather_2")
    assert words.tool_call_ids(call).call is call
    assert words.tool_names(call).call is call
    nine = asked("abcDEF123")
    assert words.short_tool_call_ids(nine).call is nine


def test_ids_are_rewritten_in_pairs() -> None:
    """A result still names its call; sound ids stay, and so does the lack of one."""
    call = words.tool_call_ids(asked("fc_1|call 2", "x" * 41, "ok", "")).call
    uses, results = ids(call)
    assert uses == results
    assert uses[2:] == ["ok", ""]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", id_) for id_ in uses[:3])
    assert uses[0].startswith("fc_1_call_2_")


@given(st.lists(st.text(max_size=50), unique=True, max_size=6))
def test_nine_letters_and_digits_are_enough(given_ids: list[str]) -> None:
    """Every id becomes one of its own, the same every time."""
    done = words.short_tool_call_ids(asked(*given_ids)).call
    uses, results = ids(done)
    assert uses == results
    assert len(set(uses)) == len(given_ids)
    assert all(
        not old or re.fullmatch(r"[a-zA-Z0-9]{9}", new) for old, new in zip(given_ids, uses, strict=True)
    )
    assert words.short_tool_call_ids(asked(*given_ids)).call == done
    assert words.short_tool_call_ids(done).call is done


def test_what_an_id_becomes_does_not_depend_on_the_others() -> None:
    """A conversation that has grown looks the same to the provider's cache."""
    first = ids(words.short_tool_call_ids(asked("call_1")).call)[0]
    assert ids(words.short_tool_call_ids(asked("call_0", "call_1")).call)[0][1:] == first


def test_an_id_that_is_taken_is_not_given_again() -> None:
    """The caller may have an id that looks like ours."""
    made = ids(words.short_tool_call_ids(asked("call_1")).call)[0][0]
    uses = ids(words.short_tool_call_ids(asked("call_1", made)).call)[0]
    assert uses[1] == made
    assert uses[0] != made


def test_a_name_is_rewritten_wherever_it_stands_and_comes_back() -> None:
    """In the tools, the choice, and the calls that were made; the way back is told."""
    call = asked("a", tool=LONG)
    chosen = Call(call.dialect, "m", call.turns, tools=call.tools, tool_choice=ToolChoice(Choice.NAMED, LONG))
    done = words.tool_names(chosen)
    (short,) = done.names
    assert done.names[short] == LONG
    assert re.fullmatch(r"[a-zA-Z0-9_-]{64}", short)
    tool, other = done.call.tools
    assert isinstance(tool, Tool)
    assert other is call.tools[1]
    assert done.call.tool_choice is not None
    use = done.call.turns[1].parts[0]
    assert isinstance(use, ToolUse)
    assert (tool.name, done.call.tool_choice.name, use.name) == (short, short, short)


def test_two_names_that_differ_only_where_it_is_cut_stay_two() -> None:
    """Neither by length nor by a foreign character do tools become one."""
    tools = tuple(Tool(name) for name in (LONG + "a", LONG + "b", "files.read", "files/read", "files_read"))
    done = words.tool_names(Call(Dialect.OPENAI_CHAT, "m", (), tools=tools))
    names = {tool.name for tool in done.call.tools if isinstance(tool, Tool)}
    assert len(names) == 5
    assert set(done.names.values()) == {LONG + "a", LONG + "b", "files.read", "files/read"}
