"""Who a client is: the key that it was given, and what that key may do."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

KEY_PREFIX: Final = "tokenhub_"
"""What every key of ours begins with: no provider's does, so a key tells by itself whose it is."""

ANY: Final = "*"


class Scope(StrEnum):
    """A kind of call that a key may be good for."""

    CHAT = "chat"
    """Every dialect that answers with words, and counts of their tokens."""
    EMBEDDINGS = "embeddings"
    PLAN = "plan"
    """To have a call decided, or to be told which models there are."""
    PASSTHROUGH = "passthrough"
    """What is not routed: files, images, audio, batches, realtime."""


class KeyLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one key may use. None: as the operator's default says."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    max_output_tokens: int | None = None
    """The most that one call may ask for."""


class Trust(msgspec.Struct, frozen=True, omit_defaults=True):
    """What directives in the text of a key's calls may do. None: as the operator's default says."""

    roles: frozenset[str] | None = None
    """Roles whose directives are read; empty: none are."""
    names: frozenset[str] | None = None
    """The directives that are honoured, by name."""
    signed: bool = False
    """Whether only signed ones are."""
    max_budget_usd: float | None = None
    """The most that a directive may ask for, below the operator's default; so below."""
    max_latency_ms: int | None = None
    max_steps: int | None = None
    """The most calls that a mode may make of one."""


class Capture(StrEnum):
    """What is kept of the text of a call."""

    NONE = "none"
    REDACTED = "redacted"
    """Without credentials, addresses and card numbers."""
    FULL = "full"


class Privacy(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a key's calls. None: as the operator's default says."""

    capture: Capture | None = None
    retention_days: int | None = None
    """How long that is kept."""


class ApiKey(msgspec.Struct, frozen=True):
    """One client's key, without its secret. An empty allow-list allows nothing; `*` in one allows everything."""

    id: str
    """Random; says nothing of the secret."""
    name: str = ""
    prefix: str = ""
    """The first characters of its newest secret, to know it again by."""
    enabled: bool = True
    scopes: frozenset[Scope] = frozenset()
    models: tuple[str, ...] = ()
    """Patterns of model ids and aliases (`fnmatch`, case counts)."""
    providers: tuple[str, ...] = ()
    """Patterns of provider ids; a host that a call was meant for is the provider `origin:` and its name."""
    hosts: tuple[str, ...] = ()
    """Patterns of hosts that intercepted calls may be meant for."""
    project: str = ""
    tags: tuple[str, ...] = ()
    limits: KeyLimits = KeyLimits()
    trust: Trust = Trust()
    privacy: Privacy = Privacy()
    created_at: int = 0
    """Times are microseconds since the epoch; 0 of a later one: never."""
    expires_at: int = 0
    rotate_at: int = 0
    """When it should have a new secret; it goes on working, and warns."""
