"""The parsers that belong to no dialect: framings, JSON, HTTP, encodings, addresses, directives, meters."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import msgspec
import orjson

from tests.fuzz import corpus, dialects
from tests.fuzz.dialects import Target, chosen, demand, pieces
from tokenhub_core import encoding, recognise
from tokenhub_core.dialects import jsonarray, ndjson, sse, wire
from tokenhub_core.directives import read
from tokenhub_core.dispatch.backoff import LONGEST, parse_retry_after
from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.metering import Meter
from tokenhub_core.providers.http1 import BrokenResponseError, CutOffError, ResponseParser
from tokenhub_core.types import Dialect, Json, TextSlot

_UNPACKED: Final = 1 << 20
_EDITS: Final[tuple[Json, ...]] = (
    {"model": "served"},
    {"model": "m", "max_tokens": 7},
    {"stream_options": {"include_usage": True}},
)
_ENCODINGS: Final = ("gzip", "deflate", "zstd", "br", "", "GZIP ")
_TYPES: Final = (
    "application/json", "text/event-stream", "application/x-ndjson", "application/vnd.amazon.eventstream", "image/png",
)  # fmt: skip

type Framing = sse.Parser | ndjson.Parser | jsonarray.Parser


def framing(make: Callable[[], Framing]) -> Callable[[bytes], None]:
    """Return a check of one framing: no byte is lost, and where the chunks end changes nothing."""

    def run(body: bytes) -> None:
        whole, cut = make(), make()
        expected = whole.feed(body)
        events = [event for piece in pieces(body) for event in cut.feed(piece)]
        demand(b"".join([event.raw for event in events]) + cut.tail() == body, "no byte is lost")
        demand(events == expected, "chunks may end anywhere")
        expected += whole.flush()
        events += cut.flush()
        demand(
            [event.data for event in events] == [event.data for event in expected], "chunks may end anywhere"
        )

    return run


def json_body(body: bytes) -> None:
    """Check that a body is decoded or refused, and that edits change the members they name and no other."""
    try:
        data = wire.decode(body)
    except TokenHubError as error:
        demand(error.fault.kind is Kind.INVALID, "a bad body is INVALID")
        return
    edits = chosen(body, _EDITS)
    made = wire.splice(body, data, edits)
    demand(wire.decode(made) == data | edits, "an edit sets its members and leaves the others")
    demand(wire.splice(made, data | edits, edits) == made, "what is set needs no edit")


def directive(body: bytes) -> None:
    """Check that a text is read, and that what it wishes for can be written down."""
    text = body.decode(errors="replace")
    found = read([TextSlot("user", ("messages", 0, "content"), text), TextSlot("system", ("system",), text)])
    demand(found.outcome in {"", "honoured", "denied", "invalid", "ignored"}, "an outcome is one of five")
    msgspec.json.encode(found.values)
    orjson.dumps(found.values)
    demand(all(len(kept) <= len(text) for _, kept in found.stripped), "stripping adds nothing")


def _heard(chunks: list[bytes]) -> tuple[object, bytes, str]:
    parser, failed = ResponseParser("POST"), ""
    try:
        for chunk in chunks:
            parser.feed(chunk)
        parser.end()
    except (BrokenResponseError, CutOffError) as error:
        failed = repr(error)
    return parser.head, b"".join(parser.body), failed


def response(body: bytes) -> None:
    """Check that an HTTP response is read the same however it arrives."""
    demand(_heard([body]) == _heard(pieces(body)), "portions change nothing")


def encoded(body: bytes) -> None:
    """Check that a packed body is unpacked within its limit, or refused."""
    try:
        out = encoding.decoded(body, chosen(body, _ENCODINGS), limit=_UNPACKED)
    except TokenHubError as error:
        demand(error.fault.kind in {Kind.INVALID, Kind.TOO_LARGE}, "a packed body is INVALID or TOO_LARGE")
        return
    demand(len(out) <= max(_UNPACKED, len(body)), "a limit is kept")


def address(body: bytes) -> None:
    """Check that every host and path is recognised or not, and that a path has one normal form."""
    host, _, rest = body.decode(errors="replace").partition("\n")
    method, _, path = rest.partition("\n")
    normal = recognise.normal_path(path)
    demand(normal.startswith("/") and "//" not in normal, "a normal path begins with one slash")
    recognise.recognise(host, method, path)
    recognise.deployment(path)
    recognise.is_llm_host(host)


def meter(body: bytes) -> None:
    """Check that an answer passes by a meter without an exception, and is never counted below zero."""
    number = zlib.crc32(body)
    packed = ("", "gzip", "zstd", "br")[number >> 8 & 3] if number & 0xF == 0 else ""
    headers = (("content-type", chosen(body, _TYPES)), ("content-encoding", packed))
    one = Meter("POST", "/v1/chat/completions", ())
    one.ask(body)
    one.begin(200, headers)
    for piece in pieces(body):
        one.feed(piece)
    found = one.read()
    demand(0 <= found.usage.input_tokens < 1 << 62 and found.usage.output_tokens >= 0, "counts can be stored")
    msgspec.json.encode(found.model)


def wait(body: bytes) -> None:
    """Check that a wish to wait is a number of seconds within the bounds, or nothing."""
    text = body.decode("latin-1")
    found = parse_retry_after((("retry-after", text), ("date", text[::-1])), now=0.0)
    demand(found is None or 0 <= found <= LONGEST, "a wait is within its bounds")


def targets() -> tuple[Target, ...]:
    """Return every parser of the house, those of the dialects first."""
    json_seeds = corpus.requests(Dialect.OPENAI_CHAT) + corpus.requests(Dialect.GEMINI)
    streams = corpus.framed(".sse")
    return (
        *dialects.targets(),
        Target("sse", framing(sse.Parser), streams),
        Target("ndjson", framing(ndjson.Parser), corpus.framed(".ndjson")),
        Target("jsonarray", framing(jsonarray.Parser), corpus.framed(".array")),
        Target("json", json_body, json_seeds),
        Target("directives", directive, corpus.directives(), structured=False),
        Target("http1", response, corpus.responses(), structured=False),
        Target("encoding", encoded, corpus.packed(), structured=False),
        Target("address", address, corpus.addresses(), structured=False),
        Target("meter", meter, streams + corpus.answers(Dialect.OPENAI_CHAT)),
        Target("retry-after", wait, corpus.waits(), structured=False),
    )
