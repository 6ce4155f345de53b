"""HTTP/1.1 as bytes: one meaning per message, however it is cut, and an error for what has two."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenhub_core.providers.http1 import (
    MAX_FIELD,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_INTERIM,
    BrokenResponseError,
    CutOffError,
    Head,
    HeadTooLargeError,
    ResponseParser,
    request_head,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Seen:
    """What a reader learns from one response."""

    head: Head | None
    body: bytes
    ending: str
    """`kept`, `over` (whole, the connection is not), or the error's name."""


def seen(pieces: list[bytes], method: str = "POST", *, ends: bool = True) -> Seen:
    """Feed the pieces, then the end of the connection where the response is not over."""
    parser = ResponseParser(method)
    ending = ""
    try:
        for piece in pieces:
            parser.feed(piece)
        if ends and not parser.done:
            parser.end()
    except (BrokenResponseError, CutOffError) as exc:
        ending = type(exc).__name__
    if not ending and parser.done:
        ending = "kept" if parser.reusable else "over"
    return Seen(parser.head, b"".join(parser.body), ending)


def fields(number: int, size: int = 1) -> bytes:
    return b"".join(b"x-%d: %b\r\n" % (at, b"z" * size) for at in range(number))


GOOD = {
    "length": (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", "kept"),
    "empty": (OK + b"content-length: 0\r\n\r\n", b"", "kept"),
    "no reason": (b"HTTP/1.1 200\r\ncontent-length: 1\r\n\r\nx", b"x", "kept"),
    "chunks": (CHUNKED + b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n", b"hello world", "kept"),
    "long sizes": (CHUNKED + b"0000A  \r\n0123456789\r\n000\r\n\r\n", b"0123456789", "kept"),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\nx-sum: 1\r\nx-b: 2\r\n\r\n", b"x", "kept"),
    "until end": (OK + b"\r\nall of it", b"all of it", "over"),
    "close": (OK + b"connection: x, Close\r\ncontent-length: 1\r\n\r\nx", b"x", "over"),
    "http/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", b"x", "over"),
    "http/1.0 kept": (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\nx", b"x", "kept"),
    "no content": (b"HTTP/1.1 204 No\r\n\r\n", b"", "kept"),
    "not modified": (b"HTTP/1.1 304 No\r\ncontent-length: 7\r\n\r\n", b"", "kept"),
    "interim": (b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hint\r\nlink: x\r\n\r\n" + OK + b"content-length: 1\r\n\r\nx",
                b"x", "kept"),
    "surplus": (OK + b"content-length: 1\r\n\r\nxHTTP", b"x", "over"),
    "surplus after chunks": (CHUNKED + b"1\r\nx\r\n0\r\n\r\n\r\n", b"x", "over"),
    "surplus after nothing": (OK + b"content-length: 0\r\n\r\nx", b"", "over"),
    "many fields": (OK + b"content-length: 0\r\n" + fields(MAX_FIELDS - 1) + b"\r\n", b"", "kept"),
    "long field": (OK + b"content-length: 0\r\nx: " + b"z" * (MAX_FIELD - 3) + b"\r\n\r\n", b"", "kept"),
}  # fmt: skip

BROKEN = {
    "not http": b"This is not HTTP\r\n\r\n",
    "an empty line first": b"\r\n" + OK,
    "http/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "a lower-case name": b"http/1.1 200 OK\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "a bare line feed": b"HTTP/1.1 200 OK\ncontent-length: 1\r\n\r\nx",
    "a bare line feed at a field's end": OK + b"content-length: 1\n\r\nx",
    "a carriage return inside a field": OK + b"x: a\rb\r\n\r\n",
    "a nought": OK + b"x: a\0b\r\n\r\n",
    "a folded field": OK + b"x: a\r\n b\r\n\r\n",
    "a space before the colon": OK + b"content-length : 1\r\n\r\nx",
    "a field without a name": OK + b": x\r\n\r\n",
    "a field without a colon": OK + b"x\r\n\r\n",
    "a length and chunks": OK + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "two lengths": OK + b"content-length: 1\r\ncontent-length: 1\r\n\r\nx",
    "a list of lengths": OK + b"content-length: 1, 1\r\n\r\nx",
    "a signed length": OK + b"content-length: +1\r\n\r\nx",
    "an empty length": OK + b"content-length:\r\n\r\nx",
    "a superscript length": OK + b"content-length: \xb2\r\n\r\nx",
    "an endless length": OK + b"content-length: 1" + b"0" * 18 + b"\r\n\r\nx",
    "another coding": OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "a coding twice": OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in http/1.0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n",
    "too many interim responses": b"HTTP/1.1 100 Go\r\n\r\n" * (MAX_INTERIM + 1),
    "too many fields": OK + fields(MAX_FIELDS + 1) + b"\r\n",
    "no size": CHUNKED + b"\r\nx\r\n0\r\n\r\n",
    "a size in words": CHUNKED + b"not a size\r\n",
    "a signed size": CHUNKED + b"+1\r\nx\r\n0\r\n\r\n",
    "a prefixed size": CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n",
    "an endless size": CHUNKED + b"1" * 17 + b"\r\n",
    "a bare line feed after a size": CHUNKED + b"1\nx\r\n0\r\n\r\n",
    "an endless extension": CHUNKED + b"1;" + b"x" * 5000 + b"\r\nx\r\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKED + b"1\r\nxy\r\n0\r\n\r\n",
    "a chunk without its end": CHUNKED + b"1\r\nx1\r\nx\r\n0\r\n\r\n",
    "a bad trailer": CHUNKED + b"0\r\nx y: z\r\n\r\n",
    "too many trailers": CHUNKED + b"0\r\n" + fields(MAX_FIELDS + 1) + b"\r\n",
}

HUGE = {
    "a long status line": b"HTTP/1.1 200 " + b"x" * MAX_FIELD + b"\r\n\r\n",
    "a long field": OK + b"x: " + b"z" * (MAX_FIELD - 2) + b"\r\n\r\n",
    "a field that never ends": OK + b"x: " + b"z" * (MAX_FIELD + 1),
    "a large head": OK + fields(100, 8_000) + b"\r\n",
    "large trailers": CHUNKED + b"0\r\n" + fields(100, 8_000) + b"\r\n",
}

CUT = {
    "nothing": b"",
    "half a head": OK + b"content-le",
    "half a length": OK + b"content-length: 5\r\n\r\nhel",
    "half a chunk": CHUNKED + b"5\r\nhel",
    "half a size": CHUNKED + b"5\r\nhello\r\n5",
    "half a chunk's end": CHUNKED + b"5\r\nhello\r",
    "no last chunk": CHUNKED + b"5\r\nhello\r\n",
    "half the trailers": CHUNKED + b"0\r\nx-a: 1\r\n",
    "only an interim response": b"HTTP/1.1 100 Go\r\n\r\n",
}

SHORT = sorted(
    message
    for message in (*(good[0] for good in GOOD.values()), *BROKEN.values(), *CUT.values())
    if len(message) < 4_000
)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_response_is_read_to_its_end(name: str) -> None:
    """Head, body, and whether the connection can go on."""
    message, body, ending = GOOD[name]
    found = seen([message])
    assert (found.body, found.ending) == (body, ending)
    assert found.head is not None


@pytest.mark.parametrize("name", BROKEN)
def test_what_has_no_single_meaning_is_refused(name: str) -> None:
    """Not guessed at: another reader might guess otherwise."""
    assert seen([BROKEN[name]], ends=False).ending == "BrokenResponseError"


@pytest.mark.parametrize("name", HUGE)
def test_a_head_over_its_limits_is_refused_as_such(name: str) -> None:
    """Lines, heads and trailers have their own bounds, seen before the end of the line has come."""
    assert seen([HUGE[name]], ends=False).ending == "HeadTooLargeError"
    assert issubclass(HeadTooLargeError, BrokenResponseError)


@pytest.mark.parametrize("name", CUT)
def test_a_response_that_ends_early_is_told_from_a_whole_one(name: str) -> None:
    """Only a response without a length ends with its connection."""
    assert seen([CUT[name]]).ending == "CutOffError"


@given(st.sampled_from(SHORT), st.lists(st.integers(0, 4_000), max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_cut_gives_the_same_answer(message: bytes, cuts: list[int]) -> None:
    """TCP keeps no portions: only the bytes count."""
    marks = [0, *sorted(cut for cut in cuts if cut < len(message)), len(message)]
    pieces = [message[a:b] for a, b in pairwise(marks)]
    assert seen(pieces) == seen([message])


@pytest.mark.parametrize("message", SHORT)
def test_byte_by_byte_is_the_same_answer(message: bytes) -> None:
    """The worst cut of all."""
    assert seen([message[at : at + 1] for at in range(len(message))]) == seen([message])


@pytest.mark.parametrize("step", [1_000, MAX_FIELD, MAX_HEAD])
@pytest.mark.parametrize("name", [*HUGE, "many fields", "long field"])
def test_limits_do_not_depend_on_portions(name: str, step: int) -> None:
    """The same bytes are too many however they came."""
    message = HUGE[name] if name in HUGE else GOOD[name][0]
    pieces = [message[at : at + step] for at in range(0, len(message), step)]
    assert seen(pieces) == seen([message])


@pytest.mark.parametrize("short_by", [0, 1, 2])
def test_the_last_bytes_of_a_head_count_in_any_portions(short_by: int) -> None:
    """The empty line is part of the head."""
    lines = OK + fields(8, MAX_FIELD - 100)
    lines += b"x-z: " + b"z" * (MAX_HEAD - len(lines) - 7 - short_by) + b"\r\n"
    message = lines + b"\r\n"
    ending = seen([message]).ending
    assert ending == ("over" if short_by == 2 else "HeadTooLargeError")
    for cut in (len(lines), len(lines) + 1):
        assert seen([message[:cut], message[cut:]]).ending == ending


def test_fields_keep_their_order_and_their_bytes() -> None:
    """Names in lower case, values without the blanks around them, bytes beyond ASCII as Latin-1."""
    head = seen([OK + b"X-A: \t b c \t\r\nset-cookie: 1\r\nSet-Cookie:2\r\nx: \xe9\r\nx-e:\r\n\r\n"]).head
    assert head == Head(
        200, (("x-a", "b c"), ("set-cookie", "1"), ("set-cookie", "2"), ("x", "é"), ("x-e", ""))
    )


def test_an_answer_to_head_has_no_body_whatever_it_announces() -> None:
    """The length is what GET would have got."""
    assert seen([OK + b"content-length: 5\r\n\r\n"], "HEAD") == Seen(
        Head(200, (("content-length", "5"),)), b"", "kept"
    )


def test_what_came_before_an_error_is_there() -> None:
    """A body that breaks in the middle keeps its first half."""
    found = seen([CHUNKED + b"5\r\nhello\r\nnot a size\r\n"])
    assert (found.body, found.ending) == (b"hello", "BrokenResponseError")


def test_a_body_with_a_length_is_handed_on_uncopied() -> None:
    """The very bytes that were fed come out."""
    parser = ResponseParser()
    parser.feed(OK + b"content-length: 10\r\n\r\n")
    piece = b"0123456789"
    parser.feed(piece)
    assert parser.body[0] is piece


def test_a_request_is_what_was_given_and_its_host_and_length() -> None:
    """Nothing of our own besides what HTTP needs."""
    head = request_head("POST", "/v1?a=b", authority="h:1", headers=(("x-a", "é"),), length=2)
    assert head == b"POST /v1?a=b HTTP/1.1\r\nHost: h:1\r\nx-a: \xc3\xa9\r\nContent-Length: 2\r\n\r\n"
    assert b"ength" not in request_head("GET", "/", authority="h", headers=(), length=0)
    assert b"Content-Length: 0" in request_head("POST", "/", authority="h", headers=(), length=0)


def test_a_given_host_or_length_is_not_sent_twice() -> None:
    """Two of either are refused by careful servers."""
    given_ = (("host", "other"), ("content-length", "2"))
    head = request_head("POST", "/", authority="h", headers=given_, length=2)
    assert head == b"POST / HTTP/1.1\r\nhost: other\r\ncontent-length: 2\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "target", "name", "value"),
    [
        ("PO ST", "/", "x", "y"),
        ("POST", "/a b", "x", "y"),
        ("POST", "/a\r\nx: y", "x", "y"),
        ("POST", "*", "x", "y"),
        ("POST", "/", "x y", "z"),
        ("POST", "/", "x:", "z"),
        ("POST", "/", "", "z"),
        ("POST", "/", "x", "y\r\nz: a"),
        ("POST", "/", "x", "y\nz: a"),
        ("POST", "/", "x", "y\rz"),
        ("POST", "/", "x", "y\0z"),
        ("POST", "/", "x", "\ud800"),
        ("POST", "/", "transfer-encoding", "chunked"),
        ("POST", "/", "content-length", "3"),
    ],
)
def test_what_could_be_two_requests_is_never_written(method: str, target: str, name: str, value: str) -> None:
    """Neither a line break nor a second framing gets out."""
    with pytest.raises(ValueError, match=r"."):
        request_head(method, target, authority="h", headers=((name, value),), length=2)
