from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.growth import Work, in_proportion
from tokenhub_core.dialects.ndjson import TYPE, Parser, frame, parser
from tokenhub_core.dialects.sse import Event
from tokenhub_core.errors import Blame, Kind, TokenHubError

PIECES = [b'{"a":1}', b"x", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"\xc3\xa4"]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def read(*chunks: bytes) -> tuple[list[Event], bytes]:
    given = Parser()
    events = [event for chunk in chunks for event in given.feed(chunk)]
    return events, given.tail()


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join), st.lists(st.integers(0, 40), max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_split_of_any_bytes_gives_the_same_lines(stream: bytes, cuts: list[int]) -> None:
    """The lines depend on the bytes alone, and their raw bytes and the tail are the input."""
    marks = sorted({min(cut, len(stream)) for cut in cuts})
    chunks = [stream[a:b] for a, b in zip([0, *marks], [*marks, len(stream)], strict=True)]

    whole, tail = read(stream)

    assert b"".join(event.raw for event in whole) + tail == stream
    assert read(*chunks) == (whole, tail)
    assert read(*cut(stream, 1)) == (whole, tail)
    assert not any(b"\n" in event.data or event.data.endswith(b"\r") for event in whole)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_both_line_ends_give_the_same_lines(end: bytes) -> None:
    """LF and CRLF; an empty line is passed on and says nothing."""
    events, tail = read(b'{"a":1}' + end + end + b'{"b":2}' + end)
    assert [(event.name, event.data) for event in events] == [("", b'{"a":1}'), ("", b""), ("", b'{"b":2}')]
    assert [event.is_comment for event in events] == [False, True, False]
    assert tail == b""


def test_a_last_line_without_its_end_comes_with_the_end_of_the_body() -> None:
    """Its raw bytes are as they came, and it comes once."""
    given = Parser()
    assert given.feed(b'{"a":1}\n{"b"') == [Event(b'{"a":1}\n', "", b'{"a":1}')]
    assert given.feed(b":2}") == []
    assert given.tail() == b'{"b":2}'
    assert given.flush() == [Event(b'{"b":2}', "", b'{"b":2}')]
    assert (given.flush(), given.tail()) == ([], b"")


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize("stream", [b"x" * 100 + b"\n", b"x" * 100])
def test_a_line_over_the_limit_is_a_fault_of_the_provider(stream: bytes, size: int) -> None:
    """The limit holds for lines that are whole and for ones that never end."""
    given = Parser(limit=50)
    with pytest.raises(TokenHubError) as caught:
        list(map(given.feed, cut(stream, size)))
    assert (caught.value.fault.kind, caught.value.fault.blame) == (Kind.TOO_LARGE, Blame.PROVIDER)
    assert caught.value.fault.cause == "line_too_large"
    assert len(Parser(limit=9).feed(b"12345678\n" * 3)) == 3


def test_single_bytes_cost_linear_time() -> None:
    """A line that comes byte by byte is not scanned from its beginning with each of them."""

    def make(size: int) -> Work:
        pieces = cut(b"x" * size + b"\n", 1)

        def work() -> None:
            events, _ = read(*pieces)
            assert len(events) == 1

        return work

    in_proportion(make, 20_000)


@pytest.mark.parametrize(
    ("content_type", "lines"),
    [
        (TYPE, True),
        ("Application/X-NDJSON; charset=utf-8", True),
        ("application/jsonl", True),
        ("application/json; charset=utf-8", True),
        ("text/event-stream", False),
        ("text/html", False),
        ("", False),
    ],
)
def test_a_stream_of_lines_is_known_by_its_type(content_type: str, lines: bool) -> None:
    """A lone JSON object is one of a single line."""
    assert (parser(content_type) is not None) is lines


def test_what_is_framed_is_read_back() -> None:
    """One line."""
    assert [event.data for event in Parser().feed(frame(b"{}") + frame(b"[1]"))] == [b"{}", b"[1]"]
