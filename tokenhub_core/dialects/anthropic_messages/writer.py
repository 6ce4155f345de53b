"""Writes the stream of an Anthropic client.

Blocks stand one after the other here, each with its own index, while other dialects let parallel tool calls
and text interleave. So the writer keeps a queue: its first block is the one the client is reading, live; the
others collect what comes for them until it is their turn.

There are three cases of a block being done. A text or a thought is, as soon as something else comes. A tool
call is, once its arguments are a whole JSON value: nothing can be added to one. Everything is, when the model
has stopped. The usual stream, one block after the other, is therefore never held back.

A seal without a thought may come after the text that it belongs to. It is kept until another block begins, and lost
where none does: clients take the last block for the answer, and that has to be the text.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Final, assert_never

import orjson

from tokenhub_core.dialects import sse
from tokenhub_core.dialects.anthropic_messages import thoughts, words
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

_MARK: Final = re.compile(r'\\(?:.|\Z)|["{}\[\]]', re.DOTALL)
"""What decides where a JSON value ends: escapes (possibly cut off), quotes and brackets."""

_MORE_TEXT: Final = (
    b"event: content_block_delta\n"
    b'data: {"type":"content_block_delta","index":%d,"delta":{"type":"text_delta","text":%b}}\n\n'
)


class _Extent:
    """Tells where a JSON object or array that comes in fragments is whole. Linear in its length."""

    def __init__(self) -> None:
        self._depth = 0
        self._begun = False
        self._quoted = False
        self._escaped = False

    def feed(self, text: str) -> None:
        start = 1 if self._escaped and text else 0
        self._escaped = self._escaped and not text
        for mark in _MARK.findall(text, start):
            if mark == '"':
                self._quoted = not self._quoted
            elif mark.startswith("\\"):
                self._escaped = len(mark) == 1
            elif not self._quoted:
                self._begun = True
                self._depth += 1 if mark in "{[" else -1

    @property
    def whole(self) -> bool:
        return self._begun and self._depth <= 0


@dataclass(slots=True)
class _Block:
    """One content block: what opens it, and the deltas that still have to be written."""

    kind: str
    head: Json
    pending: list[Json] = field(default_factory=list)
    live: bool = False
    sealed: bool = False
    """Nothing may be added to it, whatever comes next."""
    number: int = -1
    """A tool call's own, and that of a block of thinking."""
    thought: Reasoning = field(default_factory=Reasoning)
    """What is known of a block of thinking besides its text."""
    unseen: list[str] = field(default_factory=list)
    """Fragments of arguments that nobody has looked at yet."""
    extent: _Extent = field(default_factory=_Extent)

    @property
    def done(self) -> bool:
        """Tell whether the next block may begin."""
        if self.kind != "tool_use":
            return True
        for fragment in self.unseen:
            self.extent.feed(fragment)
        self.unseen.clear()
        return self.extent.whole


class Writer:
    """Writes one stream. `message_start` waits for the first content, so that it can tell the input usage;
    the stop reason waits for `Finished`, because other dialects count tokens after it.

    A `Failed` writes nothing: whoever drives the stream ends it with `stream_error`.
    """

    def __init__(self, request: Request, fallback_id: str) -> None:
        self._id = words.message_id(fallback_id)
        self._model = request.features.model
        self._begun = False
        self._over = False
        self._queue: deque[_Block] = deque()
        self._tools: dict[int, _Block] = {}
        self._seals: list[ReasoningDelta] = []
        self._index = 0
        self._usage = Usage()
        self._stop = Stopped(StopReason.END)
        self._losses: list[str] = []

    def write(self, delta: Delta) -> bytes:
        """Return what the caller reads for this delta; nothing after `Finished`."""
        if self._over:
            return b""
        match delta:
            case TextDelta(text, tokens):
                if tokens:
                    self._losses.append("logprobs")
                return self._text(text)
            case RefusalDelta(text):
                return self._text(text)
            case ToolArguments(number, fragment):
                return self._arguments(number, fragment)
            case ReasoningDelta():
                return self._reasoning(delta)
            case ToolStarted():
                return self._tool(delta)
            case Started(id_, model):
                self._id = words.message_id(id_) if id_ else self._id
                self._model = model or self._model
                return b""
            case UsageSeen(usage):
                self._usage = self._usage.merge(usage)
                return b""
            case Stopped():
                self._stop = delta
                return self._drain(to_end=True) if self._queue else b""
            case Finished():
                return self._finish()
            case Unread(kind):
                self._losses.append(kind)
                return b""
            case MediaDelta(part):
                return self._media(part)
            case Failed():
                return b""
            case _:
                assert_never(delta)

    def losses(self) -> tuple[str, ...]:
        """Return the names of what this stream could not carry so far."""
        return tuple(dict.fromkeys(self._losses))

    def _text(self, text: str) -> bytes:
        if not text:
            return b""
        self._release()
        # Nearly all deltas of a long answer: more text for the block that the client is reading.
        if len(self._queue) == 1 and self._queue[0].live and self._queue[0].kind == "text":
            return _MORE_TEXT % (self._index, orjson.dumps(text))
        block = self._last("text", {"type": "text", "text": ""})
        block.pending.append({"type": "text_delta", "text": text})
        return self._drain()

    def _reasoning(self, delta: ReasoningDelta) -> bytes:
        if not (delta.text or delta.signature or delta.redacted):
            return b""
        if not delta.text and self._queue and self._queue[-1].kind == "text":
            self._seals.append(delta)
            return b""
        self._release()
        self._think(delta)
        return self._drain()

    def _release(self) -> None:
        """Queue the seals that were kept: another block comes after them."""
        if self._seals:
            kept, self._seals = self._seals, []
            for delta in kept:
                self._think(delta)

    def _think(self, delta: ReasoningDelta) -> None:
        last = self._queue[-1] if self._queue else None
        continues = last is not None and last.kind == "thinking" and last.number == delta.part
        if delta.redacted and not (delta.text or delta.signature or delta.id or continues):
            head = thoughts.to_client(Reasoning(redacted=delta.redacted))
            self._queue.append(_Block("redacted_thinking", head, sealed=True))
            return
        if last is None or not continues or last.sealed:
            last = _Block(
                "thinking", {"type": "thinking", "thinking": "", "signature": ""}, number=delta.part
            )
            self._queue.append(last)
        known = last.thought
        last.thought = Reasoning(
            signature=delta.signature,
            redacted=delta.redacted,
            id=delta.id or known.id,
            summary=delta.summary or known.summary,
        )
        if delta.text:
            last.pending.append({"type": "thinking_delta", "thinking": delta.text})
        # What is signed or encrypted comes whole, and last.
        if delta.signature or delta.redacted:
            last.sealed = True
            last.pending.append(_signed(last.thought))

    def _media(self, part: Image | File | Audio) -> bytes:
        """Return what a client can see of media: this dialect's answers are words."""
        self._losses.append(f"part:{type(part).__name__.lower()}")
        return self._text(part.transcript) if isinstance(part, Audio) else b""

    def _tool(self, delta: ToolStarted) -> bytes:
        self._release()
        if delta.signature:
            carrier = thoughts.before_tool(delta.signature)
            sealed = {"type": "signature_delta", "signature": carrier.pop("signature")}
            self._queue.append(_Block("carrier", carrier | {"signature": ""}, [sealed], sealed=True))
        # Some providers give no ids; the caller's SDK needs one to send the result back.
        id_ = delta.id or words.made_up_tool_id(self._id, delta.index)
        head = {"type": "tool_use", "id": id_, "name": delta.name, "input": {}}
        block = _Block("tool_use", head, number=delta.index)
        self._tools[delta.index] = block
        self._queue.append(block)
        return self._drain()

    def _arguments(self, number: int, fragment: str) -> bytes:
        block = self._tools.get(number)
        if block is None:
            if fragment.strip():
                self._losses.append("tool_calls.arguments")
            return b""
        if not fragment:
            return b""
        block.pending.append({"type": "input_json_delta", "partial_json": fragment})
        block.unseen.append(fragment)
        return self._drain()

    def _last(self, kind: str, head: Json) -> _Block:
        """Return the block at the end of the queue if more of `kind` may go into it, else a new one."""
        if not self._queue or self._queue[-1].kind != kind or self._queue[-1].sealed:
            self._queue.append(_Block(kind, head))
        return self._queue[-1]

    def _drain(self, *, to_end: bool = False) -> bytes:
        """Write what is ready: all of the first block that is there, and those after it if it is done."""
        out = [self._begin()]
        while self._queue:
            block = self._queue[0]
            if not block.live:
                block.live = True
                out.append(
                    _frame({"type": "content_block_start", "index": self._index, "content_block": block.head})
                )
            out.extend(
                _frame({"type": "content_block_delta", "index": self._index, "delta": delta})
                for delta in block.pending
            )
            block.pending.clear()
            if not (to_end or block.sealed or (len(self._queue) > 1 and block.done)):
                break
            if block.kind == "thinking" and not block.sealed:
                # Nobody signed it. Anthropic must not be given it back as if it had.
                unsigned = {"type": "content_block_delta", "index": self._index}
                out.append(_frame({**unsigned, "delta": _signed(block.thought)}))
            out.append(_frame({"type": "content_block_stop", "index": self._index}))
            self._index += 1
            self._queue.popleft()
            if block.kind == "tool_use" and self._tools.get(block.number) is block:
                del self._tools[block.number]
        return b"".join(out)

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        message: Json = {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": words.usage_json(self._usage),
        }
        return _frame({"type": "message_start", "message": message})

    def _finish(self) -> bytes:
        out = self._drain(to_end=True)
        self._over = True
        self._losses.extend(["thinking.signature"] if self._seals else [])
        self._losses.extend(words.stop_loss(self._stop))
        delta = {
            "stop_reason": words.stop_word(self._stop),
            "stop_sequence": self._stop.sequence or None,
        }
        out += _frame({"type": "message_delta", "delta": delta, "usage": words.usage_json(self._usage)})
        return out + _frame({"type": "message_stop"})


def _signed(thought: Reasoning) -> Json:
    return {"type": "signature_delta", "signature": thoughts.signature(thought)}


def _frame(body: Json) -> bytes:
    return sse.frame(orjson.dumps(body), body["type"])
