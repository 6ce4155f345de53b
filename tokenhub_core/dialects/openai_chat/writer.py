"""Writes the stream of a client that speaks chat completions."""

from __future__ import annotations

from typing import Final, assert_never

from tokenhub_core.dialects import sse, wire
from tokenhub_core.dialects.openai_chat import logprobs, media, thoughts, words
from tokenhub_core.dialects.openai_chat.request import wants_usage
from tokenhub_core.types import (
    Audio,
    Delta,
    Failed,
    File,
    Finished,
    Image,
    Json,
    MediaDelta,
    Reasoning,
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
    """Turns deltas into `chat.completion.chunk` events.

    The first event tells the role, the last before `[DONE]` the usage where the caller asked for it. A
    `Failed` is not written: whoever decides what the caller may know of it writes a stream error.
    """

    def __init__(self, *, request: Request, created: int, fallback_id: str) -> None:
        self._model = request.features.model
        self._created = created
        self._id = fallback_id
        self._wants_usage = wants_usage(request.data)
        self._usage = Usage()
        self._open = b""
        """What stands before a chunk's `choices`; empty until the stream has begun."""
        self._close = b"]" + (b',"usage":null' if self._wants_usage else b"") + b"}\n\n"
        self._calls: dict[int, int] = {}
        """The caller's index of each tool call, which counts from 0 without gaps."""
        self._thought: list[str] = []
        """The text of the block of thinking that is being written: its seal repeats it."""
        self._thought_part = 0
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
            case TextDelta(text, tokens):
                if tokens:
                    told = wire.encode(logprobs.write(tokens))
                    return self._piece(b'{"content":' + wire.encode(text) + b"}", tokens=told)
                return self._piece(b'{"content":' + wire.encode(text) + b"}") if text else b""
            case ToolArguments(index, fragment):
                return self._arguments(index, fragment)
            case Started():
                return self._start(delta)
            case ReasoningDelta():
                return self._reasoning(delta)
            case RefusalDelta(text):
                return self._piece(wire.encode({"refusal": text}))
            case ToolStarted():
                return self._tool_started(delta)
            case Stopped():
                return self._stop(delta)
            case UsageSeen(usage):
                self._usage = self._usage.merge(usage)
                return b""
            case Finished():
                return self._finish()
            case Unread(kind):
                return self._lose(kind)
            case MediaDelta(part):
                return self._media(part)
            case Failed():
                return b""
            case _:
                assert_never(delta)

    # --- the events ----------------------------------------------------------------------------------------

    def _start(self, started: Started) -> bytes:
        """Return the event that tells the role, once."""
        if self._open:
            return b""
        self._id = words.completion_id(started.id or self._id)
        head: Json = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": started.created or self._created,
            "model": started.model or self._model,
        }
        self._open = b"data: " + wire.encode(head)[:-1] + b',"choices":['
        return self._piece(b'{"role":"assistant","content":""}')

    def _piece(self, delta: bytes, finish: bytes = b"null", tokens: bytes = b"null") -> bytes:
        begun = b"" if self._open else self._start(Started())
        choice = (
            b'{"index":0,"delta":' + delta + b',"logprobs":' + tokens + b',"finish_reason":' + finish + b"}"
        )
        return begun + self._open + choice + self._close

    def _reasoning(self, delta: ReasoningDelta) -> bytes:
        """Return the text as it comes, and with a seal an item that holds the whole block.

        Clients put together what comes in pieces in more than one way, so the item repeats the block's text.
        """
        if delta.part != self._thought_part:
            self._thought_part = delta.part
            self._thought.clear()
        fields: Json = {}
        if delta.text:
            self._thought.append(delta.text)
            fields["reasoning_content"] = delta.text
        if delta.signature or delta.redacted:
            sealed = Reasoning(
                "".join(self._thought), delta.signature, delta.redacted, id=delta.id, summary=delta.summary
            )
            self._thought.clear()
            fields[thoughts.DETAILS] = thoughts.items(sealed, client=True, index=delta.part)
        return self._piece(wire.encode(fields)) if fields else b""

    def _media(self, part: Image | File | Audio) -> bytes:
        for name in part.rest:
            self._lose(name)
        match part:
            case Image():
                return self._piece(wire.encode({"images": [media.image_part(part)]}))
            case Audio():
                spoken = media.speech(part, fallback_id=words.made_up_audio_id(self._id))
                return self._piece(wire.encode({"audio": spoken}))
            case File():
                return self._lose("part:file")
            case _:
                assert_never(part)

    def _tool_started(self, delta: ToolStarted) -> bytes:
        begun = b"" if self._open else self._start(Started())
        number = self._calls.setdefault(delta.index, len(self._calls))
        call: Json = {
            "id": delta.id or words.made_up_tool_id(self._id, number),
            "type": "function",
            "function": {"name": delta.name, "arguments": ""},
        }
        if delta.signature:
            call |= thoughts.extra_content(delta.signature, client=True)
        return begun + self._tool(delta.index, call)

    def _arguments(self, index: int, fragment: str) -> bytes:
        # A fragment belongs to a call that was started; else nobody could use it.
        if index not in self._calls:
            return self._lose("tool_calls.function.arguments")
        return self._tool(index, {"function": {"arguments": fragment}})

    def _tool(self, index: int, call: Json) -> bytes:
        return self._piece(wire.encode({"tool_calls": [{"index": self._calls[index], **call}]}))

    def _stop(self, stop: Stopped) -> bytes:
        if self._stopped:
            return b""
        self._stopped = True
        for name in words.stop_losses(stop):
            self._lose(name)
        return self._piece(b"{}", b'"' + words.stop_word(stop).encode() + b'"')

    def _finish(self) -> bytes:
        end = b"" if self._stopped else self._stop(Stopped(StopReason.OTHER))
        self._finished = True
        if self._wants_usage:
            end += self._open + b'],"usage":' + wire.encode(words.usage_json(self._usage)) + b"}\n\n"
        return end + _DONE

    def _lose(self, name: str) -> bytes:
        self._losses[name] = None
        return b""
