from __future__ import annotations

from typing import Any

import orjson
import pytest
from anthropic.types import Message

from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.dialects.base import Rendered
from tokenhub_core.types import (
    Answer,
    Dialect,
    Json,
    Opaque,
    Reasoning,
    Refusal,
    Stopped,
    StopReason,
    Text,
    ToolUse,
    Usage,
)

REQUEST = ANTHROPIC_MESSAGES.open(
    b'{"model":"asked-for","max_tokens":9,"messages":[{"role":"user","content":"x"}]}'
)
WHOLE: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xx"},
        {"type": "text", "text": "Hello"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 5,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 3,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 4},
    },
    "container": {"id": "c", "expires_at": "2026-01-01T00:00:00Z"},
}
ANSWER = Answer(
    id="msg_1",
    model="claude",
    parts=(
        Reasoning("hm", "anthropic_messages:sig"),
        Reasoning(redacted="anthropic_messages:xx"),
        Text("Hello"),
        ToolUse("t", "f", '{"x":1}'),
        Opaque(Dialect.ANTHROPIC_MESSAGES, "server_tool_use", WHOLE["content"][4]),
    ),
    stop=Stopped(StopReason.TOOL_USE, "tool_use"),
    usage=Usage(10, 7, 3, 2, 4),
    rest={"container": WHOLE["container"]},
)


def render(*parts: Any, stop: StopReason = StopReason.END, **members: Any) -> Rendered:
    answer = Answer("chatcmpl-1", "gpt", parts, Stopped(stop, "stop"), Usage(3, 2), **members)
    rendered = ANTHROPIC_MESSAGES.render_answer(answer, request=REQUEST)
    Message.model_validate(rendered.data, strict=True)
    return rendered


def test_a_whole_answer_is_read() -> None:
    """Every block in its canonical form; counts include the cache; other members are kept."""
    assert ANTHROPIC_MESSAGES.parse_answer(WHOLE) == ANSWER
    assert ANTHROPIC_MESSAGES.usage(WHOLE) == ANSWER.usage


def test_an_answer_of_this_dialect_is_restored() -> None:
    """Reading and writing again gives the same object, and the SDK takes it."""
    rendered = ANTHROPIC_MESSAGES.render_answer(ANSWER, request=REQUEST)
    assert rendered == Rendered(WHOLE)
    Message.model_validate(rendered.data)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "error"},
        {"type": "message"},
        {"type": "message", "content": "x"},
        {"type": "message", "content": [1]},
    ],
)
def test_what_is_no_message_is_refused(data: Json) -> None:
    """ValueError says what was expected."""
    with pytest.raises(ValueError, match="expected"):
        ANTHROPIC_MESSAGES.parse_answer(data)


def test_arguments_nested_beyond_measure_are_refused_too() -> None:
    """Deep enough to be decoded and too deep to be encoded is no answer."""
    tool = b'{"type":"tool_use","id":"t","name":"f","input":{"x":' + b"[" * 500 + b"]" * 500 + b"}}"
    data = orjson.loads(b'{"type":"message","content":[' + tool + b"]}")
    with pytest.raises(ValueError, match="content"):
        ANTHROPIC_MESSAGES.parse_answer(data)


def test_a_sparse_answer_is_still_an_answer() -> None:
    """Gateways leave much out; what is missing is empty."""
    answer = ANTHROPIC_MESSAGES.parse_answer({"type": "message", "content": [], "id": 4, "usage": None})
    assert answer == Answer("", "", (), Stopped(StopReason.OTHER), Usage())


def test_an_answer_of_another_dialect_is_a_message() -> None:
    """Ids and reasons in this dialect's words, unsigned reasoning shown, what has no place named."""
    rendered = render(
        Reasoning("hm"),
        Text("Hi", {"annotations": []}),
        Text(""),
        ToolUse("call_1", "f", "{"),
        ToolUse("", "g", ""),
        Opaque(Dialect.OPENAI_CHAT, "audio", {}),
        stop=StopReason.TOOL_USE,
        rest={"system_fingerprint": "fp", "stop_details": None},
    )
    assert rendered.data == {
        "id": "msg_chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "gpt",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "tokenhub-seal:carried:e30="},
            {"type": "text", "text": "Hi"},
            {"type": "tool_use", "id": "call_1", "name": "f", "input": {"_raw": "{"}},
            {"type": "tool_use", "id": "toolu_chatcmpl-1_1", "name": "g", "input": {}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 2,
        },
        "stop_details": None,
    }
    assert rendered.losses == ("annotations", "tool_calls.arguments", "part:audio", "system_fingerprint")


def test_refusals_are_text_and_a_reason() -> None:
    """Words of refusal are shown as text; a filter is a refusal too."""
    rendered = render(Refusal("I will not."), stop=StopReason.REFUSED)
    assert rendered.data["content"] == [{"type": "text", "text": "I will not."}]
    assert rendered.data["stop_reason"] == "refusal"
    assert render(Text("a"), stop=StopReason.FILTERED).data["stop_reason"] == "refusal"


def test_a_strange_stop_reason_is_an_ordinary_end_and_a_loss() -> None:
    """The caller's SDK knows seven reasons."""
    rendered = render(Text("a"), stop=StopReason.OTHER)
    assert (rendered.data["stop_reason"], rendered.losses) == ("end_turn", ("stop_reason:stop",))


def test_usage_of_a_body_without_counts_is_zero() -> None:
    """Also where the counts are no numbers."""
    assert ANTHROPIC_MESSAGES.usage({}) == Usage()
    assert ANTHROPIC_MESSAGES.usage({"usage": {"input_tokens": "5", "output_tokens": True}}) == Usage()
