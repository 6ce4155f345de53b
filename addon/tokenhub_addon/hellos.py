"""What a ClientHello asks for: the name, and the protocols (RFC 8446, 4.1.2; RFC 6066, 3; RFC 7301, 3.1).

mitmproxy's own reader takes some 370 calls of functions for the two, a tenth of what a new connection costs. The usual
shape, in which everything has the length that it says and nothing stands there twice, is read here; every other one is
left to mitmproxy, so that what is odd means the same in all of the proxy.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from mitmproxy.proxy.layers.tls import parse_client_hello

_HEAD: Final = 9
"""The record's header and that of the message in it."""
_FIXED: Final = 34
"""The version and the random bytes."""
_HANDSHAKE: Final = 0x16
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_PROTOCOLS: Final = 16
_LABEL: Final = rb"[A-Za-z0-9_-]{1,63}"
_NAME: Final = re.compile(rb"(?!xn--|.*\.xn--)%b(\.%b)*" % (_LABEL, _LABEL), re.IGNORECASE)
"""A name that needs nobody who knows international ones to be understood."""
_LONGEST_NAME: Final = 253


class Hello(NamedTuple):
    """What of a ClientHello decides about its connection."""

    name: str = ""
    """Of the server, empty where none is given that could be one."""
    protocols: tuple[bytes, ...] = ()
    """In the client's order."""


def read(data: bytes) -> Hello | None:
    """Return what the bytes that a client began with ask for, None while they are incomplete.

    Raises `ValueError` where they are no ClientHello.
    """
    found = usual(data)
    if found is not None:
        return found
    other = parse_client_hello(data)
    return None if other is None else Hello(other.sni or "", tuple(other.alpn_protocols))


def usual(data: bytes) -> Hello | None:
    """Return the same for a whole ClientHello of the usual shape, in one record; None for everything else."""
    try:
        end = _HEAD - 4 + _two(data, 3)
        usual = data[0] == _HANDSHAKE and data[5] == _CLIENT_HELLO and data[1] == 3 and data[2] <= 3
        if not usual or len(data) < end or int.from_bytes(data[6:_HEAD]) != end - _HEAD:
            return None
        at = _HEAD + _FIXED
        at += 1 + data[at]  # the session
        if data[at + 1] & 1:
            return None
        at += 2 + _two(data, at)  # ciphers
        at += 1 + data[at]  # compression
        if at + 2 + _two(data, at) != end:
            return None
        return _extensions(data, at + 2, end)
    except IndexError:
        return None


def _extensions(data: bytes, at: int, end: int) -> Hello | None:
    name: str | None = None
    protocols: tuple[bytes, ...] | None = None
    while at < end:
        kind, start, at = _two(data, at), at + 4, at + 4 + _two(data, at + 2)
        if at > end:
            return None
        if kind == _SERVER_NAME:
            found = _name(data[start:at])
            if found is None or name is not None:
                return None
            name = found
        elif kind == _PROTOCOLS:
            offered = _listed(data[start:at])
            if offered is None or protocols is not None:
                return None
            protocols = offered
    return Hello(name or "", protocols or ())


def _name(body: bytes) -> str | None:
    """Return the one host name of a list of names, None where it is not that."""
    size = len(body)
    if size < 5 or body[2] != 0 or _two(body, 0) != size - 2 or _two(body, 3) != size - 5:
        return None
    name = body[5:]
    return name.decode("ascii") if len(name) <= _LONGEST_NAME and _NAME.fullmatch(name) else None


def _listed(body: bytes) -> tuple[bytes, ...] | None:
    """Return the names of a list of protocols, None where a length is not what it says."""
    size = len(body)
    if size < 2 or _two(body, 0) != size - 2:
        return None
    found, at = [], 2
    while at < size:
        start, at = at + 1, at + 1 + body[at]
        found.append(body[start:at])
    return tuple(found) if at == size else None


def _two(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]
