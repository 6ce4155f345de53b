from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.growth import Work, in_proportion
from tokenhub_core.dialects.jsonarray import Parser, parser
from tokenhub_core.dialects.sse import Event
from tokenhub_core.errors import Blame, Kind, TokenHubError

PIECES = [
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b'"',
    b"\\",
    b'\\"',
    b" ",
    b"\r\n",
    b":",
    b"1",
    b"x",
    b"\xc3\xa4",
    b"\xef\xbb\xbf",
]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(max_size=6)
    | st.sampled_from(['"', "\\", "[{", "]},"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
BLANKS = st.sampled_from([b"", b" ", b"\r\n", b"\n\t "])


def read(*chunks: bytes) -> tuple[list[Event], bytes]:
    cutter = Parser()
    events = [event for chunk in chunks for event in cutter.feed(chunk)]
    return events, cutter.tail()


def seen(*chunks: bytes) -> list[bytes]:
    return [event.data for event in read(*chunks)[0] if not event.is_comment]


def cut(data: bytes, marks: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(min(mark, len(data)) for mark in marks)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


def test_every_element_is_an_event_and_the_closing_bracket_one_without_data() -> None:
    """What stands before an element comes with it, so that nothing of the body is lost."""
    body = b'[{\n "a": 1}\n,\r\n{"b": "]},\\"["}\n]\n'
    events, tail = read(body)
    assert [event.data for event in events] == [b'{\n "a": 1}', b'{"b": "]},\\"["}', b""]
    assert [event.raw for event in events] == [b'[{\n "a": 1}', b'\n,\r\n{"b": "]},\\"["}', b"\n]"]
    assert tail == b"\n"


def test_an_element_is_given_out_with_its_last_byte() -> None:
    """No element waits for the comma after it."""
    assert seen(b'[{"a":1}') == [b'{"a":1}']
    assert seen(b"[[1,[2]]") == [b"[1,[2]]"]


@given(st.lists(VALUES, max_size=5), BLANKS, st.lists(st.integers(0, 80), max_size=8))
@settings(max_examples=150, deadline=None)
def test_the_elements_are_those_of_the_array(values: list[object], blank: bytes, marks: list[int]) -> None:
    """Any JSON array, with any blanks, cut anywhere, comes out element by element."""
    inner = (blank + b"," + blank).join(map(orjson.dumps, values))
    body = blank + b"[" + blank + inner + blank + b"]" + blank
    events, tail = read(*cut(body, marks))
    assert [orjson.loads(event.data) for event in events if not event.is_comment] == values
    assert b"".join(event.raw for event in events) + tail == body
    assert tail == blank


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join), st.lists(st.integers(0, 60), max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_split_of_any_bytes_gives_the_same_events(body: bytes, marks: list[int]) -> None:
    """The events depend on the bytes alone, and their raw bytes and what is flushed are the input."""
    whole, tail = read(body)
    assert b"".join(event.raw for event in whole) + tail == body
    assert read(*cut(body, marks)) == (whole, tail)
    assert read(*cut(body, list(range(len(body))))) == (whole, tail)
    cutter = Parser()
    events = cutter.feed(body) + cutter.flush()
    assert b"".join(event.raw for event in events) == body
    assert cutter.flush() == []


@pytest.mark.parametrize(
    ("body", "data"),
    [
        (b'{"error": {"code": 1}}', [b'{"error": {"code": 1}}']),
        (b"\xef\xbb\xbf[{}]", [b"{}"]),
        (b'[1, "a]", true]', [b"1", b'"a]"', b"true"]),
        (b"[]", []),
        (b"[{}{}]", [b"{}", b"{}"]),
        (b'[{"a":[1,2', [b'{"a":[1,2']),
        (b"<html>502</html>", [b"<html>502</html>"]),
        (b"[{}] junk", [b"{}", b"junk"]),
        (b"", []),
        (b"  ", []),
    ],
)
def test_what_is_no_array_of_objects_is_still_given_to_whoever_reads_it(
    body: bytes, data: list[bytes]
) -> None:
    """An error object in place of the array, other elements, junk, and a body that was cut short."""
    cutter = Parser()
    events = cutter.feed(body) + cutter.flush()
    assert [event.data for event in events if not event.is_comment] == data


@pytest.mark.parametrize("size", [1, 1000])
def test_an_element_over_the_limit_is_a_fault_of_the_provider(size: int) -> None:
    """The limit holds for elements that are whole and for ones that never end, and for each on its own."""
    for body in (b'["' + b"x" * 100 + b'"]', b'[{"' + b"x" * 100, b" " * 100):
        cutter = Parser(limit=50)
        with pytest.raises(TokenHubError) as caught:
            list(map(cutter.feed, cut(body, list(range(0, len(body), size)))))
        assert (caught.value.fault.kind, caught.value.fault.blame) == (Kind.TOO_LARGE, Blame.PROVIDER)
        assert caught.value.fault.cause == "json_element_too_large"
    assert len(Parser(limit=9).feed(b"[" + b"{},\r\n" * 30)) == 30


@pytest.mark.parametrize(
    ("begin", "unit", "end"), [(b'[{"a":"', b"x", b'"}]'), (b"[", b'{"a":[1,"\\\\"]},', b"1]")]
)
def test_single_bytes_cost_linear_time(begin: bytes, unit: bytes, end: bytes) -> None:
    """An element that comes byte by byte is not scanned from its beginning with each of them."""

    def make(size: int) -> Work:
        body = begin + unit * (size // len(unit)) + end
        pieces = [body[at : at + 1] for at in range(len(body))]
        return lambda: read(*pieces)

    in_proportion(make, 20_000)


def test_only_json_is_cut() -> None:
    """The type decides, whatever its parameters."""
    assert parser("application/json; charset=UTF-8") is not None
    assert parser("application/jsonl") is None
    assert parser("text/event-stream") is None
