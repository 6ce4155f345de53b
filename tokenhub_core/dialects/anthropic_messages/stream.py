"""Reads the stream of an Anthropic provider.

The grammar (https://platform.claude.com/docs/en/build-with-claude/streaming): `message_start`; then blocks,
one after the other, each of them a start, deltas and a stop; then `message_delta` with the stop reason and
the token counts so far; then `message_stop`. `ping` may come anywhere, `error` ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tokenhub_core.dialects import seals, wire
from tokenhub_core.dialects.anthropic_messages import blocks, faults, words
from tokenhub_core.types import (
    Delta,
    Dialect,
    Failed,
    Finished,
    Json,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolArguments,
    ToolStarted,
    Unread,
    UsageSeen,
)

_DIRECT: Final = {"type": "direct"}
"""The usual caller of a tool, the model itself: it is told, and means nothing."""
_BESIDES: Final = ("container", "context_management", "diagnostics", "stop_details")
_NOTHING: Final[tuple[Delta, ...]] = ()


@dataclass(slots=True)
class _ToolBlock:
    """A `tool_use` block that is open: its number among the tools, and whether it has had arguments."""

    number: int
    whole: bool
    """The arguments came with the block's start, so that fragments would only repeat them."""
    begun: bool = False


class Reader:
    """Reads one stream, event by event. Never raises: what cannot be read comes out as `Failed`, once."""

    def __init__(self) -> None:
        self._over = False
        self._tools = 0
        self._thoughts = -1
        """The number of the last block of thinking."""
        self._open: dict[int, _ToolBlock] = {}
        self._counts: dict[str, int] = {}
        self._unread: set[str] = set()

    def end(self) -> Sequence[Delta]:
        """Return nothing: this dialect has a terminal event."""
        return ()

    def read(self, event: str, data: bytes) -> Sequence[Delta]:
        """Return the deltas of one event; `event` may be empty, its data then say what it is."""
        if self._over or event == "ping" or not data:
            return _NOTHING
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            return self._broken("bad_json", "the provider sent an event that is not JSON")
        try:
            # Nearly all events of a long answer take this path.
            if event == "content_block_delta":
                delta = body["delta"]
                if delta["type"] == "text_delta":
                    text = delta["text"]
                    if type(text) is str:
                        return (TextDelta(text),) if text else _NOTHING
            return self._read(body.get("type") or event, body)
        except (KeyError, TypeError, AttributeError):
            return self._broken("bad_event", f"the provider sent a malformed {event or 'stream'} event")

    def _broken(self, code: str, message: str) -> Sequence[Delta]:
        self._over = True
        return (Failed(502, code, message),)

    def _read(self, kind: str, body: Json) -> Sequence[Delta]:
        match kind:
            case "content_block_delta":
                return self._delta(body["index"], body["delta"])
            case "content_block_start":
                return self._start(body["index"], body["content_block"])
            case "content_block_stop":
                tool = self._open.pop(body["index"], None)
                if tool is None or tool.begun or tool.whole:
                    return _NOTHING
                return (ToolArguments(tool.number, "{}"),)
            case "message_start":
                message = body["message"]
                started = Started(_text(message.get("id")), _text(message.get("model")))
                return (started, *self._usage(message.get("usage")), *self._besides(message))
            case "message_delta":
                return self._stopped(body)
            case "message_stop":
                self._over = True
                return (Finished(),)
            case "error":
                self._over = True
                error = body["error"]
                code = _text(error.get("type")) or "api_error"
                return (Failed(faults.status_of(code), code, _text(error.get("message"))),)
            case "ping":
                return _NOTHING
            case _:
                return (Unread(_text(kind) or "event"),)

    def _start(self, index: int, block: Json) -> Sequence[Delta]:
        match block["type"]:
            case "text":
                text = block.get("text")
                return (TextDelta(_str(text)),) if text else _NOTHING
            case "tool_use":
                given = block.get("input")
                whole = isinstance(given, dict) and bool(given)
                tool = self._open[index] = _ToolBlock(self._tools, whole)
                self._tools += 1
                told = blocks.rest(block, *blocks.TOOL_USE)
                rest = [name for name, value in told.items() if value != _DIRECT]
                started = ToolStarted(tool.number, _str(block["id"]), _str(block["name"]))
                found: list[Delta] = [*self._lost(rest), started]
                if whole:
                    found.append(ToolArguments(tool.number, orjson.dumps(given).decode()))
                return found
            case "thinking":
                self._thoughts += 1
                return self._reasoning(text=block.get("thinking"), signature=block.get("signature"))
            case "redacted_thinking":
                self._thoughts += 1
                data = seals.seal(Dialect.ANTHROPIC_MESSAGES, _str(block["data"]))
                return (ReasoningDelta(redacted=data, part=self._thoughts),)
            case kind:
                return (Unread(f"part:{_str(kind)}"),)

    def _delta(self, index: int, delta: Json) -> Sequence[Delta]:
        match delta["type"]:
            case "text_delta":
                text = _str(delta["text"])
                return (TextDelta(text),) if text else _NOTHING
            case "input_json_delta":
                fragment = _str(delta["partial_json"])
                # Server tools have fragments, too: their block was reported as unread when it began.
                tool = self._open.get(index)
                if tool is None or tool.whole or not fragment:
                    return _NOTHING
                tool.begun = True
                return (ToolArguments(tool.number, fragment),)
            case "thinking_delta":
                return self._reasoning(text=delta["thinking"])
            case "signature_delta":
                return self._reasoning(signature=delta["signature"])
            case "citations_delta":
                return (Unread("citations"),)
            case kind:
                return (Unread(_str(kind)),)

    def _stopped(self, body: Json) -> Sequence[Delta]:
        delta = body.get("delta") or {}
        usage = self._usage(body.get("usage"))
        unread = self._besides(delta)
        if delta.get("stop_reason") is None:
            return (*usage, *unread)
        return (*usage, *unread, words.stopped(delta["stop_reason"], delta.get("stop_sequence")))

    def _besides(self, message: Json) -> list[Unread]:
        """Name what a message tells about itself that has no canonical form."""
        return self._lost(name for name in _BESIDES if wire.telling(message.get(name)))

    def _lost(self, names: Iterable[str]) -> list[Unread]:
        """Name each of these once."""
        new = [name for name in names if name not in self._unread]
        self._unread.update(new)
        return [Unread(name, beside=True) for name in new]

    def _reasoning(self, text: object = "", signature: object = "") -> tuple[Delta, ...]:
        if not text and not signature:
            return _NOTHING
        sealed = seals.seal(Dialect.ANTHROPIC_MESSAGES, _str(signature or ""))
        return (ReasoningDelta(_str(text or ""), sealed, part=max(self._thoughts, 0)),)

    def _usage(self, given: Any) -> tuple[Delta, ...]:
        """Return the counts so far. Each event repeats some of them and leaves others out or at zero."""
        if not isinstance(given, dict):
            return _NOTHING
        unread = self._lost(words.usage_extras(given))
        found = words.counts(given)
        if not found:
            return tuple(unread)
        self._counts |= found
        return (UsageSeen(words.usage(self._counts)), *unread)


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
