"""Reads the stream of a provider of completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson

from tokenhub_core.dialects.openai_chat import words as _chat
from tokenhub_core.dialects.openai_chat.faults import failed
from tokenhub_core.dialects.openai_chat.kept import others
from tokenhub_core.dialects.openai_chat.stream import unread
from tokenhub_core.dialects.openai_completions import words
from tokenhub_core.types import Delta, Failed, Finished, Json, Started, TextDelta, Unread, UsageSeen

_DONE: Final = b"[DONE]"


class Reader:
    """Turns the chunks of one stream into deltas."""

    def __init__(self) -> None:
        self._started = False
        self._stopped = False
        self._unread: set[str] = set()

    def end(self) -> Sequence[Delta]:
        """Return nothing: this dialect has a terminal event."""
        return ()

    def read(self, event: str, data: bytes) -> Sequence[Delta]:
        """Return the deltas of one event; what cannot be read is a `Failed`, never an exception."""
        if data.strip() == _DONE:
            return (Finished(),)
        if not data.strip():
            return ()
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError as exc:
            return (Failed(502, "bad_json", f"The provider sent a chunk that is not JSON: {exc}."),)
        if not isinstance(chunk, dict):
            return (Failed(502, "bad_json", "The provider sent a chunk that is not a JSON object."),)
        error = chunk.get("error")
        if error or event == "error" or chunk.get("object") == "error":
            return (failed(error, chunk),)
        return self._chunk(chunk)

    def _chunk(self, chunk: Json) -> list[Delta]:
        deltas: list[Delta] = []
        choices = chunk.get("choices")
        if not self._started and (chunk.get("id") or choices):
            self._started = True
            id_, model, created = chunk.get("id"), chunk.get("model"), chunk.get("created")
            deltas.append(
                Started(
                    id_ if isinstance(id_, str) else "",
                    model if isinstance(model, str) else "",
                    created if type(created) is int else 0,
                )
            )
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._choice(choice, deltas)
        told = chunk.get("usage")
        if usage := _chat.usage(told):
            deltas.append(UsageSeen(usage))
        for name in (*unread(chunk), *_chat.usage_extras(told)):
            self._lose(name, deltas, beside=True)
        return deltas

    def _choice(self, choice: Json, deltas: list[Delta]) -> None:
        index = choice.get("index")
        if isinstance(index, int) and index > 0:
            self._lose("choices[n>1]", deltas)
            return
        for name in others(choice, _chat.CHOICE, "choices."):
            self._lose(name, deltas, beside=True)
        text, logprobs = choice.get("text"), words.logprobs(choice.get("logprobs"))
        if isinstance(text, str) and (text or logprobs):
            deltas.append(TextDelta(text, logprobs))
        if choice.get("finish_reason") and not self._stopped:
            self._stopped = True
            deltas.append(words.stopped(choice))

    def _lose(self, kind: str, deltas: list[Delta], *, beside: bool = False) -> None:
        if kind not in self._unread:
            self._unread.add(kind)
            deltas.append(Unread(kind, beside))
