"""Content parts and items of this dialect, read as canonical parts."""

from __future__ import annotations

import re
from typing import Final

from tokenhub_core.dialects.openai_responses import proof, words
from tokenhub_core.dialects.openai_responses.kept import Kept, kept, others
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

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,")
_OWN: Final = ("id", "status")
_BESIDE_IMAGES: Final = ("revised_prompt", "svg_usage")
"""What is told of an image that is not seen in it, nor how it was made."""
"""Fields of an item that steer the wire and not the answer."""
_AUDIO: Final = {"mp3": "audio/mpeg", "wav": "audio/wav"}


def opaque(raw: Json, kind: str = "") -> Opaque:
    """Return an item or part that only this dialect understands."""
    return Opaque(Dialect.OPENAI_RESPONSES, kind or str(raw.get("type") or "item"), raw)


def parts(content: object) -> tuple[Part, ...]:
    """Return the parts of a message's content or a tool's output: a string, or a list; empty text is no part."""
    if isinstance(content, str):
        return (Text(content),) if content else ()
    if not isinstance(content, list):
        return ()
    found = (part(each) for each in content if isinstance(each, dict))
    return tuple(each for each in found if not (isinstance(each, Text) and not each.text and not each.rest))


def spoken(content: object) -> list[Part]:
    """Return the parts of an assistant's message. Those of an unknown type are told apart from items."""
    return [
        opaque(each.raw, f"content:{each.kind}") if isinstance(each, Opaque) else each
        for each in parts(content)
    ]


def part(raw: Json) -> Part:
    """Return one part. What this dialect holds by its own id alone, except files, is `Opaque`."""
    match raw:
        case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
            chances = words.logprobs(raw.get("logprobs"))
            homes = ("type", "text", "logprobs") if chances else ("type", "text")
            return Text(text, Kept(others(raw, homes), type=raw["type"]), chances)
        case {"type": "refusal", "refusal": str(text)}:
            return Refusal(text)
        case {"type": "input_image", "image_url": str(url)} if raw.get("file_id") is None:
            return _image(raw, url)
        case {"type": "input_file"}:
            return _file(raw)
        case {"type": "input_audio", "input_audio": {"data": str(data), "format": str(sound)}}:
            rest = kept(raw, ("type", "input_audio"), (), format=sound)
            return Audio(_AUDIO.get(sound, f"audio/{sound}"), data, rest=rest)
        case _:
            return opaque(raw)


def _image(raw: Json, url: str) -> Image:
    detail = raw.get("detail")
    detail = detail if isinstance(detail, str) else ""
    rest = kept(raw, ("type", "image_url", "detail") if detail else ("type", "image_url"))
    if found := _DATA_URL.match(url):
        return Image(media_type=found[1], data=url[found.end() :], detail=detail, rest=rest)
    return Image(url, detail=detail, rest=rest)


def _file(raw: Json) -> Part:
    url, data, file_id, name = (
        value if isinstance(value := raw.get(key), str) else ""
        for key in ("file_url", "file_data", "file_id", "filename")
    )
    if not (url or data or file_id):
        return opaque(raw)
    rest = kept(raw, ("type", "file_url", "file_data", "file_id", "filename"))
    found = _DATA_URL.match(data)
    kind = found[1] if found else ""
    return File(url, kind, data[found.end() :] if found else data, file_id, name, rest)


# --- items -------------------------------------------------------------------------------------------------


def tool_use(item: Json, signature: str = "") -> ToolUse:
    """Return a function call. Its id is `call_id`: the item's own names the item and not the call."""
    rest = kept(item, ("type", "call_id", "name", "arguments"), _OWN)
    return ToolUse(item["call_id"], item["name"], item["arguments"], rest, signature)


def tool_result(item: Json) -> ToolResult:
    """Return what a function gave out."""
    rest = kept(item, ("type", "call_id", "output"), _OWN)
    call_id = item.get("call_id")
    return ToolResult(call_id if isinstance(call_id, str) else "", parts(item.get("output")), rest=rest)


def thoughts(item: Json) -> tuple[list[Reasoning], str]:
    """Return the thoughts of a reasoning item, and the seal that it holds for the tool call after it.

    The item's raw thinking comes first, then each piece of its summary. All have its id; the last has the seal.
    """
    id_ = item["id"] if isinstance(item.get("id"), str) else ""
    given = item.get("encrypted_content")
    sealed, kind = proof.read(given) if isinstance(given, str) else ("", proof.Kind.HIDDEN)
    if kind is proof.Kind.CALL:
        return [], sealed
    texts = [(text, False) for text in _texts(item.get("content"))]
    texts += [(text, True) for text in _texts(item.get("summary"))]
    last = len(texts) - 1
    rest = kept(item, ("type", "id", "content", "summary", "encrypted_content"), ("status",))
    found: list[Reasoning] = []
    for number, (text, summary) in enumerate(texts or [("", False)]):
        here = sealed if number >= last else ""
        found.append(
            Reasoning(
                text,
                signature=here if kind is proof.Kind.SIGNED else "",
                redacted=here if kind is proof.Kind.HIDDEN else "",
                rest=Kept(continues="yes") if number else rest,
                id=id_,
                summary=summary,
            )
        )
    return found, ""


def _texts(pieces: object) -> list[str]:
    given = pieces if isinstance(pieces, list) else []
    return [
        piece["text"] for piece in given if isinstance(piece, dict) and isinstance(piece.get("text"), str)
    ]


def generated(item: Json) -> Image | None:
    """Return the image that the model made with an item, None where it made none."""
    match item:
        case {"type": "image_generation_call", "result": str(data)} if data:
            kind = item.get("output_format")
            media_type = f"image/{kind}" if isinstance(kind, str) else "image/png"
            # How it was made: none of it is seen in the image.
            rest = kept(
                item, ("type", "result", "output_format"), [key for key in item if key not in _BESIDE_IMAGES]
            )
            return Image(media_type=media_type, data=data, rest=rest)
    return None
