"""ClientHellos as our own reader and mitmproxy's read them."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.proxy.layers.tls import parse_client_hello

from tokenhub_addon.hellos import Hello, read, usual

_HOST: Final = "api.openai.com"
_ODD_NAMES: Final = (
    "xn--bcher-kva.example",
    "a" * 64 + ".example",
    "a..b",
    "a b",
    "[::1]",
    "*.example",
    "host.",
    "",
)


def _said(name: str | None, protocols: Sequence[str] = (), *, newest: bool = True) -> bytes:
    """Return what OpenSSL begins with."""
    context = ssl.create_default_context()
    if not newest:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    if protocols:
        context.set_alpn_protocols(list(protocols))
    context.check_hostname = name is not None
    outgoing = ssl.MemoryBIO()
    near = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        near.do_handshake()
    return outgoing.read()


def _made(*extensions: tuple[int, bytes]) -> bytes:
    """Return a ClientHello with these extensions and no others."""
    listed = b"".join(kind.to_bytes(2) + _sized(body, 2) for kind, body in extensions)
    inner = b"\x03\x03" + bytes(32) + b"\x00" + _sized(b"\x13\x01", 2) + b"\x01\x00" + _sized(listed, 2)
    return b"\x16\x03\x01" + _sized(b"\x01" + _sized(inner, 3), 2)


def _sized(data: bytes, size: int) -> bytes:
    return len(data).to_bytes(size) + data


def _named(name: bytes) -> bytes:
    return _sized(b"\x00" + _sized(name, 2), 2)


def _theirs(data: bytes) -> Hello | None:
    """Return what mitmproxy reads; raises `ValueError` as it does."""
    found = parse_client_hello(data)
    return None if found is None else Hello(found.sni or "", tuple(found.alpn_protocols))


_HELLOS: Final = (
    _said(_HOST),
    _said(_HOST, ["http/1.1"]),
    _said(_HOST, ["h2", "http/1.1"], newest=False),
    _said(None, ["h2"]),
    _said("127.0.0.1"),
)


@pytest.mark.parametrize("data", _HELLOS)
def test_what_clients_begin_with_is_of_the_usual_shape(data: bytes) -> None:
    """Nobody has to be asked for what OpenSSL sends, and both readers find the same in it."""
    assert usual(data) == _theirs(data)
    assert usual(data) is not None


def test_the_name_and_the_protocols_are_those_that_the_client_has_given() -> None:
    """In its order."""
    assert read(_said(_HOST, ["h2", "http/1.1"])) == Hello(_HOST, (b"h2", b"http/1.1"))
    assert read(_said(None)) == Hello("", ())


@pytest.mark.parametrize("data", _HELLOS)
def test_whatever_is_not_there_yet_is_waited_for(data: bytes) -> None:
    """Cut anywhere it is incomplete, and what follows it changes nothing."""
    assert [read(data[:cut]) for cut in range(len(data))] == [None] * len(data)
    assert read(data + b"more") == read(data)


def test_a_hello_in_two_records_is_read_by_the_other_reader() -> None:
    """Some clients send them so that nobody reads the name on the way."""
    data = _said(_HOST)
    message = data[5:]
    cut = b"".join(data[:3] + _sized(part, 2) for part in (message[:70], message[70:]))

    assert usual(cut) is None
    assert read(cut) == read(data)


@pytest.mark.parametrize("name", _ODD_NAMES)
def test_an_odd_name_is_the_other_readers_business(name: str) -> None:
    """What is a name there is one here, and what is none is none."""
    data = _made((0, _named(name.encode())))

    assert usual(data) is None
    assert read(data) == _theirs(data)


@pytest.mark.parametrize(
    "extensions",
    [
        ((0, _named(b"a.example")), (0, _named(b"b.example"))),
        ((16, _sized(b"\x02h2", 2)), (16, _sized(b"\x08http/1.1", 2))),
        ((0, _sized(b"\x01" + _sized(b"a.example", 2), 2)),),
        ((0, _named(b"a.example") + b"\x00"),),
        ((16, b"\x00\x09\x02h2"),),
    ],
    ids=("two names", "two lists", "another kind of name", "more than the list", "less than the list"),
)
def test_what_is_said_twice_or_wrongly_is_the_other_readers_business(
    extensions: tuple[tuple[int, bytes], ...],
) -> None:
    """There must be one answer to what it means in all of the proxy."""
    assert usual(_made(*extensions)) is None


@given(st.sampled_from(_HELLOS), st.data())
def test_where_our_reader_answers_both_say_the_same(data: bytes, draw: st.DataObject) -> None:
    """Whatever bytes are changed, taken out or put in."""
    changed = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(changed) - 1))
        until = at + draw.draw(st.integers(0, 3))
        changed[at:until] = draw.draw(st.binary(max_size=3))
        if not changed:
            break
    found = usual(bytes(changed))

    if found is not None:
        assert found == _theirs(bytes(changed))
