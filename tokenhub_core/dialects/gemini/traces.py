"""A call of this dialect as a part of its conversation. Function calls need no ids here: then their words count."""

from __future__ import annotations

from typing import Any, Final

from tokenhub_core.dialects.gemini import words as _words
from tokenhub_core.dialects.gemini.names import many, plain
from tokenhub_core.dialects.traces import ids, words
from tokenhub_core.types import Json, Said, Speaker, Traces

_NOBODYS: Final = frozenset({_words.UNSIGNED, "context_engineering_is_the_way_to_go"})
"""What Google documents for calls that nobody signed: no seal, and the same in many conversations."""


def traces(data: Json) -> Traces:
    """Return the marks of a call that was opened."""
    return Traces(many(data.get("contents")), _said, numbered=False)


def _said(given: Any) -> Said:
    content: Json = plain(given)
    by = Speaker.MODEL if content.get("role") == "model" else Speaker.USER
    spoken: list[str] = []
    calls: list[str] = []
    seals: list[str] = []
    for part in many(content.get("parts")):
        signature = part.get("thoughtSignature")
        if isinstance(signature, str) and signature not in _NOBODYS:
            seals += ids(_words.sealed(signature)[0])
        if isinstance(call := part.get("functionCall"), dict):
            spoken.append(call["name"])
            calls += ids(call.get("id"))
        elif isinstance(result := part.get("functionResponse"), dict):
            by = Speaker.TOOL
            answered = ids(result.get("id"))
            calls += answered
            if not answered:
                spoken += words([result["name"], {"response": result.get("response")}])
        elif part.get("thought") is not True:
            spoken += words({key: value for key, value in part.items() if key != "thoughtSignature"})
    return Said(by, tuple(spoken), tuple(calls), tuple(seals))
