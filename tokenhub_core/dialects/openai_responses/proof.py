"""Seals in `encrypted_content`: the one place where this dialect's clients keep what they cannot read.

This dialect knows a single kind of seal, and has none on a tool call. Others have a signature on a thought
that can be read, a thought that is encrypted as a whole, and a signature on a call. So that each comes back as
what it was, the value of another dialect's seal ends with a word for its kind. None of the letters of base64
is a `#`.
"""

from __future__ import annotations

from enum import StrEnum

from tokenhub_core.dialects.seals import MARK, seal, shown
from tokenhub_core.types import Dialect


class Kind(StrEnum):
    """What a seal is on."""

    HIDDEN = ""
    """The thought itself, encrypted."""
    SIGNED = "#signed"
    """A thought that can be read: its signature."""
    CALL = "#call"
    """The tool call that follows."""


def write(sealed: str, kind: Kind) -> str:
    """Return the `encrypted_content` for a client; the kind is told of other dialects' seals only."""
    value = shown(Dialect.OPENAI_RESPONSES, sealed)
    return value + kind if value.startswith(MARK) else value


def read(value: str) -> tuple[str, Kind]:
    """Return the seal in an `encrypted_content`, and what it is on."""
    kind = Kind.HIDDEN
    if value.startswith(MARK):
        kind = next((each for each in (Kind.SIGNED, Kind.CALL) if value.endswith(each)), Kind.HIDDEN)
        value = value.removesuffix(kind)
    return seal(Dialect.OPENAI_RESPONSES, value), kind
