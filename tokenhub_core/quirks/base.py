"""What a repair is: one function of the call, which also says what is to be done to the answer.

A repair that changes something on the way in often has to undo it on the way out, so both halves are made
together, once per call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tokenhub_core.types import Call, Delta, ReasoningDelta, TextDelta, ToolArguments, ToolStarted

type Found = TextDelta | ReasoningDelta | ToolStarted | ToolArguments
"""What a model's text may turn out to be."""


class Scanner(Protocol):
    """Reads the text of one answer as it comes. What it finds does not depend on where the text was cut."""

    def feed(self, text: str) -> list[Found]:
        """Return what is certain now; at most the beginning of a tag, or of a call, is held back."""
        ...

    def flush(self) -> list[Found]:
        """Return what was held back, as what it is if nothing more follows."""
        ...


class Station(Protocol):
    """Something that every delta of an answer passes."""

    def feed(self, delta: Delta) -> Sequence[Delta]:
        """Return what becomes of one delta."""
        ...

    def flush(self) -> Sequence[Delta]:
        """Return what is held back."""
        ...


@dataclass(frozen=True, slots=True)
class Repaired:
    """A call after one repair; the very same object where nothing was to be repaired."""

    call: Call
    losses: tuple[str, ...] = ()
    """Names of what the repaired call does not say any more."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Names of tools that the provider is given, and the caller's own for them."""
    scanner: Callable[[], Scanner] | None = None
    """Makes what reads the answer's text; None where that is left alone."""


@dataclass(frozen=True, slots=True)
class Quirk:
    """One named repair."""

    text: str
    """What it does, in a sentence; stands in the manual."""
    repair: Callable[[Call], Repaired]
