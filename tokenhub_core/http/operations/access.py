"""Who may use the admin API: signing in and out, users, and scoped tokens."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tokenhub_core.access.roles import Role
from tokenhub_core.http import access
from tokenhub_core.http.openapi import Area, Operation, items
from tokenhub_core.http.operations.fleet import BASE, Done

_SESSION: Final = f"{BASE}/session"
_USERS: Final = f"{BASE}/users"
_USER: Final = _USERS + "/{id}"
_TOKENS: Final = f"{BASE}/tokens"
_TOKEN: Final = _TOKENS + "/{id}"


class SessionOpened(msgspec.Struct):
    """A session that has begun: its name is in the cookie. Writes by it show `csrf`."""

    actor: str
    role: Role
    id: str
    csrf: str
    expires_at: float


class Asking(msgspec.Struct):
    """Who is asking; id and `csrf` are those of a session, null where it was a token."""

    actor: str
    role: Role
    id: str | None
    csrf: str | None


class SessionShown(msgspec.Struct):
    """A browser that is signed in. Moments in seconds since the epoch. The id opens nothing."""

    id: str
    actor: str
    role: str
    source: str
    program: str
    created_at: float
    used_at: float
    expires_at: float


class LoginLink(msgspec.Struct):
    """What opens one session, at `/login` and for so long."""

    ticket: str
    expires_in_secs: float


class UserShown(msgspec.Struct):
    """A user. Moments in seconds since the epoch; null: never."""

    id: str
    name: str
    role: Role
    enabled: bool
    created_at: float
    updated_at: float
    password_at: float
    last_login_at: float | None


class TokenShown(msgspec.Struct):
    """A scoped token, without its value. Moments in seconds since the epoch; null: never."""

    id: str
    name: str
    role: Role
    prefix: str
    created_by: str
    created_at: float
    updated_at: float
    expires_at: float | None


class TokenMade(TokenShown, kw_only=True):
    """A new token, with its value."""

    token: str


def _one(method: str, path: str, summary: str, answer: Any, *more: int, body: Any = None) -> Operation:
    """Return an operation on one of them, of which there may be none."""
    return Operation(
        method=method, path=path, summary=summary, body=body, answers={200: answer}, refuses=(404, *more)
    )


AREA: Final = Area(
    "access",
    "Who may use the admin API. A role that does not reach what is asked for is a 403.",
    (
        Operation(
            method="POST",
            path=f"{BASE}/login",
            summary="Sign in with a password or a login link",
            body=access.LoginBody,
            answers={200: SessionOpened},
            refuses=(401, 503),
        ),
        Operation(
            method="POST",
            path=_SESSION,
            summary="Open a browser's session",
            text="With a token, not with another session. The session is a cookie.",
            answers={200: SessionOpened},
        ),
        Operation(method="GET", path=_SESSION, summary="Say who is asking", answers={200: Asking}),
        Operation(method="DELETE", path=_SESSION, summary="Close a browser's session", answers={200: Done}),
        Operation(
            method="GET",
            path=f"{BASE}/sessions",
            summary="List one's own sessions, as an admin all",
            answers={200: items(SessionShown)},
        ),
        _one("DELETE", f"{BASE}/sessions/{{id}}", "End a session", Done),
        Operation(
            method="POST",
            path=f"{BASE}/login-links",
            summary="Make a link that signs a browser in",
            text="With a token, not with a session.",
            answers={201: LoginLink},
        ),
        Operation(method="GET", path=_USERS, summary="List users", answers={200: items(UserShown)}),
        Operation(
            method="POST",
            path=_USERS,
            summary="Add a user",
            body=access.UserBody,
            answers={201: UserShown},
            refuses=(409,),
        ),
        _one("GET", _USER, "Show a user", UserShown),
        _one("PATCH", _USER, "Change a user, and end their sessions", UserShown, 409, body=access.UserPatch),
        _one("DELETE", _USER, "Remove a user", Done, 409),
        _one(
            "POST",
            f"{_USER}/password",
            "Set a password: one's own by the old one, as an admin anybody's",
            UserShown,
            body=access.UserPasswordBody,
        ),
        _one("POST", f"{_USER}/unlock", "Let the next password be tried at once", UserShown),
        Operation(method="GET", path=_TOKENS, summary="List tokens", answers={200: items(TokenShown)}),
        Operation(
            method="POST",
            path=_TOKENS,
            summary="Make a token; its value is in this answer and in no other",
            body=access.TokenBody,
            answers={201: TokenMade},
            refuses=(409,),
        ),
        _one("GET", _TOKEN, "Show a token", TokenShown),
        _one("PATCH", _TOKEN, "Change a token", TokenShown, body=access.TokenPatch),
        _one("DELETE", _TOKEN, "Revoke a token", Done),
    ),
)
