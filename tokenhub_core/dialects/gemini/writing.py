"""Canonical parts, as the parts of a content."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, assert_never

from tokenhub_core.dialects import seals, wire
from tokenhub_core.dialects.gemini.names import Kept, aside, put_back
from tokenhub_core.errors import TokenHubError
from tokenhub_core.types import (
    Audio,
    Dialect,
    File,
    Image,
    Json,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolResult,
    ToolUse,
)

_TYPES: Final = {
    "gif": "image/gif",
    "heic": "image/heic",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "md": "text/markdown",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "pdf": "application/pdf",
    "png": "image/png",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webp": "image/webp",
}
"""Media types by the end of a name, for media that tells none."""


class PartWriter:
    """Writes the parts of a request for a provider and notes what it could not carry in `losses`.

    `own` says that they come from a call in this dialect, so all of it is restored. `names` has the function that
    each call id belongs to, because results go by that.
    """

    def __init__(self, *, own: bool, names: Mapping[str, str], losses: list[str]) -> None:
        self._own = own
        self._names = names
        self._losses = losses

    def parts(self, given: Iterable[Part]) -> list[Json]:
        """Return what these parts are on the wire, in their order."""
        written: list[Json] = []
        for part in given:
            self._write(part, written)
        return written

    def _write(self, part: Part, written: list[Json]) -> None:
        match part:
            case Text(text):
                if text.strip() or self._own:
                    written.append(self._whole({"text": text}, part.rest))
            case Refusal(text):
                written += [{"text": text}] if text.strip() else []
            case Reasoning():
                self._reasoning(part, written)
            case ToolUse():
                written.append(self._tool_use(part))
            case ToolResult():
                written += self._tool_result(part)
            case Image() | File() | Audio():
                body = self._media(part)
                written += [self._whole(body, part.rest)] if body else []
            case Opaque(dialect, kind, raw):
                if dialect is Dialect.GEMINI:
                    written.append(raw)
                else:
                    self._losses.append(f"part:{kind}")
            case _:
                assert_never(part)

    def _whole(self, body: Json, rest: Mapping[str, Any]) -> Json:
        if isinstance(rest, Kept):
            put_back(body, rest)
        else:
            self._losses += rest
        return body

    def _reasoning(self, part: Reasoning, written: list[Json]) -> None:
        """Write a thought. One that nobody here signed tells the model nothing: it is restored, never adopted."""
        signature = seals.opened(Dialect.GEMINI, part.signature)
        if part.redacted:
            self._losses.append("part:redacted_thinking")
        if part.signature and not signature:
            self._losses.append("thinking.signature")
        if signature and written and aside(part.rest, "attached"):
            written[-1] = {**written[-1], "thoughtSignature": signature}
            return
        if not signature and not (self._own and (part.text or part.rest)):
            self._losses += ["part:thinking"] if part.text else []
            return
        body: Json = {"text": part.text}
        if aside(part.rest, "thought") if isinstance(part.rest, Kept) else part.text:
            body["thought"] = True
        if signature:
            body["thoughtSignature"] = signature
        written.append(self._whole(body, part.rest))

    def _tool_use(self, part: ToolUse) -> Json:
        call: Json = {} if aside(part.rest, "unnamed") or not part.id else {"id": part.id}
        call |= {"name": part.name, "args": arguments(part.arguments, self._losses)}
        body: Json = {"functionCall": call}
        if signature := seals.opened(Dialect.GEMINI, part.signature):
            body["thoughtSignature"] = signature
        elif part.signature:
            self._losses.append("thinking.signature")
        return self._whole(body, part.rest)

    def _tool_result(self, part: ToolResult) -> list[Json]:
        """Return a result; one whose call nobody knows is told in plain parts, because it needs a name."""
        name = aside(part.rest, "name") or self._names.get(part.id)
        if not name:
            self._losses.append("tool_call_id")
            return self.parts(part.content)
        media = self.parts(each for each in part.content if isinstance(each, Image | File | Audio))
        left = [each for each in part.content if not isinstance(each, Text | Image | File | Audio)]
        text = "\n".join(each.text for each in part.content if isinstance(each, Text))
        self._losses += [f"part:{type(each).__name__.lower()}" for each in left]
        for each in part.content:
            if isinstance(each, Text) and not isinstance(each.rest, Kept):
                self._losses += each.rest
        response: Json = {} if aside(part.rest, "unnamed") or not part.id else {"id": part.id}
        response |= {"name": name, "response": self._outcome(part, text)}
        if media:
            response["parts"] = media
        return [self._whole({"functionResponse": response}, part.rest)]

    def _outcome(self, part: ToolResult, text: str) -> Json:
        """Return the object that a function is to return: its own where it is one, else with its text inside."""
        wrapped = aside(part.rest, "wrapped")
        if wrapped:
            return {wrapped: text}
        found = _object(text)
        if found is not None and (not part.is_error or "error" in found):
            return found
        if part.is_error:
            return {"error": text}
        return {"output": text} if text or not self._own else {}

    def _media(self, part: Image | File | Audio) -> Json | None:
        if isinstance(part, Image) and part.detail not in {"", "auto"}:
            self._losses.append("image_url.detail")
        kind, data, url = part.media_type, part.data, "" if isinstance(part, Audio) else part.url
        name = part.name if isinstance(part, File) else ""
        if url.startswith("data:") and ";base64," in url:
            head, _, data = url.partition(";base64,")
            kind, url = head.removeprefix("data:"), ""
        if isinstance(part, File) and part.file_id and self._own:
            url = part.file_id
        elif not url.startswith(("https://", "http://")):
            url = ""
        if not url and not data:
            self._losses.append(f"part:{type(part).__name__.lower()}")
            return None
        body: Json = {}
        if kind := kind or guessed(url or name, "" if url else _default(part)):
            body["mimeType"] = kind
        body |= {"fileUri": url} if url else {"data": data}
        if name and isinstance(part.rest, Kept):
            body["displayName"] = name
        elif name:
            self._losses.append("file.filename")
        if isinstance(part, Audio) and part.transcript:
            self._losses.append("audio.transcript")
        return {"fileData" if url else "inlineData": body}


def _default(part: Image | File | Audio) -> str:
    match part:
        case Image():
            return "image/png"
        case Audio():
            return "audio/wav"
        case File():
            return "application/octet-stream"
        case _:
            assert_never(part)


def guessed(name: str, default: str) -> str:
    """Return the media type that the end of a name or URL tells, else `default`."""
    end = re.split(r"[?#]", name, maxsplit=1)[0].rpartition(".")[2].lower()
    return _TYPES.get(end, default)


def arguments(text: str, losses: list[str]) -> Json:
    """Return a call's arguments as the object that this dialect wants; what is none is kept in one, and a loss."""
    if not text.strip():
        return {}
    found = _object(text)
    if found is None:
        losses.append("tool_calls.arguments")
        return {"_raw": text}
    return found


def _object(text: str) -> Json | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        return wire.decode(text.encode(), repeats=True)
    except TokenHubError:
        return None
