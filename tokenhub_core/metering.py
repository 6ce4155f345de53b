"""Reading the usage of an answer that passes by: from copies of its bytes, without holding one back.

A `Meter` keeps the first and the last bytes of an answer, never more, and looks at them once, at the end. A JSON
answer that fits is read as JSON; of a longer one, and of a stream, the objects by the name of `usage` are read
wherever they stand in what was kept: a quote inside a JSON string is escaped, so no text can look like one.
Counts are merged by per-field maximum, because streams repeat and accumulate them.

Only answers to POST are read: what a GET shows (a batch, a stored response) was counted when it was made.

Shapes: the API references of OpenAI (`usage` of chat, responses, embeddings, images, transcriptions), Anthropic
(`usage` of messages), Google (`usageMetadata`) and Amazon Bedrock (`usage` of Converse, the headers
`x-amzn-bedrock-*-token-count` and `amazon-bedrock-invocationMetrics` of InvokeModel).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import unquote

import orjson
import zstandard

from tokenhub_core.providers.decoding import BombError, BrokenBodyError, UnknownEncodingError, decoder
from tokenhub_core.types import Headers, Usage, header

KEPT: Final = 64 << 10
"""The most bytes that are kept of the end of an answer; a JSON answer up to this size is read whole."""

_HEAD: Final = 8 << 10
"""The most bytes that are kept of the beginning of a request and of an answer."""

_DECODED: Final = 64 << 20
"""Bytes of a compressed answer after which nothing more of it is unpacked."""

_OBJECT: Final = 4 << 10
"""Bytes that a usage object may have."""

_FIRST: Final = 4
_LAST: Final = 16
"""How many usage objects are looked at, from both ends of what was kept."""

_LARGEST: Final = 10**12
"""A larger count is none."""

_LONGEST_NAME: Final = 200
_STREAMS: Final = ("text/event-stream", "application/vnd.amazon.eventstream", "application/x-ndjson")
_EVENTS: Final = "application/vnd.amazon.eventstream"

_USAGE: Final = re.compile(
    rb'"(?:usage|usageMetadata|amazon-bedrock-invocationMetrics)"\s{0,8}:\s{0,8}(?=\{)'
)
_MODEL: Final = re.compile(rb'"(?:model|modelVersion)"\s{0,8}:\s{0,8}"([^"\\]{1,200})"')
_FIELD: Final = re.compile(rb'name="?model"?\r\n(?:[^\r\n]{1,200}\r\n){0,4}\r\n([^\r\n]{1,200})\r\n')
_BLOB: Final = re.compile(rb'"bytes":"([A-Za-z0-9+/=]{1,65536})"')
_NAMED: Final = re.compile(r"/(?:model|models|deployments)/([^/?#]{1,300})")


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found; zeros and empty names where nothing was."""

    usage: Usage = Usage()
    model: str = ""
    """The model that answered: by its own word, else by the request's address."""
    asked: str = ""
    """The model that was asked for."""
    stream: bool = False


class Meter:
    """Listens to one exchange: `ask` gets the request's body, `begin` the answer's head, `feed` its body.

    Takes linear time and bounded memory, and raises nothing whatever comes.
    """

    __slots__ = ("_answer", "_asked", "_counts", "_hears", "_kind", "_path", "_plain", "_unpack", "_unpacked")

    def __init__(
        self, method: str, path: str, headers: Headers, hears: Callable[[bytes], None] | None = None
    ) -> None:
        """`path` may hold a query; `headers` are the request's, names in lower case.

        `hears` gets every piece of the answer that is read, decoded.
        """
        self._hears = hears
        self._counts = method.upper() == "POST" and "batches" not in path
        self._path = path
        self._plain = header(headers, "content-encoding").lower() in {"", "identity"}
        self._asked = bytearray()
        self._answer = _Ends()
        self._kind = ""
        self._unpack: _Unpack | None = None
        self._unpacked = 0

    def ask(self, piece: bytes) -> None:
        """Hear a piece of the request's body."""
        if self._counts and self._plain and len(self._asked) < _HEAD:
            self._asked += piece[: _HEAD - len(self._asked)]

    def asked(self) -> str:
        """Return the model that was asked for, as far as it was heard; empty where there is none."""
        return _named(self._path) or _model(bytes(self._asked), (_MODEL, _FIELD))

    def begin(self, status: int, headers: Headers) -> None:
        """Hear the answer's head, names in lower case."""
        kind = header(headers, "content-type").partition(";")[0].strip().lower()
        read = kind in _STREAMS or kind == "application/json" or kind.endswith("+json")
        if not self._counts or not 200 <= status < 300:
            self._counts = False
            return
        self._kind = kind if read else ""
        self._answer.counted = _of_headers(headers)
        try:
            self._unpack = _unpacker(header(headers, "content-encoding"))
        except UnknownEncodingError:
            self._kind = ""

    def feed(self, piece: bytes) -> None:
        """Hear a piece of the answer's body, encoded as it came."""
        if not self._counts or not self._kind:
            return
        if self._unpack is None:
            self._take(piece)
            return
        try:
            for part in self._unpack.feed(piece):
                self._unpacked += len(part)
                self._take(part)
                if self._unpacked > _DECODED:
                    self._kind = ""
                    return
        except (BombError, BrokenBodyError, zstandard.ZstdError, zlib.error):
            self._kind = ""

    def _take(self, part: bytes) -> None:
        self._answer.add(part)
        if self._hears is not None:
            self._hears(part)

    def whole(self) -> bytes:
        """Return a JSON answer, decoded, where all of it was kept; empty where it was not, or is a stream."""
        kept = self._counts and self._kind and self._kind not in _STREAMS and self._answer.whole
        return self._answer.tail if kept else b""

    def read(self) -> Reading:
        """Return what was found so far."""
        stream = self._kind in _STREAMS
        if not self._counts:
            return Reading()
        asked = self.asked()
        usage, model = _found(self._answer, self._kind) if self._kind else (Usage(), "")
        return Reading(self._answer.counted.merge(usage), model or _named(self._path), asked, stream)


class _Ends:
    """The beginning and the end of some bytes."""

    __slots__ = ("_tail", "counted", "head", "size")

    def __init__(self) -> None:
        self.head = bytearray()
        self.size = 0
        self.counted = Usage()
        self._tail = bytearray()

    def add(self, piece: bytes) -> None:
        self.size += len(piece)
        if len(self.head) < _HEAD:
            self.head += piece[: _HEAD - len(self.head)]
        self._tail += piece[-KEPT:]
        # Rarely, so that a byte is moved once on average and not with each piece.
        if len(self._tail) > 2 * KEPT:
            del self._tail[:-KEPT]

    @property
    def whole(self) -> bool:
        return self.size <= KEPT

    @property
    def tail(self) -> bytes:
        return bytes(self._tail[-KEPT:])


# --- content encodings --------------------------------------------------------------------------------------


class _Zstd:
    """Zstandard, piece by piece."""

    _STEP: Final = 256
    """Bytes that are unpacked at a time: four of them can become 128 KiB."""

    def __init__(self) -> None:
        self._engine = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()

    def feed(self, data: bytes) -> Iterable[bytes]:
        for at in range(0, len(data), self._STEP):
            if self._engine.eof:
                return
            yield self._engine.decompress(data[at : at + self._STEP])


class _Unpack(Protocol):
    """Undoes a content encoding."""

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Yield what `data` decodes to, in pieces."""
        ...


def _unpacker(encoding: str) -> _Unpack | None:
    return _Zstd() if encoding.strip().lower() == "zstd" else decoder(encoding)


# --- finding ------------------------------------------------------------------------------------------------


def _found(answer: _Ends, kind: str) -> tuple[Usage, str]:
    tail = answer.tail
    if answer.whole and kind not in _STREAMS:
        try:
            data = orjson.loads(tail)
        except ValueError:
            data = None
        if isinstance(data, dict):
            return _of_json(data)
    pieces = [tail] if answer.whole else [bytes(answer.head), tail]
    if kind == _EVENTS:
        pieces += [blob for piece in pieces for blob in _blobs(piece)]
    usage = Usage()
    for piece in pieces:
        for data in _objects(piece):
            usage = usage.merge(_usage(data))
    names = (_model(piece, (_MODEL,)) for piece in pieces)
    return usage, next(filter(None, names), "")


def _of_json(data: Mapping[str, Any]) -> tuple[Usage, str]:
    for name in ("usage", "usageMetadata"):
        if isinstance(found := data.get(name), dict):
            usage = _usage(found)
            break
    else:
        usage = Usage()
    model = data.get("model") or data.get("modelVersion")
    return usage, model[:_LONGEST_NAME] if isinstance(model, str) else ""


def _objects(piece: bytes) -> Iterable[Mapping[str, Any]]:
    """Yield the usage objects that stand in a piece of JSON, the first and the last ones."""
    places = [match.end() for match in _USAGE.finditer(piece)]
    if len(places) > _FIRST + _LAST:
        places = [*places[:_FIRST], *places[-_LAST:]]
    for start in places:
        text = piece[start : start + _OBJECT].decode("utf-8", "replace")
        try:
            data, _ = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(data, dict):
            yield data


def _blobs(piece: bytes) -> Iterable[bytes]:
    """Yield what the events of a Bedrock stream wrap in base64, the first and the last ones."""
    found = [match[1] for match in _BLOB.finditer(piece)]
    if len(found) > _FIRST + _LAST:
        found = [*found[:_FIRST], *found[-_LAST:]]
    for blob in found:
        try:
            yield base64.b64decode(blob)
        except binascii.Error:
            continue


def _model(piece: bytes, patterns: Iterable[re.Pattern[bytes]]) -> str:
    matches = (pattern.search(piece) for pattern in patterns)
    found = next(filter(None, matches), None)
    return found[1].decode("utf-8", "replace").strip() if found else ""


def _named(path: str) -> str:
    """Return the model that an address names, as those of Azure, Bedrock, Gemini and Vertex do."""
    found = _NAMED.search(path.partition("?")[0])
    if found is None:
        return ""
    # Bedrock's ids may hold a colon (`…-v1:0`); Google's operations follow one.
    name = unquote(found[1])
    if "/models/" in path:
        name = name.partition(":")[0]
    return name[:_LONGEST_NAME]


# --- counting -----------------------------------------------------------------------------------------------


def _usage(data: Mapping[str, Any]) -> Usage:
    """Return the counts of a usage object of any of the shapes that are known."""
    read = _count(data, "cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = _count(
        data, "cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount"
    )
    # Anthropic and Bedrock count what was cached beside the input, the others as a part of it.
    beside = read + written
    prompt, answer = _part(data, "prompt", "input"), _part(data, "completion", "output")
    thoughts = _count(data, "thoughtsTokenCount")
    return Usage(
        input_tokens=beside
        + _count(data, "prompt_tokens", "input_tokens", "inputTokens", "inputTokenCount", "promptTokenCount")
        + _count(data, "toolUsePromptTokenCount"),
        output_tokens=thoughts
        + _count(
            data,
            "completion_tokens",
            "output_tokens",
            "outputTokens",
            "outputTokenCount",
            "candidatesTokenCount",
        ),
        cache_read_tokens=read or _count(prompt, "cached_tokens") or _count(data, "cachedContentTokenCount"),
        cache_write_tokens=written,
        reasoning_tokens=thoughts or _count(answer, "reasoning_tokens"),
    )


def _part(data: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return OpenAI's details of a count: `prompt_tokens_details` or `input_tokens_details`, and so on."""
    for name in names:
        if isinstance(found := data.get(f"{name}_tokens_details"), dict):
            return found
    return {}


def _count(data: Mapping[str, Any], *names: str) -> int:
    for name in names:
        found = data.get(name)
        if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _LARGEST:
            return found
    return 0


def _of_headers(headers: Headers) -> Usage:
    """Return what Bedrock's InvokeModel tells in its head."""
    told = {name: int(value) for name, value in headers if name.startswith(_BEDROCK) and _is_number(value)}

    def count(name: str) -> int:
        return _count(told, f"{_BEDROCK}{name}-token-count")

    read, written = count("cache-read-input"), count("cache-write-input")
    return Usage(count("input") + read + written, count("output"), read, written)


_BEDROCK: Final = "x-amzn-bedrock-"


def _is_number(value: str) -> bool:
    return len(value) <= 12 and value.isascii() and value.isdigit()
