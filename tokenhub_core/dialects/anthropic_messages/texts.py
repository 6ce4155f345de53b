"""The texts of a request that a directive may stand in, and how to replace them.

Tool results, documents, search results and thinking are left alone: they are other people's words, even
where they travel in a user message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from tokenhub_core.types import Json, TextSlot

_NOTHING_LEFT: Final = "(empty)"
"""Stands for a message that must stay although its text is gone: blank texts are rejected upstream."""

type _Path = tuple[str | int, ...]


def text_slots(data: Json) -> Iterator[TextSlot]:
    """Yield `system`, then every message's own text, each with its path in the body."""
    yield from _slots("system", ("system",), data.get("system"))
    for place, message in enumerate(data["messages"]):
        yield from _slots(message["role"], ("messages", place, "content"), message["content"])


def _slots(role: str, path: _Path, content: object) -> Iterator[TextSlot]:
    if isinstance(content, str):
        yield TextSlot(role, path, content)
    elif isinstance(content, list):
        for place, block in enumerate(content):
            if block["type"] == "text" and not block.get("citations"):
                yield TextSlot(role, (*path, place, "text"), block["text"])


def replace_texts(data: Json, texts: Iterable[tuple[_Path, str]]) -> Json:
    """Return a copy of `data` with the texts at these paths (of `text_slots`) replaced.

    Only what lies on a changed path is copied. A text block that became blank goes away, an emptied `system`
    too, and so does a message with nothing left in it. A message stays, with the text "(empty)", where the
    conversation would otherwise have no message at all, or begin or newly end with the assistant's turn:
    the first two are rejected upstream, the last asks the model to continue its own words.
    """
    changed = dict(data)
    by_message: dict[int, dict[int | None, str]] = {}
    system: dict[int | None, str] = {}
    for path, text in texts:
        match path:
            case ("system",):
                system[None] = text
            case ("system", int(place), "text"):
                system[place] = text
            case ("messages", int(number), "content"):
                by_message.setdefault(number, {})[None] = text
            case ("messages", int(number), "content", int(place), "text"):
                by_message.setdefault(number, {})[place] = text
            case _:
                raise ValueError(f"no text can stand at {path!r}")
    if system:
        content = _replaced(data["system"], system)
        if content:
            changed["system"] = content
        else:
            del changed["system"]
    if by_message:
        changed["messages"] = _messages(data["messages"], by_message)
    return changed


def _replaced(content: str | list[Json], texts: dict[int | None, str]) -> str | list[Json]:
    if isinstance(content, str):
        text = texts[None]
        return text if text.strip() else ""
    kept = []
    for place, block in enumerate(content):
        new = texts.get(place)
        if new is None:
            kept.append(block)
        elif new.strip():
            kept.append({**block, "text": new})
    return kept


def _messages(messages: list[Json], texts: dict[int, dict[int | None, str]]) -> list[Json]:
    changed: list[Json | None] = list(messages)
    emptied: dict[int, Json] = {}
    for number, replacements in texts.items():
        content: Any = _replaced(messages[number]["content"], replacements)
        message = {**messages[number], "content": content or _NOTHING_LEFT}
        if content:
            changed[number] = message
        else:
            emptied[number] = message
            changed[number] = None
    for number in _needed(messages, changed):
        changed[number] = emptied[number]
    return [message for message in changed if message is not None]


def _needed(messages: list[Json], changed: list[Json | None]) -> Iterator[int]:
    """Yield the emptied messages that have to stay, by number."""
    roles = [message["role"] for message in messages]
    left = [number for number, message in enumerate(changed) if message is not None]
    last = len(messages) - 1
    if not left:
        yield max((number for number, role in enumerate(roles) if role == "user"), default=last)
        return
    if left[0] > 0 and roles[left[0]] == "assistant" and roles[0] == "user":
        yield 0
    if left[-1] < last and roles[left[-1]] == "assistant" and roles[last] == "user":
        yield last
