"""Who there is and what opens the door to them, as values. Pure.

Times are microseconds since the epoch, 0 for never.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from tokenhub_core.access.roles import Role


class Kind(StrEnum):
    """Who a session can belong to."""

    USER = "user"
    TOKEN = "token"  # noqa: S105 - no secret
    BOOTSTRAP = "bootstrap"
    """Whoever has the token that the installation was made with."""


class Owner(msgspec.Struct, frozen=True):
    """Whose session it is. `id` is a user's or a token's; of the bootstrap token it is a mark of its value."""

    kind: Kind
    id: str


class User(msgspec.Struct, frozen=True):
    """A user, without the password."""

    id: str
    name: str
    role: Role
    enabled: bool
    created_at: int
    updated_at: int
    password_at: int
    """When the password was set."""
    last_login_at: int = 0


class Token(msgspec.Struct, frozen=True):
    """A scoped token, without its value."""

    id: str
    name: str
    role: Role
    mark: bytes
    prefix: str
    """Its first characters, to know it again by."""
    created_by: str
    created_at: int
    updated_at: int
    expires_at: int = 0


class Session(msgspec.Struct, frozen=True):
    """A browser that is signed in."""

    id: str
    """Opens nothing."""
    mark: bytes
    owner: Owner
    source: str
    program: str
    created_at: int
    used_at: int
    expires_at: int


class Known(msgspec.Struct, frozen=True):
    """Everybody, as stored."""

    users: dict[str, User] = {}
    tokens: dict[bytes, Token] = {}
    """By mark."""
    sessions: dict[bytes, Session] = {}
    """By mark."""


class Identity(msgspec.Struct, frozen=True):
    """Who is asking, proven."""

    actor: str
    """As the audit log names them."""
    role: Role
    owner: Owner
    session: str = ""
    """The id of the session that was shown, empty where it was a token."""
