"""Which header fields go on."""

from __future__ import annotations

import pytest
from mitmproxy.test import tflow

from tokenhub_addon.flows import go_on, lower, settle
from tokenhub_core.errors import TokenHubError
from tokenhub_core.hops import end_to_end, readable


@pytest.mark.parametrize(
    "name",
    [
        "Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "HTTP2-Settings", "Alt-Svc",
        "Proxy-Authorization", "Proxy-Authenticate", "Proxy-Connection", "Proxy-Status", "Forwarded",
        "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "X-TokenHub-Directive",
        "x-tokenhub-model", ":authority",
    ],
)  # fmt: skip
def test_what_belongs_to_one_connection_ends_with_it(name: str) -> None:
    """What is for proxies, what only a trusted one may say, and what only we say, in any case of letters."""
    assert end_to_end([(name, "x"), ("Accept", "y")]) == (("Accept", "y"),)


def test_what_a_connection_field_names_ends_too() -> None:
    """Of each of them, wherever it stands."""
    fields = [("X-A", "1"), ("connection", "close, x-a"), ("Connection", " X-B "), ("x-b", "2"), ("X-C", "3")]
    assert end_to_end(fields) == (("X-C", "3"),)


def test_the_rest_goes_on_as_it_is_written() -> None:
    """Repeats, order and spelling included."""
    fields = (("Accept", "a"), ("X-Tokenhubber", "b"), ("accept", "c"), ("Via", "1.1 x"))
    assert end_to_end(fields) == fields


def test_a_handshake_keeps_what_switches() -> None:
    """A WebSocket's own fields go on, what else its `Connection` names does not."""
    flow = tflow.tflow()
    flow.request.headers.fields = (
        (b"Connection", b"Upgrade, X-A"),
        (b"Upgrade", b"websocket"),
        (b"X-A", b"1"),
        (b"Sec-WebSocket-Key", b"a"),
    )
    go_on(flow.request, switching=True)
    assert [name for name, _ in lower(flow.request.headers.fields)] == [
        "connection",
        "upgrade",
        "sec-websocket-key",
    ]
    go_on(flow.request)
    assert [name for name, _ in lower(flow.request.headers.fields)] == ["sec-websocket-key"]


@pytest.mark.parametrize(
    ("authority", "host", "left"),
    [
        ("api.openai.com", "evil.example", "api.openai.com"),
        ("api.openai.com:443", "API.openai.com", "API.openai.com"),
        ("", "evil.example", "evil.example"),
    ],
)
def test_the_target_counts_and_host_follows(authority: str, host: str, left: str) -> None:
    """A request that names two hosts goes to the one of its target, and says so."""
    flow = tflow.tflow()
    flow.request.authority = authority
    flow.request.headers["host"] = host
    settle(flow)
    assert flow.request.headers.get_all("host") == [left]


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ([(b"x", b"a\0b")], "bad_header"),
        ([(b"x", b"a\rX-B: b")], "bad_header"),
        ([(b"x", b"a\r\n b")], "bad_header"),
        ([(b"x\ny", b"a")], "bad_header"),
        ([(b"ok", b"a"), (b"x", b"\n")], "bad_header"),
        ([(b"x", b"a")] * 1_001, "header_too_large"),
        ([(b"x", b"a" * (128 << 10))], "header_too_large"),
    ],
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(
    fields: list[tuple[bytes, bytes]], cause: str
) -> None:
    """Line ends and NULs, and more than any client sends."""
    with pytest.raises(TokenHubError) as caught:
        readable(fields)
    assert (caught.value.fault.http_status, caught.value.fault.cause) == (400, cause)


def test_a_head_at_its_bounds_is_read() -> None:
    """A thousand fields, 128 KiB, tabs and letters of any alphabet."""
    readable([(b"x", b"a\tb"), (b"y", "é".encode())])
    readable([(b"x", b"a")] * 1_000)
    readable([(b"x", b"a" * ((128 << 10) - 1))])
    readable([])
