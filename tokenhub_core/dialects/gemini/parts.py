"""The parts of a content, read: what they are canonically. `writing` is the way back.

All functions here take parts whose names are `names.plain`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from tokenhub_core.dialects import wire
from tokenhub_core.dialects.gemini import words
from tokenhub_core.dialects.gemini.names import Kept, many, others
from tokenhub_core.types import (
    Audio,
    Dialect,
    File,
    Image,
    Json,
    Opaque,
    Part,
    Reasoning,
    Text,
    ToolResult,
    ToolUse,
)

_MARKS: Final = ("thought", "thoughtSignature")
_WRAPPERS: Final = ("output", "result", "content", "error")
"""Members that hold the whole of a function's result where they stand alone in it and are text."""
_OWN_HOST: Final = "generativelanguage.googleapis.com"


def parts(given: object) -> list[Part]:
    """Return the canonical parts of a content's `parts`; a signature is a part of its own after the one it marks."""
    return [found for raw in many(given) if isinstance(raw, dict) for found in part(raw)]


def part(raw: Json) -> list[Part]:
    """Return what one part is; a part of an unknown kind or shape is `Opaque`."""
    match raw:
        case {"functionCall": {"name": str(name)}}:
            return [_tool_use(raw, raw["functionCall"], name)]
        case {"functionResponse": {"name": str(name)}}:
            return [_tool_result(raw, raw["functionResponse"], name)]
        case {"inlineData": {"mimeType": str(kind), "data": str(data)}}:
            return [_inline(raw, kind, words.standard(data)), *_signature(raw)]
        case {"fileData": {"fileUri": str(uri)}}:
            return [_by_reference(raw, uri), *_signature(raw)]
        case {"text": str(text)} if raw.get("thought") is not True and (text or not _signature(raw)):
            return [Text(text, Kept(others(raw, ("text", *_MARKS)))), *_signature(raw)]
    if raw.keys() <= {"text", *_MARKS, "partMetadata"} and isinstance(raw.get("text", ""), str):
        return [_thought(raw)]
    return [Opaque(Dialect.GEMINI, kind_of(raw), raw)]


def kind_of(raw: Json) -> str:
    """Return the word for what a part holds."""
    return next((name for name in raw if name not in {*_MARKS, "partMetadata"}), "part")


def _beside(raw: Json, home: str) -> Json:
    """Return what else a part of a call or of media has; that it is a thought is told of texts alone elsewhere."""
    thought = {"thought": True} if raw.get("thought") is True else {}
    return others(raw, (home, *_MARKS)) | thought


def _thought(raw: Json) -> Reasoning:
    seal, redacted = words.sealed(raw.get("thoughtSignature"))
    rest = Kept(others(raw, ("text", *_MARKS)), thought=raw.get("thought") is True)
    text = words.text_of(raw, "text")
    return Reasoning(text, "" if redacted else seal, seal if redacted else "", rest)


def _signature(raw: Json) -> tuple[Reasoning, ...]:
    """Return the signature that a part other than a thought or a call carries: it proves the thinking before."""
    seal, redacted = words.sealed(raw.get("thoughtSignature"))
    if not seal or redacted:
        return ()
    return (Reasoning(signature=seal, rest=Kept(attached=True)),)


def _tool_use(raw: Json, call: Json, name: str) -> ToolUse:
    args = call.get("args")
    homes = ("id", "name", "args") if args is None or isinstance(args, dict) else ("id", "name")
    rest = _beside(raw, "functionCall") | others(call, homes, "functionCall.")
    seal, _ = words.sealed(raw.get("thoughtSignature"))
    arguments = wire.encode(args if isinstance(args, dict) else {}).decode()
    return ToolUse(words.text_of(call, "id"), name, arguments, Kept(rest), seal)


def _tool_result(raw: Json, response: Json, name: str) -> ToolResult:
    """Return a function's result. Its object is one text: the one it wraps, or all of it as JSON."""
    body = response.get("response")
    homes = ("id", "name", "response", "parts")
    rest = others(raw, ("functionResponse", *_MARKS)) | others(response, homes, "functionResponse.")
    wrapped, text = "", ""
    match body:
        case dict() if len(body) == 1 and isinstance(body[key := next(iter(body))], str):
            wrapped, text = (key, body[key]) if key in _WRAPPERS else ("", wire.encode(body).decode())
        case dict() if body:
            text = wire.encode(body).decode()
    content = [Text(text)] if text else []
    return ToolResult(
        words.text_of(response, "id"),
        (*content, *parts(response.get("parts"))),
        is_error=isinstance(body, dict) and body.keys() == {"error"},
        rest=Kept(rest, name=name, wrapped=wrapped),
    )


def media(mime_type: str, data: str, name: str = "") -> Image | Audio | File:
    """Return the part for media by value; `data` is base64 in its usual alphabet."""
    if mime_type.startswith("image/"):
        return Image(media_type=mime_type, data=data)
    if mime_type.startswith("audio/"):
        return Audio(mime_type, data)
    return File(media_type=mime_type, data=data, name=name)


def _inline(raw: Json, kind: str, data: str) -> Part:
    given: Json = raw["inlineData"]
    found = media(kind, data, words.text_of(given, "displayName"))
    homes = ["mimeType", "data"] + (["displayName"] if isinstance(found, File) else [])
    rest = _beside(raw, "inlineData") | others(given, homes, "inlineData.")
    return replace(found, rest=Kept(rest))


def _by_reference(raw: Json, uri: str) -> Part:
    """Return media by URL. What only Google's servers can fetch is a file of theirs."""
    given: Json = raw["fileData"]
    kind, name = words.text_of(given, "mimeType"), words.text_of(given, "displayName")
    rest = _beside(raw, "fileData")
    if kind.startswith("image/") and fetchable(uri):
        left = others(given, ("fileUri", "mimeType"), "fileData.")
        return Image(uri, kind, rest=Kept(rest | left))
    left = Kept(rest | others(given, ("fileUri", "mimeType", "displayName"), "fileData."))
    if fetchable(uri):
        return File(uri, kind, name=name, rest=left)
    return File(file_id=uri, media_type=kind, name=name, rest=left)


def fetchable(uri: str) -> bool:
    """Tell whether anybody can fetch this URL."""
    try:
        address = urlsplit(uri)
        return address.scheme in {"http", "https"} and address.hostname != _OWN_HOST
    except ValueError:
        return False


def media_type(raw: Json) -> str:
    """Return the media type of a part that holds media, empty for any other."""
    for key in ("inlineData", "fileData"):
        found: Any = raw.get(key)
        if isinstance(found, dict):
            return words.text_of(found, "mimeType") or "application/octet-stream"
    return ""
