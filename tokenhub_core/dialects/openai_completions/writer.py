"""Writes the stream of a client that speaks completions."""

from __future__ import annotations

from typing import Final, assert_never

from tokenhub_core.dialects import sse, wire
from tokenhub_core.dialects.openai_chat import words as _chat
from tokenhub_core.dialects.openai_chat.request import wants_usage
from tokenhub_core.dialects.openai_completions import words
from tokenhub_core.dialects.openai_completions.parse import echoed
from tokenhub_core.types import (
    Delta,
    Failed,
    Finished,
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
    Unread,
    Usage,
    UsageSeen,
)

_DONE: Final = sse.frame(b"[DONE]")


class Writer:
    """Turns deltas into `text_completion` events.

    The prompt comes first where the caller wants it echoed, the usage last where it asked for it. Only text can
    be told. A `Failed` is not written: whoever decides what the caller may know of it writes a stream error.
    """

    def __init__(self, *, request: Request, created: int, fallback_id: str) -> None:
        self._head: Json = {
            "id": words.completion_id(fallback_id),
            "object": "text_completion",
            "created": created,
            "model": request.features.model,
        }
        self._echo = echoed(request.data)
        self._offset = len(self._echo)
        self._wants_usage = wants_usage(request.data)
        self._usage = Usage()
        self._begun = False
        self._stopped = False
        self._finished = False
        self._losses: dict[str, None] = {}

    def losses(self) -> tuple[str, ...]:
        """Return the names of what this stream could not carry so far."""
        return tuple(self._losses)

    def write(self, delta: Delta) -> bytes:
        """Return the events for this delta; nothing after the end."""
        if self._finished:
            return b""
        match delta:
            case TextDelta(text, logprobs):
                offset = self._offset
                self._offset += len(text)
                return self._text(text, words.logprobs_json(logprobs, offset)) if text or logprobs else b""
            case RefusalDelta(text):
                self._offset += len(text)
                return self._text(text, None) if text else b""
            case Started():
                self._start(delta)
            case ReasoningDelta():
                self._lose("part:redacted_thinking" if delta.redacted else "part:thinking")
            case ToolStarted():
                self._lose("part:tool_use")
            case MediaDelta(part):
                self._lose(f"part:{type(part).__name__.lower()}")
            case Stopped():
                return self._stop(delta)
            case UsageSeen(usage):
                self._usage = self._usage.merge(usage)
            case Finished():
                return self._finish()
            case Unread(kind):
                self._lose(kind)
            case ToolArguments() | Failed():
                pass
            case _:
                assert_never(delta)
        return b""

    # --- the events ----------------------------------------------------------------------------------------

    def _start(self, started: Started) -> None:
        if not self._begun:
            self._head["id"] = words.completion_id(started.id) if started.id else self._head["id"]
            self._head["created"] = started.created or self._head["created"]
            self._head["model"] = started.model or self._head["model"]

    def _chunk(self, choices: list[Json], usage: Json | None = None) -> bytes:
        self._begun = True
        data = {**self._head, "choices": choices}
        return sse.frame(wire.encode(data | {"usage": usage} if self._wants_usage else data))

    def _text(self, text: str, logprobs: Json | None, finish: str | None = None) -> bytes:
        text, self._echo = self._echo + text, ""
        choice = {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish}
        return self._chunk([choice])

    def _stop(self, stop: Stopped) -> bytes:
        if self._stopped:
            return b""
        self._stopped = True
        for name in words.stop_losses(stop):
            self._lose(name)
        return self._text("", None, words.stop_word(stop))

    def _finish(self) -> bytes:
        end = b"" if self._stopped else self._stop(Stopped(StopReason.OTHER))
        self._finished = True
        if self._wants_usage:
            end += self._chunk([], _chat.usage_json(self._usage))
        return end + _DONE

    def _lose(self, name: str) -> None:
        self._losses[name] = None
