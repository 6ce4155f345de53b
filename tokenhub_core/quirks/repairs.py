"""The repairs of one call at one candidate: what the provider is told instead, and how its answer comes back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from msgspec import structs

from tokenhub_core.dialects.base import StreamReader
from tokenhub_core.quirks.base import Found, Scanner, Station
from tokenhub_core.quirks.table import QUIRKS
from tokenhub_core.types import (
    Answer,
    Call,
    Delta,
    Failed,
    Part,
    Reasoning,
    ReasoningDelta,
    Started,
    Stopped,
    StopReason,
    Text,
    TextDelta,
    ToolArguments,
    ToolStarted,
    ToolUse,
    Unread,
    UsageSeen,
)

_CALLED: Final = frozenset({StopReason.END, StopReason.STOP_SEQUENCE, StopReason.OTHER})
"""How a model that wrote its calls as text says that it stopped for their results."""
_LOGPROBS: Final = "logprobs"


@dataclass(frozen=True, slots=True)
class AnswerRepairs:
    """What is done to the answers of one call. Without anything to do, they are not touched and may pass as bytes."""

    names: Mapping[str, str] = field(default_factory=dict)
    """Names of tools that the provider was given, and the caller's own for them."""
    scanners: tuple[Callable[[], Scanner], ...] = ()
    stations: tuple[Callable[[], Station], ...] = ()
    """What every delta passes behind the scanners."""
    shaped: bool = False
    """Words may be left out: what the model has said is no measure of what the caller gets."""

    @property
    def idle(self) -> bool:
        """Tell whether there is nothing to do."""
        return not (self.names or self.scanners or self.stations)

    def reader(self, reader: StreamReader) -> StreamReader:
        """Return a reader of the repaired stream: `reader` itself where there is nothing to do."""
        return reader if self.idle else RepairedReader(reader, self._line())

    def answer(self, answer: Answer) -> tuple[Answer, tuple[str, ...]]:
        """Return the repaired answer, and the names of what it does not say any more."""
        if self.idle:
            return answer, ()
        line = self._line()
        losses: dict[str, None] = {}
        parts: list[Part] = []
        for part in answer.parts:
            if isinstance(part, Text):
                parts += _read(part, line, losses)
            elif isinstance(part, ToolUse):
                parts.append(replace(part, name=self.names.get(part.name, part.name)))
            else:
                parts.append(part)
        stop = next((delta for delta in line.feed(answer.stop) if isinstance(delta, Stopped)), answer.stop)
        rest = answer.rest
        if _LOGPROBS in losses and f"{_LOGPROBS}.refusal" in rest:
            rest = _without(rest, f"{_LOGPROBS}.refusal")
        return structs.replace(answer, parts=tuple(parts), stop=stop, rest=rest), tuple(losses)

    def _line(self) -> _Line:
        last = [make() for make in self.stations]
        return _Line([*(_Scanned(make()) for make in self.scanners), _Renamed(self.names), *last])


UNTOUCHED: Final = AnswerRepairs()
"""For answers that need no repair."""


@dataclass(frozen=True, slots=True)
class Repairs:
    """A repaired call, the names of what it does not say any more, and what its answers need."""

    call: Call
    losses: tuple[str, ...] = ()
    answers: AnswerRepairs = UNTOUCHED


def repaired(call: Call, quirks: Collection[str]) -> Repairs:
    """Return `call` with the repairs of these names; the very same object in it where nothing was to be repaired.

    A name that no repair has says nothing.
    """
    losses: list[str] = []
    names: dict[str, str] = {}
    scanners: list[Callable[[], Scanner]] = []
    for name, quirk in QUIRKS.items():
        if name not in quirks:
            continue
        done = quirk.repair(call)
        call = done.call
        losses += done.losses
        names |= done.names
        if done.scanner is not None:
            scanners.insert(0, done.scanner)
    return Repairs(call, tuple(dict.fromkeys(losses)), AnswerRepairs(names, tuple(scanners)))


# --- streams -----------------------------------------------------------------------------------------------


class RepairedReader:
    """A reader whose deltas have passed the repairs."""

    def __init__(self, reader: StreamReader, line: _Line) -> None:
        self._reader = reader
        self._line = line
        self.words = 0
        """Characters of text that the model has said."""

    def read(self, event: str, data: bytes) -> Sequence[Delta]:
        """Return the repaired deltas of one event."""
        read = self._reader.read(event, data)
        self.words += sum(len(delta.text) for delta in read if isinstance(delta, TextDelta))
        return [after for delta in read for after in self._line.feed(delta)]

    def end(self) -> Sequence[Delta]:
        """Return the repaired deltas of the body's end."""
        return [after for delta in self._reader.end() for after in self._line.feed(delta)]


class _Line:
    """Stations that every delta passes in turn."""

    def __init__(self, stations: Sequence[Station]) -> None:
        self._stations = stations

    def feed(self, delta: Delta) -> list[Delta]:
        """Return what becomes of one delta."""
        deltas = [delta]
        for station in self._stations:
            deltas = [after for before in deltas for after in station.feed(before)]
        return deltas

    def flush(self) -> list[Delta]:
        """Return what the stations hold back."""
        deltas: list[Delta] = []
        for station in self._stations:
            deltas = [after for before in deltas for after in station.feed(before)]
            deltas += station.flush()
        return deltas


class _Scanned:
    """The station of one scanner."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._calls = 0
        """How many calls there are, the scanner's and those that were told as such."""
        self._own: dict[int, int] = {}
        self._told: dict[int, int] = {}

    def feed(self, delta: Delta) -> Sequence[Delta]:
        """Return what becomes of one delta."""
        match delta:
            case TextDelta(text, tokens):
                found = self._numbered(self._scanner.feed(text))
                if not tokens:
                    return found
                # Tokens that are not the text's any more would be told of the wrong words.
                return (delta,) if found == [TextDelta(text)] else [*found, Unread(_LOGPROBS)]
            case Started() | UsageSeen() | Unread() | Failed():
                return (delta,)
            case Stopped(reason):
                if self._own and reason in _CALLED:
                    delta = Stopped(StopReason.TOOL_USE)
                return [*self.flush(), delta]
            case ToolStarted(index):
                delta = structs.replace(delta, index=self._number(self._told, index))
                return [*self.flush(), delta]
            case ToolArguments(index):
                return (structs.replace(delta, index=self._told.get(index, index)),)
            case _:
                return [*self.flush(), delta]

    def flush(self) -> list[Delta]:
        """Return what the scanner holds back."""
        return self._numbered(self._scanner.flush())

    def _numbered(self, found: Iterable[Found]) -> list[Delta]:
        """Return what was found, its calls counted together with those that were told as such."""
        deltas: list[Delta] = []
        for delta in found:
            match delta:
                case ToolStarted(index):
                    deltas.append(structs.replace(delta, index=self._number(self._own, index)))
                case ToolArguments(index):
                    deltas.append(structs.replace(delta, index=self._own[index]))
                case TextDelta(text) if deltas and isinstance(last := deltas[-1], TextDelta):
                    deltas[-1] = TextDelta(last.text + text)
                case _:
                    deltas.append(delta)
        return deltas

    def _number(self, known: dict[int, int], index: int) -> int:
        known[index] = self._calls
        self._calls += 1
        return known[index]


class _Renamed:
    """The station that gives tools their own names back."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def feed(self, delta: Delta) -> Sequence[Delta]:
        """Return what becomes of one delta."""
        if isinstance(delta, ToolStarted):
            delta = structs.replace(delta, name=self._names.get(delta.name, delta.name))
        return (delta,)

    def flush(self) -> Sequence[Delta]:
        """Return nothing: this station holds nothing back."""
        return ()


# --- whole answers -----------------------------------------------------------------------------------------


def _read(part: Text, line: _Line, losses: dict[str, None]) -> list[Part]:
    """Return what a text holds: the very same part where that is nothing but words."""
    found = _gathered([*line.feed(TextDelta(part.text)), *line.flush()])
    if found == [Text(part.text)]:
        return [part]
    losses |= dict.fromkeys(part.rest)
    if part.logprobs:
        losses[_LOGPROBS] = None
    return found


def _gathered(deltas: Iterable[Delta]) -> list[Part]:
    """Return deltas as the parts they are of."""
    parts: list[Part] = []
    thought = 0
    for delta in deltas:
        last = parts[-1] if parts else None
        match delta, last:
            case TextDelta(text), Text(before):
                parts[-1] = Text(before + text)
            case TextDelta(text), _:
                parts.append(Text(text))
            case ReasoningDelta(text=text, part=number), Reasoning(before) if number == thought:
                parts[-1] = Reasoning(before + text)
            case ReasoningDelta(text=text, part=thought), _:
                parts.append(Reasoning(text))
            case ToolStarted(_, id_, name), _:
                parts.append(ToolUse(id_, name, ""))
            case ToolArguments(_, fragment), ToolUse(arguments=before):
                parts[-1] = replace(last, arguments=before + fragment)
            case _:
                pass
    return parts


def _without(rest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a copy, of the same kind, without one field."""
    kept = dict(rest) if not isinstance(rest, dict) else copy.copy(rest)
    kept.pop(name)
    return kept
