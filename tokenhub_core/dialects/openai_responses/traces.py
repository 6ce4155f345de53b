"""A call of this dialect as a part of its conversation."""

from __future__ import annotations

from typing import Any

from tokenhub_core.dialects.openai_responses import proof
from tokenhub_core.dialects.openai_responses.request import is_message
from tokenhub_core.dialects.traces import ids, words_of
from tokenhub_core.types import Json, Said, Speaker, Traces


def traces(data: Json) -> Traces:
    """Return the marks of a call that was opened. Its answer can be gone on from, so that one is a mark too."""
    given, former, room = (data.get(key) for key in ("input", "previous_response_id", "conversation"))
    if isinstance(room, dict):
        room = room.get("id")
    return Traces(
        given if isinstance(given, list) else [given] if isinstance(given, str) else [],
        _said,
        held=former if isinstance(former, str) else "",
        room=room if isinstance(room, str) else "",
        goes_on=True,
    )


def _said(item: Any) -> Said | None:
    if isinstance(item, str):
        return Said(Speaker.USER, words_of(item))
    if is_message(item):
        role = item["role"]
        if role in {"system", "developer"}:
            return None
        by = Speaker.MODEL if role == "assistant" else Speaker.USER
        return Said(by, words_of(item["content"]))
    kind = item.get("type")
    if kind == "reasoning":
        return Said(Speaker.MODEL, seals=_seals(item))
    calls = ids(item.get("call_id"))
    if isinstance(kind, str) and kind.endswith("_output"):
        return Said(Speaker.TOOL, () if calls else words_of(item), calls)
    return Said(Speaker.MODEL, ids(item.get("name")) if calls else words_of(item), calls)


def _seals(item: Json) -> tuple[str, ...]:
    given = item.get("encrypted_content")
    return ids(proof.read(given)[0]) if isinstance(given, str) else ()
