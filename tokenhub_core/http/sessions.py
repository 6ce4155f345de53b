"""Who may use the admin API: the bearer of the token, or a browser that showed it once."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from aiohttp import web

from tokenhub_core.ports import Clock, Secret

COOKIE: Final = "tokenhub_session"
LIFETIME: Final = 12 * 3600
"""Seconds after which a browser has to show the token again."""
_MOST: Final = 100
_PATH: Final = "/admin"


class Sessions:
    """The admin token and the sessions opened with it, in memory: a restart signs every browser out."""

    def __init__(self, token: Secret, clock: Clock, fresh: Callable[[], str]) -> None:
        self._token = token
        self._clock = clock
        self._fresh = fresh
        self._open: dict[bytes, float] = {}

    def bearer(self, request: web.Request) -> bool:
        """Tell whether the request shows the admin token. Constant time; never from a query string."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        known = self._token.reveal()
        return (
            bool(known)
            and scheme.lower() == "bearer"
            # aiohttp keeps bytes that are no UTF-8 as surrogates.
            and hmac.compare_digest(given.strip().encode(errors="surrogateescape"), known.encode())
        )

    def allowed(self, request: web.Request) -> bool:
        """Tell whether the request may do admin work."""
        if self.bearer(request):
            return True
        until = self._open.get(_marked(request))
        return until is not None and until > self._clock.monotonic()

    def actor(self, request: web.Request) -> str:
        """Return who is asking, as the audit log names them."""
        if self.bearer(request):
            return "admin-token"
        # The mark says which session it is, and opens none.
        return f"session:{_marked(request).hex()[:12]}" if self.allowed(request) else "anonymous"

    def open(self, response: web.StreamResponse) -> None:
        """Give the browser a session of its own, opaque and useless to scripts and other sites."""
        now = self._clock.monotonic()
        self._open = {name: until for name, until in self._open.items() if until > now}
        while len(self._open) >= _MOST:
            self._open.pop(next(iter(self._open)))
        name = self._fresh()
        self._open[_mark(name)] = now + LIFETIME
        response.set_cookie(COOKIE, name, max_age=LIFETIME, path=_PATH, httponly=True, samesite="Strict")

    def close(self, request: web.Request, response: web.StreamResponse) -> None:
        """End the browser's session."""
        self._open.pop(_marked(request), None)
        response.del_cookie(COOKIE, path=_PATH, httponly=True, samesite="Strict")


def _marked(request: web.Request) -> bytes:
    return _mark(request.cookies.get(COOKIE, ""))


def _mark(name: str) -> bytes:
    """Return what a session is kept under: how long a look-up takes says nothing of the name."""
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()
