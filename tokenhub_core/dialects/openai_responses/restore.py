"""Turns that came in this dialect, as the instructions and items they were."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from tokenhub_core.dialects.openai_responses.kept import put_back, spelled
from tokenhub_core.dialects.openai_responses.thoughts import reasoning_items
from tokenhub_core.dialects.openai_responses.words import logprobs_json
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


def restored(turns: Iterable[Turn], losses: list[str]) -> tuple[str, list[Json]]:
    """Return the instructions and the input that these turns of this dialect were.

    Only what another dialect sealed does not go back, and is named in `losses`.
    """
    instructions = ""
    items: list[Json] = []
    for turn in turns:
        role = spelled(turn.rest, "role", turn.role.value)
        if role == "instructions":
            instructions = "".join(part.text for part in turn.parts if isinstance(part, Text))
        elif role == "item" or turn.role is Role.TOOL:
            items += [_result(part) for part in turn.parts]
        elif turn.role is Role.ASSISTANT:
            items += _assistant(turn, losses)
        else:
            message = {"type": "message", "role": role, "content": folded([_part(p) for p in turn.parts])}
            items.append(put_back(message, turn.rest))
    return instructions, items


def _result(part: Part) -> Json:
    if isinstance(part, Opaque):
        return part.raw
    assert isinstance(part, ToolResult)
    item: Json = {"type": "function_call_output"}
    if part.id:
        item["call_id"] = part.id
    item["output"] = folded([_part(each) for each in part.content])
    return put_back(item, part.rest)


def _assistant(turn: Turn, losses: list[str]) -> list[Json]:
    items: list[Json] = []
    thoughts: list[Reasoning] = []
    message: Json | None = None
    rest = turn.rest
    for part in turn.parts:
        if isinstance(part, Reasoning):
            thoughts.append(part)
            message = None
            continue
        items += reasoning_items(thoughts, losses, own=True)
        thoughts = []
        if isinstance(part, ToolUse) or (isinstance(part, Opaque) and not part.kind.startswith("content:")):
            items.append(tool_call(part) if isinstance(part, ToolUse) else part.raw)
            message = None
            continue
        if message is None:
            # The turn's own fields are those of its first message.
            message = put_back({"type": "message", "role": "assistant", "content": []}, rest)
            rest = {}
            items.append(message)
        message["content"].append(_part(part, "output_text"))
    return items + reasoning_items(thoughts, losses, own=True)


def tool_call(use: ToolUse) -> Json:
    """Return a function call as it stands in the input."""
    item: Json = {"type": "function_call", "call_id": use.id, "name": use.name, "arguments": use.arguments}
    return put_back(item, use.rest)


def _part(part: Part, usual: str = "input_text") -> Json:
    match part:
        case Text(text, rest):
            kind = spelled(rest, "type", usual)
            body: Json = {"type": kind, "text": text}
            if kind == "output_text":
                body["annotations"] = []
            if part.logprobs:
                body["logprobs"] = logprobs_json(part.logprobs)
            return put_back(body, rest)
        case Image(rest=rest):
            return put_back(image_part(part), rest)
        case File(rest=rest):
            return put_back(file_part(part), rest)
        case Audio(data=data, rest=rest):
            sound = spelled(rest, "format", part.media_type.partition("/")[2])
            return put_back({"type": "input_audio", "input_audio": {"data": data, "format": sound}}, rest)
        case Refusal(text):
            return {"type": "refusal", "refusal": text}
        case Opaque(raw=raw):
            return raw
        case ToolUse() | ToolResult() | Reasoning():
            raise TypeError(f"A {type(part).__name__} is not read from the content of a message.")
        case _:
            assert_never(part)


def folded(content: list[Json]) -> str | list[Json]:
    """Return the content in its plainest form: a lone text is a string."""
    match content:
        case []:
            return ""
        case [{"type": "input_text", "text": str(text)} as part] if len(part) == 2:
            return text
        case _:
            return content


def image_part(image: Image) -> Json:
    """Return an image as it stands in the input."""
    body: Json = {
        "type": "input_image",
        "image_url": image.url or f"data:{image.media_type};base64,{image.data}",
    }
    if image.detail:
        body["detail"] = image.detail
    return body


def file_part(file: File) -> Json:
    """Return a document as it stands in the input. Without a type the data are as they came."""
    body: Json = {"type": "input_file"}
    if file.url:
        body["file_url"] = file.url
    if file.data:
        body["file_data"] = f"data:{file.media_type};base64,{file.data}" if file.media_type else file.data
    if file.file_id:
        body["file_id"] = file.file_id
    if file.name:
        body["filename"] = file.name
    return body
