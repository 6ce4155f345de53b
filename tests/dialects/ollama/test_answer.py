from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tokenhub_core.dialects.ollama import OLLAMA_CHAT, OLLAMA_GENERATE
from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.types import (
    Answer,
    Audio,
    Image,
    Json,
    Logprob,
    Part,
    Reasoning,
    Refusal,
    Stopped,
    StopReason,
    Text,
    ToolUse,
    Usage,
)

CHAT = OLLAMA_CHAT.open(b'{"model":"asked","messages":[],"stream":false}')
GENERATE = OLLAMA_GENERATE.open(b'{"model":"asked","prompt":"a","stream":false}')
WHOLE: Json = {
    "model": "qwen3",
    "created_at": "2026-10-17T23:14:07.414671Z",
    "message": {
        "role": "assistant",
        "content": "Hi",
        "thinking": "hm",
        "images": ["iVBORw0KGgoAAAANSUhEUg=="],
        "x_note": 1,
    },
    "done": True,
    "done_reason": "stop",
    "total_duration": 174560334,
    "load_duration": 101397084,
    "prompt_eval_count": 11,
    "prompt_eval_duration": 13074791,
    "eval_count": 18,
    "eval_duration": 52479709,
    "logprobs": [
        {
            "token": "Hi",
            "logprob": -0.5,
            "bytes": [72, 105],
            "top_logprobs": [{"token": "Ho", "logprob": -1, "bytes": [72, 111]}],
        }
    ],
    "x_new": {"a": 1},
}


def rendered(*parts: Part, stop: StopReason = StopReason.END, **fields: Any) -> tuple[Json, tuple[str, ...]]:
    answer = structs.replace(Answer("x", "m", parts, Stopped(stop, "raw"), Usage(3, 4), 5), **fields)
    found = OLLAMA_CHAT.render_answer(answer, request=CHAT)
    return found.data, found.losses


def test_what_an_image_says_of_itself_is_a_loss() -> None:
    """There is only its content here."""
    _, losses = rendered(Image(media_type="image/png", data="iVBO", rest={"revised_prompt": "a cat"}))
    assert losses == ("revised_prompt",)


def test_a_whole_answer_is_read() -> None:
    """Thoughts, text with its log probabilities, then images."""
    answer = OLLAMA_CHAT.parse_answer(WHOLE)
    text = Text("Hi", logprobs=(Logprob("Hi", -0.5, (Logprob("Ho", -1),)),))
    assert answer.parts == (
        Reasoning("hm"),
        text,
        Image(media_type="image/png", data="iVBORw0KGgoAAAANSUhEUg=="),
    )
    assert answer.stop == Stopped(StopReason.END, "stop")
    assert answer.usage == OLLAMA_CHAT.usage(WHOLE) == Usage(11, 18)
    assert (answer.model, answer.created) == ("qwen3", 1792278847)
    assert dict(answer.rest) == {"x_new": {"a": 1}, "message.x_note": 1}


def test_within_the_dialect_nothing_is_lost() -> None:
    """Durations and the time to the last digit included."""
    assert OLLAMA_CHAT.render_answer(OLLAMA_CHAT.parse_answer(WHOLE), request=CHAT).data == WHOLE
    call = {"id": "1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}
    said = {key: value for key, value in WHOLE.items() if key != "message"}
    completion = said | {"response": "Hi", "thinking": "hm", "tool_calls": [call], "context": [1, 2]}
    answer = OLLAMA_GENERATE.parse_answer(completion)
    assert OLLAMA_GENERATE.render_answer(answer, request=GENERATE).data == completion


def test_a_tool_call_is_why_a_model_stopped() -> None:
    """The wire says `stop`; what has no name is no call, and ids may be missing."""
    calls = [
        {"function": {"name": "f", "arguments": {"a": "ö"}}},
        {"function": {"name": "g"}},
        {"function": {}},
        1,
    ]
    answer = OLLAMA_CHAT.parse_answer({"message": {"tool_calls": calls}, "done_reason": "stop"})
    assert answer.parts == (ToolUse("", "f", '{"a":"ö"}'), ToolUse("", "g", "{}"))
    assert answer.stop == Stopped(StopReason.TOOL_USE, "stop")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", StopReason.END),
        ("length", StopReason.LENGTH),
        ("load", StopReason.OTHER),
        ("unload", StopReason.OTHER),
        ("", StopReason.END),
        (None, StopReason.END),
    ],
)
def test_a_reason_is_read(word: str | None, reason: StopReason) -> None:
    """Old servers give none."""
    assert OLLAMA_CHAT.parse_answer({"message": {}, "done_reason": word}).stop.reason is reason


@pytest.mark.parametrize("data", [{}, {"message": "x"}, {"response": "x"}, {"error": "gone"}])
def test_what_is_no_answer_of_a_chat_is_refused(data: Json) -> None:
    """The two dialects are told apart."""
    with pytest.raises(ValueError, match="message"):
        OLLAMA_CHAT.parse_answer(data)


@pytest.mark.parametrize("data", [{}, {"response": None}, {"message": {}}])
def test_what_is_no_answer_of_a_completion_is_refused(data: Json) -> None:
    """As above."""
    with pytest.raises(ValueError, match="response"):
        OLLAMA_GENERATE.parse_answer(data)


def test_an_answer_of_another_dialect_has_every_field() -> None:
    """Clients add up the durations and parse the time, so both are always there."""
    data, losses = rendered(
        Reasoning("hm", signature="s"),
        Reasoning(redacted="r"),
        Text("a", {"citations": []}),
        Refusal("b"),
        ToolUse("1", "f", '{"a":1}'),
        ToolUse("", "g", "{"),
        Audio(id="z"),
        model="",
        rest={"container": 1},
    )
    assert data == {
        "model": "asked",
        "created_at": "1970-01-01T00:00:05Z",
        "message": {
            "role": "assistant",
            "content": "ab",
            "thinking": "hm",
            "tool_calls": [
                {"id": "1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}},
                {"function": {"index": 1, "name": "g", "arguments": {"_raw": "{"}}},
            ],
        },
        "done": True,
        "done_reason": "stop",
        "total_duration": 0,
        "load_duration": 0,
        "prompt_eval_duration": 0,
        "eval_duration": 0,
        "prompt_eval_count": 3,
        "eval_count": 4,
    }
    assert losses == (
        *("thinking.signature", "part:redacted_thinking", "citations", "tool_calls.arguments"),
        *("part:audio", "container"),
    )


@pytest.mark.parametrize(
    ("reason", "word", "losses"),
    [
        (StopReason.LENGTH, "length", ()),
        (StopReason.TOOL_USE, "stop", ()),
        (StopReason.STOP_SEQUENCE, "stop", ()),
        (StopReason.REFUSED, "stop", ("stop_reason:raw",)),
        (StopReason.PAUSED, "stop", ("stop_reason:raw",)),
        (StopReason.FILTERED, "stop", ("stop_reason:raw",)),
        (StopReason.OTHER, "stop", ("stop_reason:raw",)),
    ],
)
def test_a_reason_without_a_word_is_a_loss(reason: StopReason, word: str, losses: tuple[str, ...]) -> None:
    """There are only two words."""
    data, lost = rendered(Text("a"), stop=reason)
    assert (data["done_reason"], lost) == (word, losses)


@pytest.mark.parametrize("created", [-1, 0, 10**18, 253_402_300_799])
def test_a_time_is_written_whatever_it_is(created: int) -> None:
    """A provider may count in other units."""
    data, _ = rendered(created=created)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", data["created_at"])


@pytest.mark.parametrize(
    ("time", "created"),
    [
        ("2026-10-17T23:14:07.414671123Z", 1792278847),
        ("2026-10-18T01:14:07+02:00", 1792278847),
        ("2026-10-17T23:14:07", 1792278847),
        ("0001-01-01T00:00:00Z", 0),
        ("soon", 0),
        (5, 0),
    ],
)
def test_a_time_is_read_whatever_it_is(time: object, created: int) -> None:
    """With nanoseconds, with an offset, without one."""
    assert OLLAMA_CHAT.parse_answer({"message": {}, "created_at": time}).created == created


def test_a_chat_answer_can_be_one_of_a_completion() -> None:
    """And what it measured goes with it."""
    answer = OLLAMA_CHAT.parse_answer(WHOLE)
    found = OLLAMA_GENERATE.render_answer(answer, request=GENERATE)
    assert (found.data["response"], found.data["thinking"]) == ("Hi", "hm")
    assert found.data["total_duration"] == 174560334
    assert found.losses == ("message.x_note",)
    assert set(OPENAI_CHAT.render_answer(answer, request=CHAT).losses) >= {"x_new", "message.x_note"}


WORDS = st.sampled_from(
    ["role", "content", "tool_calls", "function", "name", "arguments", "id", "thinking", "images"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, JSON, max_size=5), JSON)
@settings(max_examples=150, deadline=None)
def test_odd_answers_never_break_anything(message: Json, odd: Any) -> None:
    """Whatever a server sends, it is an answer that can be written, or a ValueError."""
    fields = {"done_reason": odd, "logprobs": odd, "created_at": odd, "eval_count": odd, "model": odd}
    answer = OLLAMA_CHAT.parse_answer({"message": message} | fields)
    assert orjson.dumps(OLLAMA_CHAT.render_answer(answer, request=CHAT).data)
    assert orjson.dumps(OPENAI_CHAT.render_answer(answer, request=CHAT).data)
