"""Who speaks when."""

from __future__ import annotations

import orjson
import pytest

from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.quirks import roles
from tokenhub_core.types import Call, Dialect, Image, Json, Role, Text, ToolResult, ToolUse, Turn

CHAT = Dialect.OPENAI_CHAT


def said(role: Role, text: str, name: str = "") -> Turn:
    return Turn(role, (Text(text),), name)


def system(text: str) -> Turn:
    return said(Role.SYSTEM, text)


def user(text: str) -> Turn:
    return said(Role.USER, text)


def model(text: str) -> Turn:
    return said(Role.ASSISTANT, text)


def call(*turns: Turn) -> Call:
    return Call(CHAT, "m", turns)


def chat(*messages: tuple[str, str]) -> Call:
    """Return the call that a client of this dialect makes."""
    body: Json = {"model": "m", "messages": [{"role": role, "content": text} for role, text in messages]}
    return DIALECTS[CHAT].parse(DIALECTS[CHAT].open(orjson.dumps(body)))


def sent(mended: Call) -> list[tuple[str, str]]:
    """Return the messages that a provider of this dialect gets."""
    rendered = DIALECTS[CHAT].render(mended, model="m", max_output_tokens=None)
    return [(message["role"], message["content"]) for message in rendered.data["messages"]]


def test_a_developer_speaks_as_the_system() -> None:
    """In a chat, and in the items of a response; whatever else a message says stays."""
    mended = roles.developer_as_system(chat(("developer", "a"), ("user", "b"), ("developer", "c"))).call
    assert sent(mended) == [("system", "a"), ("user", "b"), ("system", "c")]
    responses = DIALECTS[Dialect.OPENAI_RESPONSES]
    body = {"model": "m", "input": [{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}]}
    mended = roles.developer_as_system(responses.parse(responses.open(orjson.dumps(body)))).call
    items = responses.render(mended, model="m", max_output_tokens=None).data["input"]
    assert [item["role"] for item in items] == ["system", "user"]


def test_system_messages_become_one_and_stand_first() -> None:
    """The others keep their order."""
    mended = roles.system_first(
        chat(("user", "a"), ("system", "b"), ("assistant", "c"), ("developer", "d"))
    ).call
    assert sent(mended) == [("system", "b\n\nd"), ("user", "a"), ("assistant", "c")]


def test_speakers_take_turns_and_the_user_begins() -> None:
    """Words are joined as paragraphs; the conversation gets an opening where it has none."""
    mended = roles.merge_turns(
        chat(("system", "s"), ("assistant", "a"), ("assistant", "b"), ("user", "c"), ("user", "d"))
    ).call
    assert sent(mended) == [
        *(("system", "s"), ("user", "(start)"), ("assistant", "a\n\nb"), ("user", "c\n\nd")),
    ]


def test_tool_results_and_pictures_stay_what_they_are() -> None:
    """Calls of two messages become those of one; results are no turn of the user's."""
    one, two = ToolUse("1", "f", "{}"), ToolUse("2", "f", "{}")
    answers = tuple(Turn(Role.TOOL, (ToolResult(id_, ()),)) for id_ in "12")
    picture = Turn(Role.USER, (Image(url="u"),))
    turns = (user("a"), picture, Turn(Role.ASSISTANT, (one,)), Turn(Role.ASSISTANT, (two,)), *answers)
    assert roles.merge_turns(call(*turns)).call.turns == (
        Turn(Role.USER, (Text("a"), Image(url="u"))),
        Turn(Role.ASSISTANT, (one, two)),
        *answers,
    )


def test_what_one_message_cannot_say_of_two_is_told() -> None:
    """The first one's name and fields hold; those of the others are named as losses."""
    first = Turn(Role.USER, (Text("a"),), "ann", {"x": 1})
    second = Turn(Role.USER, (Text("b"),), "bob", {"x": 1, "y": 2})
    done = roles.merge_turns(call(first, second))
    assert done.call.turns == (Turn(Role.USER, (Text("a\n\nb"),), "ann", {"x": 1}),)
    assert done.losses == ("name", "y")
    told = roles.system_first(call(user("a"), said(Role.SYSTEM, "b"), said(Role.SYSTEM, "c", name="n")))
    assert told.losses == ("name",)


@pytest.mark.parametrize("repair", [roles.developer_as_system, roles.system_first, roles.merge_turns])
def test_a_sound_conversation_is_left_alone(repair: object) -> None:
    """The very same object comes back, so that the caller's own bytes can pass."""
    assert callable(repair)
    for turns in ([], [user("a")], [system("s"), user("a"), model("b"), user("c")]):
        sound = call(*turns)
        assert repair(sound).call is sound
