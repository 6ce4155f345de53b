"""A caller's request as a canonical call. Nothing raises here: what does not fit is kept as it came."""

from __future__ import annotations

import re
from typing import Any, Final

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.openai_chat.kept import Kept, others
from tokenhub_core.dialects.openai_chat.request import wants_usage
from tokenhub_core.types import (
    Call,
    Choice,
    Dialect,
    Image,
    Json,
    Opaque,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Request,
    Role,
    Text,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,")
_FIELDS: Final = frozenset({"model", "messages", "stream", "max_tokens", "max_completion_tokens"})
"""What always has a canonical place; the others leave `rest` where their value is one we know."""
_CHOICES: Final = {"auto": Choice.AUTO, "none": Choice.NONE, "required": Choice.REQUIRED}


def parse(request: Request) -> Call:
    """Return the canonical call of a request that `open_request` has checked."""
    data, features = request.data, request.features
    cap = "max_completion_tokens" if data.get("max_completion_tokens") is not None else "max_tokens"
    rest = Kept(others(data, _FIELDS), cap=cap)
    return Call(
        dialect=Dialect.OPENAI_CHAT,
        model=features.model,
        turns=tuple(_turn(message) for message in data["messages"]),
        stream=features.stream,
        tools=tuple(_tool(tool) for tool in rest.pop("tools", ())),
        tool_choice=_tool_choice(rest),
        max_output_tokens=features.max_output_tokens,
        temperature=_number(rest, "temperature"),
        top_p=_number(rest, "top_p"),
        stop=_stop(rest),
        output=_output(rest),
        user=rest.pop("user") if isinstance(rest.get("user"), str) else "",
        include_usage=_include_usage(rest),
        rest=rest,
    )


# --- the conversation --------------------------------------------------------------------------------------


def _turn(message: Json) -> Turn:
    role = message["role"]
    name = message.get("name")
    homes = ["role", "content"]
    if isinstance(name, str):
        homes.append("name")
    else:
        name = ""
    match role:
        case "function":
            # The legacy result has no call to answer: only a chat provider can take it.
            return Turn(Role.TOOL, (_opaque("message:function", message),))
        case "tool":
            result = ToolResult(
                str(message.get("tool_call_id") or ""), tuple(content_parts(message.get("content")))
            )
            return Turn(Role.TOOL, (result,), name, Kept(others(message, [*homes, "tool_call_id"])))
        case "assistant":
            rest = Kept(others(message, homes))
            return Turn(Role.ASSISTANT, assistant_parts(message, rest), name, rest)
        case _:
            rest = Kept(others(message, homes), role=role)
            kind = Role.USER if role == "user" else Role.SYSTEM
            return Turn(kind, tuple(content_parts(message.get("content"))), name, rest)


def assistant_parts(message: Json, rest: Json, *, scope: str = "") -> tuple[Part, ...]:
    """Return the parts of a model's message and take their fields out of `rest`.

    The order is reasoning, content, refusal, tool calls: the wire has none between them. `scope` stands before
    the names in `rest`.
    """
    parts: list[Part] = []
    for key in ("reasoning_content", "reasoning") if scope else ("reasoning_content",):
        thought = message.get(key)
        if isinstance(thought, str):
            rest.pop(scope + key, None)
            if thought and not parts:
                parts.append(Reasoning(thought))
    parts += content_parts(message.get("content"))
    refusal = message.get("refusal")
    if isinstance(refusal, str):
        rest.pop(scope + "refusal", None)
        if refusal:
            parts.append(Refusal(refusal))
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        rest.pop(scope + "tool_calls", None)
        parts += [_tool_use(call) for call in calls if isinstance(call, dict)]
    return tuple(parts)


def content_parts(content: object) -> list[Part]:
    """Return the parts of a message's content; empty text is no part."""
    if isinstance(content, str):
        return [Text(content)] if content else []
    if isinstance(content, list):
        parts = [_part(part) for part in content if isinstance(part, dict)]
        return [part for part in parts if not (isinstance(part, Text) and not part.text and not part.rest)]
    return []


def _part(part: Json) -> Part:
    match part:
        case {"type": "text", "text": str(text)}:
            return Text(text, others(part, ("type", "text")))
        case {"type": "refusal", "refusal": str(text)}:
            return Refusal(text)
        case {"type": "image_url", "image_url": str(url)}:
            return _image(url, "", others(part, ("type", "image_url")))
        case {"type": "image_url", "image_url": {"url": str(url)} as source}:
            detail = source.get("detail")
            homes = ("url", "detail") if isinstance(detail, str) else ("url",)
            rest = others(part, ("type", "image_url")) | others(source, homes, "image_url.")
            return _image(url, detail if isinstance(detail, str) else "", rest)
        case _:
            return _opaque(str(part.get("type")), part)


def _image(url: str, detail: str, rest: Json) -> Image:
    if found := _DATA_URL.match(url):
        return Image(media_type=found[1], data=url[found.end() :], detail=detail, rest=rest)
    return Image(url=url, detail=detail, rest=rest)


def _tool_use(call: Json) -> ToolUse | Opaque:
    function = call.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    kind = call.get("type") or "function"
    if kind != "function" or not isinstance(function, dict) or not isinstance(name, str):
        return _opaque(f"tool_call:{kind}", call)
    arguments = function.get("arguments")
    if arguments is None:
        arguments = ""
    elif not isinstance(arguments, str):
        arguments = wire.encode(arguments).decode()
    rest = others(call, ("id", "type", "function")) | others(function, ("name", "arguments"), "function.")
    return ToolUse(str(call.get("id") or ""), name, arguments, rest)


def _opaque(kind: str, raw: Json) -> Opaque:
    return Opaque(Dialect.OPENAI_CHAT, kind, raw)


# --- settings: each takes its field out of `rest` where it can say it --------------------------------------


def _tool(tool: Json) -> Tool | Opaque:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if tool.get("type") != "function" or not isinstance(function, dict) or not isinstance(name, str):
        return _opaque(str(tool.get("type")), tool)
    homes = ["name"]
    description, schema, strict = (function.get(key) for key in ("description", "parameters", "strict"))
    if isinstance(description, str):
        homes.append("description")
    else:
        description = ""
    if isinstance(schema, dict):
        homes.append("parameters")
    else:
        schema = {}
    if isinstance(strict, bool):
        homes.append("strict")
    else:
        strict = None
    rest = others(tool, ("type", "function")) | others(function, homes, "function.")
    return Tool(name, description, schema, strict, rest)


def _tool_choice(rest: Json) -> ToolChoice | None:
    parallel = rest.get("parallel_tool_calls")
    if isinstance(parallel, bool):
        del rest["parallel_tool_calls"]
    else:
        parallel = None
    match rest.get("tool_choice"):
        case str(word) if word in _CHOICES:
            del rest["tool_choice"]
            return ToolChoice(_CHOICES[word], parallel=parallel)
        case {"type": "function", "function": {"name": str(name)}}:
            del rest["tool_choice"]
            return ToolChoice(Choice.NAMED, name, parallel)
        case _:
            return None if parallel is None else ToolChoice(parallel=parallel)


def _number(rest: Json, key: str) -> float | None:
    value = rest.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    del rest[key]
    return value


def _stop(rest: Json) -> tuple[str, ...]:
    stop: Any = rest.get("stop")
    words = [stop] if isinstance(stop, str) else stop
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return ()
    del rest["stop"]
    return tuple(words)


def _output(rest: Json) -> OutputFormat | None:
    match rest.get("response_format"):
        case {"type": "text"}:
            del rest["response_format"]
            return None
        case {"type": "json_object"}:
            del rest["response_format"]
            return OutputFormat()
        case {"type": "json_schema", "json_schema": {"schema": dict(schema), "name": str(name)} as spec}:
            del rest["response_format"]
            strict = spec.get("strict")
            homes = ("schema", "name", "strict") if isinstance(strict, bool) else ("schema", "name")
            rest |= others(spec, homes, "response_format.json_schema.")
            return OutputFormat(schema, name, strict if isinstance(strict, bool) else None)
        case _:
            return None


def _include_usage(rest: Json) -> bool:
    wanted = wants_usage(rest)
    options = rest.get("stream_options")
    if isinstance(options, dict):
        del rest["stream_options"]
        if more := others(options, ("include_usage",)):
            rest["stream_options"] = more
    return wanted
