"""A canonical call as the body of a request to an Anthropic provider.

A call that came in this dialect is restored. A call from another one is fitted to this dialect's rules:
system turns stand at the top, user and assistant alternate and the user begins, every tool call is answered
in the next user message before anything else, no text is blank, and `max_tokens` is always there.
What has no place here is named in the losses, by the word that the caller's dialect has for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, assert_never

from tokenhub_core.dialects.anthropic_messages import settings
from tokenhub_core.dialects.anthropic_messages.blocks import BlockWriter, folded
from tokenhub_core.dialects.anthropic_messages.words import is_tool_id, plain
from tokenhub_core.dialects.base import Rendered
from tokenhub_core.types import (
    Call,
    Choice,
    Dialect,
    File,
    Image,
    Json,
    Opaque,
    Part,
    Role,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)

_DEFAULT_CAP: Final = 4096
"""Tokens; the dialect wants a cap even where the caller set none."""

_OPENING: Final = "(start)"
"""The user's first words where a conversation has none."""

_NO_RESULT: Final = "no result was given"

_PLUMBING: Final = frozenset({"stream_options"})
"""Foreign members that steer the wire and not the answer: leaving them out loses nothing."""

_EMPTY_SCHEMA: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}

_LONGEST_ID: Final = 48
"""Characters kept of a tool call id that had to be rewritten."""


def render(call: Call, *, model: str, max_output_tokens: int | None) -> Rendered:
    """Return the provider's body; `max_output_tokens` overrides the call's own cap."""
    own = call.dialect is Dialect.ANTHROPIC_MESSAGES
    losses: list[str] = []
    writer = BlockWriter(own=own, ids={} if own else _tool_ids(call.turns), losses=losses)
    data: Json = {"model": model, "max_tokens": _cap(call, max_output_tokens)}
    if own:
        system, messages = _restored(call.turns, writer)
        data |= call.rest
    else:
        system, messages = _fitted(call.turns, writer, losses)
        losses.extend(name for name in call.rest if name not in _PLUMBING)
    if system:
        data["system"] = system
    data["messages"] = messages
    data |= _tools(call, own=own, losses=losses)
    data |= _sampling(call, own=own, losses=losses)
    capped = max_output_tokens is not None or call.max_output_tokens is not None
    wished = settings.render(call, data, model=model, capped=capped, losses=losses)
    config = {**(data.get("output_config") or {}), **wished.get("output_config", {}), **_format(call, losses)}
    data |= wished
    if config:
        data["output_config"] = config
    return Rendered(data, tuple(dict.fromkeys(losses)))


def _cap(call: Call, override: int | None) -> int:
    if override is not None:
        return override
    return _DEFAULT_CAP if call.max_output_tokens is None else call.max_output_tokens


# --- the conversation --------------------------------------------------------------------------------------


def _restored(turns: tuple[Turn, ...], writer: BlockWriter) -> tuple[list[Json], list[Json]]:
    """Return `system` and the messages of a call in this dialect. Only a leading system turn goes to the top."""
    system: list[Json] = []
    if turns and turns[0].role is Role.SYSTEM and not turns[0].rest:
        system = writer.texts(turns[0].parts)
        turns = turns[1:]
    messages: list[Json] = []
    for previous, turn in zip((None, *turns), turns, strict=False):
        content = writer.blocks(turn.parts)
        if not content and turn.parts:
            # All that was said were thoughts that Anthropic did not have.
            continue
        if previous is not None and previous.role is Role.TOOL and turn.role is Role.USER:
            messages[-1] = _message("user", [*messages[-1]["content"], *content], turn.rest)
        else:
            messages.append(_message(_role(turn.role), content, turn.rest))
    return system, [{**message, "content": folded(message["content"])} for message in messages]


def _role(role: Role) -> str:
    return "user" if role is Role.TOOL else role.value


def _message(role: str, content: list[Json], rest: Mapping[str, Any]) -> Json:
    return {"role": role, "content": content, **rest}


def _fitted(turns: tuple[Turn, ...], writer: BlockWriter, losses: list[str]) -> tuple[list[Json], list[Json]]:
    """Return `system` and the messages of a call from another dialect, fitted to the rules of this one."""
    system: list[Json] = []
    merged: list[tuple[str, list[Json]]] = []
    for turn in turns:
        losses.extend(turn.rest)
        if turn.name:
            losses.append("name")
        if turn.role is Role.SYSTEM:
            system.extend(writer.texts(turn.parts))
            continue
        parts: Iterable[Part] = turn.parts
        if turn.role is Role.ASSISTANT:
            # What a model drew or wrote to a file cannot be said to have been its words here.
            media = [part for part in parts if isinstance(part, Image | File)]
            losses.extend(f"part:{type(part).__name__.lower()}" for part in media)
            parts = [part for part in parts if part not in media]
        content = writer.blocks(parts)
        role = _role(turn.role)
        if content and merged and merged[-1][0] == role:
            merged[-1][1].extend(content)
        elif content:
            merged.append((role, content))
    if not merged or merged[0][0] != "user":
        merged.insert(0, ("user", [{"type": "text", "text": _OPENING}]))
    answered = _answered(merged)
    _trim_prefill(answered[-1])
    return system, [{"role": role, "content": folded(content)} for role, content in answered]


def _answered(merged: list[tuple[str, list[Json]]]) -> list[tuple[str, list[Json]]]:
    """Return the messages with every tool call answered at the head of the message after it."""
    done: list[tuple[str, list[Json]]] = []
    open_ids: list[str] = []
    for role, content in merged:
        if role == "user":
            results = [block for block in content if block["type"] == "tool_result"]
            others = [block for block in content if block["type"] != "tool_result"]
            given = {block["tool_use_id"] for block in results}
            results.extend(_missing(id_) for id_ in open_ids if id_ not in given)
            done.append((role, results + others))
            open_ids = []
        else:
            done.append((role, content))
            open_ids = [block["id"] for block in content if block["type"] == "tool_use"]
    if open_ids:
        done.append(("user", [_missing(id_) for id_ in open_ids]))
    return done


def _missing(id_: str) -> Json:
    return {"type": "tool_result", "tool_use_id": id_, "content": _NO_RESULT, "is_error": True}


def _trim_prefill(last: tuple[str, list[Json]]) -> None:
    """Cut the blanks at the end of an answer that the model is to continue: they are rejected upstream."""
    role, content = last
    if role == "assistant" and content[-1]["type"] == "text":
        content[-1] = {**content[-1], "text": content[-1]["text"].rstrip()}


def _tool_ids(turns: Iterable[Turn]) -> dict[str, str]:
    """Return the wire form of every tool call id that this dialect would not take.

    It depends on the id alone (what is readable of it, and a digest), so that a conversation sent again keeps
    its ids; only where that meets an id already in use does the digest grow.
    """
    seen = list(dict.fromkeys(_ids(turns)))
    taken = {id_ for id_ in seen if is_tool_id(id_)}
    renamed: dict[str, str] = {}
    for id_ in seen:
        if is_tool_id(id_):
            continue
        digest = hashlib.sha256(id_.encode()).hexdigest()
        size = 8
        while (name := f"{plain(id_)[:_LONGEST_ID]}_{digest[:size]}") in taken:
            size += 8
        taken.add(name)
        renamed[id_] = name
    return renamed


def _ids(turns: Iterable[Turn]) -> Iterator[str]:
    for turn in turns:
        for part in turn.parts:
            if isinstance(part, ToolUse | ToolResult):
                yield part.id


# --- what the model may and should do ----------------------------------------------------------------------


def _tools(call: Call, *, own: bool, losses: list[str]) -> Json:
    tools = [tool for each in call.tools if (tool := _tool(each, own=own, losses=losses)) is not None]
    data: Json = {"tools": tools} if tools else {}
    if call.tool_choice is None:
        return data
    if tools or own:
        data["tool_choice"] = _choice(call.tool_choice)
    elif call.tool_choice.kind in {Choice.REQUIRED, Choice.NAMED}:
        losses.append("tool_choice")
    return data


def _tool(tool: Tool | Opaque, *, own: bool, losses: list[str]) -> Json | None:
    if isinstance(tool, Opaque):
        if tool.dialect is Dialect.ANTHROPIC_MESSAGES:
            return tool.raw
        losses.append(f"tool:{tool.kind}")
        return None
    data: Json = {"name": tool.name}
    if tool.description:
        data["description"] = tool.description
    data["input_schema"] = dict(tool.schema or _EMPTY_SCHEMA)
    if tool.strict or (own and tool.strict is not None):
        data["strict"] = tool.strict
    for name, value in tool.rest.items():
        if own or name == "cache_control":
            data[name] = value
        else:
            losses.append(name)
    return data


def _choice(choice: ToolChoice) -> Json:
    match choice.kind:
        case Choice.NONE:
            return {"type": "none"}
        case Choice.AUTO:
            data: Json = {"type": "auto"}
        case Choice.REQUIRED:
            data = {"type": "any"}
        case Choice.NAMED:
            data = {"type": "tool", "name": choice.name}
        case _:
            assert_never(choice.kind)
    if choice.parallel is not None:
        data["disable_parallel_tool_use"] = not choice.parallel
    return data


def _sampling(call: Call, *, own: bool, losses: list[str]) -> Json:
    data: Json = {}
    if call.stream:
        data["stream"] = True
    if call.temperature is not None:
        data["temperature"] = call.temperature
        if not own and not 0 <= call.temperature <= 1:
            data["temperature"] = min(max(call.temperature, 0), 1)
            losses.append("temperature")
    if call.top_p is not None:
        data["top_p"] = call.top_p
    stop = [word for word in call.stop if own or word.strip()]
    if len(stop) < len(call.stop):
        losses.append("stop")
    if stop:
        data["stop_sequences"] = stop
    return data


def _format(call: Call, losses: list[str]) -> Json:
    """Return the format of the output, as a member of `output_config`."""
    if call.output is None:
        return {}
    if call.output.schema is None:
        losses.append("response_format")
        return {}
    return {"format": {"type": "json_schema", "schema": dict(call.output.schema)}}
