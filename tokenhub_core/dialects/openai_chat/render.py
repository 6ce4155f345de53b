"""A canonical call as the body of a request to a provider that speaks chat completions.

A call that came in this dialect is restored. A call from another one is fitted to what generic servers take;
what has no place there is named in the losses, by the caller's own word for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, assert_never

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_chat.fit import Fitting
from tokenhub_core.dialects.openai_chat.kept import put_back, spelled
from tokenhub_core.dialects.openai_chat.request import NEW_CAP
from tokenhub_core.dialects.openai_chat.restore import restored
from tokenhub_core.types import Call, Choice, Dialect, Json, OutputFormat, Thinking, Tool, ToolChoice

_ECHO: Final = re.compile(r"deepseek|kimi|glm|minimax|qwen|mimo", re.IGNORECASE)
"""Models that want their thoughts back with their tool calls, in `reasoning_content`."""

_SIGNS: Final = re.compile(r"gemini", re.IGNORECASE)

_EFFORTS: Final = (
    ("minimal", 1024),
    ("low", 2048),
    ("medium", 4096),
    ("high", 8192),
    ("xhigh", 16384),
    ("max", 24576),
)
"""The effort that a budget of at most so many thinking tokens stands for; a larger one is the last.

The writer of `anthropic_messages` has the same table the other way round, so an effort survives both ways.
"""

_TIERS: Final = {"standard_only": "default", "standard": "default"} | {
    word: word for word in ("auto", "default", "flex", "scale", "priority", "fast")
}


_PLUMBING: Final = frozenset({"stream_options"})
"""Foreign members that steer the wire and not the answer: leaving them out loses nothing."""


def render(call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
    """Return the provider's body; `max_output_tokens` overrides the call's own cap."""
    own = call.dialect is Dialect.OPENAI_CHAT
    losses: list[str] = []
    data: Json = {"model": model}
    if own:
        data["messages"] = restored(call.turns, losses)
    else:
        echo, signs = bool(_ECHO.search(model)), bool(_SIGNS.search(model))
        data["messages"] = Fitting(losses, echo=echo, signs=signs).messages(call.turns)
    cap = call.max_output_tokens if max_output_tokens is None else max_output_tokens
    if cap is not None:
        usual = "max_completion_tokens" if not own and NEW_CAP.search(model) else "max_tokens"
        data |= dict.fromkeys(spelled(call.rest, "cap", usual).split(), cap)
    data |= _tools(call, own=own, losses=losses)
    data |= _sampling(call)
    data |= _settings(call, own=own, losses=losses)
    if call.output is not None:
        data["response_format"] = _output(call.output)
    if own:
        put_back(data, call.rest)
    else:
        losses += [name for name in call.rest if name not in _PLUMBING]
    if call.stream:
        data["stream"] = True
        options = data.get("stream_options")
        data["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return Rendered(data, tuple(dict.fromkeys(losses)))


def _tools(call: Call, *, own: bool, losses: list[str]) -> Json:
    data: Json = {}
    tools: list[Json] = []
    for tool in call.tools:
        if isinstance(tool, Tool):
            tools.append(_tool(tool, own=own, losses=losses))
        elif own:
            tools.append(dict(tool.raw))
        else:
            losses.append(f"tool:{tool.kind}")
    if tools:
        data["tools"] = tools
    choice = call.tool_choice
    if choice is None:
        return data
    if own or any(tool["function"]["name"] == choice.name for tool in tools) or (tools and not choice.name):
        data |= _choice(choice)
    elif choice.kind in {Choice.REQUIRED, Choice.NAMED}:
        losses.append("tool_choice")
    return data


def _tool(tool: Tool, *, own: bool, losses: list[str]) -> Json:
    function: Json = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.schema:
        function["parameters"] = dict(tool.schema)
    if tool.strict is not None:
        function["strict"] = tool.strict
    body: Json = {"type": "function", "function": function}
    if own:
        put_back(body, tool.rest)
    else:
        losses += tool.rest
    return body


def _choice(choice: ToolChoice) -> Json:
    """Return the choice's fields. `auto` is what an absent choice means, and some servers reject the word."""
    data: Json = {}
    match choice.kind:
        case Choice.AUTO:
            pass
        case Choice.REQUIRED | Choice.NONE:
            data["tool_choice"] = choice.kind.value
        case Choice.NAMED:
            data["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        case _:
            assert_never(choice.kind)
    if choice.parallel is not None:
        data["parallel_tool_calls"] = choice.parallel
    return data


def _sampling(call: Call) -> Json:
    fields: Mapping[str, Any] = {
        "temperature": call.temperature,
        "top_p": call.top_p,
        "stop": list(call.stop) or None,
        "seed": call.seed,
        "n": call.n,
        "frequency_penalty": call.frequency_penalty,
        "presence_penalty": call.presence_penalty,
        "logprobs": None if call.logprobs is None else True,
        "top_logprobs": call.logprobs or None,
        spelled(call.rest, "user", "user"): call.user or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _settings(call: Call, *, own: bool, losses: list[str]) -> Json:
    """Return the settings that not every dialect says in the same words, or at all."""
    data: Json = {}
    if effort := call.thinking.effort if own else _effort(call.thinking, losses):
        data["reasoning_effort"] = effort
    if tier := call.service_tier if own else _TIERS.get(call.service_tier, ""):
        data["service_tier"] = tier
    elif call.service_tier:
        losses.append("service_tier")
    if own or all(isinstance(value, str) for value in call.metadata.values()):
        data |= {"metadata": dict(call.metadata)} if call.metadata else {}
    else:
        losses.append("metadata")
    if call.top_k is not None:
        # Many servers take it, but OpenAI rejects it: only a caller of this dialect can know.
        if own:
            data["top_k"] = call.top_k
        else:
            losses.append("top_k")
    return data


def _effort(thinking: Thinking, losses: list[str]) -> str:
    """Return the effort for what another dialect says of thinking, empty where that is the model's to choose."""
    if thinking.show is not None:
        losses.append("thinking.show")
    budget = thinking.budget_tokens
    if thinking.enabled is False or budget == 0:
        return "none"
    if thinking.effort:
        if budget is not None and budget > 0:
            losses.append("thinking.budget_tokens")
        return thinking.effort
    if budget is None or budget < 0:
        return ""
    if budget not in {tokens for _, tokens in _EFFORTS}:
        losses.append("thinking.budget_tokens")
    return next((effort for effort, tokens in _EFFORTS if budget <= tokens), _EFFORTS[-1][0])


def _output(output: OutputFormat) -> Json:
    if output.schema is None:
        return {"type": "json_object"}
    schema: Json = {"name": output.name or "output", "schema": dict(output.schema)}
    if output.strict is not None:
        schema["strict"] = output.strict
    return {"type": "json_schema", "json_schema": schema}
