"""Reads the stream of a server that speaks this dialect. A tool call comes whole, in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

from tokenhub_core.dialects.ollama import words
from tokenhub_core.dialects.ollama.answer import pictures, said, tool_uses
from tokenhub_core.dialects.openai_chat.faults import failed
from tokenhub_core.types import (
    Delta,
    Dialect,
    Failed,
    Finished,
    Json,
    Logprob,
    MediaDelta,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolArguments,
    ToolStarted,
    Unread,
    UsageSeen,
)

_FIELDS: Final = frozenset({"role", "content", "thinking", "tool_calls", "images"})


class Reader:
    """Turns the lines of one stream into deltas."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._started = False
        self._calls = 0
        self._logprobs: tuple[Logprob, ...] = ()
        """Of tokens whose text the server still holds back."""
        self._unread: set[str] = set()

    def end(self) -> Sequence[Delta]:
        """Return nothing: this dialect has a terminal line."""
        return ()

    def read(self, event: str, data: bytes) -> Sequence[Delta]:
        """Return the deltas of one line; what cannot be read is a `Failed`, never an exception."""
        del event
        if not data:
            return ()
        try:
            line = orjson.loads(data)
        except orjson.JSONDecodeError as exc:
            return (Failed(502, "bad_json", f"The provider sent a line that is not JSON: {exc}."),)
        if not isinstance(line, dict):
            return (Failed(502, "bad_json", "The provider sent a line that is not a JSON object."),)
        if line.get("error"):
            return (failed(line["error"], line),)
        try:
            return self._line(line)
        except orjson.JSONEncodeError:
            return (Failed(502, "bad_event", "The provider sent a line that is nested too deeply."),)

    def _line(self, line: Json) -> list[Delta]:
        deltas: list[Delta] = []
        if not self._started:
            self._started = True
            model = line.get("model")
            created = words.seconds(line.get("created_at"))
            deltas.append(Started("", model if isinstance(model, str) else "", created))
        try:
            message = said(self._dialect, line)
        except ValueError:
            message = {}
        self._message(message, words.logprobs(line.get("logprobs")), deltas)
        if line.get("done") is True:
            if self._logprobs:
                self._lose("logprobs", deltas)
            if usage := words.usage(line):
                deltas.append(UsageSeen(usage))
            deltas += (words.stopped(line.get("done_reason"), tools=self._calls > 0), Finished())
        return deltas

    def _message(self, message: Json, logprobs: tuple[Logprob, ...], deltas: list[Delta]) -> None:
        thinking, content = message.get("thinking"), message.get("content")
        if isinstance(thinking, str) and thinking:
            deltas.append(ReasoningDelta(thinking))
            if logprobs and not content:
                # The canonical form has none for thoughts.
                self._lose("thinking.logprobs", deltas)
                logprobs = ()
        self._logprobs += logprobs
        if isinstance(content, str) and content:
            deltas.append(TextDelta(content, self._logprobs))
            self._logprobs = ()
        deltas += [MediaDelta(image) for image in pictures(message)]
        for use in tool_uses(message):
            deltas.append(ToolStarted(self._calls, use.id, use.name))
            deltas.append(ToolArguments(self._calls, use.arguments))
            self._calls += 1
        for key, value in message.items():
            if value and key not in _FIELDS:
                self._lose(f"message.{key}", deltas)

    def _lose(self, kind: str, deltas: list[Delta]) -> None:
        if kind not in self._unread:
            self._unread.add(kind)
            deltas.append(Unread(kind))
