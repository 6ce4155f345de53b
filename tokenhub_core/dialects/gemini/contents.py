"""The conversation of a call, as `contents` and `systemInstruction`.

A call of this dialect is restored. One from another dialect is fitted: system turns go to the top, user and model
alternate and the user begins, every function call is answered in the content after it and in the same order,
and no text is blank.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tokenhub_core.dialects.gemini import words
from tokenhub_core.dialects.gemini.names import Kept, aside, put_back
from tokenhub_core.dialects.gemini.writing import PartWriter
from tokenhub_core.types import Json, Role, ToolUse, Turn

_OPENING: Final = "(start)"
"""The user's first words where a conversation has none."""
_NO_RESULT: Final = "no result was given"


def tool_names(turns: Iterable[Turn]) -> dict[str, str]:
    """Return the function that each call id of a conversation belongs to."""
    return {part.id: part.name for turn in turns for part in turn.parts if isinstance(part, ToolUse)}


def restored(turns: tuple[Turn, ...], writer: PartWriter) -> tuple[Json | None, list[Json]]:
    """Return `systemInstruction` and `contents` of a call in this dialect."""
    system: Json | None = None
    contents: list[Json] = []
    for turn in turns:
        # A turn that was added since then has no word of its caller's for its role.
        said = aside(turn.rest, "role") if isinstance(turn.rest, Kept) else _role(turn)
        content: Json = {"role": said} if said else {}
        content["parts"] = writer.parts(turn.parts)
        put_back(content, turn.rest)
        if turn.role is Role.SYSTEM:
            system = content
        elif aside(turn.rest, "joined") and contents:
            contents[-1] = content | {"parts": contents[-1]["parts"] + content["parts"]}
        else:
            contents.append(content)
    return system, contents


def fitted(turns: tuple[Turn, ...], writer: PartWriter, losses: list[str]) -> tuple[Json | None, list[Json]]:
    """Return `systemInstruction` and `contents` of a call from another dialect, fitted to the rules of this one."""
    system: list[Json] = []
    merged: list[Json] = []
    for turn in turns:
        losses += turn.rest
        losses += ["name"] if turn.name else []
        parts = writer.parts(turn.parts)
        if turn.role is Role.SYSTEM:
            system += parts
            continue
        role = _role(turn)
        if parts and merged and merged[-1]["role"] == role:
            merged[-1]["parts"] += parts
        elif parts:
            merged.append({"role": role, "parts": parts})
    if not merged or merged[0]["role"] != "user":
        merged.insert(0, {"role": "user", "parts": [{"text": _OPENING}]})
    return {"parts": system} if system else None, _answered(merged)


def _role(turn: Turn) -> str:
    return "model" if turn.role is Role.ASSISTANT else "user"


def _answered(merged: list[Json]) -> list[Json]:
    """Return the contents with every call answered at the head of the content after it, calls in their order."""
    done: list[Json] = []
    calls: list[Json] = []
    for content in merged:
        if content["role"] == "model":
            done.append(content)
            calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
            continue
        results = [part for part in content["parts"] if "functionResponse" in part]
        others = [part for part in content["parts"] if "functionResponse" not in part]
        done.append({"role": "user", "parts": _ordered(calls, results) + others})
        calls = []
    if calls:
        done.append({"role": "user", "parts": _ordered(calls, [])})
    return done


def _ordered(calls: list[Json], results: list[Json]) -> list[Json]:
    left = list(results)
    ordered: list[Json] = []
    for call in calls:
        found = next((part for part in left if part["functionResponse"].get("id") == call.get("id")), None)
        if found is None:
            missing = {"name": call["name"], "response": {"error": _NO_RESULT}}
            found = {"functionResponse": {"id": call["id"]} | missing if "id" in call else missing}
        else:
            left.remove(found)
        ordered.append(found)
    return ordered + left


def signed(contents: list[Json], *, model: str, unsigned: Iterable[int]) -> list[Json]:
    """Return the contents with Google's word for "no signature" where the model refuses calls without one.

    In a content only the first call needs one. `unsigned` are the contents whose calls another model made.
    """
    if not words.wants_signatures(model):
        return contents
    chosen = set(unsigned)
    return [_signed(content) if place in chosen else content for place, content in enumerate(contents)]


def _signed(content: Json) -> Json:
    parts = content["parts"]
    calls = [place for place, part in enumerate(parts) if "functionCall" in part]
    if not calls or any("thoughtSignature" in parts[place] for place in calls):
        return content
    first = calls[0]
    named = {**parts[first], "thoughtSignature": words.UNSIGNED}
    return {**content, "parts": [*parts[:first], named, *parts[first + 1 :]]}
