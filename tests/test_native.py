"""The engine's own way to be asked, as a body."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tokenhub_core import native
from tokenhub_core.errors import TokenHubError
from tokenhub_core.types import Form, Json, Mode, Need

HELLO = [{"role": "user", "content": "Hello"}]
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}


def opened(request: Json | None = None, **more: Any) -> native.Opened:
    return native.opened(
        orjson.dumps({"request": {"messages": HELLO, **(request or {})}, **more}), native.PATH
    )


def test_what_is_said_goes_on_as_it_is() -> None:
    """Every part and field of a message, and every parameter; what is our own affair does not."""
    messages = [
        {"role": "system", "content": "Be brief.", "name": "boss"},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, PICTURE], "x_mine": {"a": 1}},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "ok"},
    ]
    parameters = {"temperature": 0, "seed": 7, "x_new": [1]}
    found = opened(
        {
            "messages": messages,
            "parameters": parameters,
            "model_hint": " gpt-4o ",
            "meta": {"team": "search"},
            "id": "mine",
        },
        policy={"mode": "cheap"},
    )
    sent = orjson.loads(found.request.body)
    assert sent == {"model": "gpt-4o", "messages": messages, **parameters, "stream": False}
    assert Need.VISION in found.request.features.needs
    assert found.id == "mine"


def test_what_is_asked_for_beside_becomes_wishes() -> None:
    """By the field names of a policy; what is not said is not wished for."""
    schema = {"type": "object"}
    found = opened(
        {
            "meta": {"team": "search", "batch": 7, "dry": True},
            "output_schema": schema,
            "estimated_input_tokens": 9000,
        },
        policy={
            "mode": "cheap",
            "max_budget_usd": 0.5,
            "max_latency_ms": None,
            "min_weight": 3,
            "buffered": True,
            "guarded": True,
            "resume": True,
        },
        capabilities={"vision": True, "tools": False},
        output_format={"type": "json", "strip_think": True},
    )
    assert found.wishes == {
        "mode": Mode.CHEAP,
        "max_budget_usd": 0.5,
        "max_latency_ms": None,
        "min_weight": 3,
        "buffered": True,
        "guarded": True,
        "resume": True,
        "needs": frozenset({Need.VISION}),
        "tags": ("team:search", "batch:7", "dry:true"),
        "input_tokens": 9000,
        "output_schema": schema,
        "output_format": Form.JSON,
        "strip_think": True,
    }
    assert opened().wishes == {}
    assert opened(capabilities=["tools"]).wishes == {"needs": frozenset({Need.TOOLS})}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "body"),
        ({"request": {}}, "request"),
        ({"request": {"messages": []}}, "request.messages"),
        ({"request": {"messages": [{"role": "robot"}]}}, "request.messages[0].role"),
        ({"request": {"messages": [{"role": "user", "content": 3}]}}, "request.messages[0].content"),
        ({"request": {"messages": [3]}}, "request.messages[0]"),
        ({"request": {"messages": HELLO, "tools": []}}, "request"),
        ({"request": {"messages": HELLO, "stream": "yes"}}, "request.stream"),
        (
            {"request": {"messages": HELLO, "parameters": {"max_tokens": "x"}}},
            "request.parameters.max_tokens",
        ),
        ({"request": {"messages": HELLO, "parameters": {"model": "x"}}}, "request.parameters.model"),
        ({"request": {"messages": HELLO, "meta": {"a": "two words"}}}, "request.meta.a"),
        ({"request": {"messages": HELLO, "meta": {"a": []}}}, "request.meta[...]"),
        ({"request": {"messages": HELLO, "output_schema": []}}, "request.output_schema"),
        ({"request": {"messages": HELLO}, "policy": {"mode": "cheapest"}}, "policy.mode"),
        ({"request": {"messages": HELLO}, "policy": {"max_budget_usd": 101}}, "policy.max_budget_usd"),
        ({"request": {"messages": HELLO}, "policy": {"max_budget_usd": -1}}, "policy.max_budget_usd"),
        ({"request": {"messages": HELLO}, "policy": {"max_latency_ms": 0}}, "policy.max_latency_ms"),
        ({"request": {"messages": HELLO}, "policy": {"min_weight": 11}}, "policy.min_weight"),
        ({"request": {"messages": HELLO}, "policy": {"colour": "red"}}, "policy"),
        ({"request": {"messages": HELLO}, "capabilities": {"flight": True}}, "capabilities"),
        ({"request": {"messages": HELLO}, "output_format": {"type": "yaml"}}, "output_format.type"),
        (
            {"request": {"messages": HELLO}, "output_format": {"type": "json", "max_tokens": 5}},
            "output_format.max_tokens",
        ),
        (
            {"request": {"messages": HELLO, "output_schema": {}}, "output_format": {"schema": {"a": 1}}},
            "output_format.schema",
        ),
    ],
)
def test_a_fault_is_told_with_its_place(body: Json, param: str) -> None:
    """By the path in the caller's own body."""
    with pytest.raises(TokenHubError) as raised:
        native.opened(orjson.dumps(body), native.PATH)
    fault = raised.value.fault
    assert (fault.http_status, fault.param) == (400, param)
    assert param in fault.message


def test_an_answer_is_enclosed_as_it_is() -> None:
    """Its bytes are the provider's."""
    told = native.decision("m", "routed-weight-5", 1_500_000)
    raw = b'{ "choices": [] }'
    assert native.enclosed(raw, told).endswith(b',"response":' + raw + b"}")
    assert orjson.loads(native.enclosed(raw, told)) == {
        "negotiated_model": "m",
        "estimated_cost_usd": 0.0015,
        "routing_reason": "routed-weight-5",
        "response": {"choices": []},
    }
