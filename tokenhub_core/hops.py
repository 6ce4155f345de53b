"""Which header fields go on to the next host, and which end here. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from tokenhub_core.errors import client_fault
from tokenhub_core.types import Headers

_HOP_BY_HOP: Final = frozenset(
    {
        "alt-svc",
        "connection",
        "forwarded",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-real-ip",
    }
)
"""RFC 9110, 7.6.1, what h2c adds, what says who is behind a proxy, and what would lead a client past us."""

_PREFIXES: Final = ("proxy-", "x-forwarded-", "x-tokenhub-", ":")
"""What is for proxies, what they say, what only we say, and what is no field."""


_FIELDS: Final = 1_000
_HEAD: Final = 128 << 10
"""Fields, and bytes of all of them: far more than any client sends, cookies of browsers included."""
_CUTS: Final = (b"\0", b"\r", b"\n")


def readable(fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse a head that the next reader could cut in another place, or that is larger than any client's.

    NUL, CR and LF are in no field (RFC 9110, 5.5); a folded line is one with a line end in it (RFC 9112, 5.2).
    """
    if len(fields) > _FIELDS or sum(len(name) + len(value) for name, value in fields) > _HEAD:
        raise client_fault("the header of this request is too large", cause="header_too_large")
    for name, value in fields:
        if any(cut in value or cut in name for cut in _CUTS):
            raise client_fault("a header field holds a control character", cause="bad_header")


def end_to_end(fields: Iterable[tuple[str, str]]) -> Headers:
    """Return the fields that may go on, either way, as they are written.

    Left out is what belongs to one connection, by its name or by a `Connection` field; what only a proxy that is
    trusted may say of a client; and what only we say, so that nobody else seems to be us.
    """
    given = tuple(fields)
    named = {
        option.strip().lower()
        for name, value in given
        if name.lower() == "connection"
        for option in value.split(",")
    }
    return tuple(
        (name, value)
        for name, value in given
        if (plain := name.lower()) not in _HOP_BY_HOP
        and plain not in named
        and not plain.startswith(_PREFIXES)
    )
