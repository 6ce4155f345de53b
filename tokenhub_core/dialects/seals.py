"""Sealed thoughts: what a provider signed or encrypted, kept apart by the dialect that can open it again.

Inside, a seal names its maker: `anthropic_messages:EqMB…`. A client of the maker's dialect gets the bare value. A
client of another dialect gets it with a mark before it, gives it back with its next call as it gives back
everything it does not understand, and only a provider of the maker's dialect is shown the value again.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Final

from tokenhub_core.dialects import wire
from tokenhub_core.types import Dialect, Json

MARK: Final = "tokenhub-seal:"
"""Stands before a seal of another dialect on the wire to a client."""

_FOREIGN: Final = (MARK.encode(), b64encode(MARK.encode()).rstrip(b"=")[:-1])
"""The mark as it stands in a body, plain or at the beginning of something in base64."""


def foreign(body: bytes) -> bool:
    """Tell whether a request body may hold seals of another dialect: it is not for a provider's eyes as it is."""
    plain, encoded = _FOREIGN
    return plain in body or encoded in body


def unsealed(data: Json) -> Json:
    """Return a Responses body without the items of thinking that hold seals of another dialect."""
    items = data.get("input")
    kept = [
        item
        for item in (items if isinstance(items, list) else ())
        if not (isinstance(item, dict) and item.get("type") == "reasoning" and foreign(wire.encode(item)))
    ]
    return {**data, "input": kept} if isinstance(items, list) else data


def seal(dialect: Dialect, value: str) -> str:
    """Return what was read on the wire of `dialect` as a seal; empty stays empty."""
    if value.startswith(MARK):
        return value.removeprefix(MARK)
    return f"{dialect}:{value}" if value else ""


def shown(dialect: Dialect, sealed: str) -> str:
    """Return a seal as a client of `dialect` gets it: marked where it is another dialect's."""
    maker, _, value = sealed.partition(":")
    return value if maker == dialect else MARK + sealed if sealed else ""


def opened(dialect: Dialect, sealed: str) -> str:
    """Return the value for a provider of `dialect`, empty where another dialect made it."""
    maker, _, value = sealed.partition(":")
    return value if maker == dialect else ""
