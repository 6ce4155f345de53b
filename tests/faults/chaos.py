"""A provider whose every byte is under control: what `FakeProvider` can do, and breaks at a byte that chance picks.

cut:END            the answer ends at a random byte of its body; END is `fin`, `reset` or `stall`
cut-early:END      the same within what comes before the first content of a stream
trickle:MS         chunks of one byte, and a pause of so many milliseconds after each sixty-fourth
length:N           the announced length of a whole answer is so much too long, or (negative) too short
bad-size           a chunk whose size is no number, after half of the body
short-chunk        the connection ends in the middle of a chunk
no-last-chunk      everything but the last, empty chunk
gzip-cut           a chunked gzip body that ends before its trailer
gzip-bad           a gzip body with a bit turned around in its middle
label:NAME         the body under a content-encoding that it has not
dress:HOW          a valid stream in another dress: no-space, cr, crlf, bom, comments, fields, split, pieces
line:BYTES         a comment of one line that is so long, in the middle
events:N           so many events of no meaning before the first content
flood:N            the first words, and then N events of a kilobyte
torrent:MB         a whole stream with so many megabytes of words in it, 64 kB an event
twice              every event of a stream two times
usage:WHAT         the counts replaced: zero, negative, huge, text, missing, twice, growing
then-error:STATUS  lifecycle events, a pause, then an error event with what would have been that status
moved:STATUS:URL   a redirect
page:STATUS        an error whose body is a page for people
said:STATUS:JSON   an error with just that body
with:NAME=VALUE    a 429 with just that header field
finish:WHAT        a whole answer that ends by a filter or a refusal, in the dialect's own words
empty              200 with what an answer has, but nobody's words in it
"""

from __future__ import annotations

import gzip
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, override

import orjson

from tests.fakes.listener import reset
from tests.fakes.provider import FakeProvider, Line
from tokenhub_core.providers.simulator import Script
from tokenhub_core.types import Dialect, Json, header

FIN: Final = "fin"
RESET: Final = "reset"
STALL: Final = "stall"
_WORDS: Final = (b"content", b"text", b"parts", b"delta")
"""The members that what is said stands in, whatever the dialect."""

type Step = bytes | float | str
"""Bytes to send, seconds to wait, or how to end: FIN, RESET, STALL; without an end the connection stays."""
type Fault = Callable[["Good", random.Random, str], Sequence[Step]]


@dataclass(frozen=True)
class Good:
    """The good answer to one call."""

    script: Script

    @property
    def frames(self) -> list[bytes]:
        """The body in its pieces: the events of a stream, or all of an answer."""
        return [data for _, data in self.script.frames]

    @property
    def body(self) -> bytes:
        return b"".join(self.frames)

    @property
    def streamed(self) -> bool:
        return len(self.script.frames) > 1

    @property
    def kind(self) -> str:
        return header(self.script.headers, "content-type")

    @property
    def json(self) -> Json:
        """The body of a whole answer."""
        data: Json = orjson.loads(self.body)
        return data

    @property
    def opening(self) -> int:
        """How many frames come before the first word."""
        for at, frame in enumerate(self.frames):
            if any(b'"%b":"' % word in frame and b'"%b":""' % word not in frame for word in _WORDS):
                return at
        return 0

    def head(self, *fields: tuple[str, str], status: int = 200, chunked: bool = True) -> bytes:
        own = [("content-type", self.kind), *fields]
        own += [("transfer-encoding", "chunked")] if chunked else []
        return _head(status, own)

    def chunked(self, frames: Sequence[bytes], *fields: tuple[str, str]) -> list[Step]:
        """Return frames as a whole chunked answer."""
        return [self.head(*fields), *(_chunk(one) for one in frames if one), b"0\r\n\r\n"]

    def whole(self, body: bytes, *fields: tuple[str, str], status: int = 200) -> list[Step]:
        length = ("content-length", str(len(body)))
        return [self.head(length, *fields, status=status, chunked=False), body]


@dataclass(slots=True)
class Chaos(FakeProvider):
    """See the module. What chance decides follows from `seed` and the number of the call."""

    seed: int = 0
    played: list[tuple[Dialect, Script]] = field(default_factory=list)
    """What every call was to be answered with."""
    _number: int = 0

    @override
    def meant(self, dialect: Dialect, script: Script) -> None:
        self.played.append((dialect, script))

    @override
    def knows(self, name: str) -> bool:
        # The name of a slotted dataclass's parent does not come by itself.
        return name in FAULTS or FakeProvider.knows(self, name)

    @override
    async def misbehave(self, line: Line, script: Script, name: str, argument: str) -> bool:
        if name not in FAULTS:
            return await FakeProvider.misbehave(self, line, script, name, argument)
        self._number += 1
        chance = random.Random(f"{self.seed}/{self._number}")
        async for step in _paced(FAULTS[name](Good(script), chance, argument)):
            match step:
                case bytes():
                    await line.write(step)
                case float():
                    await line.pause(step)
                case "stall":
                    await line.pause(None)
                case "reset":
                    await line.pause(0.03)  # or the reset overtakes what was sent
                    reset(line.writer)
                    return False
                case _:
                    return False
        return True


async def _paced(steps: Sequence[Step]) -> AsyncIterator[Step]:
    for step in steps:
        yield step


def _head(status: int, fields: Sequence[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# --- ends in the wrong place --------------------------------------------------------------------------------


def _cut(good: Good, chance: random.Random, end: str) -> Sequence[Step]:
    """End somewhere behind the first word and before the last event."""
    if not good.streamed:
        at = chance.randrange(1, len(good.body))
        length = ("content-length", str(len(good.body)))
        return [good.head(length, chunked=False), good.body[:at], end or FIN]
    start = len(b"".join(good.frames[: good.opening + 1]))
    last = len(good.body) - len(b"".join(good.frames[-3:]))
    at = chance.randrange(start, max(start + 1, last))
    return [good.head(), _chunk(good.body[:at]), end or FIN]


def _cut_early(good: Good, chance: random.Random, end: str) -> Sequence[Step]:
    """End before any word has come."""
    if not good.streamed:
        return _cut(good, chance, end)
    opening = b"".join(good.frames[: good.opening])
    at = chance.randrange(len(opening) + 1) if opening else 0
    return [good.head(), *([_chunk(opening[:at])] if at else []), end or FIN]


def _trickle(good: Good, chance: random.Random, pause: str) -> Sequence[Step]:
    del chance
    steps: list[Step] = [good.head()]
    for at in range(len(good.body)):
        steps += [_chunk(good.body[at : at + 1])]
        if at % 64 == 0:
            steps.append(float(pause) / 1000)
    return [*steps, b"0\r\n\r\n"]


def _length(good: Good, chance: random.Random, more: str) -> Sequence[Step]:
    """A length that is too long leaves the client waiting; one too short leaves it with half of the answer."""
    del chance
    size = len(good.body) + int(more)
    return [good.head(("content-length", str(size)), chunked=False), good.body, FIN]


def _bad_size(good: Good, chance: random.Random, _: str) -> Sequence[Step]:
    half = chance.randrange(1, len(good.body))
    return [good.head(), _chunk(good.body[:half]), b"0x\xff\r\n", good.body[half:], FIN]


def _short_chunk(good: Good, chance: random.Random, _: str) -> Sequence[Step]:
    at = chance.randrange(1, len(good.body))
    return [good.head(), b"%x\r\n" % len(good.body), good.body[:at], FIN]


def _no_last_chunk(good: Good, chance: random.Random, _: str) -> Sequence[Step]:
    del chance
    return [good.head(), *(_chunk(one) for one in good.frames), FIN]


# --- encodings ----------------------------------------------------------------------------------------------


def _gzip_cut(good: Good, chance: random.Random, _: str) -> Sequence[Step]:
    packed = gzip.compress(good.body)
    at = chance.randrange(11, len(packed) - 8)
    return [good.head(("content-encoding", "gzip")), _chunk(packed[:at]), b"0\r\n\r\n"]


def _gzip_bad(good: Good, chance: random.Random, _: str) -> Sequence[Step]:
    packed = bytearray(gzip.compress(good.body))
    packed[chance.randrange(len(packed) - 8, len(packed))] ^= 0xFF  # the checksum, so that all of it is read
    return good.whole(bytes(packed), ("content-encoding", "gzip"))


def _label(good: Good, chance: random.Random, name: str) -> Sequence[Step]:
    del chance
    return good.whole(good.body, ("content-encoding", name))


# --- the same in another dress ------------------------------------------------------------------------------


def _dress(good: Good, chance: random.Random, how: str) -> Sequence[Step]:
    frames = good.frames
    match how:
        case "no-space":
            frames = [one.replace(b"data: ", b"data:").replace(b"event: ", b"event:") for one in frames]
        case "cr":
            frames = [one.replace(b"\r\n", b"\n").replace(b"\n", b"\r") for one in frames]
        case "crlf":
            frames = [one.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for one in frames]
        case "bom":
            frames = [b"\xef\xbb\xbf" + frames[0], *frames[1:]]
        case "comments":
            frames = [piece for one in frames for piece in (b": still here\n\n", one)]
        case "fields":
            frames = [b"id: 7\nretry: 10\nunknown: yes\n" + one for one in frames]
        case "split":
            return good.chunked([good.body[at : at + 1] for at in range(len(good.body))])
        case _:
            cuts = sorted(chance.randrange(len(good.body)) for _ in range(9))
            return good.chunked(
                [good.body[a:b] for a, b in zip([0, *cuts], [*cuts, len(good.body)], strict=True)]
            )
    return good.chunked(frames)


def _line(good: Good, chance: random.Random, size: str) -> Sequence[Step]:
    del chance
    middle = max(good.opening + 1, len(good.frames) // 2)
    return good.chunked([*good.frames[:middle], b": " + b"x" * int(size) + b"\n\n", *good.frames[middle:]])


def _events(good: Good, chance: random.Random, number: str) -> Sequence[Step]:
    del chance
    noise = b": nothing\n\n" * 100
    return good.chunked([*([noise] * (int(number) // 100)), *good.frames])


def _flood(good: Good, chance: random.Random, number: str) -> Sequence[Step]:
    del chance
    at = good.opening
    word = good.frames[at]
    more = word.replace(b'"You ', b'"' + b"x" * 1000)
    return [good.head(), *(_chunk(one) for one in good.frames[: at + 1]), *([_chunk(more)] * int(number))]


def _torrent(good: Good, chance: random.Random, megabytes: str) -> Sequence[Step]:
    del chance
    at = good.opening
    more = _chunk(good.frames[at].replace(b'"You ', b'"' + b"x" * (1 << 16)))
    rest = [_chunk(one) for one in good.frames[at + 1 :]]
    return [
        good.head(),
        *(_chunk(one) for one in good.frames[: at + 1]),
        *([more] * (int(megabytes) << 4)),
        *rest,
        b"0\r\n\r\n",
    ]


def _twice(good: Good, chance: random.Random, _: str) -> Sequence[Step]:
    del chance
    return good.chunked([piece for one in good.frames for piece in (one, one)])


# --- counts -------------------------------------------------------------------------------------------------

_COUNTS: Final = frozenset(
    {
        "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "promptTokenCount",
        "candidatesTokenCount", "totalTokenCount",
    }
)  # fmt: skip
_HOLDERS: Final = ("usage", "usageMetadata")


def _usage(good: Good, chance: random.Random, what: str) -> Sequence[Step]:
    del chance
    frames = [_counted(one, what, at + 1) for at, one in enumerate(good.frames)]
    if what == "twice":
        frames = [
            piece for one in frames for piece in ((one, one) if b'"usage' in one and _last(one) else (one,))
        ]
    if not good.streamed:
        return good.whole(frames[0])
    return good.chunked(frames)


def _last(frame: bytes) -> bool:
    """Tell whether a frame may come twice without its words coming twice."""
    return b'"choices":[]' in frame or b"message_delta" in frame


def _counted(frame: bytes, what: str, number: int) -> bytes:
    head, mark, rest = frame.partition(b"data: ")
    raw, tail = (rest.rstrip(b"\n"), b"\n\n") if mark else (frame, b"")
    try:
        data = orjson.loads(raw if mark else frame)
    except orjson.JSONDecodeError:
        return frame
    return head + mark + orjson.dumps(_changed(data, what, number)) + tail


def _changed(data: Any, what: str, number: int) -> Any:
    if isinstance(data, list):
        return [_changed(one, what, number) for one in data]
    if not isinstance(data, dict):
        return data
    found = {}
    for name, value in data.items():
        if name in _HOLDERS and isinstance(value, dict):
            if what == "missing":
                continue
            found[name] = {one: _count(one, count, what, number) for one, count in value.items()}
        else:
            found[name] = _changed(value, what, number)
    return found


def _count(name: str, count: Any, what: str, number: int) -> Any:
    if name not in _COUNTS or what in ("twice", "missing"):
        return count
    match what:
        case "zero":
            return 0
        case "negative":
            return -7
        case "huge":
            return 10**18
        case "text":
            return "many"
    return min(number, count) if isinstance(count, int) else count


# --- refusals and odd ends ----------------------------------------------------------------------------------


def _then_error(good: Good, chance: random.Random, status: str) -> Sequence[Step]:
    """Say hello, wait a little, and then that it cannot be done."""
    kind = {"429": "rate_limit_error", "529": "overloaded_error"}.get(status, "api_error")
    said: dict[str, Any] = {"message": "not today", "type": kind, "code": int(status)}
    data = orjson.dumps({"type": "error", "error": said} if b"event: " in good.body else {"error": said})
    name = b"event: error\n" if b"event: " in good.body else b""
    opening = good.frames[: good.opening]
    return [
        *good.chunked(opening)[:-1],
        chance.uniform(0.0, 0.03),
        _chunk(name + b"data: " + data + b"\n\n"),
        b"0\r\n\r\n",
    ]


def _moved(good: Good, chance: random.Random, argument: str) -> Sequence[Step]:
    del chance
    status, _, url = argument.partition(":")
    return good.whole(b"", ("location", url), status=int(status))


def _page(good: Good, chance: random.Random, status: str) -> Sequence[Step]:
    del chance
    page = b"<html><head><title>Said</title></head><body><h1>cloudfront</h1></body></html>"
    fields = [("content-type", "text/html"), ("content-length", str(len(page)))]
    return [_head(int(status), fields), page]


def _said(good: Good, chance: random.Random, argument: str) -> Sequence[Step]:
    del chance
    status, _, body = argument.partition(":")
    fields = [("content-type", "application/json"), ("content-length", str(len(body.encode())))]
    return [_head(int(status), fields), body.encode()]


def _with(good: Good, chance: random.Random, argument: str) -> Sequence[Step]:
    del chance
    name, _, value = argument.partition("=")
    body = b'{"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}'
    fields = [("content-type", "application/json"), ("content-length", str(len(body)))]
    return [_head(429, [*fields, (name, value)] if name else fields), body]


_STOPS: Final = {
    "stop_reason": {"refusal": "refusal", "filter": "refusal"},
    "finish_reason": {"refusal": "content_filter", "filter": "content_filter"},
    "finishReason": {"refusal": "SAFETY", "filter": "PROHIBITED_CONTENT"},
}


def _finish(good: Good, chance: random.Random, what: str) -> Sequence[Step]:
    del chance
    frames = [_stopped(frame, what) for frame in good.frames]
    return good.chunked(frames) if good.streamed else good.whole(frames[0])


def _stopped(frame: bytes, what: str) -> bytes:
    """Return a frame in which what ended the answer is another thing."""
    for name, words in _STOPS.items():
        for usual in ("stop", "end_turn", "STOP"):
            frame = frame.replace(f'"{name}":"{usual}"'.encode(), f'"{name}":"{words[what]}"'.encode())
    return frame


def _empty(good: Good, chance: random.Random, _: str) -> Sequence[Step]:
    """Everything is there but an answer."""
    del chance
    if good.streamed:
        return good.chunked([*good.frames[: good.opening], *good.frames[-1:]])
    data = good.json
    for name in ("choices", "candidates", "content", "output"):
        if name in data:
            data[name] = []
    data["error"] = {"message": "upstream gave nothing", "type": "server_error", "code": 500}
    return good.whole(orjson.dumps(data))


FAULTS: Final[dict[str, Fault]] = {
    "cut": _cut,
    "cut-early": _cut_early,
    "trickle": _trickle,
    "length": _length,
    "bad-size": _bad_size,
    "short-chunk": _short_chunk,
    "no-last-chunk": _no_last_chunk,
    "gzip-cut": _gzip_cut,
    "gzip-bad": _gzip_bad,
    "label": _label,
    "dress": _dress,
    "line": _line,
    "events": _events,
    "flood": _flood,
    "torrent": _torrent,
    "twice": _twice,
    "usage": _usage,
    "then-error": _then_error,
    "moved": _moved,
    "page": _page,
    "said": _said,
    "with": _with,
    "finish": _finish,
    "empty": _empty,
}
