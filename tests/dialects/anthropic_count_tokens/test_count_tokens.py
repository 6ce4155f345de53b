from __future__ import annotations

from typing import Any

import orjson
import pytest
from anthropic.types import MessageTokensCount

from tokenhub_core.dialects.anthropic_count_tokens import ANTHROPIC_COUNT_TOKENS, estimated
from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.types import (
    Answer,
    Call,
    Dialect,
    Finished,
    Json,
    Need,
    Request,
    Stopped,
    StopReason,
    TextSlot,
    Usage,
)

FULL: Json = {
    "model": "claude-sonnet-4-5",
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Grüße"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            ],
        },
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "12"}]},
    ],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "enabled", "budget_tokens": 2048},
    "output_config": {"effort": "low"},
    "x_new": 1,
}


def opened(**fields: Any) -> Request:
    return ANTHROPIC_COUNT_TOKENS.open(orjson.dumps(FULL | fields), "/v1/messages/count_tokens?beta=true")


def test_a_request_is_that_of_a_message_without_a_cap() -> None:
    """It is measured the same way; the body stays the caller's own."""
    request = opened()
    message = ANTHROPIC_MESSAGES.open(orjson.dumps(FULL | {"max_tokens": 1})).features
    features = request.features
    assert (features.text_bytes, features.media, features.turns) == (message.text_bytes, 1, 3)
    assert features.needs == {Need.VISION, Need.TOOLS}
    assert (features.model, features.max_output_tokens, features.stream) == (FULL["model"], None, False)
    assert (request.dialect, request.data) == (Dialect.ANTHROPIC_COUNT_TOKENS, FULL)
    assert (request.body, request.path) == (orjson.dumps(FULL), "/v1/messages/count_tokens?beta=true")


def test_a_cap_or_a_wish_for_a_stream_says_nothing_here() -> None:
    """Whatever stands there is the provider's to judge."""
    for odd in (0, 9, "many"):
        assert opened(max_tokens=odd, stream=True).features == opened().features


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"system": 5}, "system"),
        ({"tools": [{}]}, "tools[0].name"),
        ({"model": 1}, "model"),
    ],
)
def test_a_wrong_field_is_named(fields: Json, param: str) -> None:
    """As for a message."""
    with pytest.raises(TokenHubError) as caught:
        opened(**fields)
    assert (caught.value.fault.kind, caught.value.fault.param) == (Kind.INVALID, param)


def test_directives_stand_where_they_stand_in_a_message() -> None:
    """They are taken out, because they would be counted."""
    data = opened().data
    slots = [
        TextSlot("system", ("system", 0, "text"), "Be brief."),
        TextSlot("user", ("messages", 0, "content", 0, "text"), "Grüße"),
    ]
    assert list(ANTHROPIC_COUNT_TOKENS.text_slots(data)) == slots
    replaced = ANTHROPIC_COUNT_TOKENS.replace_texts(data, [(slots[0].path, "")])
    assert "system" not in replaced


def test_only_the_model_is_ever_changed() -> None:
    """No cap applies, and the same model gives the very same bytes."""
    request = opened()
    assert ANTHROPIC_COUNT_TOKENS.patch(request, model=FULL["model"], max_output_tokens=9) is request.body
    patched = ANTHROPIC_COUNT_TOKENS.patch(request, model="other", max_output_tokens=9)
    assert patched == request.body.replace(b"claude-sonnet-4-5", b"other")


def test_no_call_is_translated() -> None:
    """Neither to nor from another dialect; and the enumeration says so."""
    assert not Dialect.ANTHROPIC_COUNT_TOKENS.translates
    call = Call(Dialect.ANTHROPIC_MESSAGES, "m", ())
    for attempt in (
        lambda: ANTHROPIC_COUNT_TOKENS.parse(opened()),
        lambda: ANTHROPIC_COUNT_TOKENS.render(call, model="m", max_output_tokens=None),
    ):
        with pytest.raises(TokenHubError, match="not translated") as caught:
            attempt()
        assert (caught.value.fault.kind, caught.value.fault.cause) == (Kind.INVALID, "not_translated")


def test_an_answer_is_one_number() -> None:
    """Counted by a provider, or estimated by us; the SDK takes both."""
    answer = ANTHROPIC_COUNT_TOKENS.parse_answer({"input_tokens": 2095, "x_new": 1})
    assert (answer.parts, answer.usage) == ((), Usage(2095))
    assert ANTHROPIC_COUNT_TOKENS.usage({"input_tokens": 2095}) == Usage(2095)
    rendered = ANTHROPIC_COUNT_TOKENS.render_answer(answer, request=opened())
    assert MessageTokensCount.model_validate(rendered.data).input_tokens == 2095
    assert MessageTokensCount.model_validate(estimated(7)).input_tokens == 7
    assert estimated(-1) == {"input_tokens": 0}
    empty = Answer("", "", (), Stopped(StopReason.END), Usage())
    assert ANTHROPIC_COUNT_TOKENS.render_answer(empty, request=opened()).data == {"input_tokens": 0}


@pytest.mark.parametrize("value", [None, "5", True, 1.5, -1])
def test_what_is_no_count_is_refused(value: object) -> None:
    """Its usage is nothing."""
    with pytest.raises(ValueError, match="input_tokens"):
        ANTHROPIC_COUNT_TOKENS.parse_answer({"input_tokens": value})
    assert ANTHROPIC_COUNT_TOKENS.usage({"input_tokens": value}) == Usage()


def test_there_are_no_streams() -> None:
    """Nothing cuts, reads or writes one."""
    request = opened()
    assert ANTHROPIC_COUNT_TOKENS.parser("text/event-stream") is None
    assert list(ANTHROPIC_COUNT_TOKENS.reader().read("", b"{}")) == []
    writer = ANTHROPIC_COUNT_TOKENS.writer(request=request, created=1, fallback_id="f")
    assert (writer.write(Finished()), writer.losses()) == (b"", ())
    assert ANTHROPIC_COUNT_TOKENS.stream_type(request) == "application/json"
    assert ANTHROPIC_COUNT_TOKENS.keep_alive(request) == b""
    assert not ANTHROPIC_COUNT_TOKENS.hides("", b"{}", request=request)


def test_path_and_errors_are_those_of_messages() -> None:
    """As the caller's SDK expects them."""
    assert ANTHROPIC_COUNT_TOKENS.operation(model="m", stream=False) == "/messages/count_tokens"
    asked = ANTHROPIC_COUNT_TOKENS.open(
        b'{"model":"m","messages":[{"role":"user","content":"x"}]}', "/v1/messages/count_tokens?beta=true"
    )
    kept = ANTHROPIC_COUNT_TOKENS.operation(model="m", stream=False, request=asked)
    assert kept == "/messages/count_tokens?beta=true"
    fault = Fault(Kind.NOT_FOUND, Blame.CLIENT, "no such model")
    reply = ANTHROPIC_COUNT_TOKENS.error(fault, request_id="req_1")
    error = {"type": "not_found_error", "message": "no such model"}
    assert (reply.status, orjson.loads(reply.body)["error"]) == (404, error)
    assert b"not_found_error" in ANTHROPIC_COUNT_TOKENS.stream_error(fault, request_id="req_1")
