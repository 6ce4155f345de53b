"""A call of this dialect as a part of its conversation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tokenhub_core.dialects.openai_chat import thoughts
from tokenhub_core.dialects.traces import ids, words_of
from tokenhub_core.types import Json, Said, Speaker, Traces


def traces(data: Json) -> Traces:
    """Return the marks of a call that was opened."""
    return Traces(data["messages"], _said)


def _said(message: Json) -> Said | None:
    match message["role"]:
        case "user":
            return Said(Speaker.USER, words_of(message.get("content")))
        case "assistant":
            return _model(message)
        case "tool":
            answered = ids(message.get("tool_call_id"))
            return Said(Speaker.TOOL, () if answered else words_of(message.get("content")), answered)
        case "function":
            return Said(Speaker.TOOL, words_of([message.get("name"), message.get("content")]))
        case _:
            return None


def _model(message: Json) -> Said:
    said = words_of(message.get("content"))
    for key in ("refusal", "function_call"):
        if message.get(key):
            said += words_of(message[key])
    calls = message.get("tool_calls") or ()
    if not calls and thoughts.DETAILS not in message:
        return Said(Speaker.MODEL, said)
    named = [call.get("function") or call.get("custom") for call in calls]
    said += ids(*(one.get("name") for one in named if isinstance(one, dict)))
    return Said(Speaker.MODEL, said, ids(*(call.get("id") for call in calls)), tuple(_seals(message, calls)))


def _seals(message: Json, calls: Iterable[Json]) -> Iterator[str]:
    details = message.get(thoughts.DETAILS)
    for item in details if isinstance(details, list) else ():
        if (thought := thoughts.detail(item)) is not None:
            yield from filter(None, (thought.signature, thought.redacted))
    for call in calls:
        if sealed := thoughts.signature(call)[0]:
            yield sealed
