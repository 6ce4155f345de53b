"""A caller's request: checked, measured, its texts replaced, and its own bytes patched for a provider."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from tokenhub_core.dialects import wire
from tokenhub_core.errors import client_fault
from tokenhub_core.recognise import deployment
from tokenhub_core.types import Dialect, Features, Json, Need, Request, TextSlot

_ROLES: Final = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_SLOT_ROLES: Final = frozenset({"system", "developer", "user", "assistant"})
_MEDIA: Final = {
    "image_url": Need.VISION,
    "input_image": Need.VISION,
    "file": Need.FILES,
    "input_audio": Need.AUDIO,
}
NEW_CAP: Final = re.compile(r"(?:^|/)(?:o[1-9]|gpt-[5-9])")
"""Models of OpenAI that reject `max_tokens`, which everybody else knows."""
_CAPS: Final = ("max_completion_tokens", "max_tokens")
"""The names of the caller's cap; the first one that is set counts."""


# --- open --------------------------------------------------------------------------------------------------


class _Walk:
    """Checks and measures the messages in one pass."""

    def __init__(self) -> None:
        self.needs: set[Need] = set()
        self.text_bytes = 0
        self.media = 0

    def message(self, message: object, index: int) -> None:
        """Take one message; raises `TokenHubError` where it cannot be one."""
        if not isinstance(message, dict):
            raise wire.wrong(f"messages[{index}]", "an object", message)
        role = message.get("role")
        if not isinstance(role, str) or role not in _ROLES:
            wire.one_of(role, _ROLES, f"messages[{index}].role")
        content = message.get("content")
        if isinstance(content, str):
            self.text(content)
        elif isinstance(content, list):
            for j, part in enumerate(content):
                self._part(part, index, j)
        elif content is not None:
            raise wire.wrong(f"messages[{index}].content", "a string or an array", content)
        if role in ("tool", "function"):
            self.needs.add(Need.TOOLS)
        elif role == "assistant":
            self._assistant(message, index)

    def text(self, text: object) -> None:
        """Count what becomes input tokens; other JSON counts as it is written."""
        if isinstance(text, str):
            self.text_bytes += len(text) if text.isascii() else len(text.encode())
        elif text:
            self.text_bytes += len(wire.encode(text))

    def _part(self, part: object, i: int, j: int) -> None:
        if not isinstance(part, dict):
            raise wire.wrong(f"messages[{i}].content[{j}]", "an object", part)
        kind = part.get("type")
        if kind == "text":
            text = part.get("text")
            if not isinstance(text, str):
                raise wire.wrong(f"messages[{i}].content[{j}].text", "a string", text)
            self.text(text)
        elif not isinstance(kind, str):
            raise wire.wrong(f"messages[{i}].content[{j}].type", "a string", kind)
        elif need := _MEDIA.get(kind):
            self.needs.add(need)
            self.media += 1
        elif kind == "refusal":
            self.text(part.get("refusal"))

    def _assistant(self, message: Json, index: int) -> None:
        calls = wire.array(message, "tool_calls", f"messages[{index}]")
        for j, call in enumerate(calls):
            wire.record(call, f"messages[{index}].tool_calls[{j}]")
            self._function(call.get("function") or call.get("custom"))
        if legacy := message.get("function_call"):
            self._function(legacy)
        for key in ("refusal", "reasoning_content"):
            if message.get(key):
                self.text(message[key])

    def _function(self, function: object) -> None:
        self.needs.add(Need.TOOLS)
        if isinstance(function, dict):
            self.text(function.get("name"))
            self.text(function.get("arguments") or function.get("input"))


def open_request(body: bytes, path: str = "") -> Request:
    """Decode and check a request body; raises `TokenHubError` (`INVALID`) that names the fault and place.

    Only what routing relies on is checked. The rest is the provider's to judge.
    """
    data = wire.decode(body)
    messages = data.get("messages")
    if not isinstance(messages, list):
        raise wire.wrong("messages", "an array", messages)
    if not messages:
        raise client_fault("Invalid 'messages': it is empty.", cause="bad_field", param="messages")
    walk = _Walk()
    for i, message in enumerate(messages):
        walk.message(message, i)
    for key in ("tools", "functions"):
        if tools := wire.array(data, key):
            walk.needs.add(Need.TOOLS)
            walk.text(tools)
            for i, tool in enumerate(tools):
                wire.record(tool, f"{key}[{i}]")
    output = data.get("response_format")
    if isinstance(output, dict) and output.get("type") == "json_schema":
        walk.needs.add(Need.JSON_SCHEMA)
        walk.text(output.get("json_schema"))
    caps = [cap for name in _CAPS if (cap := wire.count(data, name)) is not None]
    features = Features(
        model=wire.text(data, "model") or deployment(path),
        stream=wire.flag(data, "stream"),
        max_output_tokens=caps[0] if caps else None,
        needs=frozenset(walk.needs),
        text_bytes=walk.text_bytes,
        media=walk.media,
        turns=len(messages),
    )
    return Request(Dialect.OPENAI_CHAT, body, data, features, path)


# --- texts -------------------------------------------------------------------------------------------------


def text_slots(data: Json) -> Iterator[TextSlot]:
    """Yield the texts of user, assistant, system and developer messages, in conversation order."""
    for i, message in enumerate(data["messages"]):
        role, content = message["role"], message.get("content")
        if role not in _SLOT_ROLES:
            continue
        if isinstance(content, str):
            yield TextSlot(role, ("messages", i, "content"), content)
        elif isinstance(content, list):
            for j, part in enumerate(content):
                if part["type"] == "text":
                    yield TextSlot(role, ("messages", i, "content", j, "text"), part["text"])


def replace_texts(data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
    """Return a copy of `data` with these texts in place; only what lies on their paths is copied.

    A text part that becomes empty goes away, and so does a message that held nothing else. The last message
    is never taken away: it keeps an empty text.
    """
    messages: list[Any] = list(data["messages"])
    changed: set[int] = set()
    for path, text in texts:
        index = path[1]
        assert isinstance(index, int)
        message = messages[index]
        if index not in changed:
            changed.add(index)
            messages[index] = message = dict(message)
            if isinstance(message["content"], list):
                message["content"] = list(message["content"])
        if len(path) == 3:
            message["content"] = text
        else:
            part = path[3]
            assert isinstance(part, int)
            message["content"][part] = {**message["content"][part], "text": text}
    if not changed:
        return data
    for index in changed:
        messages[index]["content"] = _without_empty(messages[index])
    left = [message for i, message in enumerate(messages) if not (i in changed and _says_nothing(message))]
    return {**data, "messages": left or messages[-1:]}


def _without_empty(message: Json) -> object:
    """Return the content without its empty text parts; no parts at all become an empty text, or null."""
    content = message["content"]
    if not isinstance(content, list):
        return content
    parts = [part for part in content if part["type"] != "text" or part["text"]]
    return parts or (None if message.get("tool_calls") else "")


def _says_nothing(message: Json) -> bool:
    """Tell whether a message can go: an assistant's turn is history, and stays."""
    return (
        message["role"] != "assistant"
        and not message["content"]
        and message.keys() <= {"role", "content", "name"}
    )


# --- patch -------------------------------------------------------------------------------------------------


def patch(request: Request, *, model: str, max_output_tokens: int | None) -> bytes:
    """Return the caller's own bytes with at most the model, the cap and the wish for usage changed.

    A cap goes under the name that the caller used (both, where it used both), else under `max_tokens`.
    """
    data = request.data
    edits: Json = wire.named(request, model)
    if max_output_tokens is not None:
        names = [name for name in _CAPS if data.get(name) is not None]
        usual = _CAPS[0] if NEW_CAP.search(model) else _CAPS[1]
        edits |= dict.fromkeys(names or [usual], max_output_tokens)
    options = data.get("stream_options") or {}
    if data.get("stream") and isinstance(options, dict) and options.get("include_usage") is not True:
        edits["stream_options"] = {**options, "include_usage": True}
    return wire.splice(request.body, data, edits)


def wants_usage(data: Json) -> bool:
    """Tell whether the caller of a stream asked to see its usage."""
    options = data.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True
