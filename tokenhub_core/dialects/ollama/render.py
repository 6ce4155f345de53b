"""A canonical call as the body of a request to a server that speaks this dialect.

What a caller of this dialect said is put back where it was. What came in another one and has no place here is
named in the losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.ollama.kept import FAMILY, Kept, put_back, restore
from tokenhub_core.dialects.ollama.messages import Messages
from tokenhub_core.dialects.openai_completions.transcript import transcript
from tokenhub_core.types import Call, Choice, Dialect, Json, Role, Thinking, Tool

_BOTH: Final = frozenset(
    {"truncate", "shift", "_debug_render_only", "logprobs", "top_logprobs", "think", "format"}
)
"""Fields without a canonical form that mean the same in a chat and in a completion."""

_EFFORTS: Final = {"minimal": "low", "xhigh": "high"}
"""The nearest level of the four that servers take."""

_LEVELS: Final = frozenset({"low", "medium", "high", "max"})


_PLUMBING: Final = frozenset({"stream_options"})
"""Foreign members that steer the wire and not the answer: leaving them out loses nothing."""


def render(dialect: Dialect, call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
    """Return the server's body; `max_output_tokens` overrides the call's own cap."""
    own = call.dialect in FAMILY
    losses: list[str] = []
    data: Json = {"model": model}
    if dialect is Dialect.OLLAMA_CHAT:
        data["messages"] = Messages(losses, own=own).written(call.turns)
        data |= _tools(call, own=own, losses=losses)
    else:
        data |= _prompt(call, losses)
    data["stream"] = call.stream
    if options := _options(call, call.max_output_tokens if max_output_tokens is None else max_output_tokens):
        data["options"] = options
    if call.output is not None:
        # A schema has no name here, and it always binds.
        data["format"] = "json" if call.output.schema is None else dict(call.output.schema)
    data |= _think(call.thinking, own=own, losses=losses)
    if call.logprobs is not None:
        data["logprobs"] = True
        data |= {"top_logprobs": call.logprobs} if call.logprobs else {}
    _rest(dialect, call, data, losses)
    return Rendered(data, tuple(dict.fromkeys(losses)))


def _prompt(call: Call, losses: list[str]) -> Json:
    """Return the fields of a completion: the system prompt, and the conversation as one text."""
    system = call.turns[0] if call.turns and call.turns[0].role is Role.SYSTEM else None
    images: list[str] = []
    data: Json = {"prompt": transcript(call.turns[1:] if system else call.turns, losses, images=images)}
    if system and (text := transcript((replace(system, role=Role.USER),), losses)):
        data["system"] = text
    if images:
        data["images"] = images
    losses += ["tools"] if call.tools else []
    return data


def _tools(call: Call, *, own: bool, losses: list[str]) -> Json:
    """Return the tools. There is no choice here: a server with tools lets the model decide."""
    choice = call.tool_choice
    if choice is not None and choice.kind is Choice.NONE:
        losses += ["tools"] if call.tools else []
        return {}
    if choice is not None and choice.kind in {Choice.REQUIRED, Choice.NAMED}:
        losses.append("tool_choice")
    if choice is not None and choice.parallel is False:
        losses.append("parallel_tool_calls")
    tools: list[Json] = []
    for tool in call.tools:
        if isinstance(tool, Tool):
            tools.append(_tool(tool, own=own, losses=losses))
        elif own:
            tools.append(tool.raw)
        else:
            losses.append(f"tool:{tool.kind}")
    return {"tools": tools} if tools else {}


def _tool(tool: Tool, *, own: bool, losses: list[str]) -> Json:
    function: Json = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.schema or not own:
        function["parameters"] = dict(tool.schema) or {"type": "object", "properties": {}}
    body: Json = {"type": "function", "function": function}
    if own:
        if tool.strict is not None:
            function["strict"] = tool.strict
        restore(body, tool.rest)
    else:
        losses += tool.rest
        losses += ["tools[].strict"] if tool.strict else []
    return body


def _options(call: Call, cap: int | None) -> Json:
    fields: Mapping[str, Any] = {
        "num_predict": cap,
        "temperature": call.temperature,
        "top_p": call.top_p,
        "top_k": call.top_k,
        "stop": list(call.stop) or None,
        "seed": call.seed,
        "presence_penalty": call.presence_penalty,
        "frequency_penalty": call.frequency_penalty,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _think(thinking: Thinking, *, own: bool, losses: list[str]) -> Json:
    if (thinking.budget_tokens or 0) > 0:
        losses.append("thinking.budget_tokens")
    if thinking.enabled is False or thinking.effort == "none" or thinking.budget_tokens == 0:
        return {"think": False}
    if thinking.show is False:
        losses.append("thinking.show")
    if own or thinking.effort in _LEVELS:
        return {"think": thinking.effort or thinking.enabled} if thinking.enabled or thinking.effort else {}
    if thinking.effort:
        losses.append("thinking.effort")
        return {"think": _EFFORTS.get(thinking.effort, True)}
    return {"think": True} if thinking.enabled or thinking.budget_tokens else {}


def _rest(dialect: Dialect, call: Call, data: Json, losses: list[str]) -> None:
    """Put back what this dialect kept, and name everything that has no place."""
    has_no_place = {
        "n": (call.n or 1) > 1,
        "user": call.user,
        "metadata": call.metadata,
        "service_tier": call.service_tier not in {"", "auto", "default"},
    }
    losses += [name for name, said in has_no_place.items() if said]
    if call.dialect not in FAMILY:
        losses += [name for name in call.rest if name not in _PLUMBING]
        return
    fits = dict(call.rest)
    if call.dialect is not dialect:
        fits = {k: v for k, v in fits.items() if k in _BOTH or k.startswith("options.")}
        losses += [name for name in call.rest if name not in fits]
    put_back(data, fits)
    quiet = dict(call.rest.quiet) if isinstance(call.rest, Kept) else {}
    if "num_predict" in data.get("options", {}):
        quiet.pop("options.num_predict", None)
    put_back(data, quiet)
