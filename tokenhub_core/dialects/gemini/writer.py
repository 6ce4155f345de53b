"""Writes the stream of a client of this dialect.

A function call is written whole, so its arguments are gathered until they are: when something else comes, or at
the end. The finish reason and the token counts stand in the last chunk, which waits for `Finished`, because other
dialects count after they stop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, assert_never

import orjson

from tokenhub_core.dialects import sse, wire
from tokenhub_core.dialects.gemini import target, words
from tokenhub_core.dialects.gemini.answer import chosen_json, signed, thought, tool_call
from tokenhub_core.dialects.gemini.writing import PartWriter, arguments
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

_BETWEEN: Final = b",\r\n"


@dataclass(slots=True)
class _Call:
    """A function call whose arguments are still coming."""

    id: str
    name: str
    signature: str
    fragments: list[str] = field(default_factory=list)
    asked: bool = False
    """It was looked at once, and its arguments were not whole: it waits for the end."""


class Writer:
    """Writes one stream: server-sent events, or the elements of a JSON array where the path asks for one.

    A `Failed` writes nothing: whoever drives the stream ends it with `stream_error`.
    """

    def __init__(self, *, request: Request, fallback_id: str) -> None:
        self._array = target.is_array(request.path)
        self._begun = False
        self._over = False
        self._id = fallback_id
        self._model = request.features.model
        self._calls: dict[int, _Call] = {}
        self._written = 0
        """How many function calls the client has got."""
        self._usage = Usage()
        self._stop = Stopped(StopReason.OTHER)
        self._losses: list[str] = []

    def losses(self) -> tuple[str, ...]:
        """Return the names of what this stream could not carry so far."""
        return tuple(dict.fromkeys(self._losses))

    def write(self, delta: Delta) -> bytes:
        """Return what the caller reads for this delta; nothing after `Finished`."""
        if self._over:
            return b""
        match delta:
            case TextDelta() | RefusalDelta():
                return self._text(delta)
            case ReasoningDelta(text, signature, redacted):
                parts = thought(text, signature, redacted)
                return self._parts(parts) if parts else b""
            case ToolStarted(index, id_, name, signature):
                ready = self._ready()
                self._calls[index] = _Call(id_, name, signature)
                return self._frame(ready) if ready else b""
            case ToolArguments(index, fragment):
                self._gather(index, fragment)
            case MediaDelta(part):
                media = PartWriter(own=False, names={}, losses=self._losses).parts([part])
                return self._parts(media) if media else b""
            case Started(id_, model):
                self._id = id_ or self._id
                self._model = model or self._model
            case UsageSeen(usage):
                self._usage = self._usage.merge(usage)
            case Stopped():
                self._stop = delta
            case Unread(kind):
                self._losses.append(kind)
            case Finished():
                return self._finish()
            case Failed():
                pass
            case _:
                assert_never(delta)
        return b""

    def _text(self, delta: TextDelta | RefusalDelta) -> bytes:
        tokens = delta.logprobs if isinstance(delta, TextDelta) else ()
        more: Json = {"logprobsResult": chosen_json(tokens)} if tokens else {}
        return self._parts([{"text": delta.text}], more) if delta.text else b""

    def _parts(self, parts: list[Json], more: Json | None = None) -> bytes:
        """Return a chunk with the calls that are whole and these parts."""
        return self._frame((self._ready() if self._calls else []) + parts, more)

    def _gather(self, index: int, fragment: str) -> None:
        if index in self._calls:
            self._calls[index].fragments.append(fragment)
        elif fragment.strip():
            self._losses.append("tool_calls.arguments")

    def _ready(self, *, at_end: bool = False) -> list[Json]:
        """Return the calls that can be written, in the order in which they began.

        Each is looked at only once before the end, so that the work stays linear in its length.
        """
        parts: list[Json] = []
        for index, call in list(self._calls.items()):
            if call.asked and not at_end:
                continue
            text = "".join(call.fragments)
            if not at_end and not _is_object(text):
                call.asked = True
                continue
            del self._calls[index]
            part = signed(tool_call(call.id, call.name, arguments(text, self._losses)), call.signature)
            if not self._written and "thoughtSignature" not in part:
                part["thoughtSignature"] = words.UNSIGNED
            self._written += 1
            parts.append(part)
        return parts

    def _finish(self) -> bytes:
        parts = self._ready(at_end=True) or [{"text": ""}]
        self._losses += words.stop_losses(self._stop)
        usage = {"usageMetadata": words.usage_json(self._usage)}
        last = self._frame(parts, {"finishReason": words.stop_word(self._stop)}, usage)
        self._over = True
        return last + (b"]" if self._array else b"")

    def _frame(self, parts: list[Json], more: Json | None = None, beside: Json | None = None) -> bytes:
        candidate: Json = {"content": {"role": "model", "parts": parts}, **(more or {}), "index": 0}
        body: Json = {"candidates": [candidate], **(beside or {})}
        chunk = wire.encode(body | {"modelVersion": self._model, "responseId": self._id})
        if not self._array:
            return sse.frame(chunk)
        lead = _BETWEEN if self._begun else b"["
        self._begun = True
        return lead + chunk


def _is_object(text: str) -> bool:
    if not text.rstrip().endswith("}"):
        return False
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False
