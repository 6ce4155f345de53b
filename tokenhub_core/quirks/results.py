"""Tool calls and their results, paired: a provider refuses a conversation in which one stands without the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tokenhub_core.quirks.base import Repaired
from tokenhub_core.types import Call, Dialect, Part, Role, Text, ToolResult, ToolUse, Turn

_NO_RESULT: Final = "no result was given"
_GROUPED: Final = frozenset({Dialect.ANTHROPIC_MESSAGES, Dialect.GEMINI})
"""Dialects that tell the results of parallel calls in one message; the others take one message for each."""


def orphan_tool_results(call: Call) -> Repaired:
    """Return the call with each tool call answered right behind it, and no result that answers nothing."""
    pairing = _Pairing(grouped=call.dialect in _GROUPED)
    for turn in call.turns:
        pairing.take(turn)
    turns = pairing.done()
    losses = tuple(dict.fromkeys(pairing.losses))
    return Repaired(replace(call, turns=turns) if pairing.changed else call, losses)


class _Pairing:
    """Goes through a conversation once."""

    def __init__(self, *, grouped: bool) -> None:
        self._grouped = grouped
        self._turns: list[Turn] = []
        self._open: dict[str, None] = {}
        """Ids of calls that wait for their results."""
        self._strays: list[Part] = []
        """What the user is made to say, once the row of results has ended."""
        self.changed = False
        self.losses: list[str] = []

    def take(self, turn: Turn) -> None:
        """Add one turn."""
        results = [part for part in turn.parts if isinstance(part, ToolResult)]
        last = self._turns[-1].role if self._turns else None
        goes_on = turn.role is Role.TOOL or (turn.role is Role.ASSISTANT and last is Role.ASSISTANT)
        if not results and not goes_on:
            self._close()
        kept = tuple(part for part in turn.parts if self._fits(part))
        if len(kept) == len(turn.parts):
            self._turns.append(turn)
        elif kept:
            self._turns.append(replace(turn, parts=kept))
        else:
            self.losses += turn.rest
        for part in turn.parts:
            if isinstance(part, ToolUse) and part.id:
                self._open[part.id] = None

    def done(self) -> tuple[Turn, ...]:
        """Return the turns."""
        self._close()
        return tuple(self._turns)

    def _fits(self, part: Part) -> bool:
        """Tell whether a part may stay; a result that answers no open call is put aside as words."""
        # Without an id, results are told apart by their places, and those are right as far as we know.
        if not isinstance(part, ToolResult) or not part.id:
            return True
        if part.id in self._open:
            del self._open[part.id]
            return True
        self.changed = True
        kind = "Error" if part.is_error else "Result"
        self._strays.append(Text(f"{kind} of the tool call {part.id}, which is not shown here:"))
        self._strays += part.content
        self.losses += part.rest
        return False

    def _close(self) -> None:
        """End a row of results: what is missing is added, what was put aside is said."""
        missing = [ToolResult(id_, (Text(_NO_RESULT),), is_error=True) for id_ in self._open]
        self._open.clear()
        if missing:
            self.changed = True
            last = self._turns[-1]
            if self._grouped and last.role is Role.TOOL:
                self._turns[-1] = replace(last, parts=(*last.parts, *missing))
            elif self._grouped:
                self._turns.append(Turn(Role.TOOL, tuple(missing)))
            else:
                self._turns += [Turn(Role.TOOL, (result,)) for result in missing]
        if self._strays:
            self._turns.append(Turn(Role.USER, tuple(self._strays)))
            self._strays.clear()
