"""What arrived: the bytes of one request, and where they came from."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec

from tokenhub_core.types.identity import ApiKey

type Json = dict[str, Any]
"""A decoded JSON object. `Any` because the wire decides; each dialect narrows what it reads."""

type Headers = tuple[tuple[str, str], ...]
"""Header fields in order of arrival, names in lower case, repeats kept."""

NANO: Final = 1_000_000_000
"""Nano-dollars per dollar."""


def header(headers: Headers, name: str, default: str = "") -> str:
    """Return the first value of `name` (lower case), or `default`."""
    for key, value in headers:
        if key == name:
            return value
    return default


class Lane(StrEnum):
    """Who read the client's HTTP."""

    HANDOFF = "handoff"
    INSPECT = "inspect"
    DIRECT = "direct"


class Dialect(StrEnum):
    """The wire format of one operation, as clients and providers speak it."""

    OPENAI_CHAT = "openai_chat"
    ANTHROPIC_MESSAGES = "anthropic_messages"
    OPENAI_RESPONSES = "openai_responses"
    OPENAI_COMPLETIONS = "openai_completions"
    OPENAI_EMBEDDINGS = "openai_embeddings"
    ANTHROPIC_COUNT_TOKENS = "anthropic_count_tokens"
    GEMINI = "gemini"
    OLLAMA_CHAT = "ollama_chat"
    OLLAMA_GENERATE = "ollama_generate"

    @property
    def translates(self) -> bool:
        """Whether a call can be served in another dialect. Vectors and counts of one model are no other's."""
        return self not in _FIXED

    @property
    def billed(self) -> bool:
        """Whether an answer costs what its tokens cost. To have them counted is free."""
        return self is not Dialect.ANTHROPIC_COUNT_TOKENS


_FIXED: Final = frozenset({Dialect.OPENAI_EMBEDDINGS, Dialect.ANTHROPIC_COUNT_TOKENS})


class Origin(msgspec.Struct, frozen=True):
    """The host that an intercepted call was meant for."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        """Return the base URL, without a default port and without a trailing slash."""
        default = {"https": 443, "http": 80}.get(self.scheme)
        return f"{self.scheme}://{self.host}" + ("" if self.port == default else f":{self.port}")


class Caller(msgspec.Struct, frozen=True):
    """Who asks: the peer, the way it came, and what it says of itself."""

    peer: str = ""
    lane: Lane = Lane.DIRECT
    mode: str = ""
    """The mitmproxy mode (`regular`, `reverse`, `socks5`, …), empty for the side server."""
    proxy_user: str = ""
    program: str = ""
    """The User-Agent's first product, at most 80 characters."""
    key: ApiKey | None = None
    """The key of ours that the caller showed, None for somebody anonymous. Its secret went no further than the door."""


class Snapshot(msgspec.Struct, frozen=True):
    """One request, exactly as it came. `path` includes the query."""

    id: str
    """Made by us; the client's own id stays in its headers."""
    method: str
    path: str
    headers: Headers
    body: bytes
    received_at: float
    started: float
    """Monotonic; every duration of the record counts from here."""
    dialect: Dialect = Dialect.OPENAI_CHAT
    """What its host and path say it speaks."""
    origin: Origin | None = None
    caller: Caller = Caller()
    native: bool = False
    """It is asked for in our own way (`tokenhub_core.native`), and is to be answered so."""
    trace: Headers = ()
    """What registered providers are told of the call's place in a trace; empty: what its caller said of it."""

    def __repr__(self) -> str:
        return f"Snapshot({self.id}, {self.method} {self.path.partition('?')[0]})"
