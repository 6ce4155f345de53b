"""A request as far as a simulated model reads it, and the tools that the wire formats read it with."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import orjson

from tokenhub_core.types import Choice, Dialect, Json

_MEDIA = frozenset({"image", "image_url", "input_image", "document", "file", "input_file", "input_audio"})
_MEDIA_KEYS = frozenset({"inlineData", "inline_data", "images", "data", "signature", "encrypted_content"})


class RejectedError(Exception):
    """A vendor's no to a request: the status, its words, and the labels that its error body holds."""

    def __init__(self, message: str, *, status: int = 400, param: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Media:
    """Something attached: `kind` is `image`, `file`, `audio` or `video`; `type` its media type or `by reference`."""

    kind: str
    type: str


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool said."""

    name: str
    text: str
    is_error: bool = False
    media: tuple[Media, ...] = ()


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool that may be called; a custom one takes plain text instead of arguments that fit a schema."""

    name: str
    schema: Any = None
    custom: bool = False


@dataclass(frozen=True, slots=True)
class Prefix:
    """The beginning of a conversation up to one block: a hash of it, its tokens, and whether caching was asked."""

    digest: str
    tokens: int
    marked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request as far as a simulated model reads it."""

    dialect: Dialect
    model: str
    data: Json = field(repr=False)
    """The request's body, for what an answer repeats of it."""
    text: str
    """The last text of the user."""
    stream: bool = False
    array: bool = False
    """A stream is one JSON array instead of events."""
    include_usage: bool = True
    limit: int | None = None
    """The caller's cap on output tokens."""
    stops: tuple[str, ...] = ()
    media: tuple[Media, ...] = ()
    """What the user attached to it."""
    results: tuple[Result, ...] = ()
    """Tool results since then."""
    begun: str = ""
    """What the assistant has said of the answer already: it goes on from there."""
    tools: tuple[Offered, ...] = ()
    choice: Choice = Choice.AUTO
    chosen: str = ""
    parallel: bool = True
    structured: bool = False
    schema: Any = None
    thinks: bool = False
    shows: bool = False
    """The caller wants to see the thoughts."""
    logprobs: int | None = None
    """How many likely tokens to tell at each place; None for no log probabilities."""
    n: int = 1
    seed: int | None = None
    input_tokens: int = 1
    prefixes: tuple[Prefix, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """An answer that no model is needed for: a count of tokens, or vectors."""

    model: str
    body: bytes


type Reading = Ask | Told


# --- narrowing JSON -----------------------------------------------------------------------------------------


def mapping(value: object) -> Mapping[str, Any]:
    """Return an object, empty where `value` is none."""
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> Iterator[Json]:
    """Yield the objects of a list."""
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def strings(value: object) -> Iterator[str]:
    """Yield the texts of a list."""
    return (item for item in value if isinstance(item, str)) if isinstance(value, list) else iter(())


def whole(value: object) -> int | None:
    """Return a positive whole number, None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def texts(content: object) -> str:
    """Return a text, or the texts of a list of parts, one per line."""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in mappings(content) if isinstance(part.get("text"), str))


def demand(condition: object, message: str, param: str = "", code: str = "") -> None:
    """Refuse the request with status 400 unless `condition` holds."""
    if not condition:
        raise RejectedError(message, param=param, code=code)


def names(text: str) -> frozenset[str]:
    """Return the words of a text: a table of names that reads as one."""
    return frozenset(text.split())


def unknown(data: Mapping[str, Any], known: Collection[str]) -> str:
    """Return the first key that is not known, empty where all are."""
    return next((key for key in data if key not in known), "")


def decodes(data: object) -> bool:
    """Tell whether `data` is base64 text of at least one byte."""
    try:
        return isinstance(data, str) and bool(base64.b64decode(data, validate=True))
    except (ValueError, binascii.Error):
        return False


def data_url(url: str) -> tuple[str, str]:
    """Return media type and base64 data of a data URL, both empty for any other URL."""
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        return "", ""
    return head[5:-7].partition(";")[0], data


# --- counting -----------------------------------------------------------------------------------------------


def tokens(text: str) -> int:
    """Return how many tokens a text has: a quarter of its bytes, at least one."""
    return max(1, -(-len(text.encode(errors="replace")) // 4))


def weigh(*values: object) -> int:
    """Return the tokens of decoded JSON, media left out."""
    return max(1, -(-sum(map(_bytes, values)) // 4))


def prefixes(model: str, blocks: Iterable[Any]) -> tuple[Prefix, ...]:
    """Return the beginnings of a conversation, block by block; one with `cache_control` is marked."""
    sofar, size, found = blake2b(model.encode(errors="replace"), digest_size=12), 0, []
    for block in blocks:
        marked = isinstance(block, dict) and bool(block.get("cache_control"))
        bare = {key: value for key, value in block.items() if key != "cache_control"} if marked else block
        sofar.update(orjson.dumps(bare) + b"\n")
        size += _bytes(bare)
        found.append(Prefix(sofar.hexdigest(), -(-size // 4), marked))
    return tuple(found)


def _bytes(value: object) -> int:
    match value:
        case str():
            return len(value.encode(errors="replace"))
        case list():
            return sum(map(_bytes, value))
        case dict():
            kind = value.get("type")  # in a schema, a property may have this name
            if isinstance(kind, str) and kind in _MEDIA:
                return 0
            return sum(_bytes(item) for key, item in value.items() if key not in _MEDIA_KEYS)
        case _:
            return 0
