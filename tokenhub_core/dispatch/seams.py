"""Where one attempt's text ends in the middle, and another one's goes on from there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

import msgspec
from msgspec import structs

from tokenhub_core.dialects.sse import Event
from tokenhub_core.types import (
    Delta,
    Dialect,
    Finished,
    Started,
    Stopped,
    TextDelta,
    Unread,
    Usage,
    UsageSeen,
)

RESUMED: Final = "resumed"
"""`Attempt.change` of what goes on with an answer."""
MAX_BEGUN: Final = 1 << 20
"""Characters of an answer that is gone on with."""


class Output(Protocol):
    """Turns one event and its deltas into the caller's bytes."""

    def write(self, event: Event, deltas: tuple[Delta, ...]) -> bytes:
        """Return what the caller reads of this event."""
        ...

    def losses(self) -> tuple[str, ...]:
        """Return what could not be carried so far."""
        ...


class Begun(msgspec.Struct, frozen=True):
    """A part of an answer that the caller has read, nothing but text, and what writes on from there."""

    text: str
    output: Output
    held: bytes
    """What was written of it and has not left yet."""
    usage: Usage
    """What all attempts have used that it is of; the caller is told of it with that of the rest."""


class Seam:
    """Follows one attempt's text, and fits its beginning to what was said before."""

    def __init__(self, begun: Begun | None = None) -> None:
        self._begun = begun
        self._said: list[str] | None = [begun.text] if begun is not None else []
        self._size = 0
        # No provider is shown them, and some say them once more.
        self._blanks = _blanks(begun.text) if begun is not None else ""

    def fit(self, deltas: tuple[Delta, ...]) -> tuple[Delta, ...]:
        """Return the deltas without the blanks that the caller has read already."""
        return tuple(map(self._fitted, deltas)) if self._blanks else deltas

    def _fitted(self, delta: Delta) -> Delta:
        if not isinstance(delta, TextDelta) or not delta.text:
            return delta
        shared = _shared(delta.text, self._blanks)
        # Behind the first other character everything is new.
        self._blanks = self._blanks[shared:] if shared == len(delta.text) else ""
        return structs.replace(delta, text=delta.text[shared:])

    def follow(self, deltas: tuple[Delta, ...]) -> None:
        """Take note of the text, as long as there is nothing but text."""
        if self._said is None:
            return
        for delta in deltas:
            match delta:
                case TextDelta(text, ()):
                    self._said.append(text)
                    self._size += len(text)
                case Started() | UsageSeen() | Unread(beside=True):
                    pass
                case _:
                    self._said = None
                    return
        if self._size > MAX_BEGUN:
            self._said = None

    def text(self) -> str:
        """Return the caller's text so far; empty where there is none, or where nobody could go on with it."""
        text = "".join(self._said or ())
        return text if text.strip() else ""

    def output(self) -> Output | None:
        """Return what writes on, None where there is nothing to go on with."""
        return None if self._begun is None else _Rest(self._begun.output, self._begun.usage)


class Beside:
    """What passes as it came, beside a writer that only listens, so that it can go on from there."""

    def __init__(self, passed: Output, inner: Output) -> None:
        self._passed = passed
        self.inner = inner

    def write(self, event: Event, deltas: tuple[Delta, ...]) -> bytes:
        """Return what passes."""
        self.inner.write(event, deltas)
        return self._passed.write(event, deltas)

    def losses(self) -> tuple[str, ...]:
        """Return what could not be carried of what passes."""
        return self._passed.losses()


class _Rest:
    """The rest of an answer: it has no beginning of its own, and its usage comes on top."""

    def __init__(self, inner: Output, before: Usage) -> None:
        self.inner = inner
        self._before = before
        self._usage = Usage()

    def write(self, event: Event, deltas: tuple[Delta, ...]) -> bytes:
        """Return the deltas in the caller's dialect. Of an attempt that comes to no content nothing is kept."""
        told: list[Delta] = []
        for delta in deltas:
            match delta:
                case Started():
                    pass
                case UsageSeen(usage):
                    self._usage = self._usage.merge(usage)
                case Stopped() | Finished() if self._usage:
                    told += (UsageSeen(self._before.plus(self._usage)), delta)
                case _:
                    told.append(delta)
        return self.inner.write(event, tuple(told))

    def losses(self) -> tuple[str, ...]:
        """Return what could not be carried so far."""
        return self.inner.losses()


def joined(parts: Iterable[str]) -> str:
    """Return what the caller reads of an answer whose parts said this."""
    text = ""
    for part in parts:
        text += part[_shared(part, _blanks(text)) :]
    return text


def _blanks(text: str) -> str:
    """Return the blanks that a text ends in."""
    return text[len(text.rstrip()) :]


def _shared(text: str, blanks: str) -> int:
    """Return for how many characters they begin alike."""
    pairs = zip(text, blanks, strict=False)
    return next((at for at, (new, old) in enumerate(pairs) if new != old), min(len(text), len(blanks)))


def innermost(output: Output) -> Output:
    """Return what writes, whatever rest it is written as."""
    return output.inner if isinstance(output, _Rest | Beside) else output


def listens(dialect: Dialect) -> bool:
    """Tell whether a writer that only listened can go on with a stream of this dialect.

    In Responses every event has its number, and names the item that it is of: those of another writer are others.
    """
    return dialect is not Dialect.OPENAI_RESPONSES
