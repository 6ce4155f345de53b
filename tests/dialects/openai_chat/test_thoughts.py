"""Thoughts that were signed or encrypted, on their way through this dialect."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.types import (
    Call,
    Dialect,
    Json,
    Part,
    Reasoning,
    ReasoningDelta,
    Role,
    Text,
    ToolStarted,
    ToolUse,
    Turn,
)

USER: Json = {"role": "user", "content": "x"}


def parsed(**message: Any) -> Call:
    body = {"model": "m", "messages": [USER, {"role": "assistant", "content": "a"} | message, USER]}
    return OPENAI_CHAT.parse(OPENAI_CHAT.open(orjson.dumps(body)))


def again(call: Call) -> tuple[Json, tuple[str, ...]]:
    rendered = OPENAI_CHAT.render(call, model="m", max_output_tokens=None)
    message: Json = rendered.data["messages"][1]
    return message, rendered.losses


def foreign(*parts: Part, model: str = "m") -> Rendered:
    turns = (Turn(Role.USER, (Text("x"),)), Turn(Role.ASSISTANT, parts))
    return OPENAI_CHAT.render(
        Call(Dialect.ANTHROPIC_MESSAGES, "m", turns), model=model, max_output_tokens=None
    )


def deltas(*chunks: Json) -> list[Any]:
    reader = OPENAI_CHAT.reader()
    found = [{"id": "c", "choices": [{"index": 0, "delta": delta}]} for delta in chunks]
    return [delta for chunk in found for delta in reader.read("", orjson.dumps(chunk))][1:]


def test_a_seal_of_another_dialect_is_not_shown_to_a_provider() -> None:
    """The text stays where the caller had it, the seal goes, and that is told."""
    item = {"type": "reasoning.text", "text": "hm", "signature": "tokenhub-seal:anthropic_messages:s"}
    call = parsed(reasoning_content="hm", reasoning_details=[item])
    assert call.turns[1].parts[0] == Reasoning("hm", "anthropic_messages:s")
    message, losses = again(call)
    assert message == {"role": "assistant", "content": "a", "reasoning_content": "hm"}
    assert losses == ("thinking.signature",)
    assert again(parsed(reasoning_details=[item])) == (
        {"role": "assistant", "content": "a"},
        ("thinking.signature", "part:thinking"),
    )


def test_a_text_and_what_was_encrypted_of_it_are_one_thought() -> None:
    """The same id says so."""
    items = [
        {"type": "reasoning.summary", "summary": "so", "id": "rs_1"},
        {"type": "reasoning.encrypted", "data": "tokenhub-seal:openai_responses:e", "id": "rs_1"},
        {"type": "reasoning.encrypted", "data": "tokenhub-seal:openai_responses:f", "id": "rs_2"},
    ]
    assert parsed(reasoning_details=items).turns[1].parts[:2] == (
        Reasoning("so", redacted="openai_responses:e", id="rs_1", summary=True),
        Reasoning(redacted="openai_responses:f", id="rs_2"),
    )


def test_details_that_we_do_not_know_stay_where_they_are() -> None:
    """All of them, as one odd item makes their order matter; so does a plain text that says something else."""
    odd: Json = {
        "reasoning_details": [{"type": "reasoning.odd"}],
        "reasoning": "hm",
        "reasoning_content": "ho",
    }
    call = parsed(**odd)
    assert call.turns[1].parts == (Reasoning("ho"), Text("a"))
    assert again(call) == ({"role": "assistant", "content": "a"} | odd, ())


def test_thoughts_go_back_to_the_servers_that_sealed_them() -> None:
    """From a client of another dialect, too; others' thoughts are dropped and told."""
    ours = Reasoning("hm", "openai_chat:s")
    theirs = Reasoning("ho", "anthropic_messages:t")
    rendered = foreign(ours, theirs, Reasoning("plain"), Text("a"))
    assert rendered.data["messages"][1] == {
        "role": "assistant",
        "content": "a",
        "reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "s", "index": 0}],
    }
    assert rendered.losses == ("part:thinking", "thinking.signature")


@pytest.mark.parametrize(("model", "echoed"), [("deepseek-v4", True), ("gpt-x", False)])
def test_models_that_want_their_plain_thoughts_with_their_calls_get_them(model: str, *, echoed: bool) -> None:
    """Other servers reject the field."""
    rendered = foreign(Reasoning("hm"), ToolUse("1", "f", "{}"), model=model)
    assert rendered.data["messages"][1].get("reasoning_content") == ("hm" if echoed else None)
    assert rendered.losses == (() if echoed else ("part:thinking",))
    assert foreign(Reasoning("hm"), Text("a"), model=model).losses == ("part:thinking",)


def test_a_signed_tool_call_keeps_its_signature_where_gemini_serves() -> None:
    """Elsewhere the field is unknown, and another maker's seal is nobody's business."""
    signed = ToolUse("1", "f", "{}", signature="gemini:s")
    call = foreign(signed, model="gemini-3").data["messages"][1]["tool_calls"][0]
    assert call["extra_content"] == {"google": {"thought_signature": "s"}}
    elsewhere = foreign(signed)
    assert "extra_content" not in elsewhere.data["messages"][1]["tool_calls"][0]
    assert elsewhere.losses == ("thinking.signature",)
    marked = {"google": {"thought_signature": "tokenhub-seal:anthropic_messages:s"}}
    use = {"id": "1", "function": {"name": "f", "arguments": "{}"}, "extra_content": marked}
    message, losses = again(parsed(tool_calls=[use]))
    assert "extra_content" not in message["tool_calls"][0]
    assert losses == ("thinking.signature",)


def test_a_streamed_signature_of_a_tool_call_reaches_the_client() -> None:
    """In the same place, marked where it is another dialect's."""
    extra = {"google": {"thought_signature": "s"}}
    (started,) = deltas(
        {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f"}, "extra_content": extra}]}
    )
    assert started == ToolStarted(0, "1", "f", "gemini:s")
    request = OPENAI_CHAT.open(b'{"messages":[{"role":"user"}],"stream":true}')
    writer = OPENAI_CHAT.writer(request=request, created=1, fallback_id="f")
    assert orjson.dumps({"extra_content": extra})[1:-1] in writer.write(started)
    assert b"tokenhub-seal:odd:s" in writer.write(ToolStarted(1, "2", "g", "odd:s"))


def test_streamed_details_are_blocks_of_thinking() -> None:
    """A new index begins a new one, a plain field that repeats their text is not read twice."""
    text = {"type": "reasoning.text", "index": 0}
    assert deltas(
        {"reasoning": "h", "reasoning_details": [text | {"text": "h"}]},
        {"reasoning": "m", "reasoning_details": [text | {"text": "m"}]},
        {"reasoning_details": [text | {"signature": "s"}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "two", "index": 1}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "e"}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "f"}]},
        {"reasoning_details": [{"type": "reasoning.summary", "summary": "so", "id": "i"}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "g", "id": "i"}]},
    ) == [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningDelta(signature="openai_chat:s"),
        ReasoningDelta("two", part=1),
        ReasoningDelta(redacted="openai_chat:e", part=2),
        ReasoningDelta(redacted="openai_chat:f", part=3),
        ReasoningDelta("so", id="i", part=4, summary=True),
        ReasoningDelta(redacted="openai_chat:g", id="i", part=4),
    ]


def test_odd_details_break_nothing() -> None:
    """Whatever stands there, the stream goes on."""
    cases: list[Any] = ["x", {}, [None, {"type": "reasoning.text", "text": 3, "index": []}, {"type": []}]]
    for odd in cases:
        assert deltas({"reasoning_details": odd, "reasoning": "a"})[-1] == ReasoningDelta("a")
