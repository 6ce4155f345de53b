"""Whether what a caller was given is what the provider sent. Pure."""

from __future__ import annotations

from enum import StrEnum
from itertools import zip_longest
from typing import Final

from msgspec import Struct

from tokenhub_core.proof.reading import Called, Side, Sides
from tokenhub_core.types import Dialect


class Verdict(StrEnum):
    """What became of a tool call, or of an answer, from the best to the worst."""

    SAME = "same"
    LOST = "lost"
    """The caller's dialect has no tool calls: it was left out, as the call's losses say."""
    QUIRK = "changed:quirk"
    """Repaired as the quirks of the model say, and nothing else was done to it."""
    PARTIAL = "partial"
    """The answer ended before it: what was given of it is how it begins."""
    UNPROVED = "unproved"
    """The answer of an earlier call was given again, and nothing is known of what was received for that one."""
    CHANGED = "changed"
    """It is not what the provider sent."""


_WORST: Final = tuple(Verdict)
_SPEECHLESS: Final = frozenset({Dialect.OPENAI_COMPLETIONS, Dialect.OLLAMA_GENERATE})
"""Dialects that have no tool calls."""


class Judged(Struct, frozen=True):
    """One tool call on both sides; None where that side has none in this place."""

    sent: Called | None
    """As the provider sent it, before any repair."""
    given: Called | None
    verdict: Verdict


def judged(sides: Sides, given: Side, dialect: Dialect) -> tuple[Judged, ...]:
    """Compare call by call, in their order; `dialect` is the caller's.

    A call that nothing became of, and one that came from nowhere, is changed.
    """
    mended = sides.mended.calls
    original = _originals(sides)
    found: list[Judged] = []
    for place, (want, before, got) in enumerate(zip_longest(mended, original, given.calls)):
        if got is not None and want is not None and got.hash == want.hash:
            same = before is not None and before.hash == want.hash
            verdict = Verdict.SAME if same else Verdict.QUIRK
        else:
            verdict = _other(want, got, given, dialect, last=place == len(given.calls) - 1)
        found.append(Judged(before, got, verdict))
    return tuple(found)


def judged_text(sides: Sides, given: Side) -> Verdict:
    """Compare the words."""
    if given.said in {sides.sent.said, sides.sent.voiced or sides.sent.said}:
        return Verdict.SAME
    if given.said in {sides.mended.said, sides.mended.voiced or sides.mended.said}:
        return Verdict.QUIRK
    ended = given.whole and sides.mended.whole
    begun = sides.mended.text.startswith(given.text)
    return Verdict.PARTIAL if begun and not ended else Verdict.CHANGED


def worst(verdicts: list[Verdict]) -> Verdict:
    """Return the one that all others are better than."""
    return max(verdicts, key=_WORST.index, default=Verdict.SAME)


def _originals(sides: Sides) -> list[Called | None]:
    """Return, for each repaired call, the one that it was before: repairs keep ids, and make calls out of words."""
    if sides.sent is sides.mended:
        return list(sides.sent.calls)
    left = list(sides.sent.calls)
    found: list[Called | None] = []
    for call in sides.mended.calls:
        match = next(
            (one for one in left if (one.hash == call.hash) or (call.id and one.id == call.id)), None
        )
        if match is None and not call.id and left and len(left) == len(sides.mended.calls):
            match = left[0]
        if match is not None:
            left.remove(match)
        found.append(match)
    return found


def _other(want: Called | None, got: Called | None, given: Side, dialect: Dialect, *, last: bool) -> Verdict:
    """Return what became of a call that is not the one that was to be given."""
    if got is None:
        if dialect in _SPEECHLESS:
            return Verdict.LOST
        return Verdict.CHANGED if given.whole else Verdict.PARTIAL
    begun = want is not None and want.name == got.name and want.arguments.startswith(got.arguments)
    return Verdict.PARTIAL if begun and last and not given.whole else Verdict.CHANGED
