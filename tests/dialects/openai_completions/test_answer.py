from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from openai.types import Completion

from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.dialects.openai_completions import OPENAI_COMPLETIONS
from tokenhub_core.dialects.sse import Parser
from tokenhub_core.types import (
    Answer,
    Delta,
    Failed,
    Finished,
    Image,
    Json,
    Logprob,
    MediaDelta,
    Part,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    Started,
    Stopped,
    StopReason,
    Text,
    TextDelta,
    ToolArguments,
    ToolStarted,
    ToolUse,
    Unread,
    Usage,
    UsageSeen,
)

REQUEST = OPENAI_COMPLETIONS.open(b'{"model":"asked","prompt":"Hi"}')
ECHO = OPENAI_COMPLETIONS.open(b'{"model":"asked","prompt":["Hi"],"echo":true}')
WHOLE: Json = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 5,
    "model": "m",
    "choices": [
        {
            "text": " ab",
            "index": 0,
            "logprobs": {
                "tokens": [" a", "b"],
                "token_logprobs": [-0.5, -1.5],
                "top_logprobs": [{" a": -0.5}, {}],
                "text_offset": [0, 2],
            },
            "finish_reason": "length",
        },
        {"text": " c", "index": 1, "logprobs": None, "finish_reason": "stop"},
    ],
    "usage": {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1},
    },
    "system_fingerprint": "fp",
    "x_new": 1,
}


def rendered(*parts: Part, **fields: Any) -> tuple[Completion, tuple[str, ...]]:
    answer = structs.replace(Answer("x", "m", parts, Stopped(StopReason.END), Usage(3, 4), 5), **fields)
    found = OPENAI_COMPLETIONS.render_answer(answer, request=REQUEST)
    return Completion.model_validate(orjson.loads(orjson.dumps(found.data))), found.losses


def test_a_whole_answer_is_read_and_within_the_dialect_nothing_is_lost() -> None:
    """Its text with the log probabilities, its reason and usage; further choices come back where they were."""
    answer = OPENAI_COMPLETIONS.parse_answer(WHOLE)
    logprobs = (Logprob(" a", -0.5, (Logprob(" a", -0.5),)), Logprob("b", -1.5))
    assert answer.parts == (Text(" ab", logprobs=logprobs),)
    assert (answer.id, answer.model, answer.created) == ("cmpl-1", "m", 5)
    assert answer.stop == Stopped(StopReason.LENGTH, "length")
    assert answer.usage == OPENAI_COMPLETIONS.usage(WHOLE) == Usage(3, 4, 1)
    assert OPENAI_COMPLETIONS.render_answer(answer, request=REQUEST).data == WHOLE


def test_further_choices_are_none_of_a_chat() -> None:
    """They are of another shape, so a caller of chat completions hears that there were more."""
    request = OPENAI_CHAT.open(b'{"messages":[{"role":"user","content":"Hi"}]}')
    found = OPENAI_CHAT.render_answer(OPENAI_COMPLETIONS.parse_answer(WHOLE), request=request)
    assert len(found.data["choices"]) == 1
    assert "choices[n>1]" in found.losses


@pytest.mark.parametrize(
    "data", [{}, {"choices": []}, {"choices": [1]}, {"choices": [{"message": {}}]}, {"error": {}}]
)
def test_what_is_no_completion_is_refused(data: Json) -> None:
    """A chat completion is none."""
    with pytest.raises(ValueError, match="choices"):
        OPENAI_COMPLETIONS.parse_answer(data)


def test_an_answer_of_another_dialect_fits_the_sdk() -> None:
    """Only its text can be told."""
    answer, losses = rendered(
        Reasoning("hm", signature="s"),
        Text("a", {"citations": []}),
        Refusal("b"),
        ToolUse("1", "f", "{}"),
        model="",
        stop=Stopped(StopReason.TOOL_USE, "tool_use"),
        rest={"container": {}},
    )
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, choice.logprobs) == ("ab", "stop", None)
    assert (answer.id, answer.model, answer.created) == ("cmpl-x", "asked", 5)
    assert losses == (
        *("stop_reason:tool_use", "part:thinking", "thinking.signature", "citations", "part:tool_use"),
        "container",
    )


def test_an_echoed_prompt_stands_before_the_answer() -> None:
    """As the caller asked, whoever answers."""
    answer = Answer(
        "x", "m", (Text(" there", logprobs=(Logprob(" there", -1),)),), Stopped(StopReason.END), Usage()
    )
    choice = OPENAI_COMPLETIONS.render_answer(answer, request=ECHO).data["choices"][0]
    assert (choice["text"], choice["logprobs"]["text_offset"]) == ("Hi there", [2])
    assert [chunk.choices[0].text for chunk in write(TextDelta(" there"), Finished(), echo=True)[0]] == [
        "Hi there",
        "",
    ]


# --- streams -----------------------------------------------------------------------------------------------


def read(*chunks: Any, event: str = "") -> list[Delta]:
    reader = OPENAI_COMPLETIONS.reader()
    found = [chunk if isinstance(chunk, bytes) else orjson.dumps(chunk) for chunk in chunks]
    deltas = [delta for data in found for delta in reader.read(event, data)]
    assert list(reader.end()) == []
    return deltas


def write(
    *deltas: Delta, usage: bool = False, echo: bool = False
) -> tuple[list[Completion], tuple[str, ...]]:
    body = ECHO.data | ({"stream_options": {"include_usage": True}} if usage else {}) | {"echo": echo}
    request = OPENAI_COMPLETIONS.open(orjson.dumps(body))
    writer = OPENAI_COMPLETIONS.writer(request=request, created=7, fallback_id="f1")
    events = Parser().feed(b"".join(map(writer.write, deltas)))
    chunks = [orjson.loads(event.data) for event in events if event.data != b"[DONE]"]
    # The SDK's type asks for a finish reason in every chunk, which no server sends.
    return [Completion.construct(**chunk) for chunk in chunks], writer.losses()


def chunk(text: str = "", **choice: Any) -> Json:
    return {"id": "c", "model": "m", "created": 5, "choices": [{"text": text, "index": 0, **choice}]}


def test_a_stream_is_read() -> None:
    """One start, texts, one reason, usage, the end."""
    assert read(
        chunk("a", logprobs={"tokens": ["a"], "token_logprobs": [-1]}),
        chunk(""),
        chunk("b", finish_reason="stop"),
        chunk("", finish_reason="stop"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
        b" ",
        b"[DONE]",
    ) == [
        Started("c", "m", 5),
        TextDelta("a", (Logprob("a", -1),)),
        TextDelta("b"),
        Stopped(StopReason.END, "stop"),
        UsageSeen(Usage(3, 4)),
        Finished(),
    ]
    further = {"choices": [{"text": "x", "index": 1}]}
    assert read(chunk(), further, further)[1:] == [Unread("choices[n>1]")]


@pytest.mark.parametrize(
    ("data", "failed"),
    [
        ({"error": {"message": "gone", "code": 503}}, Failed(503, "503", "gone")),
        ({"object": "error", "message": "bad", "code": 404}, Failed(404, "404", "bad")),
    ],
)
def test_an_error_inside_the_stream_is_a_failure(data: Json, failed: Failed) -> None:
    """As in a chat; an event of that name is one, too."""
    assert read(data) == [failed]
    (named,) = read({"message": "x"}, event="error")
    assert isinstance(named, Failed)


@pytest.mark.parametrize("data", [b"{", b"[]", b"null", b"\xff"])
def test_what_is_no_chunk_is_a_failure(data: bytes) -> None:
    """Never an exception."""
    (delta,) = read(data)
    assert isinstance(delta, Failed)
    assert delta.code == "bad_json"


def test_a_stream_is_written() -> None:
    """Usage last and only on request, one finish reason, and what no text can hold as losses."""
    chunks, losses = write(
        Started("1", "served", 9),
        ReasoningDelta("hm"),
        ReasoningDelta(redacted="r"),
        TextDelta("a", (Logprob("a", -1),)),
        RefusalDelta("b"),
        TextDelta("c", (Logprob("c", -1),)),
        ToolStarted(0, "1", "f"),
        ToolArguments(0, "{}"),
        MediaDelta(Image(url="u")),
        Unread("x"),
        Failed(500, "a", "b"),
        UsageSeen(Usage(3, 4)),
        Stopped(StopReason.TOOL_USE),
        Stopped(StopReason.END),
        Finished(),
        TextDelta("late"),
        usage=True,
    )
    assert [choice.text for each in chunks for choice in each.choices] == ["a", "b", "c", ""]
    assert [each.choices[0].finish_reason for each in chunks if each.choices] == [None, None, None, "stop"]
    assert (chunks[0].id, chunks[0].model, chunks[0].created) == ("cmpl-1", "served", 9)
    offsets = [each.choices[0].logprobs for each in chunks[:3]]
    assert [found.text_offset if found else None for found in offsets] == [[0], None, [2]]
    assert (chunks[0].usage, chunks[-1].choices) == (None, [])
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 7
    assert losses == (
        *("part:thinking", "part:redacted_thinking", "part:tool_use", "part:image", "x"),
        "stop_reason:tool_use",
    )


def test_what_the_provider_did_not_say_comes_from_the_fallbacks() -> None:
    """A late start changes nothing, an end without a reason gets one."""
    chunks, _ = write(TextDelta("a"), Started("late", "late", 1), Finished())
    assert {(each.id, each.model, each.created) for each in chunks} == {("cmpl-f1", "asked", 7)}
    assert [each.choices[0].finish_reason for each in chunks] == [None, "stop"]


WORDS = st.sampled_from(
    ["id", "choices", "index", "text", "logprobs", "tokens", "finish_reason", "usage", "error"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 600) | WORDS | st.just(""),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(WORDS, JSON, max_size=4), max_size=5), JSON)
@settings(max_examples=120, deadline=None)
def test_odd_bodies_never_break_anything(chunks: list[Any], odd: Any) -> None:
    """Whatever a provider sends, it can be written or it is told to be none."""
    write(*read(*chunks), Finished())
    answer = OPENAI_COMPLETIONS.parse_answer(
        {"choices": [{"text": "a", "logprobs": odd, "finish_reason": odd}, odd], "id": odd, "usage": odd}
    )
    assert OPENAI_COMPLETIONS.render_answer(answer, request=REQUEST).data["choices"]
