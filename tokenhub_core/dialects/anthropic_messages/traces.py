"""A call of this dialect as a part of its conversation."""

from __future__ import annotations

from typing import Any

from tokenhub_core.dialects.anthropic_messages import thoughts
from tokenhub_core.dialects.traces import ids, words, words_of
from tokenhub_core.types import Json, Said, Speaker, Traces


def traces(data: Json) -> Traces:
    """Return the marks of a call that was opened."""
    return Traces(data["messages"], _said)


def _said(message: Json) -> Said | None:
    role, content = message["role"], message["content"]
    if role == "system":
        return None
    by = Speaker.MODEL if role == "assistant" else Speaker.USER
    if isinstance(content, str):
        return Said(by, words_of(content))
    spoken: list[str] = []
    calls: list[str] = []
    seals: list[str] = []
    for block in content:
        match block["type"]:
            case "tool_use":
                spoken.append(block["name"])
                calls.append(block["id"])
            case "tool_result":
                by = Speaker.TOOL
                calls.append(block["tool_use_id"])
            case "thinking" | "redacted_thinking":
                seals += _seals(block)
            case _:
                spoken += words(block)
    return Said(by, tuple(spoken), ids(*calls), tuple(seals))


def _seals(block: Json) -> tuple[str, ...]:
    signature: Any = block.get("signature")
    data: Any = block.get("data")
    if block["type"] == "redacted_thinking":
        return ids(thoughts.redacted(data).redacted) if isinstance(data, str) else ()
    if not isinstance(signature, str):
        return ()
    thought = thoughts.read("", signature)
    return ids(thought.signature, thought.redacted, thoughts.tool_seal(block))
