"""Reads the stream of a provider that speaks responses.

Everything is told more than once: in deltas, when a part is done, when its item is done, and in the response at
the end. Servers leave any of these out. So for every text it is known how much of it has been passed on, and
each further telling adds only what is missing. Items are told apart by their `output_index`: their ids are not
the same in every event of every server.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from tokenhub_core.dialects.openai_responses import answer, content, proof, words
from tokenhub_core.dialects.openai_responses.faults import failed
from tokenhub_core.types import (
    Delta,
    Failed,
    Finished,
    Json,
    MediaDelta,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolArguments,
    ToolStarted,
    Unread,
    UsageSeen,
)

type _Make = Callable[[str], Delta]

_NOTHING: Final[tuple[Delta, ...]] = ()

_KINDS: Final = {
    "output_text": ("message", "text"),
    "refusal": ("message", "refusal"),
    "function_call_arguments": ("function_call", "arguments"),
    "reasoning_summary_text": ("reasoning", "summary"),
    "reasoning_text": ("reasoning", "content"),
}
"""What a delta's name says: the item that it belongs to, and which of its texts."""

_WHOLE: Final = {
    "output_text": "text",
    "refusal": "refusal",
    "function_call_arguments": "arguments",
    "reasoning_summary_text": "text",
    "reasoning_text": "text",
}
"""Where a `done` event has the whole text."""

_TOOL: Final = re.compile(r"(?:[a-z_]+?_call|mcp_list_tools)(?![a-z])")
"""The item that an event of one of the provider's own tools is about (`custom_tool_call_input`)."""

_SILENT: Final = frozenset(
    {
        "keepalive",
        "ping",
        "response.content_part.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
    }
)


@dataclass(slots=True)
class _Item:
    """One output item as far as it is known."""

    kind: str
    id: str
    tool: int = -1
    """A function call's number, once it was started."""
    sent: dict[tuple[str, int], int] = field(default_factory=dict)
    """How many characters of each text were passed on."""
    held: list[str] = field(default_factory=list)
    """Arguments that came before the name."""
    over: bool = False
    """What comes once has come: a seal, an image, the word that this cannot be read."""


class Reader:
    """Turns the events of one stream into deltas. Never raises: what cannot be read comes out as `Failed`."""

    def __init__(self) -> None:
        self._over = False
        self._started = False
        self._items: dict[int, _Item] = {}
        self._tools = 0
        self._call_ids: dict[str, int] = {}
        """Where the calls stand that were started."""
        self._refused = False
        self._blocks: dict[tuple[int, str, int], int] = {}
        """The number of each block of thinking."""
        self._signature = ""
        self._unread: set[str] = set()

    def end(self) -> Sequence[Delta]:
        """Return nothing: this dialect has a terminal event."""
        return _NOTHING

    def read(self, event: str, data: bytes) -> Sequence[Delta]:
        """Return the deltas of one event; `event` may be empty, its data then say what it is."""
        if self._over or not data or data.startswith(b"[DONE]"):
            return _NOTHING
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            return self._broken("bad_json", "The provider sent an event that is not JSON.")
        if not isinstance(body, dict):
            return self._broken("bad_json", "The provider sent an event that is not a JSON object.")
        deltas: list[Delta] = []
        try:
            self._read(str(body.get("type") or event), body, deltas)
        except (KeyError, TypeError, AttributeError, ValueError):
            deltas += self._broken("bad_event", f"The provider sent a malformed {event or 'stream'} event.")
        return deltas

    def _broken(self, code: str, message: str) -> Sequence[Delta]:
        self._over = True
        return (Failed(502, code, message),)

    def _read(self, kind: str, body: Json, deltas: list[Delta]) -> None:
        name, _, step = kind.removeprefix("response.").rpartition(".")
        if step == "delta" and name in _KINDS:
            self._delta(name, body, deltas)
        elif step == "done" and name in _KINDS:
            self._done(name, body, deltas)
        elif kind == "response.output_item.added":
            self._added(body, deltas)
        elif kind == "response.output_item.done":
            item = body["item"]
            self._item_done(self._index(body, item["type"]), item, deltas)
        elif kind == "response.content_part.done":
            part = body["part"]
            home = "reasoning" if part["type"] == "reasoning_text" else "message"
            self._part(self._index(body, home), body["content_index"], part, deltas)
        elif kind in {"response.completed", "response.incomplete"}:
            self._end(body["response"], deltas)
        elif kind in {"response.failed", "response.cancelled"}:
            self._failed(body["response"], deltas)
        elif kind == "error" or (body.get("error") and not name):
            self._over = True
            deltas.append(failed(body.get("error"), body))
        elif isinstance(body.get("response"), dict):
            self._start(body["response"], deltas)
        elif kind not in _SILENT:
            self._strange(kind, name, deltas)

    # --- the response ----------------------------------------------------------------------------------------

    def _start(self, response: Json, deltas: list[Delta]) -> None:
        if self._started:
            return
        self._started = True
        seconds = words.seconds(response.get("created_at"))
        deltas.append(Started(_text(response, "id"), _text(response, "model"), seconds))

    def _end(self, response: Json, deltas: list[Delta]) -> None:
        self._start(response, deltas)
        output = response.get("output")
        self._catch_up(output if isinstance(output, list) else [], deltas)
        if any(item.kind == "function_call" and item.tool < 0 for item in self._items.values()):
            self._lose("tool_calls.name", deltas)
        for name in answer.left(response):
            self._lose(name, deltas)
        deltas.append(words.stopped(response, tools=self._tools > 0, refused=self._refused))
        if usage := words.usage(response.get("usage")):
            deltas.append(UsageSeen(usage))
        deltas.append(Finished())
        self._over = True

    def _failed(self, response: Json, deltas: list[Delta]) -> None:
        self._start(response, deltas)
        if usage := words.usage(response.get("usage")):
            deltas.append(UsageSeen(usage))
        deltas.append(failed(response.get("error"), {"code": response.get("status")}))
        self._over = True

    def _catch_up(self, output: list[Json], deltas: list[Delta]) -> None:
        """Read what the stream had left out.

        An item that was seen is known by its id or call; where ids change, by its place among those of its kind.
        """
        ids = {item.id: index for index, item in self._items.items() if item.id} | self._call_ids
        found = [ids.get(_text(raw, "call_id"), ids.get(_text(raw, "id"))) for raw in output]
        left = [index for index in self._items if index not in found]
        for known, raw in zip(found, output, strict=True):
            same = (each for each in left if self._items[each].kind == raw["type"])
            new = max(self._items, default=-1) + 1
            index = next(same, new) if known is None else known
            if index in left:
                left.remove(index)
            self._item_done(index, raw, deltas)

    # --- items -----------------------------------------------------------------------------------------------

    def _index(self, body: Json, kind: str) -> int:
        """Return which item of a kind an event is about; one that does not say is about the last of them.

        Some servers do not count their items; then another kind of item stands at the index.
        """
        index = body.get("output_index")
        if type(index) is int and (index not in self._items or self._items[index].kind == kind):
            return index
        fits = [place for place, item in self._items.items() if item.kind == kind]
        id_ = body.get("item_id")
        last = fits[-1] if fits else max(self._items, default=-1) + 1
        return next((place for place in fits if self._items[place].id == id_), last)

    def _item(self, index: int, kind: str, id_: object) -> _Item:
        item = self._items.get(index)
        if item is None:
            item = self._items[index] = _Item(kind, id_ if isinstance(id_, str) else "")
        return item

    def _added(self, body: Json, deltas: list[Delta]) -> None:
        raw = body.get("item")
        if not isinstance(raw, dict):
            return
        index = body.get("output_index")
        place = index if type(index) is int else max(self._items, default=-1) + 1
        known = self._items.get(place)
        if known is not None and (known.kind, known.id) != (raw["type"], _text(raw, "id")):
            place = max(self._items) + 1
        item = self._item(place, raw["type"], raw.get("id"))
        if item.kind == "function_call":
            self._call(place, item, raw, deltas)
        elif item.kind not in {"message", "reasoning", "image_generation_call"}:
            self._lose(f"part:{item.kind}", deltas)

    def _item_done(self, index: int, raw: Json, deltas: list[Delta]) -> None:
        """Read a whole item: all of it, or what of it was not told before."""
        item = self._item(index, raw["type"], raw.get("id"))
        match raw["type"]:
            case "message":
                for number, part in enumerate(raw.get("content") or ()):
                    self._part(index, number, part, deltas)
                if raw.get("phase"):
                    self._lose("phase", deltas)
            case "function_call":
                self._call(index, item, raw, deltas)
                for name in content.tool_use(answer.call_item(raw)).rest:
                    self._lose(name, deltas)
                arguments = answer.call_item(raw)["arguments"]
                self._rest(
                    item, ("arguments", 0), arguments, lambda text: ToolArguments(item.tool, text), deltas
                )
            case "reasoning":
                for key in ("content", "summary"):
                    for number, piece in enumerate(raw.get(key) or ()):
                        self._thought(index, key, number, piece["text"], deltas)
                self._seal(index, item, raw, deltas)
            case "image_generation_call":
                image = content.generated(raw)
                if image is not None and not item.over:
                    item.over = True
                    deltas.append(MediaDelta(image))
            case kind:
                self._lose(f"part:{kind}", deltas)

    def _part(self, index: int, number: int, part: Json, deltas: list[Delta]) -> None:
        kind = part["type"]
        if kind == "reasoning_text":
            self._thought(index, "content", number, part["text"], deltas)
            return
        item = self._item(index, "message", "")
        if kind == "output_text":
            chances = words.logprobs(part.get("logprobs"))
            self._rest(item, ("text", number), part["text"], lambda text: TextDelta(text, chances), deltas)
            if part.get("annotations"):
                self._lose("annotations", deltas)
        elif kind == "refusal":
            self._refused = True
            self._rest(item, ("refusal", number), part["refusal"], RefusalDelta, deltas)
        else:
            self._lose(f"part:{kind}", deltas)

    def _call(self, index: int, item: _Item, raw: Json, deltas: list[Delta]) -> None:
        """Start a function call, once, when its name is known. Its id is `call_id`, not the item's."""
        name = _text(raw, "name")
        if item.tool >= 0 or not name:
            return
        item.tool = self._tools
        self._tools += 1
        call_id = _text(raw, "call_id") or _text(raw, "id")
        self._call_ids[call_id] = index
        deltas.append(ToolStarted(item.tool, call_id, name, self._signature))
        self._signature = ""
        deltas += [ToolArguments(item.tool, held) for held in item.held]
        item.held.clear()

    # --- texts -----------------------------------------------------------------------------------------------

    def _delta(self, name: str, body: Json, deltas: list[Delta]) -> None:
        text = body["delta"]
        if not isinstance(text, str):
            raise TypeError("delta: expected text")
        if not text:
            return
        kind, key = _KINDS[name]
        index = self._index(body, kind)
        item = self._item(index, kind, body.get("item_id"))
        number = body.get("summary_index" if key == "summary" else "content_index") or 0
        item.sent[key, number] = item.sent.get((key, number), 0) + len(text)
        if name == "output_text":
            deltas.append(TextDelta(text, words.logprobs(body.get("logprobs"))))
        elif name == "refusal":
            self._refused = True
            deltas.append(RefusalDelta(text))
        elif kind == "reasoning":
            deltas.append(self._thinking(index, item, key, number, text))
        elif item.tool >= 0:
            deltas.append(ToolArguments(item.tool, text))
        else:
            item.held.append(text)

    def _done(self, name: str, body: Json, deltas: list[Delta]) -> None:
        text = body.get(_WHOLE[name])
        if not isinstance(text, str):
            return
        kind, key = _KINDS[name]
        index = self._index(body, kind)
        item = self._item(index, kind, body.get("item_id"))
        number = body.get("summary_index" if key == "summary" else "content_index") or 0
        if kind == "reasoning":
            self._thought(index, key, number, text, deltas)
        elif kind == "message":
            part = {"type": name, key: text, "logprobs": body.get("logprobs")}
            self._part(index, number, part, deltas)
        elif item.tool >= 0:
            self._rest(item, (key, 0), text, lambda left: ToolArguments(item.tool, left), deltas)

    def _rest(
        self, item: _Item, key: tuple[str, int], text: object, delta: _Make, deltas: list[Delta]
    ) -> None:
        """Add a delta of what was not passed on of a text that is told as a whole; raises TypeError if it is none."""
        if not isinstance(text, str):
            raise TypeError("expected text")
        sent = item.sent.get(key, 0)
        if len(text) > sent:
            item.sent[key] = len(text)
            deltas.append(delta(text[sent:]))

    def _thought(self, index: int, key: str, number: int, text: str, deltas: list[Delta]) -> None:
        item = self._item(index, "reasoning", "")
        self._rest(
            item, (key, number), text, lambda left: self._thinking(index, item, key, number, left), deltas
        )

    def _thinking(self, index: int, item: _Item, key: str, number: int, text: str) -> ReasoningDelta:
        block = self._blocks.setdefault((index, key, number), len(self._blocks))
        return ReasoningDelta(text, id=item.id, part=block, summary=key == "summary")

    def _seal(self, index: int, item: _Item, raw: Json, deltas: list[Delta]) -> None:
        """Read what a reasoning item can be given back with, once. Only when it is done, it is final."""
        given = raw.get("encrypted_content")
        if item.over or not isinstance(given, str) or not given:
            return
        item.over = True
        sealed, kind = proof.read(given)
        if kind is proof.Kind.CALL:
            self._signature = sealed
            return
        here = {block: key for (place, key, _), block in self._blocks.items() if place == index}
        block = max(here) if here else self._blocks.setdefault((index, "seal", 0), len(self._blocks))
        signature, redacted = (sealed, "") if kind is proof.Kind.SIGNED else ("", sealed)
        summary = here.get(block) == "summary"
        deltas.append(ReasoningDelta("", signature, redacted, id=item.id, part=block, summary=summary))

    # --- what has no place -----------------------------------------------------------------------------------

    def _strange(self, kind: str, name: str, deltas: list[Delta]) -> None:
        """Name what cannot be read: the item where it is about a tool of the provider's, else the event."""
        if tool := _TOOL.match(name):
            if tool[0] != "image_generation_call":
                self._lose(f"part:{tool[0]}", deltas)
        elif name.startswith("output_text.annotation"):
            self._lose("annotations", deltas)
        else:
            self._lose(kind, deltas)

    def _lose(self, kind: str, deltas: list[Delta]) -> None:
        if kind not in self._unread:
            self._unread.add(kind)
            deltas.append(Unread(kind))


def _text(data: Json, key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""
