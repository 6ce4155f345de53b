"""Eight times the input takes about eight times as long, whatever it is made of. Were it quadratic: sixty-four."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Final

import orjson
import pytest

from tests.fuzz import corpus
from tests.fuzz.dialects import asked
from tests.growth import Work, in_proportion
from tokenhub_core import encoding, recognise
from tokenhub_core.dialects import jsonarray, ndjson, sse, wire
from tokenhub_core.dialects.base import EventParser
from tokenhub_core.dialects.registry import DIALECTS
from tokenhub_core.errors import TokenHubError
from tokenhub_core.metering import Meter
from tokenhub_core.providers.http1 import BrokenResponseError, ResponseParser
from tokenhub_core.routing.affinity import Thread
from tokenhub_core.types import (
    Delta,
    Dialect,
    Finished,
    ReasoningDelta,
    Started,
    Stopped,
    StopReason,
    TextDelta,
    ToolArguments,
    ToolStarted,
)

CHATS: Final = tuple(name for name in Dialect if name.translates)


def test_what_is_quadratic_is_seen() -> None:
    """The measure itself: one walk passes, a walk for each step does not."""
    in_proportion(lambda size: lambda: sum(range(100 * size)), 200)
    with pytest.raises(pytest.fail.Exception):
        in_proportion(lambda size: lambda: [sum(range(step)) for step in range(size)], 200)


# --- framings ----------------------------------------------------------------------------------------------

FRAMINGS: Final[dict[str, tuple[Callable[[], EventParser], bytes]]] = {
    "sse": (sse.Parser, b""),
    "sse after data": (sse.Parser, b"data: "),
    "ndjson": (ndjson.Parser, b""),
    "no array": (jsonarray.Parser, b""),
    "array": (jsonarray.Parser, b"["),
    "string in an array": (jsonarray.Parser, b'["'),
}
UNITS: Final = {
    "tiny events": b"data:x\n\n",
    "events with CRLF": b"data: x\r\n\r\n",
    "lines of data": b"data: x\n",
    "lone CR": b"data: x\r",
    "blank lines": b"\n",
    "blank CR": b"\r",
    "comments": b":\n",
    "objects": b'{"a":1}\n',
    "elements": b'{"a":1},',
    "quotes": b'"',
    "backslashes": b"\\",
    "escaped quotes": b'\\"',
    "opening braces": b"{",
    "closing braces": b"}",
    "brackets": b"[]",
    "commas": b",",
    "blanks": b" ",
    "one long line": b"x",
}


@pytest.mark.parametrize(("framing", "head"), FRAMINGS.values(), ids=FRAMINGS.keys())
@pytest.mark.parametrize("chunk", [1, 4096])
@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS.keys())
def test_a_framing_takes_linear_time(
    framing: Callable[[], EventParser], head: bytes, chunk: int, unit: bytes
) -> None:
    """Whatever a stream is made of, and however small the pieces are in which it comes."""

    def make(size: int) -> Work:
        body = head + unit * (size // len(unit))
        pieces = [body[at : at + chunk] for at in range(0, len(body), chunk)]

        def work() -> None:
            parser = framing()
            for piece in pieces:
                parser.feed(piece)
            parser.flush()

        return work

    in_proportion(make, 1_000 if chunk == 1 else 8_000)


# --- requests ----------------------------------------------------------------------------------------------


def _text(unit: str) -> Callable[[Dialect, int], bytes]:
    def body(name: Dialect, size: int) -> bytes:
        plain = asked(DIALECTS[name]).body
        return plain.replace(b'"x"', orjson.dumps(unit * (size // len(unit))))

    return body


def _extra(unit: bytes, end: bytes = b"") -> Callable[[Dialect, int], bytes]:
    def body(name: Dialect, size: int) -> bytes:
        plain = asked(DIALECTS[name]).body
        return plain[:-1] + b',"x_extra":[' + unit * (size // len(unit)) + b"0]" + end + b"}"

    return body


def _turns(name: Dialect, size: int) -> bytes:
    data = orjson.loads(asked(DIALECTS[name]).body)
    for key in ("messages", "contents"):
        if key in data:
            data[key] = data[key] * (size // 30)
    return orjson.dumps(data)


BODIES: Final = {
    "a long text": _text("word "),
    "a text of quotes": _text('"'),
    "a text of directives": _text("@@tokenhub x\n"),
    "many numbers": _extra(b"1,"),
    "many objects": _extra(b'{"model":1},'),
    "many names": _extra(b'{"a":{"b":[]}},'),
    "escaped names": _extra(b'{"\\u006dodel":1},'),
    "many turns": _turns,
}


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_request_takes_linear_time(name: Dialect, body: Callable[[Dialect, int], bytes]) -> None:
    """From its bytes to the body for another provider."""
    module = DIALECTS[name]
    other = DIALECTS[Dialect.ANTHROPIC_MESSAGES if name is Dialect.OPENAI_CHAT else Dialect.OPENAI_CHAT]

    def make(size: int) -> Work:
        raw = body(name, size)

        def work() -> None:
            request = module.open(raw, corpus.PATHS[name])
            list(module.text_slots(request.data))
            Thread(module.traces(request.data), b"salt").whole()
            module.patch(request, model="served", max_output_tokens=7)
            wire.encode(other.render(module.parse(request), model="served", max_output_tokens=None).data)

        return work

    in_proportion(make, 12_000)


@pytest.mark.parametrize("unit", [b"{", b'{"a":[', b'"', b"\\u0000", b"1e9", b"\xff", b" "])
def test_a_body_that_is_no_json_takes_linear_time(unit: bytes) -> None:
    """It is refused after one look."""

    def make(size: int) -> Work:
        body = b'{"a":' + unit * (size // len(unit))

        def work() -> None:
            with pytest.raises(TokenHubError):
                wire.decode(body)

        return work

    in_proportion(make, 200_000)


# --- streams -----------------------------------------------------------------------------------------------

DELTAS: Final[dict[str, tuple[Delta, ...]]] = {
    "words": (TextDelta("a "),),
    "thoughts": (ReasoningDelta("a "),),
    "thoughts in parts": (ReasoningDelta("a", part=1), ReasoningDelta("b", part=2)),
    "arguments": (ToolArguments(0, '"a'),),
    "arguments of braces": (ToolArguments(0, "{}"),),
    "turns of text and thought": (TextDelta("a"), ReasoningDelta("b")),
}


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("deltas", DELTAS.values(), ids=DELTAS.keys())
def test_a_stream_takes_linear_time(name: Dialect, deltas: tuple[Delta, ...]) -> None:
    """Many small deltas are written, and what was written is read again, in one piece after the other."""
    module = DIALECTS[name]
    request = asked(module)

    def make(size: int) -> Work:
        def work() -> None:
            writer = module.writer(request=request, created=1, fallback_id="f")
            parser, reader = module.parser(module.stream_type(request)), module.reader()
            assert parser is not None
            tools = (ToolStarted(0, "c", "f"),) if isinstance(deltas[0], ToolArguments) else ()
            end = (Stopped(StopReason.END), Finished())
            for delta in (Started("i", "m"), *tools, *deltas * (size // len(deltas)), *end):
                for event in parser.feed(writer.write(delta)):
                    reader.read(event.name, event.data)
            reader.end()

        return work

    in_proportion(make, 120)


# --- the other parsers -------------------------------------------------------------------------------------

HEAD: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
RESPONSES: Final = {
    "chunks": (HEAD, b"1\r\nx\r\n"),
    "a long size": (HEAD, b"0"),
    "extensions": (HEAD, b"1;a=b\r\nx\r\n"),
    "fields": (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n"),
    "a long field": (b"HTTP/1.1 200 OK\r\na: ", b"b"),
    "interim responses": (b"", b"HTTP/1.1 100 Go\r\n\r\n"),
}


@pytest.mark.parametrize("chunk", [1, 4096])
@pytest.mark.parametrize(("head", "unit"), RESPONSES.values(), ids=RESPONSES.keys())
def test_a_response_takes_linear_time(head: bytes, unit: bytes, chunk: int) -> None:
    """Chunked as finely as it goes, or with a head without end."""

    def make(size: int) -> Work:
        body = head + unit * (size // len(unit))
        pieces = [body[at : at + chunk] for at in range(0, len(body), chunk)]

        def work() -> None:
            parser = ResponseParser("POST")
            try:
                for piece in pieces:
                    parser.feed(piece)
            except BrokenResponseError:
                return

        return work

    in_proportion(make, 3_000)


@pytest.mark.parametrize("unit", [b'"usage":{', b'"model":"', b'"usage": {}', b'{"a":', b"\\", b" "])
def test_a_meter_takes_linear_time(unit: bytes) -> None:
    """However often something looks like what it seeks."""

    def make(size: int) -> Work:
        piece = unit * (1024 // len(unit))

        def work() -> None:
            meter = Meter("POST", "/v1/chat/completions", ())
            meter.begin(200, (("content-type", "text/event-stream"),))
            for _ in range(size):
                meter.feed(piece)
            meter.read()

        return work

    in_proportion(make, 1_000)


@pytest.mark.parametrize("unit", ["/", "/..", "/a/..", "%2e%2e/", "%", "a", "?", "/./", "%2F"])
def test_a_path_takes_linear_time(unit: str) -> None:
    """Dots, slashes and escapes without end."""

    def make(size: int) -> Work:
        path = "/v1" + unit * (size // len(unit))
        return lambda: recognise.recognise("api.openai.com", "POST", path)

    in_proportion(make, 20_000)


@pytest.mark.parametrize("body", [b"\x00" * 8, bytes(range(256)), b"word "])
def test_a_packed_body_takes_linear_time(body: bytes) -> None:
    """Whether it is packed tightly or hardly at all."""

    def make(size: int) -> Work:
        packed = gzip.compress(body * (size // len(body)), mtime=0)
        return lambda: encoding.decoded(packed, "gzip", limit=1 << 30)

    in_proportion(make, 100_000)
