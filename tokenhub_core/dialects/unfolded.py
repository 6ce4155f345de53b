"""A whole answer as the deltas of a stream, for a caller who reads a stream and an answer that came in one piece."""

from __future__ import annotations

from tokenhub_core.types import (
    Answer,
    Audio,
    Delta,
    File,
    Finished,
    Image,
    MediaDelta,
    Part,
    Reasoning,
    ReasoningDelta,
    Refusal,
    RefusalDelta,
    Started,
    Text,
    TextDelta,
    ToolArguments,
    ToolStarted,
    ToolUse,
    Unread,
    UsageSeen,
)


def deltas(answer: Answer) -> list[Delta]:
    """Return the deltas that say this answer, from the first to the one that ends it."""
    found: list[Delta] = [Started(answer.id, answer.model, answer.created), UsageSeen(answer.usage)]
    for place, part in enumerate(answer.parts):
        found += _said(part, place)
    return [*found, answer.stop, UsageSeen(answer.usage), Finished()]


def _said(part: Part, place: int) -> list[Delta]:
    match part:
        case Text(text, logprobs=logprobs):
            return [TextDelta(text, logprobs)]
        case Refusal(text):
            return [RefusalDelta(text)]
        case Reasoning(text, signature, redacted, id=id_, summary=summary):
            return [ReasoningDelta(text, signature, redacted, id_, place, summary)]
        case ToolUse(id_, name, arguments, signature=signature):
            return [ToolStarted(place, id_, name, signature), ToolArguments(place, arguments)]
        case Image() | File() | Audio():
            return [MediaDelta(part)]
        case _:
            return [Unread(f"part:{type(part).__name__.lower()}")]
