"""Turns of another dialect, as messages that generic chat servers take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from tokenhub_core.dialects.openai_chat import media, thoughts
from tokenhub_core.dialects.openai_chat.restore import folded, tool_call
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
    anything else, and their images and files in the user message after them. Thoughts go back to the servers
    that sealed them; others are given only where `echo` says that the model wants its plain thoughts back with
    its tool calls (DeepSeek and its like do, while Mistral and Groq reject the field).
    """

    def __init__(self, losses: list[str], *, echo: bool, signs: bool) -> None:
        """Names of what cannot be carried are added to `losses`. `signs`: the model signs its tool calls."""
        self._losses = losses
        self._echo = echo
        self._signs = signs
        self._messages: list[Json] = []
        self._images: list[Json] = []
        """Media from tool results; they wait until the last result of the row is written."""

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
        thought: list[Reasoning] = []
        echo = self._echo and any(isinstance(part, ToolUse) for part in parts)
        for part in parts:
            match part:
                case ToolUse():
                    calls.append(self._call(part))
                case Reasoning() if thoughts.is_ours(part) or (
                    echo and part.text and not (part.signature or part.redacted)
                ):
                    thought.append(part)
                case Refusal(text):
                    refusals.append(text)
                case _:
                    left.append(part)
        text = self._text(left, "")
        if not (text or calls or refusals):
            for each in thought:
                self._lose(each)
            return
        message: Json = {"role": "assistant", "content": text or None}
        plain = "reasoning_content" if any(not part.signature and part.text for part in thought) else ""
        message |= thoughts.to_provider(thought, plain, self._losses)
        if refusals:
            message["refusal"] = "".join(refusals)
        if calls:
            message["tool_calls"] = calls
        self._messages.append(message)

    def _result(self, result: ToolResult) -> None:
        """Write one tool result: text only, so an error is told in words, and media follow later."""
        self._losses += result.rest
        words: list[Part] = []
        below: list[Json] = []
        for part in result.content:
            if not isinstance(part, Image | File | Audio):
                words.append(part)
            elif found := self._media(part):
                if found["type"] == "text":
                    words.append(Text(found["text"]))
                else:
                    below.append(found)
        text = self._text(words, "\n")
        if below and not text:
            text = f"({'image' if below[0]['type'] == 'image_url' else 'file'} below)"
        if result.is_error:
            text = f"Error: {text}"
        self._images += below
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
                case Image() | File() | Audio():
                    found = self._media(part)
                    content += [found] if found else []
                case _:
                    self._lose(part)
        return content

    def _media(self, part: Image | File | Audio) -> Json | None:
        """Return the part of a user's message; None where it has none, which is a loss."""
        self._losses += part.rest
        if isinstance(part, Image):
            return media.image_part(part)
        if isinstance(part, File):
            found, lost = media.fitted(part)
            self._losses += lost
            return found
        if part.data and part.media_type:
            return media.audio_part(part)
        self._losses.append("part:audio")
        return {"type": "text", "text": part.transcript} if part.transcript else None

    def _call(self, use: ToolUse) -> Json:
        self._losses += use.rest
        sealed = use.signature if self._signs else ""
        call = tool_call(ToolUse(use.id, use.name, use.arguments or "{}", signature=sealed), client=False)
        if use.signature and "extra_content" not in call:
            self._losses.append("thinking.signature")
        return call

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
