"""Reads the stream of a provider that speaks chat completions.

Servers differ most in tool calls. There are three ways to tell which call a fragment belongs to: its `index`
(the specified one), its `id` where there is no index or where every call has the same, and failing both its
place: it continues the last call. A call is started once, when its name is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.openai_chat import logprobs, media, thoughts, words
from tokenhub_core.dialects.openai_chat.faults import failed
from tokenhub_core.dialects.openai_chat.kept import others
from tokenhub_core.types import (
    Audio,
    Delta,
    Failed,
    Finished,
    Json,
    Logprob,
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

_DONE: Final = b"[DONE]"
_FIELDS: Final = frozenset(
    {
        *("role", "content", "refusal", "tool_calls", "function_call", "audio", "images"),
        *thoughts.PLAIN,
        thoughts.DETAILS,
    }
)


_CHUNK: Final = frozenset({"id", "object", "created", "model", "choices", "usage", "x_groq", "obfuscation"})
"""The members of a chunk that are read, and the padding that hides how long a text is."""


@dataclass(slots=True)
class _ToolCall:
    """One tool call as far as it is known."""

    index: int
    id: str
    named: bool = False
    held: list[str] = field(default_factory=list)
    """Arguments that came before the name."""


@dataclass(slots=True)
class _Speech:
    """What the model says aloud: it comes in pieces and is told whole."""

    id: str = ""
    data: list[str] = field(default_factory=list)
    transcript: str = ""


class Reader:
    """Turns the chunks of one stream into deltas."""

    def __init__(self) -> None:
        self._started = False
        self._stopped = False
        self._refused = False
        self._calls: list[_ToolCall] = []
        self._by_index: dict[int, _ToolCall] = {}
        self._unread: set[str] = set()
        self._speech: _Speech | None = None
        self._thought: tuple[object, ...] = ()
        """Which item of thinking the last fragment was of."""
        self._part = 0

    def end(self) -> Sequence[Delta]:
        """Return nothing: this dialect has a terminal event."""
        return ()

    def read(self, event: str, data: bytes) -> Sequence[Delta]:
        """Return the deltas of one event; what cannot be read is a `Failed`, never an exception."""
        if data.startswith(_DONE):
            return (Finished(),)
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError as exc:
            if not data.strip():
                return ()
            if data.strip() == _DONE:
                return (Finished(),)
            return (Failed(502, "bad_json", f"The provider sent a chunk that is not JSON: {exc}."),)
        if not isinstance(chunk, dict):
            return (Failed(502, "bad_json", "The provider sent a chunk that is not a JSON object."),)
        choices = chunk.get("choices")
        # The straight path: nearly every chunk of a stream is one piece of text and nothing else.
        if self._started and not event and type(choices) is list and len(choices) == 1:
            choice = choices[0]
            if type(choice) is dict and not (
                choice.get("finish_reason") or choice.get("index") or choice.get("logprobs")
            ):
                delta = choice.get("delta")
                if type(delta) is dict and len(delta) == 1 and not (chunk.get("usage") or "error" in chunk):
                    text = delta.get("content")
                    if type(text) is str:
                        return (TextDelta(text),) if text else ()
        return self._chunk(event, chunk, choices)

    def _chunk(self, event: str, chunk: Json, choices: object) -> list[Delta]:
        error = chunk.get("error")
        if error or event == "error" or chunk.get("object") == "error":
            return [failed(error, chunk)]
        deltas: list[Delta] = []
        # A first chunk with neither (Azure tells what its filter thinks of the prompt) starts nothing.
        if not self._started and (chunk.get("id") or choices):
            self._started = True
            created = chunk.get("created")
            deltas.append(
                Started(_text(chunk, "id"), _text(chunk, "model"), created if type(created) is int else 0)
            )
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._choice(choice, deltas)
        groq = chunk.get("x_groq")
        told = chunk.get("usage") or (groq.get("usage") if isinstance(groq, dict) else None)
        if usage := words.usage(told):
            deltas.append(UsageSeen(usage))
        for name in (*unread(chunk), *words.usage_extras(told)):
            self._lose(name, deltas, beside=True)
        return deltas

    def _choice(self, choice: Json, deltas: list[Delta]) -> None:
        index = choice.get("index")
        if isinstance(index, int) and index > 0:
            self._lose("choices[n>1]", deltas)
            return
        for name in others(choice, words.CHOICE, "choices."):
            self._lose(name, deltas, beside=True)
        delta = choice.get("delta")
        if isinstance(delta, dict):
            told = choice.get("logprobs")
            self._delta(delta, logprobs.read(told) if told else (), deltas)
            if isinstance(told, dict) and told.get("refusal"):
                self._lose("logprobs.refusal", deltas)
        reason = choice.get("finish_reason")
        if not reason or self._stopped:
            return
        self._stopped = True
        self._spoken(deltas)
        if any(not call.named for call in self._calls):
            self._lose("tool_calls.function.name", deltas)
        stop = words.stopped(
            reason,
            sequence=choice.get("stop_reason"),
            tools=any(call.named for call in self._calls),
            refused=self._refused,
        )
        deltas.append(stop)

    def _delta(self, delta: Json, tokens: tuple[Logprob, ...], deltas: list[Delta]) -> None:
        if not self._details(delta.get(thoughts.DETAILS), deltas):
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            if thought and isinstance(thought, str):
                deltas.append(ReasoningDelta(thought, part=self._part))
        content = delta.get("content")
        if isinstance(content, list):
            self._parts(content, deltas)
        elif (isinstance(content, str) and content) or tokens:
            deltas.append(TextDelta(content if isinstance(content, str) else "", tokens))
        deltas += [MediaDelta(image) for image in media.images(delta.get("images"))]
        if isinstance(delta.get("audio"), dict):
            # Sound that flows is content to a caller of this dialect; others get it whole, at the end.
            self._lose("delta.audio", deltas)
            self._speak(delta["audio"])
        refusal = delta.get("refusal")
        if refusal and isinstance(refusal, str):
            self._refused = True
            deltas.append(RefusalDelta(refusal))
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                self._tool(call, deltas)
        legacy = delta.get("function_call")
        if isinstance(legacy, dict):
            self._tool({"index": 0, "function": legacy}, deltas)
        for key, value in delta.items():
            if value and key not in _FIELDS:
                self._lose(f"delta.{key}", deltas)

    def _details(self, details: object, deltas: list[Delta]) -> bool:
        """Read fragments of `reasoning_details`; return whether they told a text, which a plain field repeats."""
        told = False
        for item in details if isinstance(details, list) else ():
            found = thoughts.detail(item)
            if found is None:
                self._lose(f"delta.{thoughts.DETAILS}", deltas)
                continue
            kind, index = item["type"], item.get("index")
            # A text and its summary are never one block; what is encrypted is one by itself, unless an id
            # says that it belongs to the text before it.
            key = (found.id,) if found.id else (kind, index)
            if self._thought and (key != self._thought or (found.redacted and not found.id)):
                self._part += 1
            self._thought = key
            told = told or bool(found.text)
            if found.text or found.signature or found.redacted:
                deltas.append(
                    ReasoningDelta(
                        found.text, found.signature, found.redacted, found.id, self._part, found.summary
                    )
                )
        return told

    def _speak(self, piece: Json) -> None:
        speech = self._speech = self._speech or _Speech()
        speech.id = speech.id or _text(piece, "id")
        speech.transcript += _text(piece, "transcript")
        if data := _text(piece, "data"):
            speech.data.append(data)

    def _spoken(self, deltas: list[Delta]) -> None:
        """Tell what was said aloud, once it is whole."""
        speech, self._speech = self._speech, None
        if speech is None:
            return
        try:
            data = media.joined(speech.data)
        except ValueError:
            self._lose("part:audio", deltas)
            data = ""
        deltas.append(MediaDelta(Audio(data=data, id=speech.id, transcript=speech.transcript)))

    def _parts(self, parts: list[object], deltas: list[Delta]) -> None:
        """Read content that comes as parts, as Mistral's reasoning models send it."""
        for part in parts:
            match part:
                case {"type": "text", "text": str(text)}:
                    deltas += [TextDelta(text)] if text else []
                case {"type": "thinking", "thinking": str(text)}:
                    deltas += [ReasoningDelta(text)] if text else []
                case {"type": "thinking", "thinking": list(inner)}:
                    thoughts = (_text(piece, "text") for piece in inner if isinstance(piece, dict))
                    deltas += [ReasoningDelta(text) for text in thoughts if text]
                case {"type": str(kind)}:
                    self._lose(f"part:{kind}", deltas)
                case _:
                    self._lose("part", deltas)

    def _tool(self, fragment: Json, deltas: list[Delta]) -> None:
        kind = fragment.get("type") or "function"
        if kind != "function":
            self._lose(f"tool_call:{kind}", deltas)
            return
        function = fragment.get("function")
        function = function if isinstance(function, dict) else {}
        name = _text(function, "name")
        call = self._call(fragment, name)
        if name and not call.named:
            call.named = True
            signature, _ = thoughts.signature(fragment) if "extra_content" in fragment else ("", None)
            deltas.append(ToolStarted(call.index, call.id, name, signature))
            deltas += [ToolArguments(call.index, held) for held in call.held]
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = wire.encode(arguments).decode()
        if arguments and isinstance(arguments, str):
            if call.named:
                deltas.append(ToolArguments(call.index, arguments))
            else:
                call.held.append(arguments)

    def _call(self, fragment: Json, name: str) -> _ToolCall:
        """Return the call that a fragment belongs to, a new one where it continues none."""
        id_, given = _text(fragment, "id"), fragment.get("index")
        index: int | None = given if type(given) is int else None
        last = self._calls[-1] if self._calls else None
        known = last if index is None else self._by_index.get(index)
        if known is None or _another(known, id_, name, placed=index is not None):
            known = _ToolCall(len(self._calls), id_)
            self._calls.append(known)
        known.id = known.id or id_
        if index is not None:
            self._by_index[index] = known
        return known

    def _lose(self, kind: str, deltas: list[Delta], *, beside: bool = False) -> None:
        if kind not in self._unread:
            self._unread.add(kind)
            deltas.append(Unread(kind, beside))


def unread(chunk: Json) -> Json:
    """Return what a chunk tells besides its choices and its usage; the usual tier says nothing."""
    found = others(chunk, _CHUNK)
    if found.get("service_tier") in words.USUAL_TIERS:
        del found["service_tier"]
    return found


def _another(known: _ToolCall, id_: str, name: str, *, placed: bool) -> bool:
    """Tell whether a fragment that seems to continue `known` begins another call; `placed` is one with an index."""
    if id_ and known.id and id_ != known.id:
        return bool(name) or not placed
    # Neither index nor id: a second name can only be a second call.
    return bool(name) and known.named and not placed and not id_


def _text(data: Json, key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""
