"""Tool names and tool call ids that a provider would refuse, rewritten.

Names come back with the model's calls and are then turned into the caller's own. Ids do not: an answer's calls
are new ones, and the provider gives them ids that it takes back.

What a word becomes depends on the word alone, so that a conversation that is sent again looks the same to the
provider's cache. Only where that meets another word of the same call is it made to differ.
"""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from tokenhub_core.quirks.base import Repaired
from tokenhub_core.types import Call, Part, Tool, ToolResult, ToolUse

_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,40}")
_NINE: Final = re.compile(r"[a-zA-Z0-9]{9}")
_FOREIGN: Final = re.compile(r"[^a-zA-Z0-9_-]+")
_DIGITS: Final = string.digits + string.ascii_letters
_LONGEST_NAME: Final = 64
_LONGEST_ID: Final = 40


def tool_names(call: Call) -> Repaired:
    """Return the call with every tool under a name of at most 64 plain characters."""
    renamed = _renamed(_names(call), _NAME, lambda name, n: _readable(name, n, _LONGEST_NAME))
    if not renamed:
        return Repaired(call)

    def part(old: Part) -> Part:
        return replace(old, name=renamed.get(old.name, old.name)) if isinstance(old, ToolUse) else old

    choice = call.tool_choice
    if choice is not None:
        choice = replace(choice, name=renamed.get(choice.name, choice.name))
    tools = tuple(
        replace(tool, name=renamed.get(tool.name, tool.name)) if isinstance(tool, Tool) else tool
        for tool in call.tools
    )
    turns = tuple(
        replace(turn, parts=tuple(map(part, turn.parts)), name=renamed.get(turn.name, turn.name))
        if turn.role == "tool"
        else replace(turn, parts=tuple(map(part, turn.parts)))
        for turn in call.turns
    )
    mended = replace(call, tools=tools, turns=turns, tool_choice=choice)
    return Repaired(mended, names={new: old for old, new in renamed.items()})


def tool_call_ids(call: Call) -> Repaired:
    """Return the call with every tool call id of at most 40 plain characters."""
    return _with_ids(call, _ID, lambda id_, n: _readable(id_, n, _LONGEST_ID))


def short_tool_call_ids(call: Call) -> Repaired:
    """Return the call with every tool call id of exactly nine letters and digits."""
    return _with_ids(call, _NINE, _nine)


def _with_ids(call: Call, good: re.Pattern[str], make: Callable[[str, int], str]) -> Repaired:
    renamed = _renamed(_ids(call), good, make)
    if not renamed:
        return Repaired(call)

    def part(old: Part) -> Part:
        if isinstance(old, ToolUse | ToolResult):
            return replace(old, id=renamed.get(old.id, old.id))
        return old

    turns = tuple(replace(turn, parts=tuple(map(part, turn.parts))) for turn in call.turns)
    return Repaired(replace(call, turns=turns))


def _names(call: Call) -> Iterator[str]:
    for tool in call.tools:
        if isinstance(tool, Tool):
            yield tool.name
    for turn in call.turns:
        for part in turn.parts:
            if isinstance(part, ToolUse):
                yield part.name


def _ids(call: Call) -> Iterator[str]:
    for turn in call.turns:
        for part in turn.parts:
            if isinstance(part, ToolUse | ToolResult):
                yield part.id


def _renamed(
    words: Iterable[str], good: re.Pattern[str], make: Callable[[str, int], str]
) -> Mapping[str, str]:
    """Return what each word becomes that is not `good`; an empty one, which names nothing, is left as it is."""
    seen = dict.fromkeys(words)
    taken = {word for word in seen if good.fullmatch(word)}
    renamed: dict[str, str] = {}
    for word in seen:
        if not word or word in taken:
            continue
        n = 0
        while (new := make(word, n)) in taken:
            n += 1
        taken.add(new)
        renamed[word] = new
    return renamed


def _digest(word: str, n: int) -> bytes:
    return hashlib.sha256(f"{word}\0{n}".encode() if n else word.encode()).digest()


def _readable(word: str, n: int, longest: int) -> str:
    """Return what is readable of the word, and eight digits of its digest."""
    return f"{_FOREIGN.sub('_', word)[: longest - 9]}_{_digest(word, n).hex()[:8]}"


def _nine(word: str, n: int) -> str:
    number = int.from_bytes(_digest(word, n))
    return "".join(_DIGITS[number // len(_DIGITS) ** place % len(_DIGITS)] for place in range(9))
