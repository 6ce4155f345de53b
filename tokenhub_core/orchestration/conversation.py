"""A step's call, made of the caller's own and the ask; and what was told, made of an answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tokenhub_core.orchestration.asks import Ask, Told
from tokenhub_core.types import (
    Answer,
    Call,
    Choice,
    Refusal,
    Role,
    Text,
    Thinking,
    ToolChoice,
    ToolUse,
    Turn,
)

ASIDE_TOKENS: Final = 4096
"""The cap of an answer to a question of ours. Models that think before they answer need most of it for that."""


def applied(call: Call, ask: Ask) -> Call:
    """Return the call of a step: one whole answer, with all of the caller's turns, images and tools."""
    turns = _led(call.turns, ask.lead) if ask.lead else call.turns
    for line in ask.added:
        turns = _with(turns, line.role, line.text)
    mine = replace(call, turns=turns, stream=False, include_usage=False, n=None)
    return _aside(mine) if ask.aside else mine


def _aside(call: Call) -> Call:
    """Return the call without what its caller set for the answer; a conversation with tools keeps them, unused."""
    return Call(
        call.dialect,
        call.model,
        call.turns,
        tools=call.tools,
        tool_choice=ToolChoice(Choice.NONE) if call.tools else None,
        max_output_tokens=ASIDE_TOKENS,
        thinking=Thinking(),
        metadata=call.metadata,
        service_tier=call.service_tier,
        user=call.user,
    )


def _led(turns: tuple[Turn, ...], lead: str) -> tuple[Turn, ...]:
    """Put the text behind what the system says at the beginning: models heed what they were told last."""
    first = 0
    while first < len(turns) and turns[first].role is Role.SYSTEM:
        first += 1
    if not first:
        return (Turn(Role.SYSTEM, (Text(lead),)), *turns)
    return (*_with(turns[:first], Role.SYSTEM, lead), *turns[first:])


def _with(turns: tuple[Turn, ...], role: Role, text: str) -> tuple[Turn, ...]:
    """Add a text as a turn, or to the last turn where that is of the same role: some models insist that roles take
    turns."""
    last = turns[-1] if turns else None
    if last is None or last.role is not role:
        return (*turns, Turn(role, (Text(text),)))
    return (*turns[:-1], replace(last, parts=(*last.parts, Text(f"\n\n{text}"))))


def told(ask: Ask, answer: Answer, body: bytes) -> Told:
    """Return what came of an ask that was answered. What the model thought stays with it."""
    texts = [part.text for part in answer.parts if isinstance(part, Text | Refusal)]
    calls = tuple(part for part in answer.parts if isinstance(part, ToolUse))
    return Told(ask.step, "".join(texts), calls, body, usage=answer.usage)
