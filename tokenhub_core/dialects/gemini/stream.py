"""Reads the stream of a provider of this dialect, whichever way it is framed.

Every event is a response object with the next parts of the answer. Function calls come whole, token counts with
every event and cumulative, the finish reason with the last part or after it. Nothing says that the stream is
over: it is, where the body ends after a finish reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, assert_never

import orjson

from tokenhub_core.dialects.gemini import faults, words
from tokenhub_core.dialects.gemini.answer import logprobs, seconds
from tokenhub_core.dialects.gemini.names import many, plain
from tokenhub_core.dialects.gemini.parts import kind_of, part
from tokenhub_core.types import (
    Audio,
    Delta,
    Failed,
    File,
    Finished,
    Image,
    Json,
    Logprob,
    MediaDelta,
    Opaque,
    Reasoning,
    ReasoningDelta,
    Refusal,
    Started,
    Stopped,
    Text,
    TextDelta,
    ToolArguments,
    ToolResult,
    ToolStarted,
    ToolUse,
    Unread,
    UsageSeen,
)

_SHOWN: Final = ("citationMetadata", "continuationToken", "groundingMetadata", "urlContextMetadata")
"""Members of a candidate that say something to the reader and have no canonical form."""


class Reader:
    """Reads one stream, event by event. Never raises: what cannot be read comes out as `Failed`, once."""

    def __init__(self) -> None:
        self._started = False
        self._stopped = False
        self._failed = False
        self._calls = 0
        self._counts: dict[str, int] = {}
        self._unread: set[str] = set()

    def end(self) -> Sequence[Delta]:
        """Return `Finished` where the model had stopped; else the stream was cut short."""
        return (Finished(),) if self._stopped and not self._failed else ()

    def read(self, event: str, data: bytes) -> Sequence[Delta]:
        """Return the deltas of one event; this dialect gives events no names."""
        del event
        if self._failed or not data:
            return ()
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            return self._broken("bad_json", "The provider sent an event that is not JSON.")
        deltas: list[Delta] = []
        for response in many(body):
            if not isinstance(response, dict):
                return [
                    *deltas,
                    *self._broken("bad_json", "The provider sent an event that is no JSON object."),
                ]
            try:
                self._response(plain(response), deltas)
            except (RecursionError, orjson.JSONEncodeError):
                return [
                    *deltas,
                    *self._broken("bad_event", "The provider sent an event that is nested too deeply."),
                ]
        return deltas

    def _broken(self, code: str, message: str) -> Sequence[Delta]:
        self._failed = True
        return (Failed(502, code, message),)

    def _response(self, response: Json, deltas: list[Delta]) -> None:
        if self._failed:
            return
        if "error" in response:
            self._failed = True
            deltas.append(faults.failed(response["error"]))
            return
        if not self._started:
            self._started = True
            deltas.append(
                Started(
                    words.text_of(response, "responseId"),
                    words.text_of(response, "modelVersion"),
                    seconds(response.get("createTime")),
                )
            )
        for candidate in many(response.get("candidates")):
            if isinstance(candidate, dict):
                self._candidate(candidate, deltas)
        self._usage(response.get("usageMetadata"), deltas)
        for name in words.media_counts(response.get("usageMetadata")):
            self._lose(name, deltas, beside=True)
        block = words.blocked(response.get("promptFeedback"))
        if block is not None:
            self._stop(block, deltas)

    def _candidate(self, candidate: Json, deltas: list[Delta]) -> None:
        if candidate.get("index"):
            self._lose("candidates[n>1]", deltas)
            return
        content = candidate.get("content")
        given = many(content.get("parts")) if isinstance(content, dict) else []
        tokens = logprobs(candidate.get("logprobsResult"))
        lone = sum(isinstance(raw, dict) and bool(raw.get("text")) for raw in given) == 1
        for raw in given:
            if isinstance(raw, dict):
                self._part(raw, tokens if lone else (), deltas)
        if tokens and not lone:
            self._lose("logprobsResult", deltas)
        for name in _SHOWN:
            if candidate.get(name):
                self._lose(name, deltas)
        word = words.text_of(candidate, "finishReason")
        if word not in words.UNSPECIFIED:
            self._stop(words.stopped(word, tools=self._calls > 0), deltas)

    def _part(self, raw: Json, tokens: tuple[Logprob, ...], deltas: list[Delta]) -> None:
        call = raw.get("functionCall")
        if isinstance(call, dict) and ("partialArgs" in call or not call.get("name")):
            # Arguments in pieces come only to callers who ask for them in this dialect's own words.
            self._lose("functionCall.partialArgs", deltas)
            if not call.get("name"):
                return
        for found in part(raw):
            for name in () if isinstance(found, Opaque | Refusal) else found.rest:
                self._lose(name, deltas)
            match found:
                case Text(text):
                    deltas += [TextDelta(text, tokens)] if text else []
                case Reasoning(text, signature, redacted):
                    if text or signature or redacted:
                        deltas.append(ReasoningDelta(text, signature, redacted))
                case ToolUse(id_, name, arguments, signature=signature):
                    deltas.append(ToolStarted(self._calls, id_, name, signature))
                    deltas.append(ToolArguments(self._calls, arguments))
                    self._calls += 1
                case Image() | File() | Audio():
                    deltas.append(MediaDelta(found))
                case Opaque(kind=kind):
                    self._lose(f"part:{kind}", deltas)
                case ToolResult() | Refusal():
                    self._lose(f"part:{kind_of(raw)}", deltas)
                case _:
                    assert_never(found)

    def _stop(self, stop: Stopped, deltas: list[Delta]) -> None:
        if not self._stopped:
            self._stopped = True
            deltas.append(stop)

    def _usage(self, given: Any, deltas: list[Delta]) -> None:
        """Tell the counts so far, each of them the largest that was seen, where any has grown."""
        found = words.counts(given)
        grown = {name: count for name, count in found.items() if count > self._counts.get(name, 0)}
        if grown:
            self._counts |= grown
            deltas.append(UsageSeen(words.usage(self._counts)))

    def _lose(self, kind: str, deltas: list[Delta], *, beside: bool = False) -> None:
        if kind not in self._unread:
            self._unread.add(kind)
            deltas.append(Unread(kind, beside))
