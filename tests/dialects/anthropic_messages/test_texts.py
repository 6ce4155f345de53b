from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.types import Json

DIALECT = ANTHROPIC_MESSAGES
SEARCHED = {
    "type": "search_result",
    "source": "s",
    "title": "t",
    "content": [{"type": "text", "text": "theirs"}],
}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "theirs"}]}
FILE = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "theirs"}}


def text(words: str, **more: Any) -> Json:
    return {"type": "text", "text": words, **more}


def message(role: str, *content: Any) -> Json:
    return {"role": role, "content": content[0] if isinstance(content[0], str) else list(content)}


def test_slots_are_the_words_of_the_conversation_in_order() -> None:
    """`system` first, then every message's own text, each with its role and path."""
    data = {
        "system": [text("a")],
        "messages": [message("user", "b"), message("assistant", text("c")), message("system", "d")],
    }
    assert [(slot.role, slot.text) for slot in DIALECT.text_slots(data)] == [
        ("system", "a"),
        ("user", "b"),
        ("assistant", "c"),
        ("system", "d"),
    ]
    assert [slot.path for slot in DIALECT.text_slots(data)] == [
        ("system", 0, "text"),
        ("messages", 0, "content"),
        ("messages", 1, "content", 0, "text"),
        ("messages", 2, "content"),
    ]


def test_third_party_text_is_never_a_slot() -> None:
    """Tool results, documents, search results and thinking travel in messages but are not the caller's words."""
    thought = {"type": "thinking", "thinking": "theirs", "signature": "s"}
    data = {
        "messages": [message("user", RESULT, FILE, SEARCHED, text("mine")), message("assistant", thought)]
    }
    assert [slot.text for slot in DIALECT.text_slots(data)] == ["mine"]


def test_only_what_lies_on_a_changed_path_is_copied() -> None:
    """The body that came is never changed, and untouched messages are the same objects."""
    data = {
        "system": "s",
        "messages": [message("user", text("one"), text("two", cache_control={})), message("user", "x")],
    }
    before = copy.deepcopy(data)
    changed = DIALECT.replace_texts(data, [(("messages", 0, "content", 1, "text"), "new")])
    assert data == before
    assert changed["messages"][0]["content"] == [text("one"), text("new", cache_control={})]
    assert changed["messages"][0]["content"][0] is data["messages"][0]["content"][0]  # type: ignore[index]  # a literal of mixed members
    assert changed["messages"][1] is data["messages"][1]


def test_an_emptied_block_goes_and_its_neighbours_stay() -> None:
    """Blank text blocks are rejected upstream, so none is left behind."""
    data = {"messages": [message("user", text("@@"), RESULT, text("stay"))]}
    changed = DIALECT.replace_texts(data, [(("messages", 0, "content", 0, "text"), " \n")])
    assert changed["messages"] == [message("user", RESULT, text("stay"))]


def test_an_emptied_message_goes() -> None:
    """A message that was a directive and nothing else leaves no trace, be it a string or a list of blocks."""
    data = {"messages": [message("user", "@@"), message("user", text("@@")), message("user", "stay")]}
    paths = [("messages", 0, "content"), ("messages", 1, "content", 0, "text")]
    changed = DIALECT.replace_texts(data, [(path, "") for path in paths])
    assert changed["messages"] == [message("user", "stay")]


def test_the_only_message_stays_with_a_word_in_it() -> None:
    """A conversation without a message is no request, and a blank one is rejected."""
    data = {"messages": [message("user", "@@")]}
    changed = DIALECT.replace_texts(data, [(("messages", 0, "content"), "")])
    assert changed["messages"] == [message("user", "(empty)")]


def test_removing_a_message_never_gives_the_assistant_the_first_or_the_last_word() -> None:
    """The first is rejected upstream; the last would ask the model to continue its own answer."""
    data = {"messages": [message("user", "@@"), message("assistant", "a"), message("user", "@@")]}
    texts = [(("messages", place, "content"), "") for place in (0, 2)]
    changed = DIALECT.replace_texts(data, texts)
    assert [each["content"] for each in changed["messages"]] == ["(empty)", "a", "(empty)"]


def test_a_prefill_that_the_caller_wrote_stays_the_last_word() -> None:
    """Only removals may not create a prefill; one that was meant is the caller's own."""
    data = {"messages": [message("user", "q"), message("user", "@@"), message("assistant", "{")]}
    changed = DIALECT.replace_texts(data, [(("messages", 1, "content"), "")])
    assert [each["content"] for each in changed["messages"]] == ["q", "{"]


def test_an_emptied_system_is_dropped() -> None:
    """As a string or as blocks, an empty `system` is no member at all."""
    data: Json = {"system": "@@", "messages": [message("user", "x")]}
    assert "system" not in DIALECT.replace_texts(data, [(("system",), "")])
    data = {"system": [text("@@")], "messages": [message("user", "x")]}
    assert "system" not in DIALECT.replace_texts(data, [(("system", 0, "text"), "")])
    data = {"system": "@@ x", "messages": [message("user", "x")]}
    assert DIALECT.replace_texts(data, [(("system",), "x")])["system"] == "x"


WORDS = st.sampled_from(["", " ", "word", "zwei"])
CONTENT = WORDS | st.lists(st.builds(text, WORDS) | st.just(RESULT), min_size=1, max_size=3)
MESSAGES = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["user", "assistant"]),
        CONTENT,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(MESSAGES, st.data())
def test_every_slot_can_be_replaced_and_no_replaced_text_is_blank(
    messages: list[Json], data: st.DataObject
) -> None:
    """Whatever slots are replaced by whatever texts: a message is left, and only texts not asked for are blank."""
    body = {"messages": messages}
    slots = list(DIALECT.text_slots(body))
    texts = [(slot.path, data.draw(WORDS)) for slot in slots]
    changed = DIALECT.replace_texts(body, texts)
    assert changed["messages"]
    assert all(slot.text.strip() for slot in DIALECT.text_slots(changed))
    assert DIALECT.replace_texts(body, []) == body
