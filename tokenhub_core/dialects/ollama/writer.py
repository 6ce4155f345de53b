"""Writes the stream of a client that speaks this dialect."""

from __future__ import annotations

from typing import assert_never

from tokenhub_core.dialects import ndjson, wire
from tokenhub_core.dialects.ollama import words
from tokenhub_core.dialects.ollama.answer import body, head, reasoning_losses, tool_call
from tokenhub_core.types import (
    Audio,
    Delta,
    Failed,
    File,
    Finished,
    Image,
    Json,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    Request,
    Started,
    Stopped,
    StopReason,
    TextDelta,
    ToolArguments,
    ToolStarted,
    ToolUse,
    Unread,
    Usage,
    UsageSeen,
)


class Writer:
    """Turns deltas into lines.

    Tool calls are gathered and written whole when the model has stopped; usage and stop reason stand in the last
    line. A `Failed` is not written: whoever decides what the caller may know of it writes a stream error.
    """

    def __init__(self, *, request: Request, created: int) -> None:
        self._dialect = request.dialect
        self._head: Json = head(request.features.model, words.timestamp(created))
        self._calls: dict[int, tuple[ToolStarted, list[str]]] = {}
        self._stop = Stopped(StopReason.END)
        self._usage = Usage()
        self._begun = False
        self._finished = False
        self._losses: list[str] = []

    def losses(self) -> tuple[str, ...]:
        """Return the names of what this stream could not carry so far."""
        return tuple(dict.fromkeys(self._losses))

    def write(self, delta: Delta) -> bytes:
        """Return the lines for this delta; nothing after the end."""
        if self._finished:
            return b""
        match delta:
            case TextDelta(text, logprobs):
                return self._text(text, {"logprobs": words.logprobs_json(logprobs)} if logprobs else {})
            case ReasoningDelta(text=text):
                self._losses += reasoning_losses(delta.signature, delta.redacted)
                return self._line({"content": "", "thinking": text}) if text else b""
            case RefusalDelta(text):
                return self._text(text, {})
            case ToolStarted():
                self._calls.setdefault(delta.index, (delta, []))
                self._losses += ["thinking.signature"] if delta.signature else []
            case ToolArguments(index, fragment):
                self._arguments(index, fragment)
            case MediaDelta(part):
                return self._media(part)
            case Started():
                self._start(delta)
            case Stopped():
                self._stop = delta
                return self._tools()
            case UsageSeen(usage):
                self._usage = self._usage.merge(usage)
            case Finished():
                return self._finish()
            case Unread(kind):
                self._losses.append(kind)
            case Failed():
                pass
            case _:
                assert_never(delta)
        return b""

    # --- the lines -----------------------------------------------------------------------------------------

    def _line(self, message: Json, fields: Json | None = None) -> bytes:
        self._begun = True
        said = body(self._dialect, {"role": "assistant", **message})
        return ndjson.frame(wire.encode({**self._head, **said, "done": False, **(fields or {})}))

    def _start(self, started: Started) -> None:
        if not self._begun:
            if started.created:
                self._head["created_at"] = words.timestamp(started.created)
            self._head["model"] = started.model or self._head["model"]

    def _text(self, text: str, fields: Json) -> bytes:
        return self._line({"content": text}, fields) if text or fields else b""

    def _media(self, part: Image | File | Audio) -> bytes:
        if isinstance(part, Image) and part.data:
            self._losses += part.rest
            return self._line({"content": "", "images": [part.data]})
        self._losses.append(f"part:{type(part).__name__.lower()}")
        return b""

    def _arguments(self, index: int, fragment: str) -> None:
        if index in self._calls:
            self._calls[index][1].append(fragment)
        else:
            self._losses.append("tool_calls.function.arguments")

    def _tools(self) -> bytes:
        """Return the line of all tool calls so far, nothing where there are none."""
        if not self._calls:
            return b""
        uses = [ToolUse(call.id, call.name, "".join(held)) for call, held in self._calls.values()]
        self._calls = {}
        calls = [tool_call(use, index, self._losses) for index, use in enumerate(uses)]
        return self._line({"content": "", "tool_calls": calls})

    def _finish(self) -> bytes:
        tools = self._tools()
        self._finished = True
        self._losses += words.stop_losses(self._stop)
        end = {"done": True, "done_reason": words.stop_word(self._stop), **words.measures(self._usage)}
        return tools + self._line({"content": ""}, end)
