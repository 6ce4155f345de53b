"""Text cut at a length, where it can be: between what a reader takes for characters.

The boundaries are those of Unicode's grapheme clusters (UAX #29, table 1c), as far as one property each can tell:
combining marks, joiners, modifiers of emoji, flags, syllables of Hangul.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from tokenhub_core.types import Delta, Failed, Started, Stopped, StopReason, TextDelta, Unread, UsageSeen

ELLIPSIS: Final = "…"
"""What ends a text that was cut."""

_JOINER: Final = "\u200d"
_FLAGS: Final = ("\U0001f1e6", "\U0001f1ff")
_MODIFIERS: Final = (("\U0001f3fb", "\U0001f3ff"), ("\U000e0020", "\U000e007f"), ("\u200c", "\u200c"))
_LEADING: Final = (("\u1100", "\u115f"), ("\ua960", "\ua97c"))
_VOWELS: Final = (("\u1160", "\u11a7"), ("\ud7b0", "\ud7c6"))
_TRAILING: Final = (("\u11a8", "\u11ff"), ("\ud7cb", "\ud7fb"))
_SYLLABLES: Final = ("\uac00", "\ud7a3")


class Cut:
    """A station of an answer's deltas: at most `limit` bytes of text (UTF-8), then an ellipsis, and nothing more.

    What is no text passes. An answer that was cut has stopped for its length.
    """

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._held = ""
        """The last cluster: more of it may follow."""
        self._over = False

    def feed(self, delta: Delta) -> Sequence[Delta]:
        """Return what becomes of one delta."""
        match delta:
            case TextDelta(text, tokens):
                # Tokens that are not the text's any more would be told of the wrong words.
                return [*self._said(text), Unread("logprobs")] if tokens else self._said(text)
            case Stopped() if self._over:
                return (Stopped(StopReason.LENGTH),)
            case Stopped():
                held = self.flush()
                return (*held, Stopped(StopReason.LENGTH) if self._over else delta)
            case Started() | UsageSeen() | Unread() | Failed():
                return (delta,)
            case _:
                return (*self.flush(), delta)

    def flush(self) -> list[Delta]:
        """Return what was held back."""
        held, self._held = self._held, ""
        return self._within(held)

    def _said(self, text: str) -> list[Delta]:
        if self._over:
            return []
        before = len(self._held)
        text, self._held = self._held + text, ""
        # What was held has no boundary inside: it is not looked through again.
        at = next((i for i in range(len(text) - 1, max(before, 1) - 1, -1) if breaks(text, i)), 0)
        self._held = text[at:]
        found = self._within(text[:at])
        if len(self._held.encode("utf-8", "surrogatepass")) > self._left:
            found += self._end()
        return found

    def _within(self, text: str) -> list[Delta]:
        if self._over or not text:
            return []
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if size <= self._left:
            self._left -= size
            return [TextDelta(text)]
        kept = cut(text, self._left)
        return [*([TextDelta(kept)] if kept else []), *self._end()]

    def _end(self) -> list[Delta]:
        self._over, self._held = True, ""
        return [TextDelta(ELLIPSIS)]


def cut(text: str, limit: int) -> str:
    """Return the longest beginning of `text` that has at most `limit` bytes and ends with a whole cluster."""
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= limit:
        return text
    at = len(raw[:limit].decode("utf-8", "ignore"))
    while at > 0 and not breaks(text, at):
        at -= 1
    return text[:at]


def breaks(text: str, at: int) -> bool:
    """Tell whether a cluster ends before the character at `at`, which is not the first."""
    before, after = text[at - 1], text[at]
    if before.isascii() and after.isascii():
        return not (before == "\r" and after == "\n")
    if before in "\r\n" or after in "\r\n":
        return True
    if _JOINER in (before, after) or _extends(after):
        return False
    if _within(before, (_FLAGS,)) and _within(after, (_FLAGS,)):
        return _run_of_flags(text, at) % 2 == 0
    return not _syllable(before, after)


def _extends(char: str) -> bool:
    return unicodedata.category(char)[0] == "M" or _within(char, _MODIFIERS)


def _within(char: str, ranges: Sequence[tuple[str, str]]) -> bool:
    return any(first <= char <= last for first, last in ranges)


def _run_of_flags(text: str, at: int) -> int:
    start = at
    while start > 0 and _FLAGS[0] <= text[start - 1] <= _FLAGS[1]:
        start -= 1
    return at - start


def _syllable(before: str, after: str) -> bool:
    """Tell whether two characters are of one syllable of Hangul (rules GB6 to GB8)."""
    if _within(before, _LEADING):
        return _within(after, (*_LEADING, *_VOWELS, _SYLLABLES))
    whole = _within(before, (_SYLLABLES,))
    if _within(before, _VOWELS) or (whole and (ord(before) - ord(_SYLLABLES[0])) % 28 == 0):
        return _within(after, (*_VOWELS, *_TRAILING))
    return (whole or _within(before, _TRAILING)) and _within(after, _TRAILING)
