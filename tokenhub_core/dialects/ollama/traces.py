"""A chat as a part of its conversation. Few servers give tool calls ids; where there is none, words count."""

from __future__ import annotations

from tokenhub_core.dialects.traces import ids, words_of
from tokenhub_core.types import Json, Said, Speaker, Traces


def traces(data: Json) -> Traces:
    """Return the marks of a chat that was opened."""
    return Traces(data.get("messages") or (), _said, numbered=False)


def _said(message: Json) -> Said | None:
    spoken = words_of(message.get("content"))
    if message.get("images"):
        spoken += words_of({"images": message["images"]})
    match message["role"].lower():
        case "user":
            return Said(Speaker.USER, spoken)
        case "tool":
            answered = ids(message.get("tool_call_id"))
            named = ids(message.get("tool_name"))
            return Said(Speaker.TOOL, () if answered else named + spoken, answered)
        case "assistant":
            calls = message.get("tool_calls") or []
            names = ids(*(call["function"].get("name") for call in calls))
            return Said(Speaker.MODEL, spoken + names, ids(*(call.get("id") for call in calls)))
        case _:
            return None
