"""How much to think, who asks, how it is paid: settings that every dialect says in its own words."""

from __future__ import annotations

import re
from typing import Final

from tokenhub_core.types import Call, Choice, Dialect, Json, Thinking

_BUDGETS: Final = {
    "minimal": 1024,
    "low": 2048,
    "medium": 4096,
    "high": 8192,
    "xhigh": 16384,
    "max": 24576,
}
"""Thinking tokens for an effort, where a model takes no effort.

Each is the most that `openai_chat` still reads as that effort, so an effort survives both ways. With an answer of
the default size the largest still fits what the smallest thinking model puts out (32,000 tokens).
"""

_EFFORTS: Final = {"minimal": "low"} | {word: word for word in ("low", "medium", "high", "xhigh", "max")}
"""The efforts of `output_config`; it has none below `low`."""

_LEAST: Final = 1024
"""The smallest budget that the API takes."""

_ADAPTIVE: Final = re.compile(r"claude-(?!3|(?:opus|sonnet|haiku)-4(?:[-.][0-5](?!\d)|-\d{6,}|[^-.\d]|$))")
"""Models that decide themselves how much to think and are told an effort: Claude 4.6 and what came after it.

Before it, and on servers that merely speak this dialect, thinking has a budget.
"""

_TIERS: Final = {
    "auto": "auto",
    "default": "standard_only",
    "standard": "standard_only",
    "standard_only": "standard_only",
}


def render(call: Call, data: Json, *, model: str, capped: bool, losses: list[str]) -> Json:
    """Return the members of the body for the settings of a call.

    `data` is the rest of the body; `capped` tells whether its `max_tokens` is somebody's wish. Where thinking
    does not fit what the caller set, sampling gives way, and thinking gives way to the cap and a forced tool.
    """
    own = call.dialect is Dialect.ANTHROPIC_MESSAGES
    body = _own_thinking(call, data, losses) if own else _thinking(call, data, model, capped, losses)
    thinks = body.get("thinking", {}).get("type") in {"enabled", "adaptive"}
    if not own and thinks:
        for name, value in (("temperature", 1), ("top_p", None)):
            if name in data and data[name] != value:
                del data[name]
                losses.append(name)
    if call.top_k is not None and (own or not thinks):
        body["top_k"] = call.top_k
    elif call.top_k is not None:
        losses.append("top_k")
    if tier := call.service_tier if own else _TIERS.get(call.service_tier, ""):
        body["service_tier"] = tier
    elif call.service_tier:
        losses.append("service_tier")
    metadata = dict(call.metadata) if own else {}
    if call.metadata and not own:
        losses.append("metadata")
    if call.user:
        metadata["user_id"] = call.user
    if metadata:
        body["metadata"] = metadata
    losses += _nowhere(call)
    return body


def _nowhere(call: Call) -> list[str]:
    """Return the names of what this dialect has no place for; one answer is what it gives anyway."""
    absent = {
        "seed": call.seed is not None,
        "n": call.n is not None and call.n > 1,
        "frequency_penalty": bool(call.frequency_penalty),
        "presence_penalty": bool(call.presence_penalty),
        "logprobs": call.logprobs is not None,
    }
    return [name for name, lost in absent.items() if lost]


# --- thinking ----------------------------------------------------------------------------------------------


def _own_thinking(call: Call, data: Json, losses: list[str]) -> Json:
    thinking = call.thinking
    body: Json = {"output_config": {"effort": thinking.effort}} if thinking.effort else {}
    if thinking.enabled is False:
        body["thinking"] = {"type": "disabled"} | _display(thinking)
    elif thinking.enabled and thinking.budget_tokens is not None:
        if thinking.budget_tokens < 0:
            body["thinking"] = {"type": "adaptive"} | _display(thinking)
        elif losses and _answers_unthought(data["messages"]):
            # A block that could not be given back leaves a tool call without the thought that a budget demands.
            losses.append("thinking")
        else:
            budget = {"type": "enabled", "budget_tokens": thinking.budget_tokens}
            body["thinking"] = budget | _display(thinking)
    return body


def _display(thinking: Thinking) -> Json:
    return {} if thinking.show is None else {"display": "summarized" if thinking.show else "omitted"}


def _thinking(call: Call, data: Json, model: str, capped: bool, losses: list[str]) -> Json:
    thinking = call.thinking
    if thinking.enabled is False or thinking.effort == "none" or thinking.budget_tokens == 0:
        return {"thinking": {"type": "disabled"}}
    if not (thinking.enabled or thinking.effort or thinking.budget_tokens):
        losses += [] if thinking.show is None else ["thinking.show"]
        return {}
    if _ADAPTIVE.search(model):
        return _adaptive(thinking, losses)
    return _budgeted(call, data, capped, losses)


def _adaptive(thinking: Thinking, losses: list[str]) -> Json:
    """Return an effort, and that the model thinks as it likes; a budget becomes the nearest effort above it."""
    body: Json = {"thinking": {"type": "adaptive"} | _display(thinking)}
    effort, budget = thinking.effort, thinking.budget_tokens
    if budget is not None and budget > 0:
        if effort or budget not in _BUDGETS.values():
            losses.append("thinking.budget_tokens")
        effort = effort or next((word for word, most in _BUDGETS.items() if budget <= most), "max")
    if effort:
        body["output_config"] = {"effort": _EFFORTS.get(effort, "medium")}
        if _EFFORTS.get(effort) != effort:
            losses.append("thinking.effort")
    return body


def _budgeted(call: Call, data: Json, capped: bool, losses: list[str]) -> Json:
    """Return a budget for thinking, of at most half of what the caller allows for its answer.

    A cap that nobody asked for grows by the budget. There is no thinking where a tool is forced, or where the
    tool call that is answered comes without a thought of this dialect: the API rejects both.
    """
    thinking = call.thinking
    budget = thinking.budget_tokens or -1
    if budget < 0:
        budget = _BUDGETS.get(thinking.effort, _BUDGETS["medium"])
        if thinking.effort and thinking.effort not in _BUDGETS:
            losses.append("thinking.effort")
    wanted = budget = max(budget, _LEAST)
    if capped:
        budget = min(budget, data["max_tokens"] // 2)
    forced = call.tool_choice is not None and call.tool_choice.kind in {Choice.REQUIRED, Choice.NAMED}
    if budget < _LEAST or (forced and "tool_choice" in data) or _answers_unthought(data["messages"]):
        losses.append("thinking")
        return {}
    if budget < wanted or (thinking.budget_tokens or -1) not in {-1, wanted}:
        losses.append("thinking.budget_tokens")
    if not capped:
        data["max_tokens"] += budget
    shown = {} if thinking.show is not False else {"display": "omitted"}
    return {"thinking": {"type": "enabled", "budget_tokens": budget} | shown}


def _answers_unthought(messages: list[Json]) -> bool:
    """Tell whether the conversation ends with the results of a tool call that no thought leads to."""
    if len(messages) < 2 or not isinstance(messages[-2]["content"], list):
        return False
    kinds = [block["type"] for block in messages[-2]["content"]]
    return "tool_use" in kinds and kinds[0] not in {"thinking", "redacted_thinking"}
