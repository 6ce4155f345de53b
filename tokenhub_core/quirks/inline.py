"""Tool calls that a model writes into its text.

Three ways are known: `<tool_call>` around an object with `name` and `arguments` (Hermes, Qwen), `<function=name>`
around the arguments (Llama), and a code fence named `tool_call` around such an object. Text that only looks like
one of them, or that names a tool which the call does not offer, stays text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tokenhub_core.quirks.base import Found, Repaired
from tokenhub_core.quirks.envelope import Envelope, Outcome
from tokenhub_core.types import Call, Choice, TextDelta, Tool

_TRIGGER: Final = re.compile(r"[<`]")
_TAG: Final = "<tool_call>"
_FUNCTION: Final = "<function="
_FENCE: Final = "```tool_call"
_BEHIND_FENCE: Final = frozenset("{ \t\r\n")


def inline_tool_calls(call: Call) -> Repaired:
    """Read tool calls out of the answer's text, where the call offers tools; the call is left alone."""
    offered = frozenset(tool.name for tool in call.tools if isinstance(tool, Tool))
    barred = call.tool_choice is not None and call.tool_choice.kind is Choice.NONE
    if not offered or barred:
        return Repaired(call)
    return Repaired(call, scanner=lambda: CallScanner(offered))


@dataclass(frozen=True, slots=True)
class _Opening:
    """The beginning of a call: where it ends, the name in it if it holds one, and what closes it."""

    end: int
    name: str
    closer: str


class CallScanner:
    """Tells calls of the `offered` tools from words in one answer."""

    def __init__(self, offered: Iterable[str]) -> None:
        self._offered = frozenset(offered)
        self._longest = max(map(len, self._offered), default=0)
        self._held = ""
        self._blank: list[str] = []
        """White space at the beginning or behind a call: it stays only where words follow it."""
        self._bare = True
        """No word was seen since the beginning or the last call."""
        self._calls = 0
        self._envelope: Envelope | None = None

    def feed(self, text: str) -> list[Found]:
        """Return the calls and words that are certain now."""
        text, self._held = self._held + text, ""
        found: list[Found] = []
        at = 0
        while at < len(text):
            before, envelope = at, self._envelope
            at = self._talk(text, at, found) if envelope is None else self._call(envelope, text, at, found)
            if at == before and self._envelope is envelope:
                break
        self._held = text[at:]
        return found

    def flush(self) -> list[Found]:
        """Return what was held back: words, unless it belongs to a call that has begun."""
        found: list[Found] = []
        held, self._held = self._held, ""
        if self._envelope is not None:
            # Behind a call that is told there may stand half a closing tag, which is nobody's words.
            held = "" if self._envelope.told else self._envelope.undone() + held
            self._envelope = None
        self._say(held, found)
        if self._bare and not self._calls and self._blank:
            found.append(TextDelta("".join(self._blank)))
        self._blank.clear()
        return found

    def _say(self, text: str, found: list[Found]) -> None:
        if not text:
            return
        if self._bare:
            self._blank.append(text)
            if text.isspace():
                return
            text = "".join(self._blank)
            self._blank.clear()
            self._bare = False
        found.append(TextDelta(text))

    # --- words

    def _talk(self, text: str, start: int, found: list[Found]) -> int:
        """Tell words up to the beginning of a call; return where it stands, or may yet stand."""
        at = start
        while mark := _TRIGGER.search(text, at):
            opening = self._opening(text, mark.start())
            if opening is None:
                at = mark.end()
                continue
            self._say(text[start : mark.start()], found)
            if isinstance(opening, int):
                return opening
            raw = text[mark.start() : opening.end]
            self._envelope = Envelope(
                self._offered, raw=raw, name=opening.name, closer=opening.closer, number=self._calls
            )
            return opening.end
        self._say(text[start:], found)
        return len(text)

    def _opening(self, text: str, at: int) -> _Opening | int | None:
        """Return the opening that stands here, `at` where the text breaks off in one, None where there is none."""
        for opener in (_TAG, _FUNCTION, _FENCE):
            if text.startswith(opener, at):
                return self._opened(text, at, opener)
            if opener.startswith(text[at : at + len(opener)]):
                return at
        return None

    def _opened(self, text: str, at: int, opener: str) -> _Opening | int | None:
        end = at + len(opener)
        if opener == _TAG:
            return _Opening(end, "", "</tool_call>")
        if opener == _FENCE:
            if end == len(text):
                return at
            return _Opening(end, "", "```") if text[end] in _BEHIND_FENCE else None
        stop = text.find(">", end, end + self._longest + 1)
        if stop >= 0:
            name = text[end:stop]
            return _Opening(stop + 1, name, "</function>") if name in self._offered else None
        begun = text[end : end + self._longest + 1]
        return at if any(name.startswith(begun) for name in self._offered) else None

    # --- calls

    def _call(self, envelope: Envelope, text: str, start: int, found: list[Found]) -> int:
        """Read on in a call; return where it ends, or how far it was read."""
        at, outcome = envelope.read(text, start, found)
        if envelope.number > self._calls:
            self._calls = envelope.number
            self._bare = True
            self._blank.clear()
        if outcome is not Outcome.OPEN:
            self._envelope = None
        if outcome is Outcome.WORDS:
            self._say(envelope.undone(), found)
        return at
