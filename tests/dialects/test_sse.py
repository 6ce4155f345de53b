from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.growth import Work, in_proportion
from tokenhub_core.dialects.sse import Event, Parser, frame
from tokenhub_core.errors import Blame, Kind, TokenHubError

PIECES = [b"data", b"event", b":", b" ", b"x", b"\n", b"\n\n", b"\r", b"\r\n", b"\xc3\xa4", b"\xef\xbb\xbf"]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def read(*chunks: bytes) -> tuple[list[Event], bytes]:
    parser = Parser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return events, parser.tail()


def seen(*chunks: bytes) -> list[tuple[str, bytes]]:
    return [(event.name, event.data) for event in read(*chunks)[0] if not event.is_comment]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_every_kind_of_line_end_gives_the_same_events(end: bytes, size: int) -> None:
    """LF, CRLF and CR end a line, wherever the chunks are cut."""
    stream = b"event: a\ndata: 1\ndata: 2\n\n: ping\n\ndata:3\nid: 7\nretry: 1\nfoo: x\n\n".replace(
        b"\n", end
    )

    events, tail = read(*cut(stream, size))

    assert [(event.name, event.data) for event in events] == [("a", b"1\n2"), ("", b""), ("", b"3")]
    assert [event.is_comment for event in events] == [False, True, False]
    assert b"".join(event.raw for event in events) + tail == stream
    assert tail == b""


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join), st.lists(st.integers(0, 40), max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_split_of_any_bytes_gives_the_same_events(stream: bytes, cuts: list[int]) -> None:
    """The events depend on the bytes alone, and their raw bytes and the tail are the input."""
    marks = sorted({min(cut, len(stream)) for cut in cuts})
    chunks = [stream[a:b] for a, b in zip([0, *marks], [*marks, len(stream)], strict=True)]

    whole, tail = read(stream)

    assert b"".join(event.raw for event in whole) + tail == stream
    assert read(*chunks) == (whole, tail)
    assert read(*cut(stream, 1)) == (whole, tail)


def test_an_event_is_given_out_as_soon_as_its_blank_line_is_there() -> None:
    """No kind of stream has to wait for the next event to see this one."""
    for stream in (b"data: x\n\n", b"data: x\r\n\r\n", b"data: x\r\r"):
        assert seen(stream) == [("", b"x")]


def test_an_lf_after_a_blank_line_of_bare_crs_belongs_to_the_next_event() -> None:
    """It is the rest of a line end, and no blank line of its own."""
    events, _ = read(b"data: x\r\r\ndata: y\r\r")
    assert [event.raw for event in events] == [b"data: x\r\r", b"\ndata: y\r\r"]


def test_fields_are_read_as_the_standard_says() -> None:
    """One space after the colon goes, a field without colon is empty, unknown fields and cases are ignored."""
    assert seen(b"data:  two\n\n") == [("", b" two")]
    assert seen(b"data\ndata\n\n") == [("", b"\n")]
    assert seen(b"event: a\nevent: b\ndata:x\n\n") == [("b", b"x")]
    assert seen(b"Data: x\n\n", b"dat: x\n\n", b"data: y\n\n") == [("", b"y")]
    assert seen(b"data: a: b\n\n") == [("", b"a: b")]


def test_a_block_without_data_is_passed_on_but_says_nothing() -> None:
    """A name alone fires no event, and does not stick to the next one."""
    events, _ = read(b"event: ping\n\ndata: x\n\n")
    assert [(event.name, event.data, event.is_comment) for event in events] == [
        ("", b"", True),
        ("", b"x", False),
    ]


def test_a_byte_order_mark_is_skipped_at_the_start_only() -> None:
    """It stays in the raw bytes."""
    stream = b"\xef\xbb\xbfdata: x\n\n\xef\xbb\xbfdata: y\n\n"
    events, _ = read(*cut(stream, 1))
    assert [event.data for event in events] == [b"x", b""]
    assert events[0].raw.startswith(b"\xef\xbb\xbf")


def test_what_has_no_blank_line_yet_is_the_tail() -> None:
    """A stream that was cut short shows it."""
    assert read(b"data: x\n\ndata: [DO")[1] == b"data: [DO"
    assert read(b"data: x\n")[0] == []


@pytest.mark.parametrize("size", [1, 1000])
def test_an_event_over_the_limit_is_a_fault_of_the_provider(size: int) -> None:
    """The limit holds for events that are whole and for ones that never end."""
    for stream in (b"data: " + b"x" * 100 + b"\n\n", b"data: " + b"x" * 100):
        parser = Parser(limit=50)
        with pytest.raises(TokenHubError) as caught:
            list(map(parser.feed, cut(stream, size)))
        assert (caught.value.fault.kind, caught.value.fault.blame) == (Kind.TOO_LARGE, Blame.PROVIDER)
        assert caught.value.fault.cause == "sse_event_too_large"
    assert Parser(limit=9).feed(b"data: x\n\n" * 3)


@pytest.mark.parametrize(("unit", "end"), [(b"x", b"\n\n"), (b"x" * 90 + b"\r\ndata: ", b"\r\n\r\n")])
def test_single_bytes_cost_linear_time(unit: bytes, end: bytes) -> None:
    """An event that comes byte by byte is not scanned from its beginning with each of them."""

    def make(size: int) -> Work:
        pieces = cut(b"data: " + unit * (size // len(unit)) + end, 1)

        def work() -> None:
            events, _ = read(*pieces)
            assert len(events) == 1

        return work

    in_proportion(make, 20_000)


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\r")), st.from_regex(r"[a-z_]*", fullmatch=True)
)
@settings(max_examples=60, deadline=None)
def test_what_is_framed_is_read_back(data: str, name: str) -> None:
    """Line breaks in the data survive."""
    events, tail = read(frame(data.encode(), name))
    assert [(event.name, event.data) for event in events] == [(name, data.encode())]
    assert tail == b""


def test_line_breaks_in_framed_data_become_data_lines() -> None:
    """No data can end its event early, whatever line ends it has."""
    assert frame(b"a\nb\r\nc\rd", "x") == b"event: x\ndata: a\ndata: b\ndata: c\ndata: d\n\n"
