"""Finds what a translation drops in silence.

Every text of a full input holds a marker of its own (`m017x`). A leaf of the input is accounted for when

* its marker stands in the output, as it is or in base64, and another value there makes another output; or
* it stands under a field that a loss names; or
* the caller's table says why it may be missing.

Words of the wire, numbers and flags hold no marker: there it is the output, or the losses, that must change with
the value, or without it.
"""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import orjson

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.errors import TokenHubError
from tokenhub_core.types import Json

type Path = tuple[str | int, ...]
type Translate = Callable[[Json], Rendered]

MARKER: Final = re.compile(r"m\d{3}x")

_PACKED: Final = re.compile(r"[A-Za-z0-9+/]{8,}={0,2}")
"""What may be base64."""

_ABSENT: Final = object()

_KINDS: Final = {
    "document": "file",
    "file": "file",
    "image_url": "image",
    "input_audio": "audio",
    "input_file": "file",
    "input_image": "image",
    "function_call": "tool_use",
    "function_call_output": "tool_result",
    "image_generation_call": "image",
    "reasoning": "thinking",
    "reasoning.text": "thinking",
    "reasoning.summary": "thinking",
    "reasoning.encrypted": "redacted_thinking",
}
"""What a loss calls a part, by its type on the wire, where the two differ."""

_MEDIA: Final = {"image": "image", "audio": "audio", "application": "file", "video": "file", "text": "file"}

COVERS: Final[Mapping[str, str]] = {
    "part:thinking": r"(^|\.)(thinking|reasoning|reasoning_content|reasoning_details\..*)$",
    "part:redacted_thinking": r"\.(reasoning_details|encrypted_content)\b",
    "thinking.signature": r"[sS]ignature$|\.encrypted_content$",
    "part:tool_use": r"\btool_calls\b|\bfunctionCall\b",
    "part:tool_result": r"\bfunctionResponse\b|\btool_call_id$|\btool_name$",
    "part:image": r"\bimages\b",
    "part:audio": r"\baudio\b|^images$|\bimages$",
    "thinking": r"^(reasoning(_effort)?|think(ing)?|output_config\.effort|generationConfig\.thinkingConfig)\b",
    "thinking.show": r"(\.display|[sS]ummary|\.includeThoughts)$",
    "thinking.disabled": r"^think$",
    "response_format": r"^(response_format|((text|output_config)\.)?format|generationConfig\.response(Mime|Schema))",
    "stop": r"^(options\.|generationConfig\.)?(stop|stop_sequences|stopSequences)$",
    "user": r"^(user|metadata\.user_id|safety_identifier)$",
    "metadata": r"^(metadata|labels)\b",
    "service_tier": r"^(service_tier|serviceTier)$",
    "n": r"^(n|generationConfig\.candidateCount)$",
    "seed": r"(^|\.)seed$",
    "top_k": r"(^|\.)(top_k|topK)$",
    "frequency_penalty": r"(^|\.)(frequency_penalty|frequencyPenalty)$",
    "presence_penalty": r"(^|\.)(presence_penalty|presencePenalty)$",
    "logprobs": r"\b(logprobs|top_logprobs|responseLogprobs|logprobsResult|include)\b",
    "tool_choice": r"^(tool_choice|toolConfig\.functionCallingConfig)\b",
    "parallel_tool_calls": r"^(parallel_tool_calls|tool_choice\.disable_parallel_tool_use)$",
    "tools": r"^(tools|tool_choice|parallel_tool_calls|toolConfig)\b",
    "tools[].strict": r"^tools\b.*\.strict$",
    "messages": r"\.role$",
    "image_url.detail": r"\bdetail$",
    "name": r"^(messages|input)\.name$",
    "audio": r"^audio\b",
    "response": r"^tools\.functionDeclarations\.response\b",
    "items": r"^tools\.items$",
    "image": r"^image\b",
    "file.filename": r"\b(filename|title|displayName)$",
    "file.media_type": r"\bsource\.(type|media_type)$",
    "tool_call_id": r"\btool_call_id$",
}
"""The fields (dotted, without places) that a loss stands for, where its name is not simply the end of theirs."""


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every string, number, flag and null of a body, with its place."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            yield from leaves(inner, (*path, place))
    else:
        yield path, value


def dotted(path: Path) -> str:
    """Return the names of a path, without the places in arrays."""
    return ".".join(key for key in path if isinstance(key, str))


def vanished(data: Json, translate: Translate, omitted: Iterable[str]) -> list[str]:
    """Return the leaves of `data` of which nothing is left in its translation, and which nobody names.

    `omitted` are patterns of dotted names: those that may be missing.
    """
    allowed = re.compile("|".join(omitted) or "$^")
    whole = translate(data)
    said = _said(whole.data)
    gone = []
    for path, value in leaves(data):
        if value in (None, "", [], {}) or named(data, path, whole.losses) or allowed.search(dotted(path)):
            continue
        if not (_stands(value, said) and _matters(data, path, value, translate, whole)):
            gone.append(f"{'.'.join(map(str, path))} = {value!r}")
    return gone


def _said(data: Json) -> str:
    """Return all that stands in an output; what is in base64, or in base64 within it, is said in the clear too."""
    texts = [orjson.dumps(data).decode()]
    found = [value for _, value in leaves(data) if isinstance(value, str)]
    while found:
        texts += found
        inner = (_decoded(packed) for value in found for packed in _PACKED.findall(value))
        found = [text for text in inner if text]
    return "\n".join(texts)


def _stands(value: Any, said: str) -> bool:
    """Tell whether the markers of a value stand in the output; one in base64 may have been decoded."""
    if not isinstance(value, str):
        return True
    return value in said or all(marker in said for marker in _markers(value))


def _markers(value: str) -> list[str]:
    return MARKER.findall(value) or MARKER.findall(_decoded(value.rpartition(",")[2]))


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode(errors="replace")
    except ValueError:
        return ""


def markers(data: Json) -> list[str]:
    """Return the markers of all texts, in their order."""
    texts = (value for _, value in leaves(data) if isinstance(value, str))
    return [marker for text in texts for marker in _markers(text)]


def _matters(data: Json, path: Path, value: Any, translate: Translate, whole: Rendered) -> bool:
    """Tell whether another value, or none, makes another output or other losses, or no call at all."""
    for other in (*_others(value), _ABSENT):
        try:
            found = translate(_with(data, path, other))
        except (TokenHubError, ValueError):
            return True
        # Dicts are equal in any order, which is one of the things that a schema says.
        if found.losses != whole.losses or orjson.dumps(found.data) != orjson.dumps(whole.data):
            return True
    return False


def _others(value: Any) -> tuple[Any, ...]:
    match value:
        case bool():
            return (not value,)
        case int():
            return (value + 1, value - 1)
        case float():
            return (value / 2,)
        case str():
            return (_remarked(value),) if _markers(value) else ()
    return ()


def _remarked(value: str) -> str:
    """Return a text with another marker in it."""
    if MARKER.search(value):
        return MARKER.sub("m999x", value)
    head, comma, bare = value.rpartition(",")
    inner = re.sub(MARKER.pattern.encode(), b"m999x", base64.b64decode(bare))
    return head + comma + base64.b64encode(inner).decode()


def _with(data: Json, path: Path, value: Any) -> Json:
    changed = copy.deepcopy(data)
    box: Any = changed
    for key in path[:-1]:
        box = box[key]
    if value is _ABSENT:
        del box[path[-1]]
    else:
        box[path[-1]] = value
    return changed


# --- losses ------------------------------------------------------------------------------------------------


def named(data: Json, path: Path, losses: tuple[str, ...]) -> bool:
    """Tell whether a loss names this place, or something that it is a part of."""
    names, kinds = dotted(path), _kinds(data, path)
    if {"choices[n>1]", "candidates[n>1]"} & {*losses} and path[0] in {"choices", "candidates"} and path[1]:
        return True
    return any(loss in kinds or _covers(loss, names) for loss in losses)


def _covers(loss: str, names: str) -> bool:
    if loss in COVERS:
        return bool(re.search(COVERS[loss], names))
    wanted, found = loss.replace("[]", "").split("."), names.split(".")
    return any(found[place : place + len(wanted)] == wanted for place in range(len(found)))


def _kinds(data: Json, path: Path) -> set[str]:
    """Return the losses that stand for one of the objects around a place."""
    kinds: set[str] = set()
    box: Any = data
    for before, key in zip((None, *path), path, strict=False):
        box = box[key]
        if isinstance(key, str) and isinstance(before, int):
            # Some dialects tell what a member of a list is by the name of what it holds.
            kinds |= {f"part:{key}", f"tool:{key}"}
        if not isinstance(box, dict):
            continue
        kind, role = box.get("type"), box.get("role")
        kinds |= {f"part:{kind}", f"part:{_KINDS.get(str(kind))}", f"tool:{kind}", f"part:tool_call:{kind}"}
        kinds |= {f"part:message:{role}"} if role == "function" else set()
        kinds |= {"part:message"} if role == "control" else set()
        kinds |= {"part:thinking"} if box.get("thought") is True else set()
        kinds |= {"part:tool_result"} if role == "tool" else set()
        media = (box.get("inlineData") or box.get("fileData") or {}).get("mimeType", "")
        kinds |= {f"part:{_MEDIA.get(media.partition('/')[0])}"}
    return kinds
