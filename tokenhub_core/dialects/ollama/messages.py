"""Turns as this dialect's messages: a text, its images beside it, and tool calls with whole arguments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenhub_core.dialects.ollama import words
from tokenhub_core.dialects.ollama.kept import restore
from tokenhub_core.dialects.openai_chat.fit import part_losses
from tokenhub_core.types import (
    Audio,
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


class Messages:
    """Writes the messages of one call."""

    def __init__(self, losses: list[str], *, own: bool) -> None:
        """Names of what cannot be carried are added to `losses`; `own` turns came in this dialect."""
        self._losses = losses
        self._own = own
        self._names: dict[str, str] = {}
        """The tool that each call went to: a result names it."""

    def written(self, turns: Iterable[Turn]) -> list[Json]:
        """Return the messages; there is at least one, because a call without any only loads the model."""
        messages = [message for turn in turns for message in self._turn(turn)]
        return messages or [{"role": "user", "content": ""}]

    def _turn(self, turn: Turn) -> list[Json]:
        if self._own:
            match turn.parts:
                case (Opaque(raw=raw),):
                    return [raw]
        results = [self._result(part) for part in turn.parts if isinstance(part, ToolResult)]
        parts = [part for part in turn.parts if not isinstance(part, ToolResult)]
        if turn.name:
            self._losses.append("name")
        message = self._message(turn.role, parts)
        if self._own:
            restore(message, turn.rest)
            return results or [message]
        self._losses += turn.rest
        if len(message) == 2 and not message["content"] and turn.role is not Role.USER:
            return results
        return [*results, message] if parts or not results else results

    def _message(self, role: Role, parts: Sequence[Part]) -> Json:
        role = Role.USER if role is Role.TOOL else role
        separator = {Role.ASSISTANT: "", Role.SYSTEM: "\n\n"}.get(role, "\n")
        message: Json = {"role": role.value, "content": ""}
        texts: list[str] = []
        images: list[str] = []
        thoughts: list[str] = []
        calls: list[Json] = []
        for part in parts:
            match part:
                case Text(text, rest):
                    self._losses += rest
                    texts.append(text)
                case Refusal(text) if role is Role.ASSISTANT:
                    texts.append(text)
                case Image(data=data) if data:
                    images.append(self._image(part))
                case Audio(data=data) if data and self._own:
                    images.append(data)
                case Reasoning(text) if text and role is Role.ASSISTANT:
                    thoughts.append(text)
                    self._losses += ["thinking.signature"] if part.signature else []
                    self._losses += part.rest
                case ToolUse() if role is Role.ASSISTANT:
                    calls.append(self._use(part))
                case _:
                    self._losses += part_losses(part)
        message["content"] = separator.join(text for text in texts if text)
        for key, value in (("thinking", "".join(thoughts)), ("images", images), ("tool_calls", calls)):
            if value:
                message[key] = value
        return message

    def _image(self, image: Image) -> str:
        self._losses += image.rest
        if image.detail not in {"", "auto"}:
            self._losses.append("image_url.detail")
        return image.data

    def _use(self, use: ToolUse) -> Json:
        self._names[use.id] = use.name
        arguments = words.arguments_object(use.arguments, self._losses)
        call: Json = {"id": use.id, "function": {"name": use.name, "arguments": arguments}}
        if self._own:
            restore(call, use.rest)
            return _without_null(call) | {"function": _without_null(call["function"])}
        self._losses += use.rest
        self._losses += ["thinking.signature"] if use.signature else []
        return call

    def _result(self, result: ToolResult) -> Json:
        message = self._message(Role.USER, result.content) | {"role": Role.TOOL.value}
        if self._own:
            restore(message, result.rest)
            return _without_null(message)
        self._losses += result.rest
        if result.is_error:
            message["content"] = f"Error: {message['content']}"
        message["tool_call_id"] = result.id
        if name := self._names.get(result.id):
            message["tool_name"] = name
        return message


def _without_null(data: Json) -> Json:
    return {key: value for key, value in data.items() if value is not None}
