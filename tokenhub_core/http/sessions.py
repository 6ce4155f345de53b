"""Who is asking: what a request shows of a token or of a session, and whether that is enough for its route."""

from __future__ import annotations

import asyncio
import hmac
import logging
from typing import Final

from aiohttp import web

from tokenhub_core.access.register import LIFETIME, TOKEN_PREFIX, Register
from tokenhub_core.access.roles import Role, least
from tokenhub_core.access.values import Identity
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError, client_fault

COOKIE: Final = "tokenhub_session"
CSRF: Final = "x-csrf-token"
RECHECK: Final = 2.0
"""Seconds between two looks at whether who reads a stream may still do so."""

_PATH: Final = "/"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SECRETS: Final = frozenset(
    {"token", "access_token", "admin_token", "api_key", "auth", "authorization", "bearer", "password"}
    | {"ticket", "session", COOKIE, CSRF, "csrf"}
)
"""Names of what must not be in an address of ours."""
_OURS: Final = (TOKEN_PREFIX, "thlogin_")

_log: Final = logging.getLogger(__name__)


class Sessions:
    """Reads requests; what they show is looked up in the register.

    A token is read from `Authorization: Bearer` and nowhere else, a session from its cookie. A request that shows a
    token is judged by that alone, so a wrong one is not made good by a cookie.
    """

    def __init__(self, register: Register) -> None:
        self._register = register

    def admit(self, request: web.Request) -> None:
        """Let a request in; raises `TokenHubError`: `AUTH` where nobody is known, `FORBIDDEN` where it is not enough.

        Whatever else goes wrong while that is found out is a 503, and never lets anybody in.
        """
        try:
            self._admit(request)
        except TokenHubError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, nobody is let in by it
            _log.exception("who asks for %s %s could not be found out", request.method, request.path)
            raise TokenHubError(_UNKNOWN) from None

    def _admit(self, request: web.Request) -> None:
        identity = self._shown(request, use=True)
        if identity is None:
            raise client_fault(
                "the admin token is required, or a session", kind=Kind.AUTH, cause="admin_token"
            )
        resource = request.match_info.route.resource
        # What is not there may be told to everybody who may read.
        needed = least(request.method, resource.canonical) if resource else Role.VIEWER
        if not identity.role.reaches(needed):
            raise client_fault(
                f"this needs the role {needed}, and {identity.actor} is {identity.role}",
                kind=Kind.FORBIDDEN,
                cause="role",
            )
        if identity.session and request.method not in _SAFE and not self._meant(request):
            raise client_fault(
                f"a write by a session needs the header {CSRF}", kind=Kind.FORBIDDEN, cause="csrf"
            )

    def identity(self, request: web.Request) -> Identity:
        """Return who was let in; raises `TokenHubError` (`AUTH`) where they may not come in any more."""
        identity = self._shown(request, use=False)
        if identity is None:
            raise client_fault("the session has ended", kind=Kind.AUTH, cause="admin_token")
        return identity

    def actor(self, request: web.Request) -> str:
        """Return who is asking, as the audit log names them; never raises."""
        try:
            identity = self._shown(request, use=False)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("who asks for %s %s could not be found out", request.method, request.path)
            return "anonymous"
        return identity.actor if identity else "anonymous"

    def csrf(self, request: web.Request) -> str:
        """Return what writes by the request's session have to show."""
        return self._register.csrf(_cookie(request))

    async def over(self, request: web.Request, leaving: asyncio.Event) -> None:
        """Return when the server is leaving, or when who asked may not read any more. Waiting is no use."""
        while not leaving.is_set() and self._still(request):
            try:
                async with asyncio.timeout(RECHECK):
                    await leaving.wait()
            except TimeoutError:
                continue

    def set_cookie(self, request: web.Request, response: web.StreamResponse, name: str) -> None:
        """Give the browser its session, opaque and useless to scripts and other sites."""
        response.set_cookie(
            COOKIE,
            name,
            max_age=LIFETIME,
            path=_PATH,
            httponly=True,
            samesite="Strict",
            secure=request.secure,
        )

    def drop_cookie(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let the browser forget its session."""
        response.del_cookie(COOKIE, path=_PATH, httponly=True, samesite="Strict", secure=request.secure)

    def _shown(self, request: web.Request, *, use: bool) -> Identity | None:
        given = request.headers.get("authorization")
        if given is not None:
            scheme, _, token = given.partition(" ")
            return self._register.bearer(token.strip()) if scheme.lower() == "bearer" else None
        name = _cookie(request)
        return self._register.session(name, use=use) if name else None

    def _meant(self, request: web.Request) -> bool:
        given = request.headers.get(CSRF, "").encode(errors="surrogatepass")
        return hmac.compare_digest(given, self.csrf(request).encode())

    def _still(self, request: web.Request) -> bool:
        return self.actor(request) != "anonymous"


def refuse_secrets_in(request: web.Request) -> None:
    """Refuse a query that holds a token or is made to: addresses end up in logs and histories."""
    for name, value in request.query.items():
        if name.lower() in _SECRETS or value.startswith(_OURS):
            raise client_fault(
                f"no token belongs in an address (the query's {name[:40]!r}): show it in Authorization",
                cause="token_in_query",
            )


def _cookie(request: web.Request) -> str:
    return request.cookies.get(COOKIE, "")


_UNKNOWN: Final = Fault(
    Kind.OVERLOADED,
    Blame.US,
    "Who is asking could not be found out; TokenHub's log says why.",
    cause="access_unavailable",
)
