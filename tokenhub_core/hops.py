"""Which header fields go on to the next host, and which end here. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

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
