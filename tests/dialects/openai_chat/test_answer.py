from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from openai.types.chat import ChatCompletion, ChatCompletionMessageFunctionToolCall

from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.types import (
    Answer,
    Dialect,
    Json,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Stopped,
    StopReason,
    Text,
    ToolUse,
    Usage,
)

REQUEST = OPENAI_CHAT.open(b'{"model":"asked","messages":[{"role":"user"}]}')
END = Stopped(StopReason.END)


def body(message: Json | None = None, **fields: Any) -> Json:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Hi"} | (message or {}),
        "finish_reason": "stop",
    }
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [choice],
    } | fields


def rendered(*parts: Part, stop: Stopped = END, **fields: Any) -> tuple[ChatCompletion, tuple[str, ...]]:
    answer = structs.replace(Answer("x", "m", parts, stop, Usage()), **fields)
    found = OPENAI_CHAT.render_answer(answer, request=REQUEST)
    return ChatCompletion.model_validate(orjson.loads(orjson.dumps(found.data))), found.losses


def test_a_whole_answer_is_read() -> None:
    """Reasoning, text, refusal and tool calls become parts in this order."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = OPENAI_CHAT.parse_answer(
        body(
            {"reasoning_content": "hm", "reasoning": "hm", "refusal": "no", "tool_calls": [call]},
            usage={"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
        )
    )
    assert answer.parts == (Reasoning("hm"), Text("Hi"), Refusal("no"), ToolUse("1", "f", "{}"))
    assert answer.stop == Stopped(StopReason.TOOL_USE, "stop")
    assert (answer.id, answer.model, answer.created) == ("chatcmpl-1", "m", 5)
    assert answer.usage == Usage(9, 5, 4)
    assert dict(answer.rest) == {}


def test_within_the_dialect_nothing_is_lost() -> None:
    """What has no canonical place comes back where it was."""
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra": 1}
    second = {
        "index": 1,
        "message": {"role": "assistant", "content": "Ho"},
        "finish_reason": "stop",
        "logprobs": None,
    }
    given = body(
        {"annotations": [{"type": "url_citation"}], "refusal": None},
        system_fingerprint="fp",
        service_tier="flex",
    )
    given["choices"][0]["logprobs"] = {"content": []}
    given["choices"].append(second)
    given["usage"] = {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert OPENAI_CHAT.render_answer(OPENAI_CHAT.parse_answer(given), request=REQUEST).data == given
    lost = OPENAI_CHAT.render_answer(OPENAI_CHAT.parse_answer(body({"tool_calls": [call]})), request=REQUEST)
    assert lost.losses == ("extra",)


@pytest.mark.parametrize("data", [{}, {"choices": []}, {"choices": [1]}, {"choices": [{}]}, {"error": {}}])
def test_what_is_no_answer_is_refused(data: Json) -> None:
    """Some servers send an error with status 200."""
    with pytest.raises(ValueError, match="choices"):
        OPENAI_CHAT.parse_answer(data)


def test_an_answer_of_another_dialect_fits_the_sdk() -> None:
    """Texts are joined, ids and the model's name are always there, and what cannot be carried is told."""
    answer, losses = rendered(
        Reasoning("hm", signature="anthropic_messages:s"),
        Text("a", {"citations": []}),
        Text("b"),
        ToolUse("", "f", ""),
        Opaque(Dialect.ANTHROPIC_MESSAGES, "server_tool_use", {}),
        id="msg_1",
        model="",
        usage=Usage(9, 5, 4, 2, 1),
        created=5,
        rest={"container": {}},
    )
    message = answer.choices[0].message
    assert (answer.id, answer.model, answer.created) == ("chatcmpl-msg_1", "asked", 5)
    sealed = {"type": "reasoning.text", "text": "hm", "index": 0}
    sealed["signature"] = "tokenhub-seal:anthropic_messages:s"
    assert message.content == "ab"
    assert message.model_extra == {"reasoning_content": "hm", "reasoning_details": [sealed]}
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert (call.id, call.function.arguments) == ("call_msg_1_0", "{}")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (9, 14)
    assert losses == ("citations", "part:server_tool_use", "container")


def test_content_is_null_only_beside_something_else() -> None:
    """An answer of nothing is an empty text."""
    assert rendered()[0].choices[0].message.content == ""
    refusing = rendered(Refusal("no"), stop=Stopped(StopReason.REFUSED))[0].choices[0]
    assert (refusing.message.content, refusing.message.refusal) == (None, "no")
    assert refusing.finish_reason == "content_filter"


def test_a_stop_reason_without_a_word_is_a_loss() -> None:
    """As in a stream."""
    answer, losses = rendered(Text("a"), stop=Stopped(StopReason.PAUSED, "pause_turn"))
    assert answer.choices[0].finish_reason == "stop"
    assert losses == ("stop_reason:pause_turn",)


def test_usage_is_read_without_the_rest() -> None:
    """Zeros where there is none, whatever stands there."""
    assert OPENAI_CHAT.usage({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}) == Usage(3, 4)
    for odd in ({}, {"usage": None}, {"usage": {"prompt_tokens": "3", "completion_tokens": True}}):
        assert OPENAI_CHAT.usage(odd) == Usage()


WORDS = st.sampled_from(
    [
        "role",
        "content",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "id",
        "type",
        "text",
        "refusal",
        "reasoning",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, JSON, max_size=5), JSON)
@settings(max_examples=200, deadline=None)
def test_odd_answers_never_break_anything(message: Json, odd: Any) -> None:
    """Whatever a provider sends, it is an answer that can be written, or a ValueError."""
    answer = OPENAI_CHAT.parse_answer(
        body(usage=odd, id=odd) | {"choices": [{"message": message, "finish_reason": odd}]}
    )
    assert OPENAI_CHAT.render_answer(answer, request=REQUEST).data["choices"]


def test_a_field_that_is_called_like_one_of_a_choice_breaks_nothing() -> None:
    """A server may put `logprobs` beside the choices, too, and anything in it."""
    token = {"token": "Hi", "logprob": -1, "bytes": None, "top_logprobs": []}
    data = body(logprobs="none")
    data["choices"][0]["logprobs"] = {"content": [token], "refusal": [token]}

    shown = OPENAI_CHAT.render_answer(OPENAI_CHAT.parse_answer(data), request=REQUEST).data

    assert shown["choices"][0]["logprobs"]["refusal"] == [token]


def test_a_field_whose_name_looks_like_a_path_stays_where_it_was() -> None:
    """Only what was read from inside goes back inside."""
    answer = OPENAI_CHAT.parse_answer(body() | {"message.content.x": 1})

    assert OPENAI_CHAT.render_answer(answer, request=REQUEST).data["message.content.x"] == 1
