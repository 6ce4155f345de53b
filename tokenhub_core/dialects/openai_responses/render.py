"""A canonical call as the body of a request to a provider that speaks responses.

A call that came in this dialect is restored. A call from another one is fitted: nothing of it is stored at the
provider, and its thinking is asked for in the sealed form that can be given back with the next call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, assert_never

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.openai_responses.fit import Fitting
from tokenhub_core.dialects.openai_responses.kept import put_back, spelled
from tokenhub_core.dialects.openai_responses.restore import restored
from tokenhub_core.types import Call, Choice, Dialect, Json, OutputFormat, Thinking, Tool, ToolChoice

_LEAST_CAP: Final = 16
"""Tokens; a smaller `max_output_tokens` is rejected upstream."""

_TIERS: Final = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})

_PLUMBING: Final = frozenset({"stream_options", "store"})
"""Foreign members that steer the wire and not the answer: leaving them out loses nothing."""

_ADOPTED: Final = frozenset(
    {
        "moderation",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
    }
)
"""Foreign members that have the same place here."""

_THINKLESS: Final = re.compile(r"(?:[\w.-]+/)?(?:ft:)?(?:gpt-3|gpt-4|chatgpt-|gpt-5(?:\.\d)?-chat)")
"""Models that do not think, and answer 400 where their sealed thoughts are asked for."""

_EMPTY_SCHEMA: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}

_EFFORTS: Final = ((0, "none"), (2048, "low"), (8192, "medium"))
"""The effort that goes with a budget of at most so many tokens; `high` above."""


def render(call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
    """Return the provider's body; `max_output_tokens` overrides the call's own cap."""
    own = call.dialect is Dialect.OPENAI_RESPONSES
    losses: list[str] = []
    data: Json = {"model": model}
    if own:
        instructions, data["input"] = restored(call.turns, losses)
    else:
        file_ids = call.dialect is Dialect.OPENAI_CHAT
        instructions, data["input"] = Fitting(losses, file_ids=file_ids).input(call.turns)
    if instructions:
        data["instructions"] = instructions
    cap = call.max_output_tokens if max_output_tokens is None else max_output_tokens
    if cap is not None:
        if cap < _LEAST_CAP and not own:
            cap = _LEAST_CAP
            losses.append("max_output_tokens")
        data["max_output_tokens"] = cap
    data |= _tools(call, own=own, losses=losses)
    data |= _settings(call, own=own, losses=losses)
    if call.output is not None:
        data["text"] = {"format": _output(call.output)}
    if thinking := _thinking(call.thinking, losses, own=own):
        data["reasoning"] = thinking
    if own:
        put_back(data, call.rest)
    else:
        data |= {name: call.rest[name] for name in call.rest if name in _ADOPTED}
        losses += [name for name in call.rest if name not in _ADOPTED | _PLUMBING]
        data["store"] = False
        data |= _include(call, model)
    if call.stream:
        data["stream"] = True
    return Rendered(data, tuple(dict.fromkeys([*losses, *_missing(call)])))


def _missing(call: Call) -> list[str]:
    """Return the settings of a call that this dialect has no place for."""
    settings: Mapping[str, object] = {
        "stop": call.stop,
        "top_k": call.top_k is not None,
        "seed": call.seed is not None,
        "n": call.n is not None and call.n > 1,
        "frequency_penalty": call.frequency_penalty,
        "presence_penalty": call.presence_penalty,
    }
    return [name for name, said in settings.items() if said]


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
    if own or any(tool["name"] == choice.name for tool in tools) or (tools and not choice.name):
        data |= _choice(choice)
    elif choice.kind in {Choice.REQUIRED, Choice.NAMED}:
        losses.append("tool_choice")
    return data


def _tool(tool: Tool, *, own: bool, losses: list[str]) -> Json:
    body: Json = {"type": "function", "name": tool.name}
    if tool.description:
        body["description"] = tool.description
    if own:
        if tool.schema:
            body["parameters"] = dict(tool.schema)
        if tool.strict is not None:
            body["strict"] = tool.strict
        return put_back(body, tool.rest)
    body["parameters"] = dict(tool.schema or _EMPTY_SCHEMA)
    # Unlike elsewhere, a function is strict here where nothing is said.
    body["strict"] = bool(tool.strict)
    losses += tool.rest
    return body


def _choice(choice: ToolChoice) -> Json:
    data: Json = {}
    match choice.kind:
        case Choice.AUTO | Choice.REQUIRED | Choice.NONE:
            data["tool_choice"] = choice.kind.value
        case Choice.NAMED:
            data["tool_choice"] = {"type": "function", "name": choice.name}
        case _:
            assert_never(choice.kind)
    if choice.parallel is not None:
        data["parallel_tool_calls"] = choice.parallel
    return data


def _settings(call: Call, *, own: bool, losses: list[str]) -> Json:
    tier = call.service_tier
    if not own and tier == "standard_only":
        tier = "default"
    if not own and tier and tier not in _TIERS:
        losses.append("service_tier")
        tier = ""
    fields: Mapping[str, Any] = {
        "temperature": call.temperature,
        "top_p": call.top_p,
        "metadata": dict(call.metadata) or None,
        "service_tier": tier or None,
        spelled(call.rest, "user", "user"): call.user or None,
        "top_logprobs": call.logprobs or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _include(call: Call, model: str) -> Json:
    """Return what is to be told beside the answer, which other dialects tell unasked."""
    wanted = [] if _THINKLESS.match(model) else ["reasoning.encrypted_content"]
    if call.logprobs is not None:
        wanted.append("message.output_text.logprobs")
    return {"include": wanted} if wanted else {}


def _output(output: OutputFormat) -> Json:
    if output.schema is None:
        return {"type": "json_object"}
    form: Json = {"type": "json_schema", "name": output.name or "output", "schema": dict(output.schema)}
    if output.strict is not None:
        form["strict"] = output.strict
    return form


def _thinking(wanted: Thinking, losses: list[str], *, own: bool) -> Json:
    """Return the `reasoning` settings. A budget has no place here: the nearest effort stands for it.

    Which kind of summary a caller of this dialect wants is put back with the rest.
    """
    data: Json = {}
    if wanted.effort:
        data["effort"] = wanted.effort
    elif wanted.enabled is False:
        data["effort"] = "none"
    elif wanted.budget_tokens is not None and wanted.budget_tokens >= 0:
        data["effort"] = next((word for most, word in _EFFORTS if wanted.budget_tokens <= most), "high")
    elif wanted.enabled or wanted.budget_tokens is not None:
        # The newest models do not think unless they are told to.
        data["effort"] = "medium"
    if wanted.budget_tokens is not None and wanted.budget_tokens > 0:
        losses.append("thinking.budget_tokens")
    if wanted.show and not own:
        data["summary"] = "auto"
    return data
