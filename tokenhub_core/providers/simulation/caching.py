"""Which beginnings of conversations a vendor's prompt cache holds."""

from __future__ import annotations

from typing import Final

from tokenhub_core.providers.simulation.asking import Ask, Prefix
from tokenhub_core.providers.simulation.errors import ANTHROPIC
from tokenhub_core.providers.simulation.playing import Cached

LEAST: Final = 1024
"""Shorter prefixes are not cached."""
_STEP: Final = 128
_MOST: Final = 10_000


class PromptCache:
    """Remembers prefixes that were sent, the latest ones.

    Anthropic caches up to the blocks that are marked, and reads any block that it took in before; it counts what is
    written. The others cache every prefix by themselves, and count in steps of 128 tokens.
    """

    def __init__(self) -> None:
        self._known: dict[str, None] = {}

    def meet(self, ask: Ask) -> Cached:
        """Return what of this request is cached already, and take it in."""
        long = [one for one in ask.prefixes if one.tokens >= LEAST]
        explicit = ask.dialect in ANTHROPIC
        if explicit:
            end = max((at for at, one in enumerate(long) if one.marked), default=-1)
            long = long[: end + 1]
        read = max((one.tokens for one in long if one.digest in self._known), default=0)
        for one in long:
            if one.marked or not explicit:
                self._take(one)
        if explicit:
            return Cached(read, long[-1].tokens - read if long else 0)
        return Cached(read - read % _STEP)

    def _take(self, prefix: Prefix) -> None:
        self._known.pop(prefix.digest, None)
        self._known[prefix.digest] = None
        if len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
