"""HTTP/1.1 as bytes: the head of a request out, a response in, piece by piece. No I/O.

Strict where two readers could disagree about where a message ends (RFC 9112, section 6): one length or chunks,
never both; no folded fields, no bare line feeds, no space before a colon. Whatever arrives in whatever portions
gives the same head, the same body and the same error. Nothing grows past a fixed bound but `body`, which holds
what was fed and not taken yet.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from tokenhub_core.types import Headers

MAX_FIELD: Final = 32 * 1024
"""The longest status line, header field or trailer field, in bytes."""
MAX_FIELDS: Final = 128
MAX_HEAD: Final = 256 * 1024
"""The most bytes of a whole response head, and of a body's trailers."""
MAX_INTERIM: Final = 32
"""The most 1xx responses before the real one."""

_MAX_LINE: Final = MAX_FIELD + 2
_MAX_SIZE_LINE: Final = 4096
_MAX_DIGITS: Final = 18
_BODILESS: Final = frozenset({204, 304})
_LENGTHLESS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET: Final = re.compile(r"/[^\x00-\x20\x7f]*")


class BrokenResponseError(ValueError):
    """What came is no HTTP response that has one meaning."""


class HeadTooLargeError(BrokenResponseError):
    """A line or a head is longer than its limit."""


class CutOffError(ValueError):
    """The response ended before its end."""


class Head(msgspec.Struct, frozen=True):
    """A response's status, and its fields with names in lower case."""

    status: int
    fields: Headers


def request_head(method: str, target: str, *, authority: str, headers: Headers, length: int) -> bytes:
    """Return the head of a request whose body has `length` bytes: what is given, the host and the length.

    Raises `ValueError` for anything that could be read as more than one request.
    """
    if not (_TOKEN.fullmatch(method) and _TARGET.fullmatch(target)):
        raise ValueError("the request line cannot be sent")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {authority}"]
    measured = not length and method in _LENGTHLESS
    for name, value in headers:
        if not _TOKEN.fullmatch(name):
            raise ValueError("a field's name cannot be sent")
        match name.lower():
            case "host":
                lines[1] = f"{name}: {value}"
                continue
            case "transfer-encoding":
                raise ValueError("a body is always sent with its length")
            case "content-length":
                if value != str(length) or measured:
                    raise ValueError("the length is not the body's")
                measured = True
        lines.append(f"{name}: {value}")
    if not measured:
        lines.append(f"Content-Length: {length}")
    text = "\r\n".join(lines)
    breaks = len(lines) - 1
    # A line break inside any part would show as one more than the joints.
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
        raise ValueError("a field's value cannot be sent")
    return f"{text}\r\n\r\n".encode()


class _Lines:
    """Field lines up to the empty line, after a status line where one is wanted."""

    __slots__ = ("_held", "_size", "_starts", "fields", "http", "status")

    def __init__(self, *, starts: bool) -> None:
        self.fields: list[tuple[str, str]] = []
        self.status = 0
        self.http = 1
        self._starts = starts
        self._held = b""
        self._size = 0

    def feed(self, data: bytes) -> bytes | None:
        """Return what follows the empty line, None while it has not come."""
        ends = b"\n" in data
        if self._held:
            data = self._held + data
        at = 0
        fields = self.fields
        while ends:
            found = (_STATUS if self._starts else _FIELD).match(data, at)
            if found is None:
                if data.startswith(b"\r\n", at) and not self._starts:
                    self._check(2)
                    return data[at + 2 :]
                end = data.find(b"\n", at) + 1
                if not end:
                    break
                self._check(end - at)
                raise BrokenResponseError("a line is none of HTTP's")
            end = found.end()
            length = end - at
            self._size += length
            if length > _MAX_LINE or self._size > MAX_HEAD:
                raise HeadTooLargeError("the head is too large")
            at = end
            first, second = found.groups()
            if self._starts:
                self._starts = False
                self.http, self.status = int(first), int(second)
                continue
            if len(fields) == MAX_FIELDS:
                raise BrokenResponseError("there are too many fields")
            fields.append((first.decode().lower(), second.decode("latin-1").strip(" \t")))
        self._held = data[at:]
        self._check(len(self._held) + 1)
        return None

    def _check(self, length: int) -> None:
        if length > _MAX_LINE or self._size + length > MAX_HEAD:
            raise HeadTooLargeError("the head is too large")


class ResponseParser:
    """Reads one response. Feed it what arrives and tell it of the end; take from `body` what has come.

    `head` is None until it is whole. `done` tells that the body is whole, too. `reusable` tells, once it is done,
    that the connection may carry another exchange. An error leaves what came before it in `body`.
    """

    __slots__ = (
        "_between",
        "_bodiless",
        "_interim",
        "_keep",
        "_left",
        "_lines",
        "_rest",
        "_step",
        "_surplus",
        "body",
        "done",
        "head",
    )

    def __init__(self, method: str = "GET") -> None:
        """`method` is the request's: an answer to HEAD has no body."""
        self.head: Head | None = None
        self.body: deque[bytes] = deque()
        self.done = False
        self._bodiless = method == "HEAD"
        self._lines = _Lines(starts=True)
        self._interim = 0
        self._keep = False
        self._surplus = False
        self._left = 0
        self._between = False
        self._rest = b""
        # A plain function: a bound method would tie every parser into a cycle for the collector.
        self._step: Callable[[ResponseParser, bytes], None] = ResponseParser._in_head

    @property
    def reusable(self) -> bool:
        """Tell whether the response ended cleanly on a connection that both sides keep."""
        return self.done and self._keep and not self._surplus

    def feed(self, data: bytes) -> None:
        """Take what arrived; raises `BrokenResponseError` (and must not be fed after that)."""
        self._step(self, data)

    def end(self) -> None:
        """Take note that nothing more will come; raises `CutOffError` where more was promised."""
        if self._step is ResponseParser._until_end:
            self.done = True
        if not self.done:
            raise CutOffError("the answer ended before its end")

    def _in_head(self, data: bytes) -> None:
        rest: bytes | None = data
        while rest:
            lines = self._lines
            rest = lines.feed(rest)
            if rest is None:
                return
            if lines.status >= 200:
                self._framed(lines)
                if rest:
                    self._step(self, rest)
                return
            self._interim += 1
            if lines.status == 101 or self._interim > MAX_INTERIM:
                raise BrokenResponseError("an interim response was not asked for")
            self._lines = _Lines(starts=True)

    def _framed(self, lines: _Lines) -> None:
        """Decide from a whole head how long the body is, and publish the head."""
        lengths: list[str] = []
        codings: list[str] = []
        options: list[str] = []
        for name, value in lines.fields:
            if name == "content-length":
                lengths.append(value)
            elif name == "transfer-encoding":
                codings.append(value.lower())
            elif name == "connection":
                options.append(value.lower())
        tokens = {token.strip() for value in options for token in value.split(",")}
        self._keep = "close" not in tokens and (lines.http == 1 or "keep-alive" in tokens)
        if codings:
            if codings != ["chunked"] or lengths or not lines.http:
                raise BrokenResponseError("the body's framing has no single meaning")
            self._step = ResponseParser._in_chunks
        elif lengths:
            length = lengths[0]
            if len(lengths) > 1 or not (
                length.isdecimal() and length.isascii() and len(length) <= _MAX_DIGITS
            ):
                raise BrokenResponseError("the body's length is no length")
            self._left = int(length)
            self._step = ResponseParser._sized
        else:
            self._step = ResponseParser._until_end
        if (
            self._bodiless
            or lines.status in _BODILESS
            or (self._step is ResponseParser._sized and not self._left)
        ):
            self._finish()
        elif self._step is ResponseParser._until_end:
            self._keep = False
        self.head = Head(lines.status, tuple(lines.fields))

    def _sized(self, data: bytes) -> None:
        left = self._left
        size = len(data)
        if size < left:
            self._left = left - size
            self.body.append(data)
            return
        self._finish()
        if size > left:
            self._surplus = True
            data = data[:left]
        self.body.append(data)

    def _until_end(self, data: bytes) -> None:
        self.body.append(data)

    def _in_chunks(self, data: bytes) -> None:
        parts: list[bytes] = []
        try:
            self._unchunk(self._rest + data if self._rest else data, parts)
        finally:
            if parts:
                self.body.append(parts[0] if len(parts) == 1 else b"".join(parts))

    def _unchunk(self, data: bytes, parts: list[bytes]) -> None:
        """Read chunks (RFC 9112, section 7.1) and leave in `_rest` the part of a line that has not ended."""
        at, size = 0, len(data)
        self._rest = b""
        while at < size:
            if self._left:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
            elif self._between:
                if not data.startswith(b"\r\n", at):
                    if size - at > 1 or data[at] != 0x0D:
                        raise BrokenResponseError("a chunk is longer than its size")
                    break
                self._between = False
                at += 2
            else:
                found = _SIZE.match(data, at)
                end = found.end() if found else data.find(b"\n", at) + 1
                if (end or size + 1) - at > _MAX_SIZE_LINE or (end and not found):
                    raise BrokenResponseError("a chunk has no size")
                if found is None:
                    break
                at = end
                left = int(found[1], 16)
                end = at + left
                if left and data.startswith(b"\r\n", end):
                    parts.append(data[at:end])
                    at = end + 2
                    continue
                self._left = left
                self._between = True
                if not left:
                    self._lines = _Lines(starts=False)
                    self._step = ResponseParser._in_trailers
                    if at < size:
                        self._in_trailers(data[at:])
                    return
        self._rest = data[at:]

    def _in_trailers(self, data: bytes) -> None:
        rest = self._lines.feed(data)
        if rest is not None:
            self._surplus = bool(rest)
            self._finish()

    def _over(self, data: bytes) -> None:
        self._surplus = True

    def _finish(self) -> None:
        self.done = True
        self._step = ResponseParser._over
