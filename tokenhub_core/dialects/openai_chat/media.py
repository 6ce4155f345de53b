"""Images, files and sound in a message: read from its content, and written there."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

from tokenhub_core.dialects.openai_chat.kept import Kept, others, put_back, spelled
from tokenhub_core.types import Audio, File, Image, Json

_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*);base64,")

_TEXTUAL: Final = re.compile(r"text/|application/(?:[\w.-]+\+)?(?:json|xml|yaml|x-yaml)(?:;|$)")

_FORMATS: Final = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}
"""Kinds of sound whose name in a media type is not the one that the wire has for them."""

_NAMES: Final = {"application/pdf": "document.pdf"}


# --- read --------------------------------------------------------------------------------------------------


def image(url: str, detail: str, rest: Json) -> Image:
    """Return an image; a base64 data URL is taken apart, any other URL stays one."""
    if found := _DATA_URL.match(url):
        return Image(media_type=found[1], data=url[found.end() :], detail=detail, rest=rest)
    return Image(url=url, detail=detail, rest=rest)


def file(part: Json, inner: Json) -> File | None:
    """Return the file of a part, None where it is none that we know.

    `file_data` is a data URL; bare base64 and web addresses are seen too, and stay what they are.
    """
    given = [inner.get(key) for key in ("file_data", "file_id", "filename")]
    if not all(value is None or isinstance(value, str) for value in given):
        return None
    data, id_, name = (value or "" for value in given)
    rest = others(part, ("type", "file")) | others(inner, ("file_data", "file_id", "filename"), "file.")
    if found := _DATA_URL.match(data):
        return File("", found[1], data[found.end() :], id_, name, rest)
    if data.startswith(("http://", "https://")):
        return File(data, file_id=id_, name=name, rest=rest)
    return File("", "", data, id_, name, rest) if data or id_ else None


def audio(part: Json, inner: Json) -> Audio | None:
    """Return the sound of an `input_audio` part, None where it is none that we know."""
    match inner:
        case {"data": str(data), "format": str(kind)}:
            rest = others(part, ("type", "input_audio")) | others(inner, ("data", "format"), "input_audio.")
            return Audio(f"audio/{kind}", data, rest=rest)
    return None


def spoken(given: Any) -> Audio | None:
    """Return what a model said aloud, from its message's `audio`; None where there is no id to name it by."""
    match given:
        case {"id": str(id_)}:
            data, transcript = (given.get(key) for key in ("data", "transcript"))
            expires = given.get("expires_at")
            return Audio(
                data=data if isinstance(data, str) else "",
                id=id_,
                transcript=transcript if isinstance(transcript, str) else "",
                rest=Kept(
                    others(given, ("id", "data", "transcript", "expires_at")),
                    expires_at=str(expires) if type(expires) is int else "0",
                ),
            )
    return None


def joined(pieces: list[str]) -> str:
    """Return base64 that came in pieces, each of them whole in itself, as one; raises ValueError for no base64."""
    try:
        return base64.b64encode(b"".join(base64.b64decode(piece) for piece in pieces)).decode()
    except binascii.Error as error:
        raise ValueError(f"audio: {error}") from None


# --- written -----------------------------------------------------------------------------------------------


def image_part(image: Image) -> Json:
    """Return an image as it stands in a message's content."""
    source: Json = {"url": image.url or f"data:{image.media_type};base64,{image.data}"}
    if image.detail:
        source["detail"] = image.detail
    return {"type": "image_url", "image_url": source}


def file_part(file: File) -> Json:
    """Return a file as it stands in a message's content."""
    data = f"data:{file.media_type};base64,{file.data}" if file.data and file.media_type else file.data
    inner = {"file_data": data or file.url, "file_id": file.file_id, "filename": file.name}
    return {"type": "file", "file": {key: value for key, value in inner.items() if value}}


def audio_part(audio: Audio) -> Json:
    """Return sound as it stands in a message's content."""
    kind = audio.media_type.partition("/")[2].partition(";")[0]
    source = {"data": audio.data, "format": _FORMATS.get(kind, kind)}
    return {"type": "input_audio", "input_audio": source}


def speech(audio: Audio, *, fallback_id: str) -> Json:
    """Return the `audio` of a model's message; the SDK wants every field, `expires_at` too."""
    expires = int(spelled(audio.rest, "expires_at", "0"))
    return {
        "id": audio.id or fallback_id,
        "data": audio.data,
        "expires_at": expires,
        "transcript": audio.transcript,
    }


def fitted(file: File) -> tuple[Json | None, tuple[str, ...]]:
    """Return a foreign file as servers of this dialect take it, and what was lost on the way.

    Only documents by value travel: an address or an id means nothing here. OpenAI takes PDF alone, so what is
    text is carried as text, under its name; that it was a file is lost then (`file.media_type`).
    """
    kind = file.media_type
    if not file.data:
        return None, ("part:file",)
    if kind.startswith("image/"):
        return image_part(Image(media_type=kind, data=file.data)), ()
    if _TEXTUAL.match(kind):
        try:
            text = base64.b64decode(file.data).decode()
        except ValueError:
            return None, ("part:file",)
        head = f"[{file.name}]\n" if file.name else ""
        return {"type": "text", "text": head + text}, ("file.media_type",)
    named = File("", kind, file.data, "", file.name or _NAMES.get(kind, "document"))
    return file_part(named), ()


def images(given: object) -> list[Image]:
    """Return the images that a model made (`message.images`), nothing where one of them is no image we know."""
    found: list[Image] = []
    for each in given if isinstance(given, list) else ():
        match each:
            case {"type": "image_url", "image_url": {"url": str(url)}}:
                found.append(image(url, "", {}))
            case _:
                return []
    return found


def own_part(part: Image | File | Audio) -> Json:
    """Return media of this dialect as they came."""
    body: Any
    if isinstance(part, Image):
        body = image_part(part)
    elif isinstance(part, File):
        body = file_part(part)
    else:
        body = audio_part(part)
    put_back(body, part.rest)
    return dict(body)
