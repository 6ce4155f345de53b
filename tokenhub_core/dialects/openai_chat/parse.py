"""A caller's request as a canonical call. Nothing raises here: what does not fit is kept as it came."""

from __future__ import annotations

from typing import Any, Final

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.openai_chat import media, thoughts
from tokenhub_core.dialects.openai_chat.kept import Kept, others
from tokenhub_core.dialects.openai_chat.request import wants_usage
from tokenhub_core.types import (
    Audio,
    Call,
    Choice,
    Dialect,
    Json,
    Opaque,
    OutputFormat,
    Part,
    Refusal,
    Request,
    Role,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)

_FIELDS: Final = frozenset({"model", "messages", "stream", "max_tokens", "max_completion_tokens"})
"""What always has a canonical place; the others leave `rest` where their value is one we know."""
_CHOICES: Final = {"auto": Choice.AUTO, "none": Choice.NONE, "required": Choice.REQUIRED}


def parse(request: Request) -> Call:
    """Return the canonical call of a request that `open_request` has checked."""
    data, features = request.data, request.features
    caps = [name for name in ("max_completion_tokens", "max_tokens") if data.get(name) is not None]
    rest = Kept(others(data, _FIELDS), cap=" ".join(caps) or "max_tokens")
    user = _word(rest, "user")
    if not user and (user := _word(rest, "safety_identifier")):
        rest.spelling["user"] = "safety_identifier"
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
        top_k=_count(rest, "top_k"),
        seed=_count(rest, "seed"),
        n=_count(rest, "n"),
        frequency_penalty=_number(rest, "frequency_penalty"),
        presence_penalty=_number(rest, "presence_penalty"),
        logprobs=_logprobs(rest),
        thinking=Thinking(effort=_word(rest, "reasoning_effort")),
        metadata=rest.pop("metadata") if isinstance(rest.get("metadata"), dict) else {},
        service_tier=_word(rest, "service_tier"),
        user=user,
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


def assistant_parts(message: Json, rest: Kept, *, scope: str = "") -> tuple[Part, ...]:
    """Return the parts of a model's message and take their fields out of `rest`.

    The order is reasoning, content, images, sound, refusal, tool calls: the wire has none between them. `scope`
    stands before the names in `rest`.
    """
    parts: list[Part] = []
    parts += thoughts.read(message, rest, scope)
    parts += content_parts(message.get("content"))
    images = media.images(message.get("images"))
    if images:
        rest.pop(scope + "images", None)
        parts += images
        rest.spelling["images"] = "images"
    if spoken := _spoken(message.get("audio")):
        rest.pop(scope + "audio", None)
        parts.append(spoken)
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
            return media.image(url, "", others(part, ("type", "image_url")))
        case {"type": "image_url", "image_url": {"url": str(url)} as source}:
            detail = source.get("detail")
            homes = ("url", "detail") if isinstance(detail, str) else ("url",)
            rest = others(part, ("type", "image_url")) | others(source, homes, "image_url.")
            return media.image(url, detail if isinstance(detail, str) else "", rest)
        case {"type": "file", "file": dict(inner)}:
            return media.file(part, inner) or _opaque("file", part)
        case {"type": "input_audio", "input_audio": dict(inner)}:
            return media.audio(part, inner) or _opaque("input_audio", part)
        case _:
            return _opaque(str(part.get("type")), part)


def _spoken(given: object) -> Audio | None:
    """Return what the model said aloud; sound that says more than we know stays where it is."""
    found = media.spoken(given)
    return found if found and not found.rest else None


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
    rest = others(call, ("id", "type", "function", "extra_content"))
    rest |= others(function, ("name", "arguments"), "function.")
    signature, extra = thoughts.signature(call) if "extra_content" in call else ("", {})
    if extra:
        rest["extra_content"] = extra
    return ToolUse(str(call.get("id") or ""), name, arguments, rest, signature)


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


def _word(rest: Json, key: str) -> str:
    return rest.pop(key) if isinstance(rest.get(key), str) else ""


def _count(rest: Json, key: str) -> int | None:
    return rest.pop(key) if type(rest.get(key)) is int else None


def _logprobs(rest: Json) -> int | None:
    """Return how many likely tokens are wanted beside the chosen one; `logprobs: false` says nothing."""
    wanted, top = rest.get("logprobs"), rest.get("top_logprobs")
    if not isinstance(wanted, bool) or not (top is None or type(top) is int):
        return None
    if not wanted and top is not None:
        return None
    del rest["logprobs"]
    return rest.pop("top_logprobs", 0) if wanted else None


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
