"""What is noted of an answer that came in one piece, as a stream's gate would note it. Pure."""

from __future__ import annotations

from tokenhub_core.types import Answer, Left, Reasoning, Refusal, Text, ToolUse


def length(answer: Answer) -> int:
    """Return the characters that the model produced, as a stream's gate would count them."""
    total = 0
    for part in answer.parts:
        match part:
            case Text(text) | Refusal(text) | Reasoning(text=text):
                total += len(text)
            case ToolUse(name=name, arguments=arguments):
                total += len(name) + len(arguments)
            case _:
                pass
    return total


def left(answer: Answer) -> Left:
    """Return what of a whole answer comes back with the conversation's next call."""
    calls = [part for part in answer.parts if isinstance(part, ToolUse)]
    thoughts = [part for part in answer.parts if isinstance(part, Reasoning)]
    seals = [seal for part in thoughts for seal in (part.signature, part.redacted)]
    seals += [part.signature for part in calls]
    return Left(answer.id, tuple(part.id for part in calls if part.id), tuple(filter(None, seals)))
