"""Documents: `document` blocks, and the files that they are.

A document may be given as text or as blocks of text. Both are a file of type `text/plain`; how it was given is
remembered for a provider of this dialect, because citations count in it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

from tokenhub_core.types import File, Json

_PDF: Final = "application/pdf"
_PDF_BEGINS: Final = "JVBER"
"""What base64 makes of `%PDF`: some callers name no type."""

_IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})

_TEXTUAL: Final = re.compile(r"text/|application/(?:[\w.-]+\+)?(?:json|xml|yaml|x-yaml)(?:;|$)")


class Kept(dict[str, Any]):
    """A `rest` that this dialect made; `source` is a document's own, where it says more than the file does."""

    __slots__ = ("source",)

    def __init__(self, fields: Mapping[str, Any], source: Json | None = None) -> None:
        super().__init__(fields)
        self.source = source


def read(block: Json, rest: Mapping[str, Any]) -> File | None:
    """Return the file of a `document` block, None where its source is of a kind that no file is.

    `rest` is what else the block says, its title left out.
    """
    title = block.get("title")
    if title is not None and not isinstance(title, str):
        return None
    name = title or ""
    match block.get("source"):
        case {"type": "base64", "media_type": str(kind), "data": str(data), **more} if not more:
            return File(media_type=kind, data=data, name=name, rest=rest)
        case {"type": "url", "url": str(url), **more} if not more:
            return File(url, name=name, rest=rest)
        case {"type": "file", "file_id": str(id_), **more} if not more:
            return File(file_id=id_, name=name, rest=rest)
        case {"type": "text", "media_type": "text/plain", "data": str(text), **more} if not more:
            return File(media_type="text/plain", data=_encoded(text), name=name, rest=rest)
        case {"type": "content", "content": content, **more} as source if not more:
            found = _plain(content)
            if found is not None:
                return File(media_type="text/plain", data=_encoded(found), name=name, rest=Kept(rest, source))
    return None


def _plain(content: object) -> str | None:
    """Return the text of a `content` source, None where it is not text alone."""
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for block in content if isinstance(content, list) else [None]:
        match block:
            case {"type": "text", "text": str(text), **more} if not more:
                texts.append(text)
            case _:
                return None
    return "\n\n".join(texts)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode(errors="replace")).decode()


def write(given: File, *, own: bool) -> Json | None:
    """Return the block of a file without its `rest`; None where this dialect has none for it.

    PDF, text, and the images that this dialect knows are carried, whatever their caller called them; a file by
    its id only where it came in this dialect, because the id is one of its provider's.
    """
    source = _source(given, own=own)
    if source is None:
        return None
    if source.get("media_type") in _IMAGES:
        return {"type": "image", "source": source}
    block: Json = {"type": "document", "source": source}
    if given.name:
        block["title"] = given.name
    return block


def _source(given: File, *, own: bool) -> Json | None:
    if isinstance(given.rest, Kept) and given.rest.source is not None:
        return given.rest.source
    kind = given.media_type.partition(";")[0]
    if given.data:
        if _TEXTUAL.match(kind):
            try:
                text = base64.b64decode(given.data).decode()
            except ValueError:
                return None
            return {"type": "text", "media_type": "text/plain", "data": text} if own or text.strip() else None
        if not kind and given.data.startswith(_PDF_BEGINS):
            kind = _PDF
        if own or kind == _PDF or kind in _IMAGES:
            return {"type": "base64", "media_type": kind, "data": given.data}
    if given.url:
        return {"type": "url", "url": given.url}
    if own and given.file_id:
        return {"type": "file", "file_id": given.file_id}
    return None
