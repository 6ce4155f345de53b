"""A canonical call as the body of a request to a provider that speaks chat completions.

A call that came in this dialect is restored. A call from another one is fitted to what generic servers take;
what has no place there is named in the losses, by the caller's own word for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_never

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_chat.fit import Fitting
from tokenhub_core.dialects.openai_chat.kept import put_back, spelled
from tokenhub_core.dialects.openai_chat.restore import restored
from tokenhub_core.types import Call, Choice, Dialect, Json, OutputFormat, Tool, ToolChoice


def render(call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
    """Return the provider's body; `max_output_tokens` overrides the call's own cap."""
    own = call.dialect is Dialect.OPENAI_CHAT
    losses: list[str] = []
    data: Json = {"model": model}
    data["messages"] = restored(call.turns) if own else Fitting(losses).messages(call.turns)
    cap = call.max_output_tokens if max_output_tokens is None else max_output_tokens
    if cap is not None:
        data[spelled(call.rest, "cap", "max_tokens")] = cap
    data |= _tools(call, own=own, losses=losses)
    data |= _sampling(call)
    if call.output is not None:
        data["response_format"] = _output(call.output)
    if own:
        put_back(data, call.rest)
    else:
        losses += call.rest
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
        "user": call.user or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _output(output: OutputFormat) -> Json:
    if output.schema is None:
        return {"type": "json_object"}
    schema: Json = {"name": output.name or "output", "schema": dict(output.schema)}
    if output.strict is not None:
        schema["strict"] = output.strict
    return {"type": "json_schema", "json_schema": schema}
