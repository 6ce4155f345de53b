"""Turns that came in this dialect, as the messages they were."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from tokenhub_core.dialects.openai_chat.kept import put_back, spelled
from tokenhub_core.types import (
    Audio,
    File,
    Image,
    Json,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolResult,
    ToolUse,
    Turn,
)


def restored(turns: Iterable[Turn]) -> list[Json]:
    """Return the messages that these turns of this dialect were."""
    return [message for turn in turns for message in _own(turn)]


def _own(turn: Turn) -> list[Json]:
    """Return the message that a turn of this dialect was."""
    message: Json
    match turn:
        case Turn(Role.TOOL, (Opaque(raw=raw),)):
            return [raw]
        case Turn(Role.TOOL, (ToolResult() as result,)):
            content = [_own_part(part) for part in result.content]
            message = {"role": "tool", "tool_call_id": result.id, "content": folded(content, "")}
        case Turn(Role.ASSISTANT):
            message = assistant_message(turn.parts)
        case _:
            content = [_own_part(part) for part in turn.parts]
            message = {
                "role": spelled(turn.rest, "role", turn.role.value),
                "content": folded(content, ""),
            }
    if turn.name:
        message["name"] = turn.name
    put_back(message, turn.rest)
    return [message]


def assistant_message(parts: Iterable[Part]) -> Json:
    """Return the model's message that these parts of this dialect were."""
    content: list[Json] = []
    calls: list[Json] = []
    refusals: list[str] = []
    message: Json = {"role": "assistant", "content": None}
    for part in parts:
        match part:
            case ToolUse():
                calls.append(tool_call(part))
            case Opaque(kind=kind) if kind.startswith("tool_call:"):
                calls.append(part.raw)
            case Refusal(text):
                refusals.append(text)
            case Reasoning(text):
                message["reasoning_content"] = text
            case _:
                content.append(_own_part(part))
    message["content"] = folded(content, None if calls or refusals else "")
    if refusals:
        message["refusal"] = "".join(refusals)
    if calls:
        message["tool_calls"] = calls
    return message


def _own_part(part: Part) -> Json:
    match part:
        case Text(text, rest):
            body: Json = {"type": "text", "text": text}
            put_back(body, rest)
        case Image(rest=rest):
            body = image_part(part)
            put_back(body, rest)
        case Opaque(raw=raw):
            body = raw
        case Refusal(text):
            body = {"type": "refusal", "refusal": text}
        case ToolUse() | ToolResult() | Reasoning() | File() | Audio():
            raise TypeError(f"A {type(part).__name__} is not read from the content of a message.")
        case _:
            assert_never(part)
    return body


def folded(content: list[Json], nothing: str | None) -> object:
    """Return the content in its plainest form: a lone text is a string."""
    match content:
        case []:
            return nothing
        case [{"type": "text", "text": text} as part] if len(part) == 2:
            return text
        case _:
            return content


def image_part(image: Image) -> Json:
    """Return an image as it stands in a message's content."""
    source: Json = {"url": image.url or f"data:{image.media_type};base64,{image.data}"}
    if image.detail:
        source["detail"] = image.detail
    return {"type": "image_url", "image_url": source}


def tool_call(use: ToolUse) -> Json:
    """Return a tool call as it stands in a message."""
    call: Json = {
        "id": use.id,
        "type": "function",
        "function": {"name": use.name, "arguments": use.arguments},
    }
    put_back(call, use.rest)
    return call
