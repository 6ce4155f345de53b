"""A caller's request: checked, measured, its texts replaced, and its own bytes patched for a provider."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.gemini import parts, target
from tokenhub_core.dialects.gemini.names import many, plain, whole
from tokenhub_core.errors import client_fault
from tokenhub_core.types import Dialect, Features, Json, Need, Request, TextSlot

_ROLES: Final = frozenset({"user", "model", "function"})
_SPEAKERS: Final[Mapping[str, str]] = MappingProxyType({"user": "user", "model": "assistant"})
"""What has another role, as a function's results may, is not the user's, whatever parts it is made of."""
_SYSTEM: Final = ("systemInstruction", "system_instruction")
_CONFIG: Final = ("generationConfig", "generation_config")
_CAP: Final = ("maxOutputTokens", "max_output_tokens")
_NOTHING_LEFT: Final = "(empty)"
"""Stands for a content that must stay although its text is gone: an empty one is rejected upstream."""

type _Path = tuple[str | int, ...]


# --- open --------------------------------------------------------------------------------------------------


def open_request(body: bytes, path: str = "") -> Request:
    """Return the request that `body` and its target hold; raises `TokenHubError` (`INVALID`) that names the place.

    Checked is what the rest of this package relies on. Unknown members and kinds of parts are the provider's to
    judge.
    """
    data = wire.decode(body)
    said = target.read(path)
    read: Json = plain(data)
    contents = many(read.get("contents"))
    if not contents:
        raise client_fault("contents: at least one content is required", cause="bad_field", param="contents")
    walk = _Walk()
    for place, content in enumerate(contents):
        walk.content(content, f"contents[{place}]")
    walk.system(read.get("systemInstruction"))
    for place, tool in enumerate(many(read.get("tools"))):
        walk.tool(tool, f"tools[{place}]")
    config = wire.record(read.get("generationConfig") or {}, "generationConfig")
    if isinstance(config.get("responseSchema") or config.get("responseJsonSchema"), dict):
        walk.needs.add(Need.JSON_SCHEMA)
    features = Features(
        model=said.model or wire.text(read, "model").removeprefix("models/"),
        stream=said.stream,
        max_output_tokens=_cap(config),
        needs=frozenset(walk.needs),
        text_bytes=walk.text_bytes,
        media=walk.media,
        turns=len(contents),
    )
    return Request(Dialect.GEMINI, body, data, features, path)


def _cap(config: Json) -> int | None:
    """Return the caller's cap; 0 is protobuf's way of saying nothing."""
    value = config.get("maxOutputTokens")
    cap = whole(value)
    if (value is not None and cap is None) or (cap is not None and cap < 0):
        raise wire.wrong("generationConfig.maxOutputTokens", "a positive integer", value)
    return cap or None


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


class _Walk:
    """Checks and measures in one pass."""

    def __init__(self) -> None:
        self.needs: set[Need] = set()
        self.text_bytes = 0
        self.media = 0

    def content(self, given: object, path: str) -> None:
        content = wire.record(given, path)
        if content.get("role"):
            wire.one_of(content["role"], _ROLES, f"{path}.role")
        self._parts(content, path)

    def system(self, given: object) -> None:
        if given is not None:
            self._parts(wire.record(given, "systemInstruction"), "systemInstruction")

    def tool(self, given: object, path: str) -> None:
        tool = wire.record(given, path)
        self.text_bytes += len(wire.encode(tool))
        for place, each in enumerate(many(tool.get("functionDeclarations"))):
            where = f"{path}.functionDeclarations[{place}]"
            declared = wire.record(each, where)
            self._name(declared, where)
            self.needs.add(Need.TOOLS)

    def _parts(self, content: Json, path: str) -> None:
        given = content.get("parts")
        if given is not None and not isinstance(given, list | dict):
            raise wire.wrong(f"{path}.parts", "an array", given)
        for place, part in enumerate(many(given)):
            self._part(wire.record(part, f"{path}.parts[{place}]"), f"{path}.parts[{place}]")

    def _part(self, part: Json, path: str) -> None:
        self.text_bytes += _size(wire.text(part, "text", path))
        for key in ("functionCall", "functionResponse", "inlineData", "fileData"):
            if key in part:
                wire.record(part[key], f"{path}.{key}")
        for key, inner in (("functionCall", "args"), ("functionResponse", "response")):
            if key in part:
                self.needs.add(Need.TOOLS)
                self._name(part[key], f"{path}.{key}")
                if part[key].get(inner) is not None:
                    value = wire.record(part[key][inner], f"{path}.{key}.{inner}")
                    self.text_bytes += len(wire.encode(value))
                for place, more in enumerate(many(part[key].get("parts"))):
                    where = f"{path}.{key}.parts[{place}]"
                    self._part(wire.record(more, where), where)
        if kind := parts.media_type(part):
            self._media(part, kind, path)

    def _media(self, part: Json, kind: str, path: str) -> None:
        self.media += 1
        family = kind.partition("/")[0]
        self.needs.add({"image": Need.VISION, "audio": Need.AUDIO}.get(family, Need.FILES))
        if "inlineData" in part:
            for key in ("mimeType", "data"):
                self._text(part["inlineData"], key, f"{path}.inlineData")
        else:
            self._text(part["fileData"], "fileUri", f"{path}.fileData")

    def _name(self, data: Json, path: str) -> None:
        self._text(data, "name", path)

    @staticmethod
    def _text(data: Json, key: str, path: str) -> None:
        """Check a text that must be there."""
        if not isinstance(data.get(key), str):
            raise wire.wrong(f"{path}.{key}", "a string", data.get(key))


# --- texts -------------------------------------------------------------------------------------------------


def text_slots(data: Json) -> Iterator[TextSlot]:
    """Yield the system instruction, then every content's own text, each with its path in the body as it came.

    Thoughts and what functions returned are other people's words.
    """
    for name in _SYSTEM:
        if isinstance(data.get(name), dict):
            yield from _slots("system", (name,), data[name])
    for path, content in _members(data, "contents", ()):
        role = content.get("role") or "user"
        speaker = _SPEAKERS.get(role, "tool") if isinstance(role, str) else "tool"
        yield from _slots(speaker, path, content)


def _slots(role: str, path: _Path, content: Json) -> Iterator[TextSlot]:
    for place, part in _members(content, "parts", path):
        text = part.get("text")
        if isinstance(text, str) and part.get("thought") is not True:
            yield TextSlot(role, (*place, "text"), text)


def _members(data: Json, key: str, path: _Path) -> Iterator[tuple[_Path, Json]]:
    """Yield the objects of a repeated field and their paths; a lone one has no number."""
    value = data.get(key)
    if isinstance(value, dict):
        yield (*path, key), value
    elif isinstance(value, list):
        yield from (((*path, key, place), item) for place, item in enumerate(value) if isinstance(item, dict))


def replace_texts(data: Json, texts: Iterable[tuple[_Path, str]]) -> Json:
    """Return a copy of `data` with the texts at these paths (of `text_slots`) replaced.

    Only what lies on a changed path is copied. A text part that became blank goes away, an emptied system
    instruction too, and so does a content with nothing left in it. A content stays, with the text "(empty)", where
    there would otherwise be none, or where the conversation would newly begin or end with the model's turn.
    """
    changed = dict(data)
    owners: dict[_Path, list[tuple[_Path, str]]] = {}
    for path, text in texts:
        owner = path[: path.index("parts")] if "parts" in path else path
        owners.setdefault(owner, []).append((path[len(owner) :], text))
    emptied: dict[int, Json] = {}
    for owner, edits in owners.items():
        match owner:
            case (str(name),) if name in _SYSTEM:
                content = _replaced(changed[name], edits)
                if content.get("parts"):
                    changed[name] = content
                else:
                    del changed[name]
            case ("contents",):
                changed["contents"] = _kept(_replaced(data["contents"], edits))
            case ("contents", int(number)):
                content = _replaced(data["contents"][number], edits)
                if changed["contents"] is data["contents"]:
                    changed["contents"] = list(data["contents"])
                changed["contents"][number] = content
                if not content["parts"]:
                    emptied[number] = content
            case _:
                raise ValueError(f"no text can stand at {owner!r}")
    if emptied:
        changed["contents"] = _without(changed["contents"], emptied)
    return changed


def _replaced(content: Json, edits: list[tuple[_Path, str]]) -> Json:
    """Return a copy of a content with these texts, blank ones left out unless their part says more."""
    parts: list[Any] = list(many(content.get("parts")))
    gone: set[int] = set()
    for path, text in edits:
        match path:
            case ("parts", int(place), "text"):
                number = place
            case ("parts", "text"):
                number = 0
            case _:
                raise ValueError(f"no text can stand at {path!r}")
        parts[number] = {**parts[number], "text": text}
        if not text.strip() and parts[number].keys() <= {"text", "thought"}:
            gone.add(number)
    return {**content, "parts": [part for number, part in enumerate(parts) if number not in gone]}


def _kept(content: Json) -> Json:
    return content if content["parts"] else {**content, "parts": [{"text": _NOTHING_LEFT}]}


def _without(contents: list[Json], emptied: dict[int, Json]) -> list[Json]:
    left = [number for number in range(len(contents)) if number not in emptied]
    stays: set[int] = set()
    last = len(contents) - 1
    if not left:
        users = [number for number, content in enumerate(contents) if _is_user(content)]
        stays.add(users[-1] if users else last)
    else:
        if not _is_user(contents[left[0]]) and _is_user(contents[0]):
            stays.add(0)
        if not _is_user(contents[left[-1]]) and _is_user(contents[last]):
            stays.add(last)
    return [
        _kept(content) for number, content in enumerate(contents) if number not in emptied or number in stays
    ]


def _is_user(content: Json) -> bool:
    return content.get("role") != "model"


# --- patch -------------------------------------------------------------------------------------------------


def patch(request: Request, *, model: str, max_output_tokens: int | None) -> bytes:
    """Return the caller's own bytes with the cap set; the same object where it is, or none is to be set.

    The model stands in the path; a body that names it, too, gets it in the form it used. Where the cap changes,
    `generationConfig` is written anew, every other byte stays.
    """
    data = request.data
    edits: Json = {}
    named = data.get("model")
    if isinstance(named, str) and named.removeprefix("models/") != model.removeprefix("models/"):
        edits["model"] = model if "/" in model or not named.startswith("models/") else f"models/{model}"
    if max_output_tokens is not None and max_output_tokens != request.features.max_output_tokens:
        names = [name for name in _CONFIG if isinstance(data.get(name), dict)] or [_CONFIG[0]]
        for name in names:
            config = data.get(name) or {}
            caps = [cap for cap in _CAP if cap in config] or [_CAP[0]]
            edits[name] = {**config, **dict.fromkeys(caps, max_output_tokens)}
    return wire.splice(request.body, data, edits) if edits else request.body
