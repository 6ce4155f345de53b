"""A canonical call as the body of a request to a provider of this dialect.

A call that came in this dialect is restored. A call from another one is fitted to its rules; what has no place
here is named in the losses, by the word that the caller's dialect has for it. Schemas go out as JSON Schema
(`parametersJsonSchema`, `responseJsonSchema`), which spares them the way down to Google's own subset.
"""

from __future__ import annotations

import re
from typing import Any, Final, assert_never

from tokenhub_core.dialects import seals
from tokenhub_core.dialects.base import Rendered
from tokenhub_core.dialects.gemini import contents as _contents
from tokenhub_core.dialects.gemini.names import aside, put_back
from tokenhub_core.dialects.gemini.schema import json_schema
from tokenhub_core.dialects.gemini.thinking import thinking_config
from tokenhub_core.dialects.gemini.writing import PartWriter
from tokenhub_core.types import Call, Choice, Dialect, Json, Opaque, Tool, ToolChoice, ToolUse

_PLUMBING: Final = frozenset({"stream_options"})
"""Foreign members that steer the wire and not the answer: leaving them out loses nothing."""
_TIERS: Final = {
    "default": "standard",
    "flex": "flex",
    "priority": "priority",
    "standard": "standard",
    "standard_only": "standard",
}
_MOST_STOPS: Final = 5
_LABEL: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABELLED: Final = re.compile(r"[a-z0-9_-]{0,63}")


def render(call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
    """Return the provider's body; `max_output_tokens` overrides the call's own cap."""
    own = call.dialect is Dialect.GEMINI
    losses: list[str] = []
    writer = PartWriter(own=own, names=_contents.tool_names(call.turns), losses=losses)
    if own:
        system, contents = _contents.restored(call.turns, writer)
        unsigned = _contents_of_others(call, contents)
    else:
        system, contents = _contents.fitted(call.turns, writer, losses)
        unsigned = range(len(contents))
    data: Json = {"systemInstruction": system} if system is not None else {}
    data["contents"] = _contents.signed(contents, model=model, unsigned=unsigned)
    data |= _tools(call, own=own, losses=losses)
    if config := _config(call, model, max_output_tokens, own=own, losses=losses):
        data["generationConfig"] = config
    data |= _identity(call, own=own, losses=losses)
    if own:
        put_back(data, call.rest)
    else:
        losses += [name for name in call.rest if name not in _PLUMBING]
    return Rendered(data, tuple(dict.fromkeys(losses)))


def _contents_of_others(call: Call, contents: list[Json]) -> range:
    """Return the contents to sign for another model's calls: all, once the caller sent a signature that is not ours.

    A caller's own conversation is left as it is, unless a signature had to be taken out of it.
    """
    foreign = any(
        isinstance(part, ToolUse) and part.signature and not seals.opened(Dialect.GEMINI, part.signature)
        for turn in call.turns
        for part in turn.parts
    )
    return range(len(contents) if foreign else 0)


# --- what the model may and should do ----------------------------------------------------------------------


def _tools(call: Call, *, own: bool, losses: list[str]) -> Json:
    functions = [_function(tool, own=own, losses=losses) for tool in call.tools if isinstance(tool, Tool)]
    tools: list[Json] = [{"functionDeclarations": functions}] if functions else []
    for tool in call.tools:
        if isinstance(tool, Opaque) and tool.dialect is Dialect.GEMINI:
            tools.append(tool.raw)
        elif isinstance(tool, Opaque):
            losses.append(f"tool:{tool.kind}")
    data: Json = {"tools": tools} if tools else {}
    choice = call.tool_choice
    if choice is None:
        return data
    if choice.parallel is False:
        losses.append("parallel_tool_calls")
    if functions or own:
        data["toolConfig"] = {"functionCallingConfig": _choice(choice)}
    elif choice.kind in {Choice.REQUIRED, Choice.NAMED}:
        losses.append("tool_choice")
    return data


def _function(tool: Tool, *, own: bool, losses: list[str]) -> Json:
    data: Json = {"name": tool.name}
    if tool.description:
        data["description"] = tool.description
    given = aside(tool.rest, "parameters")
    if given is not None and json_schema(given) == tool.schema:
        data["parameters"] = given
    elif tool.schema or (own and given is not None):
        data["parametersJsonSchema"] = dict(tool.schema)
    if tool.strict:
        losses.append("tools[].strict")
    if own:
        put_back(data, tool.rest)
    else:
        losses += tool.rest
    return data


def _choice(choice: ToolChoice) -> Json:
    match choice.kind:
        case Choice.AUTO | Choice.NONE:
            return {"mode": choice.kind.value.upper()}
        case Choice.REQUIRED:
            return {"mode": "ANY"}
        case Choice.NAMED:
            return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
        case _:
            assert_never(choice.kind)


def _config(call: Call, model: str, cap: int | None, *, own: bool, losses: list[str]) -> Json:
    stop = list(call.stop)
    if len(stop) > _MOST_STOPS and not own:
        losses.append("stop")
        stop = stop[:_MOST_STOPS]
    fields: dict[str, Any] = {
        "maxOutputTokens": call.max_output_tokens if cap is None else cap,
        "temperature": call.temperature,
        "topP": call.top_p,
        "topK": call.top_k,
        "stopSequences": stop or None,
        "seed": call.seed,
        "candidateCount": call.n,
        "frequencyPenalty": call.frequency_penalty,
        "presencePenalty": call.presence_penalty,
        "responseLogprobs": None if call.logprobs is None else True,
        "logprobs": call.logprobs or None,
        "responseMimeType": aside(call.rest, "responseMimeType"),
        "thinkingConfig": thinking_config(call.thinking, model, losses, own=own) or None,
    }
    config = {name: value for name, value in fields.items() if value is not None}
    if call.output is not None:
        config["responseMimeType"] = "application/json"
        given = aside(call.rest, "responseSchema")
        if given is not None and json_schema(given) == call.output.schema:
            config["responseSchema"] = given
        elif call.output.schema is not None:
            config["responseJsonSchema"] = dict(call.output.schema)
    return config


def _identity(call: Call, *, own: bool, losses: list[str]) -> Json:
    """Return what says who asks and on which terms. Labels are narrower than other dialects' metadata."""
    data: Json = {}
    labels = dict(call.metadata)
    if not own:
        labels = {name: value for name, value in labels.items() if _fits(name, value)}
        losses += ["metadata"] if len(labels) < len(call.metadata) else []
        losses += ["user"] if call.user else []
    if labels:
        data["labels"] = labels
    if call.service_tier and (own or call.service_tier in _TIERS):
        data["serviceTier"] = call.service_tier if own else _TIERS[call.service_tier]
    elif call.service_tier not in {"", "auto"}:
        losses.append("service_tier")
    return data


def _fits(name: str, value: object) -> bool:
    return isinstance(value, str) and bool(_LABEL.fullmatch(name)) and bool(_LABELLED.fullmatch(value))
