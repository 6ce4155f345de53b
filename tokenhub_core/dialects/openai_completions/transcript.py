"""A conversation as one text, for models that only continue texts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tokenhub_core.dialects.openai_chat.fit import part_losses
from tokenhub_core.types import Image, Refusal, Role, Text, Turn

_SPEAKERS: Final = {Role.USER: "User", Role.ASSISTANT: "Assistant", Role.TOOL: "Tool"}


def transcript(turns: Iterable[Turn], losses: list[str], *, images: list[str] | None = None) -> str:
    """Return the turns as one text; names of what it cannot carry are added to `losses`.

    A lone turn of the user is the text itself. A longer conversation names its speakers and ends where the
    assistant has to go on; that its turns are turns no more is the loss `messages`. Where `images` is given,
    base64 images are put there instead of lost.
    """
    said: list[tuple[Role, str]] = []
    for turn in turns:
        losses += turn.rest
        if turn.name:
            losses.append("name")
        if text := _text(turn, losses, images):
            said.append((turn.role, text))
    match said:
        case []:
            return ""
        case [(Role.USER, text)]:
            return text
    losses.append("messages")
    blocks = [text if role is Role.SYSTEM else f"{_SPEAKERS[role]}: {text}" for role, text in said]
    if said[-1][0] is not Role.ASSISTANT:
        blocks.append("Assistant:")
    return "\n\n".join(blocks)


def _text(turn: Turn, losses: list[str], images: list[str] | None) -> str:
    texts: list[str] = []
    for part in turn.parts:
        match part:
            case Text(text, rest):
                losses += rest
                texts.append(text)
            case Refusal(text) if turn.role is Role.ASSISTANT:
                texts.append(text)
            case Image(data=data) if images is not None and data:
                losses += part.rest
                images.append(data)
            case _:
                losses += part_losses(part)
    return ("" if turn.role is Role.ASSISTANT else "\n").join(text for text in texts if text)
