"""A caller's request: checked, measured, its texts found and replaced, and its own bytes patched for a provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.ollama import words
from tokenhub_core.dialects.openai_chat import request as _openai
from tokenhub_core.types import Audio, Dialect, Features, Json, Need, Request, TextSlot

_SLOT_ROLES: Final = frozenset({"system", "user", "assistant"})


# --- open --------------------------------------------------------------------------------------------------


class _Walk:
    """Checks and measures in one pass."""

    def __init__(self) -> None:
        self.needs: set[Need] = set()
        self.text_bytes = 0
        self.media = 0

    def message(self, given: object, path: str) -> None:
        """Take one message; raises `TokenHubError` where it cannot be one. Models have roles of their own."""
        message = wire.record(given, path)
        role = message.get("role")
        if not isinstance(role, str):
            raise wire.wrong(f"{path}.role", "a string", role)
        for key in ("content", "thinking", "tool_name", "tool_call_id"):
            self.text(wire.text(message, key, path))
        self.images(message, path)
        if role.lower() == "tool":
            self.needs.add(Need.TOOLS)
        for place, call in enumerate(wire.array(message, "tool_calls", path)):
            where = f"{path}.tool_calls[{place}]"
            function = wire.record(wire.record(call, where).get("function"), f"{where}.function")
            self.needs.add(Need.TOOLS)
            self.text(wire.text(function, "name", f"{where}.function"))
            self.text(function.get("arguments"))

    def images(self, data: Json, path: str = "") -> None:
        """Take what `images` holds."""
        for place, image in enumerate(wire.array(data, "images", path)):
            if not isinstance(image, str):
                raise wire.wrong(wire.join(wire.join(path, "images"), place), "a string", image)
            self.media += 1
            self.needs.add(Need.AUDIO if isinstance(words.media(image), Audio) else Need.VISION)

    def text(self, text: object) -> None:
        """Count what becomes input tokens; other JSON counts as it is written."""
        if isinstance(text, str):
            self.text_bytes += len(text) if text.isascii() else len(text.encode())
        elif text:
            self.text_bytes += len(wire.encode(text))


def open_request(dialect: Dialect, body: bytes, path: str = "") -> Request:
    """Decode and check a request body; raises `TokenHubError` (`INVALID`) that names the fault and place.

    Only what routing relies on is checked. A call without messages, or with an empty prompt, only loads the
    model: that is a valid one.
    """
    data = wire.decode(body)
    walk = _Walk()
    if dialect is Dialect.OLLAMA_CHAT:
        messages = wire.array(data, "messages")
        turns = len(messages)
        for place, message in enumerate(messages):
            walk.message(message, f"messages[{place}]")
        if tools := wire.array(data, "tools"):
            walk.needs.add(Need.TOOLS)
            walk.text(tools)
            for place, tool in enumerate(tools):
                wire.record(tool, f"tools[{place}]")
    else:
        turns = 1
        for key in ("prompt", "suffix", "system", "template"):
            walk.text(wire.text(data, key))
        walk.images(data)
    if isinstance(output := data.get("format"), dict):
        walk.needs.add(Need.JSON_SCHEMA)
        walk.text(output)
    features = Features(
        model=wire.text(data, "model"),
        stream=streams(data),
        max_output_tokens=_cap(data),
        needs=frozenset(walk.needs),
        text_bytes=walk.text_bytes,
        media=walk.media,
        turns=turns,
    )
    return Request(dialect, body, data, features, path)


def streams(data: Json) -> bool:
    """Tell whether the answer is to be streamed: unlike elsewhere, it is where nobody said."""
    return True if data.get("stream") is None else wire.flag(data, "stream")


def _cap(data: Json) -> int | None:
    """Return the caller's cap; zero and negative numbers mean none."""
    if data.get("options") is None:
        return None
    cap = wire.record(data["options"], "options").get("num_predict")
    if cap is not None and type(cap) is not int:
        raise wire.wrong("options.num_predict", "an integer", cap)
    return cap if cap is not None and cap > 0 else None


# --- texts -------------------------------------------------------------------------------------------------


def text_slots(dialect: Dialect, data: Json) -> Iterator[TextSlot]:
    """Yield the texts of system, user and assistant messages, or the system prompt and the prompt."""
    if dialect is Dialect.OLLAMA_CHAT:
        for place, message in enumerate(data.get("messages") or ()):
            role, content = message["role"].lower(), message.get("content")
            if role in _SLOT_ROLES and content:
                yield TextSlot(role, ("messages", place, "content"), content)
        return
    for key, role in (("system", "system"), ("prompt", "user")):
        if text := data.get(key):
            yield TextSlot(role, (key,), text)


def replace_texts(dialect: Dialect, data: Json, texts: Iterable[tuple[tuple[str | int, ...], str]]) -> Json:
    """Return a copy of `data` with these texts in place.

    A message that held nothing else goes, though never the last one, and so does an emptied system prompt.
    """
    if dialect is Dialect.OLLAMA_CHAT:
        return _openai.replace_texts(data, texts) if data.get("messages") else data
    changed = data | {str(path[0]): text for path, text in texts}
    if changed.get("system") == "" and data.get("system"):
        del changed["system"]
    return changed


# --- patch -------------------------------------------------------------------------------------------------


def patch(request: Request, *, model: str, max_output_tokens: int | None) -> bytes:
    """Return the caller's own bytes with at most the model and the cap among the options changed."""
    edits: Json = {"model": model}
    if max_output_tokens is not None:
        edits["options"] = {**(request.data.get("options") or {}), "num_predict": max_output_tokens}
    return wire.splice(request.body, request.data, edits)
