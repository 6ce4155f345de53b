from __future__ import annotations

from typing import Any

import orjson
import pytest
from openai.types.responses import Response

from tokenhub_core.dialects.openai_responses import OPENAI_RESPONSES
from tokenhub_core.types import (
    Answer,
    Audio,
    Dialect,
    Image,
    Json,
    Logprob,
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

END = Stopped(StopReason.END)


def message(*content: Json) -> Json:
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": list(content)}


def response(*output: Json, **fields: Any) -> Json:
    return {"id": "resp_1", "object": "response", "status": "completed", "output": list(output)} | fields


def shown(
    *parts: Part, stop: Stopped = END, body: Json | None = None, **more: Any
) -> tuple[Response, tuple[str, ...]]:
    """Return what the caller's SDK makes of an answer, and the losses."""
    answer = Answer("chatcmpl-1", "served", parts, stop, Usage(10, 5, 4, 2, 3), 7, **more)
    request = OPENAI_RESPONSES.open(orjson.dumps({"model": "asked", "input": "Hello"} | (body or {})))
    result = OPENAI_RESPONSES.render_answer(answer, request=request)
    return Response.model_validate(result.data, strict=True), result.losses


# --- parse


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"output": None},
        {"output": ["x"]},
        {"object": "error", "message": "x"},
        response(status="failed", error={"code": "server_error", "message": "x"}),
        response(status="in_progress"),
        response(status="queued"),
        response({"type": "function_call", "call_id": "c", "arguments": "{}"}),
    ],
)
def test_what_is_no_finished_response_is_refused(data: Json) -> None:
    """Whoever asked for it decides what to do then."""
    with pytest.raises(ValueError, match="expected"):
        OPENAI_RESPONSES.parse_answer(data)


@pytest.mark.parametrize(
    ("data", "stop"),
    [
        (response(message()), Stopped(StopReason.END, "completed")),
        (response(message(), status=None), Stopped(StopReason.END)),
        (
            response({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}),
            Stopped(StopReason.TOOL_USE, "completed"),
        ),
        (response({"type": "custom_tool_call", "name": "f"}), Stopped(StopReason.END, "completed")),
        (response(message({"type": "refusal", "refusal": "No."})), Stopped(StopReason.REFUSED, "completed")),
        (
            response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            Stopped(StopReason.LENGTH, "max_output_tokens"),
        ),
        (
            response(status="incomplete", incomplete_details={"reason": "content_filter"}),
            Stopped(StopReason.FILTERED, "content_filter"),
        ),
        (
            response(status="incomplete", incomplete_details={"reason": "steered"}),
            Stopped(StopReason.OTHER, "steered"),
        ),
        (response(status="incomplete"), Stopped(StopReason.OTHER, "incomplete")),
    ],
)
def test_why_it_stopped_is_told_in_three_places(data: Json, stop: Stopped) -> None:
    """The status, the reason for being incomplete, and what the output holds."""
    assert OPENAI_RESPONSES.parse_answer(data).stop == stop


def test_what_a_response_repeats_of_its_request_is_no_loss() -> None:
    """Only what says something of the answer is kept for others to name."""
    data = response(
        message(),
        tools=[{}],
        instructions="x",
        reasoning={"effort": "low"},
        service_tier="default",
        moderation={"input": {}},
    )
    assert list(OPENAI_RESPONSES.parse_answer(data).rest) == ["moderation"]
    assert list(OPENAI_RESPONSES.parse_answer(response(service_tier="flex")).rest) == ["service_tier"]


def test_annotations_and_log_probabilities_are_kept() -> None:
    """The former as they are, the latter as values."""
    text = {"type": "output_text", "text": "A", "annotations": [{"type": "url_citation"}]}
    text["logprobs"] = [{"token": "A", "logprob": -1, "bytes": [65], "top_logprobs": []}, {"odd": 1}]
    (part,) = OPENAI_RESPONSES.parse_answer(response(message(text))).parts
    assert part == Text("A", {"annotations": [{"type": "url_citation"}]}, (Logprob("A", -1),))


def test_what_a_message_is_to_its_turn_is_kept() -> None:
    """With its first text, and on the message again; no other dialect has a word for it."""
    refusal, text = {"type": "refusal", "refusal": "No."}, {"type": "output_text", "text": "A"}
    found = OPENAI_RESPONSES.parse_answer(response({**message(refusal, text), "phase": "commentary"}))
    assert found.parts == (Refusal("No."), Text("A", {"phase": "commentary"}))
    request = OPENAI_RESPONSES.open(b'{"input":"Hello"}')
    (_, again) = OPENAI_RESPONSES.render_answer(found, request=request).data["output"]
    assert again["phase"] == "commentary"
    assert "phase" not in again["content"][0]


def test_a_call_without_a_call_id_takes_its_items() -> None:
    """Some servers tell but one id; and arguments that are no text become some."""
    item = {"type": "function_call", "id": "fc_1", "name": "f", "arguments": {"a": 1}}
    (use,) = OPENAI_RESPONSES.parse_answer(response(item)).parts
    assert isinstance(use, ToolUse)
    assert (use.id, use.arguments) == ("fc_1", '{"a":1}')


def test_a_count_that_is_an_object_does_not_break_the_answer() -> None:
    """What a provider tells where a number belongs is kept beside the number."""
    answer = OPENAI_RESPONSES.parse_answer(response(usage={"total_tokens": {"x": 1}, "input_tokens": 3}))
    request = OPENAI_RESPONSES.open(b'{"model":"m","input":"Hello"}')
    data = OPENAI_RESPONSES.render_answer(answer, request=request).data
    assert (data["usage"]["total_tokens"], data["usage.total_tokens.x"]) == (3, 1)


def test_usage_is_read_wherever_there_is_some() -> None:
    """Zeros for what is not told."""
    assert OPENAI_RESPONSES.usage({"usage": {"input_tokens": 3, "output_tokens": "x"}}) == Usage(3)
    assert OPENAI_RESPONSES.usage({}) == Usage()


# --- render


def test_an_answer_is_a_response_of_the_sdk() -> None:
    """Every item has an id of its own, and the response repeats what the caller asked for."""
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    body = {
        "tools": [tool],
        "tool_choice": "required",
        "temperature": 0.5,
        "instructions": "I",
        "store": True,
    }
    seen, losses = shown(
        Reasoning("Hm.", signature="anthropic_messages:EqMB"),
        Reasoning(redacted="openai_responses:gAAAA", id="rs_9"),
        Text("A cat.", logprobs=(Logprob("A", -1.0, (Logprob("é", -2.0),)),)),
        Image(media_type="image/png", data="QQ=="),
        ToolUse("c1", "f", '{"a":1}', signature="gemini:Sig"),
        ToolUse("", "g", ""),
        body=body,
        stop=Stopped(StopReason.TOOL_USE),
    )
    assert losses == ()
    kinds = ["reasoning", "reasoning", "message", "image_generation_call", "reasoning", "function_call"]
    assert [item.type for item in seen.output] == [*kinds, "function_call"]
    assert len({item.id for item in seen.output}) == 7
    dumped = [item.model_dump() for item in seen.output]
    assert [item.get("encrypted_content") for item in dumped if item["type"] == "reasoning"] == [
        "tokenhub-seal:anthropic_messages:EqMB#signed",
        "gAAAA",
        "tokenhub-seal:gemini:Sig#call",
    ]
    assert [(item["call_id"], item["arguments"]) for item in dumped[-2:]] == [
        ("c1", '{"a":1}'),
        ("call_chatcmpl-1_1", "{}"),
    ]
    assert dumped[2]["content"][0]["logprobs"][0]["top_logprobs"][0]["bytes"] == [0xC3, 0xA9]
    assert (seen.id, seen.model, seen.created_at, seen.status) == (
        "resp_chatcmpl-1",
        "served",
        7,
        "completed",
    )
    assert (seen.output_text, seen.instructions, seen.temperature) == ("A cat.", "I", 0.5)
    assert (seen.tool_choice, seen.tools[0].type) == ("required", "function")
    assert seen.model_dump()["store"] is False
    assert seen.usage is not None
    assert seen.usage.model_dump(exclude_none=True) == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 15,
    }


@pytest.mark.parametrize(
    ("stop", "status", "reason", "losses"),
    [
        (END, "completed", None, ()),
        (Stopped(StopReason.STOP_SEQUENCE, "stop", "x"), "completed", None, ()),
        (Stopped(StopReason.LENGTH), "incomplete", "max_output_tokens", ()),
        (Stopped(StopReason.FILTERED), "incomplete", "content_filter", ()),
        (Stopped(StopReason.REFUSED), "incomplete", "content_filter", ()),
        (Stopped(StopReason.OTHER, "steered"), "incomplete", "steered", ()),
        (Stopped(StopReason.PAUSED, "pause_turn"), "completed", None, ("stop_reason:pause_turn",)),
        (Stopped(StopReason.OTHER, "odd"), "completed", None, ("stop_reason:odd",)),
    ],
)
def test_every_stop_has_a_status(
    stop: Stopped, status: str, reason: str | None, losses: tuple[str, ...]
) -> None:
    """What has no word here is named."""
    seen, lost = shown(Text("x"), stop=stop)
    assert (seen.status, lost) == (status, losses)
    assert (seen.incomplete_details.reason if seen.incomplete_details else None) == reason
    assert getattr(seen.output[-1], "status", None) == status


def test_a_refusal_in_words_is_a_whole_answer() -> None:
    """The words tell it, so the response is complete."""
    seen, _ = shown(Refusal("No."), stop=Stopped(StopReason.REFUSED))
    assert seen.status == "completed"


def test_what_has_no_place_is_named() -> None:
    """Parts by their kind, members by their names."""
    opaque = Opaque(Dialect.ANTHROPIC_MESSAGES, "server_tool_use", {})
    _, losses = shown(Text("x", {"citations": []}), Audio("audio/wav", "x"), opaque, rest={"container": {}})
    assert losses == ("citations", "part:audio", "part:server_tool_use", "container")


@pytest.mark.parametrize("when", [1e308, -1, "soon", None, 1 << 60])
def test_a_time_that_cannot_be_is_none(when: object) -> None:
    """What a provider calls a time may be too large for any integer on a wire."""
    assert OPENAI_RESPONSES.parse_answer(response(created_at=when)).created == 0


def test_text_after_an_item_without_a_type_is_a_message_of_its_own() -> None:
    """An item that is kept as it came may lack what all others have."""
    odd: Json = {"id": "x_1", "text": "?"}
    answer = OPENAI_RESPONSES.parse_answer(response(odd, message({"type": "output_text", "text": "Hi"})))
    request = OPENAI_RESPONSES.open(b'{"model":"m","input":"x"}')

    output = OPENAI_RESPONSES.render_answer(answer, request=request).data["output"]

    assert [item.get("type") for item in output] == [None, "message"]
