"""A caller's request: checked, measured, its texts replaced, and its own bytes patched for a provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from tokenhub_core.dialects import wire
from tokenhub_core.errors import client_fault
from tokenhub_core.types import Dialect, Features, Json, Need, Request, TextSlot

_ROLES: Final = frozenset({"system", "developer", "user", "assistant"})
_TEXTS: Final = frozenset({"input_text", "output_text", "text"})
_MEDIA: Final = {"input_image": Need.VISION, "input_file": Need.FILES, "input_audio": Need.AUDIO}
_STATE: Final = ("previous_response_id", "conversation", "prompt")
"""What a request may have instead of an input of its own."""


def is_message(item: Json) -> bool:
    """Tell whether an item of the input is a message; an "easy" one has no type."""
    kind = item.get("type")
    return kind == "message" or (kind is None and "role" in item)


# --- open --------------------------------------------------------------------------------------------------


class _Walk:
    """Checks and measures the items in one pass."""

    def __init__(self) -> None:
        self.needs: set[Need] = set()
        self.text_bytes = 0
        self.media = 0

    def item(self, item: object, path: str) -> None:
        """Take one item; raises `TokenHubError` where it cannot be one."""
        if not isinstance(item, dict):
            raise wire.wrong(path, "an object", item)
        if is_message(item):
            wire.one_of(item.get("role"), _ROLES, f"{path}.role")
            self._content(item, "content", path)
            return
        kind = item.get("type")
        match kind:
            case "function_call":
                for key in ("call_id", "name", "arguments"):
                    self._required(item, key, path)
                self._tool(item["name"], item["arguments"])
            case "function_call_output":
                self._tool()
                wire.text(item, "call_id", path)
                self._content(item, "output", path)
            case "reasoning":
                for key in ("summary", "content"):
                    for i, piece in enumerate(wire.array(item, key, path)):
                        self._thought(piece, f"{path}.{key}[{i}]")
                wire.text(item, "encrypted_content", path)
            case "custom_tool_call":
                self._tool(item.get("name"), item.get("input"))
            case "custom_tool_call_output":
                self._tool()
                self._content(item, "output", path)
            case None if isinstance(item.get("id"), str):
                pass  # An item reference may leave its type out.
            case _ if not isinstance(kind, str):
                raise wire.wrong(f"{path}.type", "a string", kind)

    def text(self, text: object) -> None:
        """Count what becomes input tokens; other JSON counts as it is written."""
        if isinstance(text, str):
            self.text_bytes += len(text) if text.isascii() else len(text.encode())
        elif text:
            self.text_bytes += len(wire.encode(text))

    def _tool(self, *texts: object) -> None:
        self.needs.add(Need.TOOLS)
        for text in texts:
            self.text(text)

    def _required(self, item: Json, key: str, path: str) -> None:
        if not isinstance(item.get(key), str):
            raise wire.wrong(f"{path}.{key}", "a string", item.get(key))

    def _thought(self, piece: object, path: str) -> None:
        text = wire.record(piece, path).get("text")
        if not isinstance(text, str):
            raise wire.wrong(f"{path}.text", "a string", text)
        self.text(text)

    def _content(self, item: Json, key: str, path: str) -> None:
        content = item.get(key)
        if isinstance(content, str):
            self.text(content)
        elif isinstance(content, list):
            for j, part in enumerate(content):
                self._part(part, f"{path}.{key}[{j}]")
        else:
            raise wire.wrong(f"{path}.{key}", "a string or an array", content)

    def _part(self, part: object, path: str) -> None:
        if not isinstance(part, dict):
            raise wire.wrong(path, "an object", part)
        kind = part.get("type")
        if not isinstance(kind, str):
            raise wire.wrong(f"{path}.type", "a string", kind)
        if kind in _TEXTS:
            self._required(part, "text", path)
            self.text(part["text"])
        elif need := _MEDIA.get(kind):
            self.needs.add(need)
            self.media += 1
        elif kind == "refusal":
            self._required(part, "refusal", path)
            self.text(part["refusal"])


def open_request(body: bytes, path: str = "") -> Request:
    """Decode and check a request body; raises `TokenHubError` (`INVALID`) that names the fault and place.

    Only what routing and this package rely on is checked. The rest is the provider's to judge.
    """
    data = wire.decode(body)
    walk = _Walk()
    items = data.get("input")
    if not items and items != "" and all(data.get(key) is None for key in _STATE):
        if isinstance(items, list):
            raise client_fault("Invalid 'input': it is empty.", cause="bad_field", param="input")
        raise wire.wrong("input", "a string or an array", items)
    if isinstance(items, list):
        for i, item in enumerate(items):
            walk.item(item, f"input[{i}]")
    elif isinstance(items, str):
        walk.text(items)
    elif items is not None:
        raise wire.wrong("input", "a string or an array", items)
    walk.text(wire.text(data, "instructions"))
    if tools := wire.array(data, "tools"):
        walk.needs.add(Need.TOOLS)
        walk.text(tools)
        for i, tool in enumerate(tools):
            wire.record(tool, f"tools[{i}]")
    for key in ("text", "reasoning", "metadata"):
        if data.get(key) is not None:
            wire.record(data[key], key)
    output = (data.get("text") or {}).get("format")
    if isinstance(output, dict) and output.get("type") == "json_schema":
        walk.needs.add(Need.JSON_SCHEMA)
        walk.text(output)
    wire.flag(data, "background")
    features = Features(
        model=wire.text(data, "model"),
        stream=wire.flag(data, "stream"),
        max_output_tokens=wire.count(data, "max_output_tokens"),
        needs=frozenset(walk.needs),
        text_bytes=walk.text_bytes,
        media=walk.media,
        turns=len(items) if isinstance(items, list) else int(items is not None),
    )
    return Request(Dialect.OPENAI_RESPONSES, body, data, features, path)


# --- texts -------------------------------------------------------------------------------------------------


def text_slots(data: Json) -> Iterator[TextSlot]:
    """Yield the instructions and the texts of messages, in conversation order; never what a tool gave out."""
    if isinstance(data.get("instructions"), str):
        yield TextSlot("system", ("instructions",), data["instructions"])
    items = data.get("input")
    if isinstance(items, str):
        yield TextSlot("user", ("input",), items)
    for i, item in enumerate(items if isinstance(items, list) else ()):
        if not is_message(item):
            continue
        role, content = item["role"], item["content"]
        if isinstance(content, str):
            yield TextSlot(role, ("input", i, "content"), content)
            continue
        for j, part in enumerate(content):
            if part["type"] in _TEXTS:
                yield TextSlot(role, ("input", i, "content", j, "text"), part["text"])


def replace_texts(data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
    """Return a copy of `data` with these texts in place; only what lies on their paths is copied.

    A text part that becomes empty goes away, and so do a message that held nothing else and empty instructions.
    Where no item would be left, the last one stays and keeps an empty text.
    """
    changed = dict(data)
    messages: dict[int, Json] = {}
    for path, text in texts:
        match path:
            case ("instructions",):
                changed["instructions"] = text
                if not text:
                    del changed["instructions"]
            case ("input",):
                changed["input"] = text
            case ("input", int(i), "content"):
                messages[i] = {**messages.get(i, data["input"][i]), "content": text}
            case ("input", int(i), "content", int(j), "text"):
                message = messages.get(i, data["input"][i])
                content = list(message["content"])
                content[j] = {**content[j], "text": text}
                messages[i] = {**message, "content": content}
            case _:
                raise ValueError(f"no text can stand at {path!r}")
    if messages:
        changed["input"] = _input(data["input"], messages)
    return changed


def _input(items: list[Any], messages: dict[int, Json]) -> list[Any]:
    """Return the items with the changed messages in their places, without those that say nothing any more."""
    for message in messages.values():
        if isinstance(message["content"], list):
            parts = [part for part in message["content"] if part["type"] not in _TEXTS or part["text"]]
            message["content"] = parts or ""
    whole = [messages.get(i, item) for i, item in enumerate(items)]
    left = [item for i, item in enumerate(whole) if not (i in messages and _says_nothing(item))]
    return left or whole[-1:]


def _says_nothing(message: Json) -> bool:
    """Tell whether a message can go: an assistant's turn is history, and stays."""
    return message["role"] != "assistant" and not message["content"]


# --- patch -------------------------------------------------------------------------------------------------


def patch(request: Request, *, model: str, max_output_tokens: int | None) -> bytes:
    """Return the caller's own bytes with at most the model and the cap changed."""
    edits: Json = {"model": model}
    if max_output_tokens is not None:
        edits["max_output_tokens"] = max_output_tokens
    return wire.splice(request.body, request.data, edits)
