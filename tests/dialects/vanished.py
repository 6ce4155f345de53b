"""Finds what a translation drops in silence.

Every value of a full input is changed, and every field that the SDK knows and the input lacks is added, one at a time.
The place is accounted for when

* another value there makes another output or other losses (and the marker of a text, `m017x`, stands in the output, as
  it is or in base64); where no other value is taken at all, it is enough that none does too; or
* it stands under a field that a loss names; or
* the caller's table says why it may be missing.

An input is a list of bodies: the one of a request or an answer, or the events of a stream. What several events of a
stream repeat at the same place is changed in all of them.
"""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from tokenhub_core.dialects.base import Rendered
from tokenhub_core.errors import TokenHubError
from tokenhub_core.types import Json

type Path = tuple[str | int, ...]
type Bodies = list[Json]
type Read = Callable[[Bodies], Any]
"""What becomes of a client's request, or of a provider's answer, in no dialect."""
type Write = Callable[[Any], Rendered]
"""What becomes of that on the other side."""

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
    "functionCall": "tool_use",
    "functionResponse": "tool_result",
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
    "part:thinking": r"(^|\.)(thinking|reasoning|reasoning_content|reasoning_details\..*)$|Signature$",
    "part:redacted_thinking": r"\.(reasoning_details|encrypted_content)\b",
    "thinking.signature": r"[sS]ignature$|\.encrypted_content$",
    "part:tool_use": r"\btool_calls\b|\bfunctionCall\b|\bfunction_call\b",
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
    "service_tier": r"(^|\.)(service_tier|serviceTier)$",
    "n": r"^(n|generationConfig\.candidateCount)$",
    "seed": r"(^|\.)seed$",
    "top_p": r"(^|\.)(top_p|topP)$",
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
    "citations": r"\bcitations?\b",
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


@dataclass(frozen=True, slots=True)
class Change:
    """A place, and what is read of the bodies with another value, or none, there (`REFUSED` where nothing is)."""

    path: Path
    """The number of the body, of the last where several repeat it, and the place in it."""
    value: Any
    bodies: Bodies
    """With the place in them."""
    others: tuple[Any, ...]
    without: Any


REFUSED: Final = object()


def changes(
    bodies: Bodies, read: Read, words: Mapping[str, set[str]], more: Iterable[tuple[Path, tuple[Any, ...]]]
) -> list[Change]:
    """Return all changes of an input.

    `words` are what else stands at a place (dotted) of other inputs; `more` are fields that could be there, and values.
    """
    found = []
    for paths, value in _places(bodies):
        others = _others(value, words.get(dotted(paths[0]), set()))
        tried = tuple(_tried(read, _with(bodies, paths, other)) for other in others)
        without = _tried(read, _with(bodies, paths, _ABSENT))
        found.append(Change(paths[-1], value, bodies, tried, without))
    for path, values in more:
        added = [_with(bodies, [path], value) for value in values]
        tried = tuple(_tried(read, each) for each in added)
        found.append(Change(path, values[0], added[0], tried, REFUSED))
    return found


def vanished(found: Iterable[Change], whole: Any, write: Write) -> Iterator[str]:
    """Yield the places whose value changes nothing, and that nobody names: `event/dotted.name = value`.

    `whole` is what is read of the bodies as they are.
    """
    told = write(whole)
    said = _said(told.data)
    dumped = orjson.dumps(told.data)

    def differs(other: Any) -> bool:
        try:
            out = write(other)
        except (TokenHubError, ValueError):
            return True
        # Dicts are equal in any order, which is one of the things that a schema says.
        return out.losses != told.losses or orjson.dumps(out.data) != dumped

    for change in found:
        if named(change.bodies, change.path, told.losses):
            continue
        taken = [other for other in change.others if other is not REFUSED]
        matters = any(map(differs, taken)) if taken else change.without is REFUSED or differs(change.without)
        stands = len(change.bodies) > 1 or change.without is REFUSED or _stands(change.value, said)
        if not (matters and stands):
            yield f"{where(change.bodies, change.path)} = {change.value!r}"


def where(bodies: Bodies, path: Path) -> str:
    """Return the dotted name of a place, behind the type of its event where its events have types."""
    kind = bodies[int(path[0])].get("type")
    return f"{kind}/{dotted(path)}" if len(bodies) > 1 and isinstance(kind, str) else dotted(path)


def _places(bodies: Bodies) -> Iterator[tuple[list[Path], Any]]:
    """Yield every place with something in it; those where a stream repeats one value are one."""
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path, value in leaves(bodies):
        if value not in (None, "", [], {}):
            groups.setdefault((path[1:], repr(value)), []).append(path)
    for paths in groups.values():
        box: Any = bodies
        for key in paths[0]:
            box = box[key]
        yield paths, box


def _tried(read: Read, bodies: Bodies) -> Any:
    try:
        return read(bodies)
    except (TokenHubError, ValueError):
        return REFUSED


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


def _others(value: Any, words: set[str]) -> tuple[Any, ...]:
    match value:
        case bool():
            return (not value,)
        case int():
            return (value + 1, value - 1)
        case float():
            return (value / 2,)
        case str() if _markers(value):
            return (_remarked(value),)
        case str():
            return (*sorted(words - {value})[:3], f"{value}_other")
    return ()


def _remarked(value: str) -> str:
    """Return a text with another marker in it."""
    if MARKER.search(value):
        return MARKER.sub("m999x", value)
    head, comma, bare = value.rpartition(",")
    inner = re.sub(MARKER.pattern.encode(), b"m999x", base64.b64decode(bare))
    return head + comma + base64.b64encode(inner).decode()


def _with(bodies: Bodies, paths: list[Path], value: Any) -> Bodies:
    changed = copy.deepcopy(bodies)
    for path in paths:
        box: Any = changed
        for key in path[:-1]:
            box = box[key]
        if value is _ABSENT:
            del box[path[-1]]
        else:
            box[path[-1]] = value
    return changed


# --- losses ------------------------------------------------------------------------------------------------


def named(bodies: Bodies, path: Path, losses: tuple[str, ...]) -> bool:
    """Tell whether a loss names this place, or something that it is a part of."""
    data = bodies[int(path[0])]
    path = path[1:]
    names, kinds = dotted(path), _kinds(data, path) | _opened(bodies, data)
    if {"choices[n>1]", "candidates[n>1]"} & {*losses} and path[0] in {"choices", "candidates"}:
        number = path[1]
        if data[str(path[0])][number].get("index", number):
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
        # Some dialects tell what a member of a list is by the name of what it holds.
        if isinstance(key, str) and isinstance(before, int):
            kinds |= {f"part:{key}", f"tool:{key}"}
        if isinstance(key, int) and isinstance(box, dict) and "type" not in box:
            kinds |= {f"part:{_KINDS.get(each, each)}" for each in box}
        if not isinstance(box, dict):
            continue
        kind, role = box.get("type"), box.get("role")
        kinds |= {f"part:{kind}", f"part:{_KINDS.get(str(kind))}", f"tool:{kind}"}
        kinds |= {f"part:tool_call:{kind}", f"tool_call:{kind}"}
        kinds |= {f"part:message:{role}"} if role == "function" else set()
        kinds |= {"part:message"} if role == "control" else set()
        kinds |= {"part:thinking"} if box.get("thought") is True else set()
        kinds |= {"part:tool_result"} if role == "tool" else set()
        media = (box.get("inlineData") or box.get("fileData") or {}).get("mimeType", "")
        kinds |= {f"part:{_MEDIA.get(media.partition('/')[0])}"}
    return kinds


def _opened(bodies: Bodies, event: Json) -> set[str]:
    """Return the losses that stand for an event of a stream, or for the block or item that it goes on with."""
    if "annotation" in str(event.get("type")):
        return {"annotations"}
    if (event.get("message") or event).get("thinking"):
        return {"thinking.logprobs"}
    for number, box in (("index", "content_block"), ("output_index", "item")):
        for each in bodies:
            if isinstance(each.get(box), dict) and each.get(number) == event.get(number):
                return _kinds(each, (box,))
    return set()
