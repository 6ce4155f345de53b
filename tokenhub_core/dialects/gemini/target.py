"""What the request target says: the model, the wish for a stream, and how the stream is framed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote

_TARGET: Final = re.compile(
    r"(?:.*?/)??(?:models/|(?=tunedModels/))(?P<model>.+):(?P<verb>generateContent|streamGenerateContent)/?",
    re.DOTALL,
)
_CREDENTIALS: Final = frozenset({"key", "access_token", "oauth_token", "bearer_token"})
"""Query parameters that would carry a credential: those travel in headers."""
_SAFE: Final = "/:@-._~"


@dataclass(frozen=True, slots=True)
class Target:
    """A request target, read. `query` is as it came."""

    model: str = ""
    stream: bool = False
    query: str = ""

    @property
    def sse(self) -> bool:
        """Whether the stream is to be server-sent events; else it is one JSON array, sent in pieces."""
        return any(name in {"alt", "$alt"} and value == "sse" for name, value, _ in _pairs(self.query))


def read(path: str) -> Target:
    """Return what a request target says; one of another operation says nothing."""
    place, _, query = path.partition("?")
    found = _TARGET.fullmatch(unquote(place))
    if found is None:
        return Target(query=query)
    return Target(found["model"], found["verb"] == "streamGenerateContent", query)


def written(model: str, *, stream: bool, path: str) -> str:
    """Return the target below the base for `model`; `path` is the caller's own, whose query is kept.

    Credentials in the query are left out. A stream that the caller did not ask for is server-sent events.
    """
    name = model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"
    kind, _, rest = name.partition("/")
    # A name must not walk out of its place.
    odd = any(segment in {"", ".", ".."} for segment in rest.split("/"))
    place = f"/{kind}/{quote(rest, safe='' if odd else _SAFE)}:"
    said = read(path)
    kept = [raw for key, _, raw in _pairs(said.query) if key not in _CREDENTIALS]
    if stream and not said.stream and not said.sse:
        kept.append("alt=sse")
    verb = "streamGenerateContent" if stream else "generateContent"
    return place + verb + ("?" + "&".join(kept) if kept else "")


def is_array(path: str) -> bool:
    """Tell whether the caller of this target reads its stream as a JSON array."""
    said = read(path)
    return said.stream and not said.sse


def _pairs(query: str) -> list[tuple[str, str, str]]:
    """Return the parameters of a query: name in lower case, value, and the bytes of both."""
    pieces = [raw.partition("=") for raw in query.split("&") if raw]
    return [
        (unquote(name.replace("+", " ")).lower(), unquote(value), name + equals + value)
        for name, equals, value in pieces
    ]
