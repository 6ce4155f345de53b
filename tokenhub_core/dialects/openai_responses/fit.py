"""Turns of another dialect, as instructions and input items."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, assert_never

from tokenhub_core.dialects.openai_responses.restore import file_part, folded, image_part
from tokenhub_core.dialects.openai_responses.thoughts import lost, reasoning_items
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

_ADOPTED: Final = frozenset({"prompt_cache_breakpoint"})
"""Extra fields of a part that have their place here whoever wrote them."""

_LONGEST_ID: Final = 64
"""Characters that a `call_id` may have."""

_FORMATS: Final = {
    "audio/mp3": "mp3",
    "audio/mpeg": "mp3",
    "audio/wav": "wav",
    "audio/wave": "wav",
    "audio/x-wav": "wav",
}
_NAMES: Final = {"application/pdf": "file.pdf", "text/plain": "file.txt"}
"""Files by value must have a name."""


class Fitting:
    """Writes the input of one call. Tool results come before what else their turn says."""

    def __init__(self, losses: list[str], *, file_ids: bool) -> None:
        """Names of what cannot be carried are added to `losses`; `file_ids` says whether ids of files hold here."""
        self._losses = losses
        self._file_ids = file_ids
        self._items: list[Json] = []
        self._calls = 0
        self._results = 0

    def input(self, turns: Iterable[Turn]) -> tuple[str, list[Json]]:
        """Return the instructions, which are the leading system turns, and the items; there is at least one."""
        instructions: list[str] = []
        for turn in turns:
            self._losses += turn.rest
            if turn.name:
                self._losses.append("name")
            if turn.role is Role.SYSTEM and not self._items and _is_text(turn):
                instructions += self._texts(turn.parts)
            else:
                self._turn(turn)
        items = self._items or [{"type": "message", "role": "user", "content": ""}]
        return "\n\n".join(instructions), items

    def _turn(self, turn: Turn) -> None:
        left: list[Part] = []
        for part in turn.parts:
            if isinstance(part, ToolResult):
                self._result(part)
            else:
                left.append(part)
        match turn.role:
            case Role.ASSISTANT:
                self._assistant(left)
            case Role.SYSTEM:
                self._message("developer", left)
            case Role.USER | Role.TOOL:
                self._message("user", left)
            case _:
                assert_never(turn.role)

    def _message(self, role: str, parts: list[Part]) -> None:
        content = [body for part in parts if (body := self._content(part)) is not None]
        if content:
            self._items.append({"type": "message", "role": role, "content": folded(content)})

    def _assistant(self, parts: list[Part]) -> None:
        thoughts: list[Reasoning] = []
        content: list[Json] = []
        for part in parts:
            match part:
                case Reasoning():
                    self._say(content)
                    thoughts.append(part)
                    continue
                case Text(text, rest):
                    self._losses += rest
                    spoken: Json | None = {"type": "output_text", "text": text, "annotations": []}
                    spoken = spoken if text else None
                case Refusal(text):
                    spoken = {"type": "refusal", "refusal": text}
                case ToolUse():
                    spoken = None
                case _:
                    self._losses += part_losses(part)
                    continue
            self._items += reasoning_items(thoughts, self._losses, own=False)
            thoughts = []
            if spoken:
                content.append(spoken)
            if isinstance(part, ToolUse):
                self._say(content)
                self._call(part)
        self._say(content)
        self._items += reasoning_items(thoughts, self._losses, own=False)

    def _say(self, content: list[Json]) -> None:
        """Write what the assistant has said so far as a message."""
        if content:
            self._items.append({"type": "message", "role": "assistant", "content": content.copy()})
            content.clear()

    def _call(self, use: ToolUse) -> None:
        self._losses += use.rest
        self._losses += ["thinking.signature"] if use.signature else []
        item = {"type": "function_call", "call_id": _call_id(use.id, self._calls), "name": use.name}
        self._items.append({**item, "arguments": use.arguments or "{}"})
        self._calls += not use.id

    def _result(self, result: ToolResult) -> None:
        """Write one tool result. There is no mark for errors here, so one is told in words."""
        self._losses += result.rest
        content = [body for part in result.content if (body := self._content(part)) is not None]
        if result.is_error:
            content = [{"type": "input_text", "text": "Error:"}, *content]
        output: object = content
        if all(body["type"] == "input_text" for body in content):
            separator = " " if result.is_error and len(content) == 2 else "\n"
            output = separator.join(body["text"] for body in content)
        call_id = _call_id(result.id, self._results)
        self._items.append({"type": "function_call_output", "call_id": call_id, "output": output})
        self._results += not result.id

    def _texts(self, parts: Iterable[Part]) -> list[str]:
        bodies = [body for part in parts if (body := self._content(part)) is not None]
        return [body["text"] for body in bodies]

    def _content(self, part: Part) -> Json | None:
        """Return one part of what is given to the model, None for one that cannot be."""
        match part:
            case Text(text, rest):
                body = self._adopt({"type": "input_text", "text": text}, rest)
                return body if text else None
            case Refusal(text):
                return {"type": "input_text", "text": text} if text else None
            case Image() if part.url or part.data:
                return self._adopt(image_part(replace(part, detail=part.detail or "auto")), part.rest)
            case File() if part.url or part.data or (part.file_id and self._file_ids):
                return self._adopt(self._file(part), part.rest)
            case Audio(media_type, data) if data and media_type in _FORMATS:
                self._losses += part.rest
                return {"type": "input_audio", "input_audio": {"data": data, "format": _FORMATS[media_type]}}
            case _:
                self._losses += part_losses(part)
                return None

    def _adopt(self, body: Json, rest: Mapping[str, Any]) -> Json:
        """Return the part with those of its extra fields that have the same place here."""
        for name, value in rest.items():
            if name in _ADOPTED:
                body[name] = value
            else:
                self._losses.append(name)
        return body

    def _file(self, file: File) -> Json:
        if not self._file_ids:
            file = replace(file, file_id="")
        if file.data:
            kind = file.media_type or "application/pdf"
            file = replace(file, url="", media_type=kind, name=file.name or _NAMES.get(kind, "file"))
        return file_part(file)


def _is_text(turn: Turn) -> bool:
    return all(isinstance(part, Text) for part in turn.parts)


def _call_id(given: str, number: int) -> str:
    """Return a call's id as this dialect takes it; it depends on the id alone, so a call and its result agree.

    Calls without ids are answered in the order they were made.
    """
    if not given:
        return f"call_{number}"
    if len(given) <= _LONGEST_ID:
        return given
    return "call_" + hashlib.sha256(given.encode()).hexdigest()[:32]


def part_losses(part: Part) -> list[str]:
    """Return the names of what goes with a part that this dialect cannot carry."""
    match part:
        case Opaque(kind=kind):
            return [f"part:{kind}"]
        case Reasoning():
            return lost(part)
        case ToolUse():
            return ["part:tool_use"]
        case ToolResult():
            return ["part:tool_result"]
        case Text() | Image() | File() | Audio() | Refusal():
            return [f"part:{type(part).__name__.lower()}"]
        case _:
            assert_never(part)
