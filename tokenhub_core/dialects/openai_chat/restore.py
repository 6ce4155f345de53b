"""Turns that came in this dialect, as the messages they were."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from tokenhub_core.dialects.openai_chat import media, thoughts
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


def restored(turns: Iterable[Turn], losses: list[str]) -> list[Json]:
    """Return the messages that these turns of this dialect were, without seals that another dialect made."""
    return [message for turn in turns for message in _own(turn, losses)]


def _own(turn: Turn, losses: list[str]) -> list[Json]:
    """Return the message that a turn of this dialect was."""
    message: Json
    match turn:
        case Turn(Role.TOOL, (Opaque(raw=raw),)):
            return [raw]
        case Turn(Role.TOOL, (ToolResult() as result,)):
            content = [_own_part(part) for part in result.content]
            message = {"role": "tool", "tool_call_id": result.id, "content": folded(content, "")}
        case Turn(Role.ASSISTANT):
            message = _assistant(turn, losses)
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


def _assistant(turn: Turn, losses: list[str]) -> Json:
    content: list[Json] = []
    calls: list[Json] = []
    refusals: list[str] = []
    images: list[Json] = []
    thought: list[Reasoning] = []
    message: Json = {"role": "assistant", "content": None}
    for part in turn.parts:
        match part:
            case ToolUse():
                calls.append(_own_call(part, losses))
            case Opaque(kind=kind) if kind.startswith("tool_call:"):
                calls.append(part.raw)
            case Refusal(text):
                refusals.append(text)
            case Reasoning():
                thought.append(part)
            case Image() if spelled(turn.rest, "images", ""):
                images.append(media.image_part(part))
            case Audio() if part.id:
                message["audio"] = {"id": part.id}
            case _:
                content.append(_own_part(part))
    message["content"] = folded(content, None if calls or refusals or "audio" in message else "")
    message |= thoughts.to_provider(thought, spelled(turn.rest, "thoughts", ""), losses)
    if images:
        message["images"] = images
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
        case Image() | File() | Audio():
            body = media.own_part(part)
        case Opaque(raw=raw):
            body = raw
        case Refusal(text):
            body = {"type": "refusal", "refusal": text}
        case ToolUse() | ToolResult() | Reasoning():
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


def _own_call(use: ToolUse, losses: list[str]) -> Json:
    call = tool_call(use, client=False)
    signed = call.pop("extra_content", None)
    put_back(call, use.rest)
    if signed:
        extra = use.rest.get("extra_content", {})
        call["extra_content"] = {**extra, "google": {**extra.get("google", {}), **signed["google"]}}
    elif use.signature:
        losses.append("thinking.signature")
    return call


def tool_call(use: ToolUse, *, client: bool) -> Json:
    """Return a tool call as it stands in a message for a client or a provider, without what `rest` keeps."""
    call: Json = {
        "id": use.id,
        "type": "function",
        "function": {"name": use.name, "arguments": use.arguments},
    }
    return call | thoughts.extra_content(use.signature, client=client) if use.signature else call
