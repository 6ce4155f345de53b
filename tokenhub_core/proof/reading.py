"""One side of an answer, read as it goes by: its bytes, its tool calls, its words. Pure.

A stream is read event by event and only its calls are held, because what they mean is known at their end; its words
too where they are asked for. What cannot be read is no error of whoever sends it on: the side then says that it was
not read, and has the calls that came before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import Struct, structs

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.base import DialectModule, EventParser
from tokenhub_core.dispatch.seams import joined
from tokenhub_core.proof import canon
from tokenhub_core.quirks.repairs import UNTOUCHED, AnswerRepairs
from tokenhub_core.types import (
    Answer,
    Audio,
    Delta,
    Finished,
    MediaDelta,
    Refusal,
    RefusalDelta,
    Text,
    TextDelta,
    ToolArguments,
    ToolStarted,
    ToolUse,
)

MOST: Final = 64 << 20
"""Bytes of one side that are understood; a longer one is hashed to its end, and told as not read."""


class Called(Struct, frozen=True):
    """One tool call. What it says is in memory for as long as the answer is under way, and nowhere else."""

    id: str
    name: str
    hash: bytes
    arguments: str = ""

    def __repr__(self) -> str:
        return f"Called({self.hash.hex()[:8]})"


class Side(Struct, frozen=True):
    """What one side of an answer came to."""

    calls: tuple[Called, ...] = ()
    text: str = ""
    """The words, in memory as a call's arguments are;"""
    said: bytes = b""
    """and their hash. Empty where words are not looked at."""
    voiced: bytes = b""
    """The hash with what sound says among them, empty where there is none."""
    size: int = 0
    raw: bytes = b""
    """The hash of all bytes."""
    whole: bool = False
    """It came to its own end."""
    read: bool = True
    """It could be understood."""

    def __repr__(self) -> str:
        return f"Side({len(self.calls)} calls, {self.size} bytes)"


class Sides(Struct, frozen=True):
    """What a provider sent, and what that is once it is repaired as its model's quirks say."""

    sent: Side
    mended: Side


def resumed(key: bytes, parts: Sequence[Sides]) -> Sides:
    """Return the last part of an answer that was gone on with, its words behind those of the parts before it.

    What goes on is text alone: calls are the last part's, and so are the bytes.
    """
    sent = _behind(key, [part.sent for part in parts])
    repaired = any(part.mended is not part.sent for part in parts)
    return Sides(sent, _behind(key, [part.mended for part in parts]) if repaired else sent)


def _behind(key: bytes, parts: Sequence[Side]) -> Side:
    *_, last = parts
    words = joined(part.text for part in parts)
    said = canon.text_hash(key, words) if last.said else b""
    return structs.replace(last, text=words, said=said, read=all(part.read for part in parts))


class Reading:
    """Reads one side. `parser` cuts a stream into events; None for an answer in one piece.

    `repairs` are what the engine does to such an answer; they are done here again, on what really came.
    """

    def __init__(
        self,
        key: bytes,
        dialect: DialectModule,
        parser: EventParser | None,
        *,
        texts: bool,
        repairs: AnswerRepairs = UNTOUCHED,
    ) -> None:
        self._key = key
        self._dialect = dialect
        self._parser = parser
        self._repairs = repairs
        self._hash = canon.body_hash(key)
        self._size = 0
        self._read = True
        self._pieces: list[bytes] = []
        self._sent = _Gathered(key, texts=texts)
        self._mended = self._sent if repairs.idle else _Gathered(key, texts=texts)
        self._reader = dialect.reader() if parser is not None else None
        self._mender = repairs.reader(dialect.reader()) if parser is not None and not repairs.idle else None
        self._ended: Sides | None = None

    def feed(self, data: bytes) -> None:
        """Take the next bytes; those that come after the end are nobody's. Never raises."""
        if self._ended is not None:
            return
        self._hash.update(data)
        self._size += len(data)
        if self._size > MOST:
            self._read = False
        if not self._read:
            return
        if self._parser is None:
            self._pieces.append(data)
            return
        try:
            for event in self._parser.feed(data):
                self._take(event.name, event.data)
        except Exception:  # noqa: BLE001 -- whatever is wrong with the bytes, they go on
            self._read = False

    def end(self) -> Sides:
        """Return what it came to. Never raises."""
        if self._ended is None:
            if self._read:
                try:
                    self._finish()
                except Exception:  # noqa: BLE001 -- as above
                    self._read = False
            self._pieces.clear()
            raw = self._hash.digest()
            sent = self._sent.side(self._size, raw, read=self._read)
            mended = (
                sent if self._mended is self._sent else self._mended.side(self._size, raw, read=self._read)
            )
            self._ended = Sides(sent, mended)
        return self._ended

    def _take(self, name: str, data: bytes) -> None:
        if not data or self._reader is None or self._sent.whole:
            return
        self._sent.take(self._reader.read(name, data))
        if self._mender is not None:
            self._mended.take(self._mender.read(name, data))

    def _finish(self) -> None:
        if self._parser is None:
            answer = self._dialect.parse_answer(wire.decode(b"".join(self._pieces), repeats=True))
            self._sent.take_answer(answer)
            if self._mended is not self._sent:
                self._mended.take_answer(self._repairs.answer(answer)[0])
            return
        for event in self._parser.flush():
            self._take(event.name, event.data)
        if self._reader is not None and not self._sent.whole:
            self._sent.take(self._reader.end())
            if self._mender is not None:
                self._mended.take(self._mender.end())


class _Gathered:
    """Calls and words as they come."""

    def __init__(self, key: bytes, *, texts: bool) -> None:
        self._key = key
        self._texts = texts
        self._words: list[str] = []
        self._spoken: dict[int, str] = {}
        """What sound says, by how many words came before."""
        self._calls: dict[int, tuple[str, str, list[str]]] = {}
        self.whole = False

    def take(self, deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            match delta:
                case ToolStarted(index, id_, name):
                    self._calls[index] = (id_, name, [])
                case ToolArguments(index, fragment):
                    self._calls.setdefault(index, ("", "", []))[2].append(fragment)
                case TextDelta(text) | RefusalDelta(text) if self._texts:
                    self._words.append(text)
                case MediaDelta(part=Audio(transcript=text)) if self._texts:
                    self._speak(text)
                case Finished():
                    self.whole = True
                case _:
                    pass

    def take_answer(self, answer: Answer) -> None:
        for part in answer.parts:
            match part:
                case ToolUse(id_, name, arguments):
                    self._calls[len(self._calls)] = (id_, name, [arguments])
                case Text(text) | Refusal(text) if self._texts:
                    self._words.append(text)
                case Audio(transcript=text) if self._texts:
                    self._speak(text)
                case _:
                    pass
        self.whole = True

    def _voiced(self) -> str:
        places = range(len(self._words) + 1)
        return "".join(self._spoken.get(n, "") + "".join(self._words[n : n + 1]) for n in places)

    def _speak(self, text: str) -> None:
        self._spoken[len(self._words)] = self._spoken.get(len(self._words), "") + text

    def side(self, size: int, raw: bytes, *, read: bool) -> Side:
        calls = [(id_, name, "".join(fragments)) for id_, name, fragments in self._calls.values()]
        words = "".join(self._words)
        return Side(
            tuple(
                Called(id_, name, canon.call_hash(self._key, name, arguments), arguments)
                for id_, name, arguments in calls
            ),
            words,
            canon.text_hash(self._key, words) if self._texts else b"",
            canon.text_hash(self._key, self._voiced()) if self._spoken else b"",
            size,
            raw,
            self.whole,
            read,
        )


def parser_of(dialect: DialectModule, content_type: str, *, begins: bytes) -> EventParser | None:
    """Return what cuts an answer into events, None where it comes in one piece.

    One type of body can be either (an array of JSON is a stream, an object is none): `begins` are its first bytes.
    """
    if content_type.partition(";")[
        0
    ].strip().lower() == "application/json" and not begins.lstrip().startswith(b"["):
        return None
    return dialect.parser(content_type)
