"""Opens a request: one walk over the decoded body that checks its shape and sees what routing has to know."""

from __future__ import annotations

from typing import Any, Final

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.anthropic_messages.parse import output_schema
from tokenhub_core.errors import TokenHubError, client_fault
from tokenhub_core.types import Dialect, Features, Json, Need, Request

_ROLES: Final = frozenset({"user", "assistant", "system"})


def open_request(body: bytes, path: str = "") -> Request:
    """Return the request that `body` holds; raises `TokenHubError` (`INVALID`) that names the field at fault.

    Checked is what the rest of this package relies on. Blocks of unknown types, unknown members, and the
    values of members that are only passed on are the provider's to judge.
    """
    data = wire.decode(body)
    survey = _Survey()
    messages = _messages(data)
    for place, message in enumerate(messages):
        survey.message(message, f"messages[{place}]")
    survey.system(data.get("system"))
    for place, tool in enumerate(wire.array(data, "tools")):
        survey.tool(tool, f"tools[{place}]")
    _check_options(data)
    if output_schema(data) is not None:
        survey.needs.add(Need.JSON_SCHEMA)
    features = Features(
        model=wire.text(data, "model"),
        stream=wire.flag(data, "stream"),
        max_output_tokens=_cap(data),
        needs=frozenset(survey.needs),
        text_bytes=survey.text_bytes,
        media=survey.media,
        turns=len(messages),
    )
    return Request(Dialect.ANTHROPIC_MESSAGES, body, data, features, path)


def _missing(param: str) -> TokenHubError:
    return client_fault(f"{param}: Field required", cause="bad_field", param=param)


def _messages(data: Json) -> list[Any]:
    if data.get("messages") is None:
        raise _missing("messages")
    messages = wire.array(data, "messages")
    if not messages:
        raise client_fault("messages: at least one message is required", cause="bad_field", param="messages")
    return messages


def _cap(data: Json) -> int:
    cap = wire.count(data, "max_tokens", least=0)
    if cap is None:
        raise _missing("max_tokens")
    return cap


def _check_options(data: Json) -> None:
    for name in ("metadata", "output_config", "output_format"):
        if data.get(name) is not None:
            wire.record(data[name], name)
    for name in ("temperature", "top_p"):
        value = data.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise wire.wrong(name, "a number", value)
    for place, word in enumerate(wire.array(data, "stop_sequences")):
        if not isinstance(word, str):
            raise wire.wrong(f"stop_sequences[{place}]", "a string", word)
    if data.get("tool_choice") is not None:
        choice = wire.record(data["tool_choice"], "tool_choice")
        _required(choice, "type", "tool_choice")
        wire.text(choice, "name", "tool_choice")
        wire.flag(choice, "disable_parallel_tool_use", "tool_choice")


def _required(data: Json, key: str, path: str) -> str:
    """Return a string field that must be there, though it may be empty."""
    value = data.get(key)
    if not isinstance(value, str):
        raise wire.wrong(wire.join(path, key), "a string", value)
    return value


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


class _Survey:
    """What the walk has seen so far."""

    def __init__(self) -> None:
        self.needs: set[Need] = set()
        self.text_bytes = 0
        self.media = 0

    def message(self, given: object, path: str) -> None:
        message = wire.record(given, path)
        wire.one_of(message.get("role"), _ROLES, f"{path}.role")
        content = message.get("content")
        if content is None:
            raise _missing(f"{path}.content")
        self._content(content, f"{path}.content")

    def system(self, given: object) -> None:
        if given is not None:
            self._content(given, "system")

    def tool(self, given: object, path: str) -> None:
        tool = wire.record(given, path)
        self.needs.add(Need.TOOLS)
        self.text_bytes += len(wire.encode(tool))
        if wire.text(tool, "type", path, default="custom") != "custom":
            return
        _required(tool, "name", path)
        wire.record(tool.get("input_schema"), f"{path}.input_schema")
        wire.text(tool, "description", path)
        wire.flag(tool, "strict", path)

    def _content(self, content: object, path: str) -> None:
        if isinstance(content, str):
            self.text_bytes += _size(content)
        elif isinstance(content, list):
            for place, block in enumerate(content):
                self._block(block, f"{path}[{place}]")
        else:
            raise wire.wrong(path, "a string or an array of blocks", content)

    def _block(self, given: object, path: str) -> None:
        block = wire.record(given, path)
        match _required(block, "type", path):
            case "text":
                self.text_bytes += _size(_required(block, "text", path))
            case "tool_use":
                self.needs.add(Need.TOOLS)
                _required(block, "id", path)
                _required(block, "name", path)
                self.text_bytes += len(wire.encode(wire.record(block.get("input"), f"{path}.input")))
            case "tool_result":
                self.needs.add(Need.TOOLS)
                _required(block, "tool_use_id", path)
                if block.get("content") is not None:
                    self._content(block["content"], f"{path}.content")
            case "image":
                self.needs.add(Need.VISION)
                self.media += 1
            case "document":
                self.needs.add(Need.FILES)
                self.media += 1
                self._document(block.get("source"), path)
            case "thinking":
                self.text_bytes += _size(wire.text(block, "thinking", path))
            case "search_result":
                self._content(block.get("content"), f"{path}.content")

    def _document(self, source: object, path: str) -> None:
        """Count a document that is given as text or as blocks; others are not text before they are read."""
        match source:
            case {"type": "text", "data": str(data)}:
                self.text_bytes += _size(data)
            case {"type": "content", "content": content}:
                self._content(content, f"{path}.source.content")
