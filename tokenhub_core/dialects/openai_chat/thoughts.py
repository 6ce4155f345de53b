"""What a model thought, in the words that servers of this dialect have for it: the specification has none.

Plain text stands in `reasoning_content` (DeepSeek and most others) or `reasoning` (OpenRouter, vLLM). Thoughts
that were signed or encrypted stand in OpenRouter's `reasoning_details`, one item for each
(https://openrouter.ai/docs/use-cases/reasoning-tokens), and a plain field repeats their text. The signature of
a tool call stands where Gemini's own endpoint of this dialect puts it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from tokenhub_core.dialects import seals
from tokenhub_core.dialects.openai_chat.kept import Kept, others
from tokenhub_core.types import Dialect, Json, Reasoning

PLAIN: Final = ("reasoning_content", "reasoning")
DETAILS: Final = "reasoning_details"

_HERE: Final = Dialect.OPENAI_CHAT
_SIGNER: Final = Dialect.GEMINI
"""Who makes `thought_signature`s: its native interface and the one in this dialect share them."""

_NEUTRAL: Final = ("format", "index")
"""Fields of an item that say how it was sent, and nothing that is lost."""


# --- reasoning_details -------------------------------------------------------------------------------------


def detail(item: Any) -> Reasoning | None:
    """Return one item, or a fragment of one; None where it is of a kind that we do not know."""
    match item:
        case {"type": "reasoning.text"}:
            found = Reasoning(_text(item, "text"), seals.seal(_HERE, _text(item, "signature")))
        case {"type": "reasoning.summary", "summary": str(text)}:
            found = Reasoning(text, seals.seal(_HERE, _text(item, "signature")), summary=True)
        case {"type": "reasoning.encrypted", "data": str(data)}:
            found = Reasoning(redacted=seals.seal(_HERE, data))
        case _:
            return None
    return replace(found, id=_text(item, "id"))


def _whole(item: Any) -> Reasoning | None:
    found = detail(item)
    if found is None:
        return None
    homes = ("type", "text", "summary", "signature", "data", "id", *_NEUTRAL)
    neutral = {key: str(item[key]) for key in _NEUTRAL if isinstance(item.get(key), str | int)}
    return replace(found, rest=Kept(others(item, homes), home=DETAILS, **neutral))


def read(message: Json, rest: Kept, scope: str) -> list[Reasoning]:
    """Return a message's thoughts, in order, and take the fields that said them out of `rest`.

    A plain field that says something else than the details stays in `rest`.
    """
    details = message.get(DETAILS)
    whole = [_whole(item) for item in details] if isinstance(details, list) else []
    parts: list[Reasoning] = [part for part in whole if part is not None]
    if parts and len(parts) == len(whole):
        rest.pop(scope + DETAILS, None)
    else:
        parts = []
    said = "".join(part.text for part in parts)
    used: list[str] = []
    for key in PLAIN:
        text = message.get(key)
        if not isinstance(text, str):
            continue
        if text and not parts:
            parts, said = [Reasoning(text)], text
        if text == said or not text:
            rest.pop(scope + key, None)
            used += [key] if text else []
    if used:
        rest.spelling["thoughts"] = " ".join(used)
    return _merged(parts)


def _merged(parts: list[Reasoning]) -> list[Reasoning]:
    """Return the parts with a text and what was encrypted of it as one, where the same id says that they are."""
    done: list[Reasoning] = []
    for part in parts:
        last = done[-1] if done else None
        if last and part.id and last.id == part.id and part.redacted and not (last.redacted or part.text):
            done[-1] = replace(last, redacted=part.redacted)
        else:
            done.append(part)
    return done


def items(part: Reasoning, *, client: bool, index: int) -> list[Json]:
    """Return a thought as items of `reasoning_details`.

    A client is shown every seal, a provider only those of this dialect.
    """
    show = seals.shown if client else seals.opened
    signature, data = show(_HERE, part.signature), show(_HERE, part.redacted)
    found: list[Json] = []
    if part.text or signature or not data:
        key = "summary" if part.summary else "text"
        found.append({"type": f"reasoning.{key}", key: part.text})
        if signature:
            found[-1]["signature"] = signature
    if data:
        found.append({"type": "reasoning.encrypted", "data": data})
    kept = part.rest.spelling if isinstance(part.rest, Kept) else {}
    place = kept.get("index", "" if kept else str(index))
    more: Json = {"id": part.id} if part.id else {}
    if "format" in kept:
        more["format"] = kept["format"]
    if place.isdecimal():
        more["index"] = int(place)
    return [item | more | (dict(part.rest) if kept else {}) for item in found]


def to_client(parts: Iterable[Reasoning]) -> Json:
    """Return the fields that show these thoughts: the text for everybody, and all of it where any is sealed."""
    given = list(parts)
    fields: Json = {}
    if text := "".join(part.text for part in given):
        fields["reasoning_content"] = text
    if any(part.signature or part.redacted for part in given):
        numbered = enumerate(given)
        fields[DETAILS] = [item for i, part in numbered for item in items(part, client=True, index=i)]
    return fields


def to_provider(parts: Iterable[Reasoning], spelled: str, losses: list[str]) -> Json:
    """Return the fields that give these thoughts back; `spelled` names the plain ones that the caller used.

    A thought that another dialect sealed goes without its seal: the text stays where the caller had it.
    """
    given = list(parts)
    plain = spelled.split()
    fields: Json = {}
    if text := "".join(part.text for part in given):
        fields = dict.fromkeys(plain, text)
    kept: list[Json] = []
    for i, part in enumerate(given):
        if _foreign(part):
            losses.append("thinking.signature")
            if part.text and not plain:
                losses.append("part:thinking")
        elif part.signature or part.redacted or (isinstance(part.rest, Kept) and part.rest.spelling):
            kept += items(part, client=False, index=i)
    if kept:
        fields[DETAILS] = kept
    return fields


def is_ours(part: Reasoning) -> bool:
    """Tell whether a server of this dialect sealed this thought, so that it can be given back."""
    return bool(seals.opened(_HERE, part.signature) or seals.opened(_HERE, part.redacted))


def _foreign(part: Reasoning) -> bool:
    return bool(part.signature or part.redacted) and not is_ours(part)


# --- the signature of a tool call --------------------------------------------------------------------------


def signature(call: Json) -> tuple[str, Json]:
    """Return the seal of a tool call, empty where it has none, and what else `extra_content` says."""
    extra: Any = call.get("extra_content")
    match extra:
        case {"google": {"thought_signature": str(value)}} if value:
            google = others(extra["google"], ("thought_signature",))
            left = others(extra, ("google",)) | ({"google": google} if google else {})
            return seals.seal(_SIGNER, value), left
        case dict():
            return "", extra
    return "", {}


def extra_content(sealed: str, *, client: bool) -> Json:
    """Return the fields of a tool call that carry its seal; none where a provider must not see it."""
    value = (seals.shown if client else seals.opened)(_SIGNER, sealed)
    return {"extra_content": {"google": {"thought_signature": value}}} if value else {}


def _text(data: Json, key: str) -> str:
    value = data.get(key)
    return value if isinstance(value, str) else ""
