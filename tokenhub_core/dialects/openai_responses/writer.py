"""Writes the stream of a client that speaks responses.

Every item is opened, told in deltas and closed, and the response at the end holds all of them again. A message
and a thought are closed as soon as something else comes. Tool calls may go on side by side, as they do
elsewhere; a call is closed when its arguments are a whole object and something else comes, at the latest when
the model has stopped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, assert_never

import orjson

from tokenhub_core.dialects import sse
from tokenhub_core.dialects.openai_responses import output, proof, words
from tokenhub_core.dialects.openai_responses.kept import Kept
from tokenhub_core.types import (
    Delta,
    Failed,
    Finished,
    Image,
    Json,
    Logprob,
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

_MORE_TEXT: Final = (
    b"event: response.output_text.delta\n"
    b'data: {"type":"response.output_text.delta",%b,"delta":%b,"logprobs":%b,"sequence_number":%d}\n\n'
)


@dataclass(slots=True)
class _Message:
    """The message that is open."""

    id: str
    place: int
    done: list[Json] = field(default_factory=list)
    refusing: bool = False
    """The part that is open is a refusal."""
    where: bytes = b""
    """That part's place, as it stands in its deltas; empty where none is open."""
    texts: list[str] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)


@dataclass(slots=True)
class _Thought:
    """The reasoning item that is open. Each block of thinking is a piece of its summary."""

    id: str
    place: int
    given: str
    """The provider's name for it."""
    block: int
    done: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """Of the piece that is open."""


@dataclass(slots=True)
class _Call:
    """A function call that is open."""

    id: str
    place: int
    call_id: str
    name: str
    texts: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Tell whether nothing can be added to its arguments."""
        try:
            return isinstance(orjson.loads("".join(self.texts)), dict)
        except orjson.JSONDecodeError:
            return False


class Writer:
    """Turns deltas into events.

    A `Failed` is not written: whoever decides what the caller may know of it writes a stream error.
    """

    def __init__(self, *, request: Request, created: int, fallback_id: str) -> None:
        self._request = request
        self._created = created
        self._id = words.response_id(fallback_id)
        self._frame: Json = {}
        """The response as it began; empty until it has."""
        self._number = 0
        self._items: list[Json] = []
        """By place; an item that is open has an empty one."""
        self._ids: set[str] = set()
        self._open: _Message | _Thought | None = None
        self._calls: dict[int, _Call] = {}
        self._refused = False
        self._stop: Stopped | None = None
        self._usage = Usage()
        self._over = False
        self._losses: dict[str, None] = {}

    def losses(self) -> tuple[str, ...]:
        """Return the names of what this stream could not carry so far."""
        return tuple(self._losses)

    def write(self, delta: Delta) -> bytes:
        """Return the events for this delta; nothing after the end."""
        if self._over:
            return b""
        match delta:
            case TextDelta(text, logprobs):
                return self._text(text, logprobs)
            case ToolArguments(index, fragment):
                return self._arguments(index, fragment)
            case Started():
                return self._begin(delta)
            case ReasoningDelta():
                return self._reasoning(delta)
            case RefusalDelta(text):
                return self._refusal(text)
            case ToolStarted():
                return self._tool(delta)
            case MediaDelta(part):
                if isinstance(part, Image) and part.data:
                    return self._picture(part)
                return self._lose(f"part:{type(part).__name__.lower()}")
            case Stopped():
                return self._stopped(delta)
            case UsageSeen(usage):
                self._usage = self._usage.merge(usage)
                return b""
            case Finished():
                return self._finish()
            case Unread(kind):
                return self._lose(kind)
            case Failed():
                return b""
            case _:
                assert_never(delta)

    def _lose(self, name: str) -> bytes:
        self._losses[name] = None
        return b""

    # --- the response ----------------------------------------------------------------------------------------

    def _begin(self, started: Started) -> bytes:
        if self._frame:
            return b""
        self._id = words.response_id(started.id) if started.id else self._id
        created = started.created or self._created
        self._frame = output.frame(self._request, response=self._id, created=created, model=started.model)
        first = self._event("response.created", response=self._frame)
        return first + self._event("response.in_progress", response=self._frame)

    def _begun(self) -> bytes:
        return b"" if self._frame else self._begin(Started())

    def _stopped(self, stop: Stopped) -> bytes:
        if self._stop is not None:
            return b""
        self._stop = stop
        for name in words.stop_losses(stop):
            self._lose(name)
        reason = words.incomplete_reason(stop, refused=self._refused)
        return self._begun() + self._close_all("incomplete" if reason else "completed")

    def _finish(self) -> bytes:
        stop = self._stop or Stopped(StopReason.OTHER)
        out = self._stopped(stop) + self._close_all("completed")
        self._over = True
        usage = words.usage_json(self._usage)
        response = output.ended(self._frame, stop, output=self._items, usage=usage, refused=self._refused)
        return out + self._event(f"response.{response['status']}", response=response)

    # --- messages --------------------------------------------------------------------------------------------

    def _text(self, text: str, logprobs: tuple[Logprob, ...]) -> bytes:
        if not text:
            return b""
        out = b""
        message = self._open
        if not isinstance(message, _Message) or message.refusing or not message.where:
            out, message = self._message(refusing=False)
        message.texts.append(text)
        message.logprobs += logprobs
        chances = orjson.dumps(words.logprobs_json(logprobs)) if logprobs else b"[]"
        out += _MORE_TEXT % (message.where, orjson.dumps(text), chances, self._number)
        self._number += 1
        return out

    def _refusal(self, text: str) -> bytes:
        if not text:
            return b""
        self._refused = True
        out = b""
        message = self._open
        if not isinstance(message, _Message) or not message.refusing or not message.where:
            out, message = self._message(refusing=True)
        message.texts.append(text)
        return out + self._event("response.refusal.delta", **_where(message), delta=text)

    def _message(self, *, refusing: bool) -> tuple[bytes, _Message]:
        """Open a part, in the message that is open or in a new one."""
        message = self._open
        if isinstance(message, _Message):
            out = self._part_done(message)
        else:
            out = self._begun() + self._close() + self._close_calls()
            message = _Message(self._item_id("msg"), len(self._items))
            self._open = message
            out += self._added(output.message(message.id, (), "in_progress"))
        message.refusing = refusing
        message.where = orjson.dumps(_where(message))[1:-1]
        part = output.refusal("") if refusing else output.text("")
        return out + self._event("response.content_part.added", **_where(message), part=part), message

    def _part_done(self, message: _Message) -> bytes:
        where, text = _where(message), "".join(message.texts)
        if message.refusing:
            part = output.refusal(text)
            out = self._event("response.refusal.done", **where, refusal=text)
        else:
            part = output.text(text, message.logprobs)
            logprobs = part["logprobs"]
            out = self._event("response.output_text.done", **where, text=text, logprobs=logprobs)
        out += self._event("response.content_part.done", **where, part=part)
        message.done.append(part)
        message.texts, message.logprobs, message.where = [], [], b""
        return out

    # --- thoughts --------------------------------------------------------------------------------------------

    def _reasoning(self, delta: ReasoningDelta) -> bytes:
        if not (delta.text or delta.signature or delta.redacted):
            return b""
        out = b""
        thought = self._open
        if not isinstance(thought, _Thought) or not _same(thought, delta):
            out = self._begun() + self._close() + self._close_calls()
            id_ = self._item_id("rs", delta.id)
            thought = _Thought(id_, len(self._items), delta.id, delta.part)
            self._open = thought
            out += self._added(output.reasoning(id_, ()))
        if delta.text:
            out += self._summary(thought, delta)
        if delta.signature or delta.redacted:
            kind = proof.Kind.SIGNED if delta.signature else proof.Kind.HIDDEN
            out += self._close(proof.write(delta.signature or delta.redacted, kind))
        return out

    def _summary(self, thought: _Thought, delta: ReasoningDelta) -> bytes:
        out = b""
        if thought.texts and thought.block != delta.part:
            out = self._summary_done(thought)
        thought.block = delta.part
        where = _piece(thought)
        if not thought.texts:
            out += self._event("response.reasoning_summary_part.added", **where, part=output.summary(""))
        thought.texts.append(delta.text)
        return out + self._event("response.reasoning_summary_text.delta", **where, delta=delta.text)

    def _summary_done(self, thought: _Thought) -> bytes:
        where, text = _piece(thought), "".join(thought.texts)
        thought.done.append(text)
        thought.texts = []
        out = self._event("response.reasoning_summary_text.done", **where, text=text)
        return out + self._event("response.reasoning_summary_part.done", **where, part=output.summary(text))

    # --- calls and images ------------------------------------------------------------------------------------

    def _tool(self, delta: ToolStarted) -> bytes:
        out = self._begun() + self._close() + self._close_calls()
        if delta.index in self._calls:
            out += self._close_call(self._calls.pop(delta.index), "completed")
        if delta.signature:
            sealed = proof.write(delta.signature, proof.Kind.CALL)
            id_ = self._item_id("rs")
            out += self._added(output.reasoning(id_, ()))
            out += self._done(len(self._items) - 1, output.reasoning(id_, (), sealed))
        call_id = delta.id or words.made_up_call_id(self._id, delta.index)
        call = _Call(self._item_id("fc"), len(self._items), call_id, delta.name)
        self._calls[delta.index] = call
        return out + self._added(output.function_call(call.id, call_id, call.name, "", "in_progress"))

    def _arguments(self, index: int, fragment: str) -> bytes:
        call = self._calls.get(index)
        if call is None:
            # A fragment belongs to a call that was started and is not whole; else nobody could use it.
            return self._lose("tool_calls.arguments") if fragment.strip() else b""
        if not fragment:
            return b""
        call.texts.append(fragment)
        return self._event("response.function_call_arguments.delta", **_at(call), delta=fragment)

    def _close_calls(self, status: str = "") -> bytes:
        """Close the calls that are whole, all of them where `status` says how they end."""
        over = [index for index, call in self._calls.items() if status or call.whole]
        return b"".join(self._close_call(self._calls.pop(index), status or "completed") for index in over)

    def _close_call(self, call: _Call, status: str) -> bytes:
        out = b""
        if not call.texts and status == "completed":
            # A call without arguments; its client parses what stands here.
            call.texts.append("{}")
            out = self._event("response.function_call_arguments.delta", **_at(call), delta="{}")
        arguments = "".join(call.texts)
        out += self._event("response.function_call_arguments.done", **_at(call), arguments=arguments)
        item = output.function_call(call.id, call.call_id, call.name, arguments, status)
        return out + self._done(call.place, item)

    def _picture(self, image: Image) -> bytes:
        out = self._begun() + self._close() + self._close_calls()
        item = output.picture(self._item_id("ig"), image, "completed")
        if isinstance(image.rest, Kept):
            item |= image.rest
        else:
            self._losses |= dict.fromkeys(image.rest)
        out += self._added({**item, "status": "in_progress", "result": None})
        return out + self._done(len(self._items) - 1, item)

    # --- items -----------------------------------------------------------------------------------------------

    def _item_id(self, kind: str, given: str = "") -> str:
        """Return the id of the next item: the provider's own where it is of this dialect and new."""
        fits = given.startswith(f"{kind}_") and given not in self._ids
        id_ = given if fits else words.item_id(kind, self._id, len(self._items))
        self._ids.add(id_)
        return id_

    def _added(self, item: Json) -> bytes:
        self._items.append(item)
        return self._event("response.output_item.added", output_index=len(self._items) - 1, item=item)

    def _done(self, place: int, item: Json) -> bytes:
        self._items[place] = item
        return self._event("response.output_item.done", output_index=place, item=item)

    def _close(self, encrypted: str = "", status: str = "completed") -> bytes:
        """Close the message or the thought that is open."""
        match self._open:
            case _Message() as message:
                out = self._part_done(message) if message.where else b""
                self._open = None
                return out + self._done(message.place, output.message(message.id, message.done, status))
            case _Thought() as thought:
                out = self._summary_done(thought) if thought.texts else b""
                self._open = None
                return out + self._done(thought.place, output.reasoning(thought.id, thought.done, encrypted))
            case None:
                return b""

    def _close_all(self, status: str) -> bytes:
        return self._close(status=status) + self._close_calls(status)

    def _event(self, kind: str, **fields: object) -> bytes:
        body = {"type": kind, **fields, "sequence_number": self._number}
        self._number += 1
        return sse.frame(orjson.dumps(body), kind)


def _where(message: _Message) -> Json:
    return {"item_id": message.id, "output_index": message.place, "content_index": len(message.done)}


def _piece(thought: _Thought) -> Json:
    return {"item_id": thought.id, "output_index": thought.place, "summary_index": len(thought.done)}


def _at(call: _Call) -> Json:
    return {"item_id": call.id, "output_index": call.place}


def _same(thought: _Thought, delta: ReasoningDelta) -> bool:
    """Tell whether a delta goes on with the item that is open: it has its name, or neither has one nor is new."""
    if thought.given or delta.id:
        return thought.given == delta.id
    return thought.block == delta.part
