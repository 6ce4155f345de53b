"""People at the admin API: users, tokens and browsers with a session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

from tests.fakes.house import House, Told
from tokenhub_core.access import passwords
from tokenhub_core.access.logins import Logins
from tokenhub_core.access.register import Register
from tokenhub_core.http.access import AccessPages
from tokenhub_core.http.sessions import COOKIE, CSRF
from tokenhub_core.types import Json

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Browser:
    """A session as a browser has it."""

    it: House
    name: str
    csrf: str
    id: str

    @property
    def headers(self) -> dict[str, str]:
        """What the page's own script sends."""
        return {**self.cookie, CSRF: self.csrf}

    @property
    def cookie(self) -> dict[str, str]:
        """What the browser sends by itself."""
        return {"cookie": f"{COOKIE}={self.name}"}

    async def admin(self, method: str, path: str, body: object = None) -> Told:
        return await self.it.ask(method, f"/admin/v1{path}", body, self.headers)

    async def in_(self) -> bool:
        """Tell whether the session still opens something."""
        return (await self.it.ask("GET", "/admin/v1/info", headers=self.cookie)).status == 200


def opened(it: House, told: Told) -> Browser:
    """Return the browser that was signed in by this answer."""
    assert told.status == 200, told.body
    cookie = told.header("set-cookie").partition(";")[0]
    return Browser(it, cookie.partition("=")[2], told.json["csrf"], told.json["id"])


async def signed_in(it: House, token: str) -> Browser:
    """Sign a browser in with a token."""
    headers = {"authorization": f"Bearer {token}"}
    return opened(it, await it.ask("POST", "/admin/v1/session", headers=headers))


async def log_in(it: House, name: str, password: str = PASSWORD) -> Told:
    """Try a password."""
    return await it.ask("POST", "/admin/v1/login", {"user": name, "password": password})


async def add_user(it: House, name: str, role: str = "viewer") -> Json:
    return await it.done("POST", "/users", {"name": name, "role": role, "password": PASSWORD})


async def add_token(it: House, name: str, role: str = "viewer", **more: object) -> Json:
    return await it.done("POST", "/tokens", {"name": name, "role": role, **more})


def register_of(it: House) -> Register:
    """The register, which nobody outside is given: it is taken from the handler that reads it."""
    for route in it.app.side.router.routes():
        owner = getattr(route.handler, "__self__", None)
        if isinstance(owner, AccessPages):
            return owner._register
    raise AssertionError("there are no such pages")


def logins_of(it: House) -> Logins:
    """How people get in, taken from the handler that lets them."""
    return next(
        owner._logins
        for route in it.app.side.router.routes()
        if isinstance(owner := getattr(route.handler, "__self__", None), AccessPages)
    )


@contextmanager
def cheap_passwords() -> Iterator[None]:
    """Let a password take no time, of a user who exists and of one who does not."""
    nobody = passwords.NOBODY.replace("m=65536,t=3", "m=8,t=1")
    with (
        mock.patch.object(passwords, "_MEMORY", 8),
        mock.patch.object(passwords, "_PASSES", 1),
        mock.patch.object(passwords, "NOBODY", nobody),
    ):
        yield


class Shifted:
    """A clock that is as much later as one likes."""

    def __init__(self, at: float = 1_700_000_000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at
