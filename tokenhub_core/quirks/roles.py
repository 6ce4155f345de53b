"""Who speaks when, for servers whose prompt template knows fewer roles and one order only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from tokenhub_core.dialects.openai_chat import kept as chat
from tokenhub_core.dialects.openai_responses import kept as responses
from tokenhub_core.quirks.base import Repaired
from tokenhub_core.types import Call, Part, Role, Text, Turn

_OPENING: Final = "(start)"
"""The user's first words where a conversation has none."""
_SPEAKERS: Final = frozenset({Role.USER, Role.ASSISTANT})


def developer_as_system(call: Call) -> Repaired:
    """Return the call with every message of the role `developer` as one of the role `system`."""
    if not any(_is_developer(turn) for turn in call.turns):
        return Repaired(call)
    turns = (replace(turn, rest=_plain(turn.rest)) if _is_developer(turn) else turn for turn in call.turns)
    return Repaired(replace(call, turns=tuple(turns)))


def _is_developer(turn: Turn) -> bool:
    rest = turn.rest
    return isinstance(rest, chat.Kept | responses.Kept) and rest.spelling.get("role") == "developer"


def _plain(rest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what was kept of a message without its word for the role."""
    match rest:
        case chat.Kept():
            return chat.Kept(rest, **_others(rest.spelling))
        case responses.Kept():
            return responses.Kept(rest, rest.silent, **_others(rest.spelling))
        case _:
            return rest


def _others(spelling: Mapping[str, str]) -> dict[str, str]:
    return {what: word for what, word in spelling.items() if what != "role"}


def system_first(call: Call) -> Repaired:
    """Return the call with all its system messages as one, before every other."""
    roles = [turn.role is Role.SYSTEM for turn in call.turns]
    if not any(roles[1:]):
        return Repaired(call)
    losses: list[str] = []
    first, *more = (turn for turn in call.turns if turn.role is Role.SYSTEM)
    for turn in more:
        first = _joined(first, turn, losses)
    others = (turn for turn in call.turns if turn.role is not Role.SYSTEM)
    return Repaired(replace(call, turns=(first, *others)), _told(losses))


def merge_turns(call: Call) -> Repaired:
    """Return the call with user and assistant by turns, the user first; tool results stay where they are."""
    speaking = [turn.role for turn in call.turns if turn.role is not Role.SYSTEM]
    begins = not speaking or speaking[0] is not Role.ASSISTANT
    if begins and not any(a.role is b.role and a.role in _SPEAKERS for a, b in pairwise(call.turns)):
        return Repaired(call)
    losses: list[str] = []
    turns: list[Turn] = []
    for turn in call.turns:
        if not begins and turn.role is not Role.SYSTEM:
            begins = True
            turns.append(Turn(Role.USER, (Text(_OPENING),)))
        if turns and turn.role in _SPEAKERS and turns[-1].role is turn.role:
            turns[-1] = _joined(turns[-1], turn, losses)
        else:
            turns.append(turn)
    return Repaired(replace(call, turns=tuple(turns)), _told(losses))


def _joined(first: Turn, second: Turn, losses: list[str]) -> Turn:
    """Return two turns as one: the words of both, and what else the first says of itself."""
    if second.name != first.name and second.name:
        losses.append("name")
    losses += (key for key, value in second.rest.items() if first.rest.get(key) != value)
    return replace(first, parts=_sewn(first.parts, second.parts))


def _sewn(first: tuple[Part, ...], second: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return the parts of both; plain text on both sides of the seam becomes one text of two paragraphs."""
    match first, second:
        case (*before, Text(a, {}) as left), (Text(b, {}) as right, *after) if not (left.rest or right.rest):
            return (*before, Text(f"{a}\n\n{b}"), *after)
        case _:
            return first + second


def _told(losses: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(losses))
