"""How calls of one conversation are told: the marks that they bear, and those that answers leave."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import msgspec


class Speaker(StrEnum):
    """Who says a turn. What the system says is no turn: thousands of conversations share it."""

    USER = "user"
    MODEL = "model"
    TOOL = "tool"


class Said(msgspec.Struct, frozen=True):
    """One turn, as far as it tells conversations apart."""

    by: Speaker
    words: tuple[str, ...] = ()
    """What was said, thoughts left out, and what clients change without meaning anything by it."""
    calls: tuple[str, ...] = ()
    """Ids of the tool calls that were made here, or answered."""
    seals: tuple[str, ...] = ()
    """Proofs of thinking, in the form of `dialects.seals`."""


class Traces(msgspec.Struct, frozen=True):
    """A call as a part of its conversation. Nothing is read of a turn before somebody asks."""

    turns: Sequence[Any] = ()
    """As they stand on the wire, in their order."""
    read: Callable[[Any], Said | None] = lambda _: None
    """Returns one of them read, None for what is no turn. Never raises for a call that was opened."""
    held: str = ""
    """The answer that this call goes on from, which its provider holds."""
    room: str = ""
    """The name under which a provider holds the whole conversation."""
    numbered: bool = True
    """The ids of tool calls come back for sure; where some clients drop them, the turns have to tell."""
    goes_on: bool = False
    """A later call can name the answer to this one as its `held`."""


class Left(msgspec.Struct, frozen=True):
    """What of an answer comes back with the conversation's next call."""

    id: str = ""
    calls: tuple[str, ...] = ()
    seals: tuple[str, ...] = ()


class Bond(msgspec.Struct, frozen=True):
    """Who served the conversation before, as far as a plan follows from it."""

    model: str
    provider: str
    age: float
    """Seconds since."""
    tokens: int
    """Input tokens of that call, as the provider counted them: what its cache can hold of this one."""
    by: str
    """What told: `response`, `room`, `calls`, `thinking` or `turns`."""
    lock: str = ""
    """Why it must go on there if it can: `stored_state`, `tool_loop` or `thinking`; empty where it need not."""
