"""Turns of another dialect, as messages that generic chat servers take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from tokenhub_core.dialects.openai_chat.restore import folded, image_part, tool_call
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


class Fitting:
    """Writes the messages of one call.

    There is one system message in a row, plain strings stand where there is only text, tool results come before
    anything else, and their images in the user message after them.
    """

    def __init__(self, losses: list[str]) -> None:
        """Names of what cannot be carried are added to `losses`."""
        self._losses = losses
        self._messages: list[Json] = []
        self._images: list[Json] = []
        """From tool results; they wait until the last result of the row is written."""

    def messages(self, turns: Iterable[Turn]) -> list[Json]:
        """Return the messages; there is at least one."""
        for turn in turns:
            self._losses += turn.rest
            if turn.name:
                self._losses.append("name")
            for part in turn.parts:
                if isinstance(part, ToolResult):
                    self._result(part)
            self._turn(turn, [part for part in turn.parts if not isinstance(part, ToolResult)])
        self._flush([])
        return self._messages or [{"role": "user", "content": ""}]

    def _turn(self, turn: Turn, parts: list[Part]) -> None:
        match turn.role:
            case Role.SYSTEM:
                self._flush([])
                self._system(self._text(parts, "\n\n"))
            case Role.ASSISTANT:
                self._flush([])
                self._assistant(parts)
            case Role.USER | Role.TOOL:
                content = self._content(parts)
                if content or turn.role is Role.USER:
                    self._flush(content)
            case _:
                assert_never(turn.role)

    def _flush(self, content: list[Json]) -> None:
        """Write a user message of the images that wait and of `content`."""
        content = [*self._images, *content]
        self._images = []
        if content:
            self._messages.append({"role": "user", "content": folded(content, "")})

    def _system(self, text: str) -> None:
        last = self._messages[-1] if self._messages else {}
        if not text:
            return
        if last.get("role") == "system":
            last["content"] += "\n\n" + text
        else:
            self._messages.append({"role": "system", "content": text})

    def _assistant(self, parts: list[Part]) -> None:
        calls: list[Json] = []
        left: list[Part] = []
        refusals: list[str] = []
        for part in parts:
            match part:
                case ToolUse():
                    self._losses += part.rest
                    calls.append(tool_call(ToolUse(part.id, part.name, part.arguments or "{}")))
                case Refusal(text):
                    refusals.append(text)
                case _:
                    left.append(part)
        text = self._text(left, "")
        if not (text or calls or refusals):
            return
        message: Json = {"role": "assistant", "content": text or None}
        if refusals:
            message["refusal"] = "".join(refusals)
        if calls:
            message["tool_calls"] = calls
        self._messages.append(message)

    def _result(self, result: ToolResult) -> None:
        """Write one tool result: text only, so an error is told in words, and images follow later."""
        self._losses += result.rest
        images = [self._media(part) for part in result.content if isinstance(part, Image)]
        text = self._text([part for part in result.content if not isinstance(part, Image)], "\n")
        if images and not text:
            text = "(image below)"
        if result.is_error:
            text = f"Error: {text}"
        self._images += images
        self._messages.append({"role": "tool", "tool_call_id": result.id, "content": text})

    def _text(self, parts: Iterable[Part], separator: str) -> str:
        """Return the texts joined; every other part is a loss."""
        texts: list[str] = []
        for part in parts:
            if isinstance(part, Text):
                self._losses += part.rest
                texts.append(part.text)
            else:
                self._lose(part)
        return separator.join(text for text in texts if text)

    def _content(self, parts: Iterable[Part]) -> list[Json]:
        content: list[Json] = []
        for part in parts:
            match part:
                case Text(text, rest):
                    self._losses += rest
                    if text:
                        content.append({"type": "text", "text": text})
                case Image():
                    content.append(self._media(part))
                case _:
                    self._lose(part)
        return content

    def _media(self, image: Image) -> Json:
        self._losses += image.rest
        return image_part(image)

    def _lose(self, part: Part) -> None:
        self._losses += part_losses(part)


def part_losses(part: Part) -> list[str]:
    """Return the names of what goes with a part that this dialect cannot carry."""
    match part:
        case Opaque(kind=kind):
            return [f"part:{kind}"]
        case Reasoning():
            names = ["part:thinking"] if part.text else []
            names += ["thinking.signature"] if part.signature else []
            return names + (["part:redacted_thinking"] if part.redacted else [])
        case Image():
            return ["part:image"]
        case File():
            return ["part:file"]
        case Audio():
            return ["part:audio"]
        case ToolUse():
            return ["part:tool_use"]
        case ToolResult():
            return ["part:tool_result"]
        case Refusal():
            return ["part:refusal"]
        case Text():
            return ["part:text"]
        case _:
            assert_never(part)
