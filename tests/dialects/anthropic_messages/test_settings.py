"""Thinking, tiers and identity in both directions."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tokenhub_core.dialects.anthropic_messages import ANTHROPIC_MESSAGES
from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_chat import OPENAI_CHAT
from tokenhub_core.types import (
    Call,
    Choice,
    Dialect,
    Json,
    Role,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)

USER = Turn(Role.USER, (Text("x"),))
OLD, NEW = "claude-sonnet-4-5-20250929", "claude-opus-4-7"


def foreign(*turns: Turn, model: str = OLD, cap: int | None = None, **fields: Any) -> Rendered:
    call = Call(Dialect.GEMINI, "m", turns or (USER,), **fields)
    return ANTHROPIC_MESSAGES.render(call, model=model, max_output_tokens=cap)


def parsed(**members: Any) -> Call:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], **members}
    return ANTHROPIC_MESSAGES.parse(ANTHROPIC_MESSAGES.open(orjson.dumps(body)))


@pytest.mark.parametrize(
    ("wire", "thinking"),
    [
        ({}, Thinking()),
        ({"thinking": {"type": "disabled"}}, Thinking(enabled=False)),
        ({"thinking": {"type": "adaptive"}}, Thinking(enabled=True, budget_tokens=-1)),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 5000, "display": "omitted"}},
            Thinking(enabled=True, budget_tokens=5000, show=False),
        ),
        (
            {
                "thinking": {"type": "adaptive", "display": "summarized"},
                "output_config": {"effort": "max"},
            },
            Thinking(enabled=True, effort="max", budget_tokens=-1, show=True),
        ),
        ({"output_config": {"effort": "low"}}, Thinking(effort="low")),
    ],
)
def test_thinking_is_read_and_restored(wire: Json, thinking: Thinking) -> None:
    """Every kind has its values, and they give the same body again."""
    call = parsed(**wire)
    assert (call.thinking, dict(call.rest)) == (thinking, {})
    rendered = ANTHROPIC_MESSAGES.render(call, model="m", max_output_tokens=None)
    assert {key: rendered.data[key] for key in ("thinking", "output_config") if key in rendered.data} == wire


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "between_tools"},
        {"type": "adaptive", "new": 1},
        {"type": "adaptive", "display": []},
        {"type": "enabled", "budget_tokens": True},
        {"type": "enabled"},
        "on",
    ],
)
def test_thinking_of_another_kind_stays_what_it_is(odd: object) -> None:
    """For its own dialect; elsewhere it is a loss by its name."""
    assert dict(parsed(thinking=odd).rest) == {"thinking": odd}


@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high", "xhigh", "max"])
def test_an_effort_survives_as_a_budget(effort: str) -> None:
    """What an older model is told is read as the same effort by the other dialect, and nothing is lost."""
    rendered = foreign(thinking=Thinking(effort=effort))
    budget = rendered.data["thinking"]["budget_tokens"]
    assert rendered.data["max_tokens"] == 4096 + budget <= 32000
    assert rendered.losses == ()
    call = parsed(**{key: rendered.data[key] for key in ("thinking", "max_tokens")})
    back = OPENAI_CHAT.render(call, model="m", max_output_tokens=None)
    assert (back.data["reasoning_effort"], back.losses) == (effort, ())


@pytest.mark.parametrize(
    ("model", "adaptive"),
    [
        ("claude-3-7-sonnet-20250219", False),
        ("claude-opus-4-20250514", False),
        ("claude-opus-4-1", False),
        ("anthropic/claude-opus-4.5", False),
        ("claude-haiku-4-5", False),
        ("claude-sonnet-4", False),
        ("deepseek-v4", False),
        ("claude-opus-4-6", True),
        ("anthropic/claude-opus-4.7", True),
        ("us.anthropic.claude-sonnet-5-v1:0", True),
        ("claude-next", True),
    ],
)
def test_newer_models_are_told_an_effort(model: str, *, adaptive: bool) -> None:
    """Older ones, and those that merely speak the dialect, a budget."""
    data = foreign(thinking=Thinking(effort="high"), model=model).data
    if adaptive:
        assert data["thinking"] == {"type": "adaptive"}
        assert data["output_config"] == {"effort": "high"}
        assert data["max_tokens"] == 4096
    else:
        assert data["thinking"] == {"type": "enabled", "budget_tokens": 8192}
        assert "output_config" not in data


@pytest.mark.parametrize(
    ("thinking", "model", "members", "losses"),
    [
        (Thinking(enabled=False), OLD, {"thinking": {"type": "disabled"}}, ()),
        (Thinking(effort="none"), NEW, {"thinking": {"type": "disabled"}}, ()),
        (Thinking(budget_tokens=0), NEW, {"thinking": {"type": "disabled"}}, ()),
        (Thinking(show=True), NEW, {}, ("thinking.show",)),
        (Thinking(enabled=True), NEW, {"thinking": {"type": "adaptive"}}, ()),
        (
            Thinking(budget_tokens=-1, show=True),
            NEW,
            {"thinking": {"type": "adaptive", "display": "summarized"}},
            (),
        ),
        (
            Thinking(budget_tokens=3000),
            NEW,
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}},
            ("thinking.budget_tokens",),
        ),
        (
            Thinking(effort="minimal"),
            NEW,
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            ("thinking.effort",),
        ),
        (
            Thinking(effort="extreme"),
            OLD,
            {"thinking": {"type": "enabled", "budget_tokens": 4096}},
            ("thinking.effort",),
        ),
        (
            Thinking(enabled=True, budget_tokens=3000, show=False),
            OLD,
            {"thinking": {"type": "enabled", "budget_tokens": 3000, "display": "omitted"}},
            (),
        ),
        (
            Thinking(budget_tokens=500),
            OLD,
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            ("thinking.budget_tokens",),
        ),
    ],
)
def test_what_another_dialect_says_of_thinking(
    thinking: Thinking, model: str, members: Json, losses: tuple[str, ...]
) -> None:
    """What comes out otherwise than it was said is told."""
    rendered = foreign(thinking=thinking, model=model)
    found = {key: rendered.data[key] for key in ("thinking", "output_config") if key in rendered.data}
    assert (found, rendered.losses) == (members, losses)


def test_a_cap_leaves_half_for_the_answer() -> None:
    """Thinking counts towards it; below the smallest budget there is none."""
    thinking = Thinking(effort="high")
    half = foreign(thinking=thinking, max_output_tokens=4000)
    assert (half.data["max_tokens"], half.data["thinking"]["budget_tokens"]) == (4000, 2000)
    assert half.losses == ("thinking.budget_tokens",)
    none = foreign(thinking=thinking, cap=2000)
    assert ("thinking" in none.data, none.losses) == (False, ("thinking",))


def test_thinking_gives_way_to_a_forced_tool_and_sampling_to_thinking() -> None:
    """The API rejects them together."""
    forced = foreign(
        thinking=Thinking(effort="low"), tools=(Tool("f"),), tool_choice=ToolChoice(Choice.REQUIRED)
    )
    assert ("thinking" in forced.data, forced.losses) == (False, ("thinking",))
    sampled = foreign(thinking=Thinking(effort="low"), temperature=0.2, top_p=0.5, top_k=3)
    assert sampled.data.keys() & {"temperature", "top_p", "top_k"} == set()
    assert sampled.losses == ("temperature", "top_p", "top_k")
    plain = foreign(temperature=0.2, top_k=3)
    assert (plain.data["temperature"], plain.data["top_k"], plain.losses) == (0.2, 3, ())


def test_there_is_no_budget_where_a_call_came_without_a_thought() -> None:
    """Its results are being sent, and the API wants the thought that led to it."""
    use = Turn(Role.ASSISTANT, (ToolUse("t", "f", "{}"),))
    result = Turn(Role.TOOL, (ToolResult("t", (Text("r"),)),))
    thinking = Thinking(effort="low")
    assert foreign(USER, use, result, thinking=thinking).losses == ("thinking",)
    assert foreign(USER, use, result, thinking=thinking, model=NEW).losses == ()
    assert "thinking" in foreign(USER, use, result, USER, Turn(Role.ASSISTANT, (Text("a"),)), USER,
                                 thinking=thinking).data  # fmt: skip


@pytest.mark.parametrize(
    ("tier", "wire"),
    [("auto", "auto"), ("default", "standard_only"), ("standard_only", "standard_only"), ("flex", None)],
)
def test_service_tiers(tier: str, wire: str | None) -> None:
    """Two of them have a word here; one that has none is a loss."""
    rendered = foreign(service_tier=tier)
    assert rendered.data.get("service_tier") == wire
    assert rendered.losses == (() if wire else ("service_tier",))
    own = ANTHROPIC_MESSAGES.render(parsed(service_tier=tier), model="m", max_output_tokens=None)
    assert own.data["service_tier"] == tier
