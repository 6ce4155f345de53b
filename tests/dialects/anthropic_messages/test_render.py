from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.dialects.base import Rendered
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

OPENAI = Dialect.OPENAI_CHAT
CACHED = {"cache_control": {"type": "ephemeral"}}


def render(call: Call, model: str = "claude", cap: int | None = None) -> Rendered:
    return ANTHROPIC_MESSAGES.render(call, model=model, max_output_tokens=cap)


def foreign(*turns: Turn, **members: Any) -> Rendered:
    """Render a call that came in the other dialect; a lone hello where the turns do not matter."""
    return render(Call(OPENAI, "gpt", turns or (say(Role.USER, "hello"),), **members))


def say(role: Role, *texts: str) -> Turn:
    return Turn(role, tuple(Text(text) for text in texts))


def there_and_back(**members: Any) -> Json:
    whole: Json = {
        "model": "claude",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
        **members,
    }
    call = ANTHROPIC_MESSAGES.parse(ANTHROPIC_MESSAGES.open(orjson.dumps(whole)))
    rendered = render(call)
    assert rendered.losses == ()
    assert {**rendered.data, "messages": 0} == {**whole, "messages": 0}
    assert rendered.data["messages"] == whole["messages"]
    return rendered.data


# --- the same dialect --------------------------------------------------------------------------------------


def test_a_call_of_this_dialect_is_restored() -> None:
    """Reading and writing again gives the same request, member by member, with nothing lost."""
    there_and_back(
        system=[{"type": "text", "text": "a"}, {"type": "text", "text": "b", **CACHED}],
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "look", **CACHED}, {"type": "document", "x": 1}],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "sig"},
                    {"type": "redacted_thinking", "data": "dd"},
                    {"type": "text", "text": ""},
                    {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                    {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                    {
                        "type": "tool_use",
                        "id": "odd id!",
                        "name": "f",
                        "input": {"a": 1},
                        "caller": {"type": "direct"},
                    },
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "odd id!", "content": "boom", "is_error": True},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
                    },
                    {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
                    {"type": "image", "source": {"type": "file", "file_id": "f1"}},
                ],
                "future": True,
            },
            {"role": "system", "content": "brief now"},
            {"role": "user", "content": "go on"},
            {"role": "user", "content": "please"},
            {"role": "assistant", "content": "prefill "},
        ],
        tools=[
            {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": False, **CACHED},
            {"type": "web_search_20250305", "name": "web_search"},
        ],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        stream=True,
        temperature=1.5,
        top_p=0.5,
        top_k=3,
        stop_sequences=[" ", "x"],
        metadata={"user_id": "u", "trace": 1},
        output_config={"effort": "low", "format": {"type": "json_schema", "schema": {"a": 1}}},
        thinking={"type": "adaptive"},
        betas=["one"],
    )


def test_a_tool_choice_without_tools_is_the_callers_to_answer_for() -> None:
    """In the same dialect nothing is mended: the provider judges what the caller wrote."""
    there_and_back(tool_choice={"type": "any"})
    there_and_back(tool_choice={"type": "auto", "disable_parallel_tool_use": False})


def test_a_system_message_at_the_head_goes_to_the_top() -> None:
    """With no `system` of its own, a conversation that begins with one says the same with it at the top."""
    whole = {
        "max_tokens": 1,
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
    }
    call = ANTHROPIC_MESSAGES.parse(ANTHROPIC_MESSAGES.open(orjson.dumps(whole)))
    data = render(call).data
    assert data["system"] == [{"type": "text", "text": "s"}]
    assert data["messages"] == [{"role": "user", "content": "u"}]


def test_a_system_message_with_more_to_say_stays_a_message() -> None:
    """`system` has no place for other members of a message."""
    head = {"role": "system", "content": "s", "future": True}
    data = there_and_back(messages=[head, {"role": "user", "content": "u"}])
    assert "system" not in data


# --- the cap and the model ---------------------------------------------------------------------------------


def test_the_cap_is_the_override_else_the_callers_else_4096() -> None:
    """The dialect wants a cap; zero is one."""
    call = Call(OPENAI, "gpt", (say(Role.USER, "x"),), max_output_tokens=7)
    assert render(call, "claude", 3).data["max_tokens"] == 3
    assert render(call, "claude", 0).data["max_tokens"] == 0
    assert render(call).data["max_tokens"] == 7
    assert render(replace(call, max_output_tokens=None)).data["max_tokens"] == 4096
    assert render(call, "claude-y").data["model"] == "claude-y"


# --- the conversation of another dialect -------------------------------------------------------------------


def test_system_turns_are_hoisted_from_anywhere_in_order() -> None:
    """`system` holds them all; the conversation closes over the gaps."""
    data = foreign(
        say(Role.SYSTEM, "one"), say(Role.USER, "a"), say(Role.SYSTEM, "two", " "), say(Role.USER, "b")
    ).data
    assert data["system"] == [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert data["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]


def test_an_image_in_a_system_turn_is_a_loss() -> None:
    """`system` takes text only."""
    rendered = foreign(Turn(Role.SYSTEM, (Image("https://x"), Text("t"))), say(Role.USER, "a"))
    assert rendered.data["system"] == [{"type": "text", "text": "t"}]
    assert rendered.losses == ("part:image",)


def test_results_of_one_turn_stand_together_before_the_users_words() -> None:
    """Parallel calls: both results open the next user message, whatever order and turns they came in."""
    data = foreign(
        say(Role.USER, "q"),
        Turn(Role.ASSISTANT, (Text(""), ToolUse("a", "f", "{}"), ToolUse("b", "g", '{"x": 1}'))),
        Turn(Role.TOOL, (ToolResult("b", (Text("B"),)),)),
        say(Role.USER, "hurry"),
        Turn(Role.TOOL, (ToolResult("a", (Text("A"), Image("https://x")), is_error=True),)),
    ).data
    assert data["messages"][1]["content"] == [
        {"type": "tool_use", "id": "a", "name": "f", "input": {}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {"x": 1}},
    ]
    assert data["messages"][2:] == [
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "b", "content": "B"},
                {
                    "type": "tool_result",
                    "tool_use_id": "a",
                    "content": [
                        {"type": "text", "text": "A"},
                        {"type": "image", "source": {"type": "url", "url": "https://x"}},
                    ],
                    "is_error": True,
                },
                {"type": "text", "text": "hurry"},
            ],
        }
    ]


def test_a_call_without_a_result_gets_one_that_says_so() -> None:
    """Every tool call must be answered in the next message, also when the conversation ends with it."""
    missing = {"type": "tool_result", "tool_use_id": "a", "content": "no result was given", "is_error": True}
    call = Turn(Role.ASSISTANT, (ToolUse("a", "f", "{}"),))
    data = foreign(say(Role.USER, "q"), call, say(Role.USER, "never mind")).data
    assert data["messages"][2]["content"] == [missing, {"type": "text", "text": "never mind"}]
    assert foreign(say(Role.USER, "q"), call).data["messages"][2] == {"role": "user", "content": [missing]}


def test_unreadable_arguments_are_carried_as_they_are_and_told() -> None:
    """The model's own mistake stays visible to the next model; only an object is readable."""
    for arguments in ('{"a":', "[1]", "null", '{"a":' + "[" * 300 + "]" * 300 + "}"):
        rendered = foreign(say(Role.USER, "q"), Turn(Role.ASSISTANT, (ToolUse("a", "f", arguments),)))
        assert rendered.data["messages"][1]["content"][0]["input"] == {"_raw": arguments}
        assert rendered.losses == ("tool_calls.arguments",)
    rendered = foreign(say(Role.USER, "q"), Turn(Role.ASSISTANT, (ToolUse("a", "f", " "),)))
    assert rendered.data["messages"][1]["content"][0]["input"] == {}
    assert rendered.losses == ()


def calls(*ids: str) -> list[str]:
    turn = Turn(Role.ASSISTANT, tuple(ToolUse(id_, "f", "{}") for id_ in ids))
    answers = Turn(Role.TOOL, tuple(ToolResult(id_, (Text("r"),)) for id_ in ids))
    messages = foreign(say(Role.USER, "q"), turn, answers).data["messages"]
    given = [block["id"] for block in messages[1]["content"]]
    assert [block["tool_use_id"] for block in messages[2]["content"]] == given
    return given


def test_tool_ids_fit_the_dialect_and_their_results() -> None:
    """Good ids stay; others are rewritten, in call and result alike, from the id alone."""
    assert calls("call_1", "Ab-2") == ["call_1", "Ab-2"]
    assert calls("a|b") == calls("zzz", "a|b")[1:]
    assert calls("a|b") != calls("a.b")
    assert calls("a|b", *calls("a|b"))[0] != calls("a|b")[0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=70), min_size=1, max_size=5, unique=True))
def test_any_ids_come_out_legal_and_distinct(ids: list[str]) -> None:
    """`^[A-Za-z0-9_-]+$`, and two ids are never one."""
    given = calls(*ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", id_) for id_ in given)
    assert len(set(given)) == len(ids)


def test_the_user_has_the_first_word() -> None:
    """A conversation that the assistant opens, or that is all system, gets a minimal first message."""
    start = {"role": "user", "content": "(start)"}
    assert foreign(say(Role.ASSISTANT, "Hi!")).data["messages"] == [
        start,
        {"role": "assistant", "content": "Hi!"},
    ]
    assert foreign(say(Role.SYSTEM, "s")).data["messages"] == [start]


def test_blank_texts_go_and_emptied_turns_with_them() -> None:
    """Upstream rejects them; an empty tool result just has no content."""
    data = foreign(
        say(Role.USER, "a"),
        say(Role.ASSISTANT, " \n"),
        Turn(Role.TOOL, (ToolResult("x", (Text(""),)),)),
        say(Role.USER),
    ).data
    results = [{"type": "tool_result", "tool_use_id": "x"}]
    assert data["messages"] == [{"role": "user", "content": [*results, {"type": "text", "text": "a"}]}]


def test_a_prefill_ends_without_blanks() -> None:
    """Upstream rejects an answer to be continued that ends with a space."""
    data = foreign(say(Role.USER, "a"), say(Role.ASSISTANT, "The answer is ")).data
    assert data["messages"][1]["content"] == "The answer is"


def test_what_cannot_be_carried_is_named() -> None:
    """Reasoning that nobody can verify, parts and tools of another dialect, names: gone, and told."""
    rendered = foreign(
        Turn(Role.USER, (Text("q"), Opaque(OPENAI, "input_audio", {"type": "input_audio"})), name="bob"),
        Turn(Role.ASSISTANT, (Reasoning("hm"), Refusal("I will not.")), rest={"audio": {}}),
        Turn(Role.USER, (Image("https://x", detail="low"), Text("t", {"odd": 1, **CACHED}))),
        tools=(
            Opaque(OPENAI, "custom", {"type": "custom"}),
            Tool("f", strict=True, rest={"odd_too": 1, **CACHED}),
            Tool("g", "does", {"type": "object"}, strict=False),
        ),
        rest={"logit_bias": {}, "stream_options": {"include_usage": True}},
        seed=1,
        n=2,
        frequency_penalty=0.5,
        presence_penalty=0.5,
        logprobs=0,
        service_tier="flex",
        metadata={"a": "b"},
    )
    assert rendered.losses == (
        "name",
        "part:input_audio",
        "audio",
        "part:thinking",
        "image_url.detail",
        "odd",
        "logit_bias",
        "tool:custom",
        "odd_too",
        "service_tier",
        "metadata",
        "seed",
        "n",
        "frequency_penalty",
        "presence_penalty",
        "logprobs",
    )
    assert rendered.data["messages"][1]["content"] == "I will not."
    assert rendered.data["messages"][2]["content"][1] == {"type": "text", "text": "t", **CACHED}
    assert rendered.data["tools"] == [
        {"name": "f", "input_schema": {"type": "object", "properties": {}}, "strict": True, **CACHED},
        {"name": "g", "description": "does", "input_schema": {"type": "object"}},
    ]
    assert "stream_options" not in rendered.data


def test_a_turn_that_lost_everything_is_dropped() -> None:
    """No message is empty."""
    rendered = foreign(say(Role.USER, "a"), Turn(Role.ASSISTANT, (Reasoning("hm"),)), say(Role.USER, "b"))
    assert len(rendered.data["messages"]) == 1


def test_options_of_another_dialect() -> None:
    """Stop words, user and schema have their places; temperatures end at 1; JSON without a schema has no place."""
    rendered = foreign(
        stream=True,
        stop=("END", "\n"),
        user="u",
        temperature=1.7,
        top_p=0.3,
        output=OutputFormat({"type": "object"}, name="thing", strict=True),
    )
    data = rendered.data
    assert (data["stream"], data["stop_sequences"], data["top_p"]) == (True, ["END"], 0.3)
    assert (data["metadata"], data["temperature"]) == ({"user_id": "u"}, 1)
    assert data["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert rendered.losses == ("temperature", "stop")
    assert foreign(output=OutputFormat()).losses == ("response_format",)
    assert foreign(temperature=0.7).data["temperature"] == 0.7


def choice(given: ToolChoice) -> object:
    return foreign(tools=(Tool("f"),), tool_choice=given).data["tool_choice"]


def test_tool_choices_of_another_dialect() -> None:
    """Every kind has its word; without tools a choice is meaningless, and a loss if it demanded something."""
    assert choice(ToolChoice()) == {"type": "auto"}
    assert choice(ToolChoice(parallel=False)) == {"type": "auto", "disable_parallel_tool_use": True}
    assert choice(ToolChoice(Choice.REQUIRED, parallel=True)) == {
        "type": "any",
        "disable_parallel_tool_use": False,
    }
    assert choice(ToolChoice(Choice.NAMED, "f")) == {"type": "tool", "name": "f"}
    assert choice(ToolChoice(Choice.NONE, parallel=False)) == {"type": "none"}
    rendered = foreign(tool_choice=ToolChoice(Choice.REQUIRED))
    assert (rendered.data.get("tool_choice"), rendered.losses) == (None, ("tool_choice",))
    assert foreign(tool_choice=ToolChoice()).losses == ()


PARTS: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, st.sampled_from(["", " ", "word"])),
    st.builds(ToolUse, st.sampled_from(["a", "b", "c|d"]), st.just("f"), st.sampled_from(["{}", "", "?"])),
    st.builds(ToolResult, st.sampled_from(["a", "b", "c|d"]), st.just((Text("r"),))),
    st.builds(Reasoning, st.just("hm")),
)


def fits(part: Part, role: Role) -> bool:
    return not (
        (isinstance(part, ToolUse | Reasoning) and role is not Role.ASSISTANT)
        or (isinstance(part, ToolResult)) != (role is Role.TOOL)
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(Role)), st.lists(PARTS, max_size=3)), max_size=6))
def test_any_conversation_comes_out_by_the_rules(given: Sequence[tuple[Role, list[Part]]]) -> None:
    """The user begins, roles alternate, no content is blank, every call is answered first thing after it."""
    turns = [Turn(role, tuple(part for part in parts if fits(part, role))) for role, parts in given]
    messages = render(Call(OPENAI, "m", tuple(turns))).data["messages"]
    assert [message["role"] for message in messages[:1]] == ["user"]
    for before, after in itertools.pairwise(messages):
        assert before["role"] != after["role"]
        if before["role"] == "assistant" and isinstance(before["content"], list):
            asked = [block["id"] for block in before["content"] if block["type"] == "tool_use"]
            answered = [block for block in after["content"] if not isinstance(block, str)]
            assert {block["tool_use_id"] for block in answered if block["type"] == "tool_result"} >= set(
                asked
            )
    for message in messages:
        content = message["content"]
        assert content
        kinds = [block["type"] for block in content] if isinstance(content, list) else []
        assert kinds == sorted(kinds, key="tool_result".__ne__)
        assert all(block["text"].strip() for block in content if kinds and block["type"] == "text")
