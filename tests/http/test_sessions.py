"""The admin token, and what a browser gets for it."""

from __future__ import annotations

import hmac
import itertools
from collections.abc import Callable
from http.cookies import SimpleCookie

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from tests.fakes.house import House
from tokenhub_core.http.sessions import COOKIE, LIFETIME, Sessions
from tokenhub_core.ports import Secret


class Hands:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


def names() -> Callable[[], str]:
    count = itertools.count()
    return lambda: f"session-{next(count)}"


def opened(sessions: Sessions) -> str:
    """Open a session and return its name."""
    response = web.Response()
    sessions.open(response)
    return response.cookies[COOKIE].value


def shows(name: str) -> web.Request:
    return make_mocked_request("GET", "/", headers={"cookie": f"{COOKIE}={name}"})


def test_a_session_ends_by_itself() -> None:
    """After its life the browser has to show the token again."""
    clock = Hands()
    sessions = Sessions(Secret("t"), clock, names())
    name = opened(sessions)
    clock.at = LIFETIME - 1
    assert sessions.allowed(shows(name))
    clock.at = LIFETIME
    assert not sessions.allowed(shows(name))


def test_only_so_many_sessions_are_open() -> None:
    """The oldest one makes room, and those that ended take none."""
    clock = Hands()
    sessions = Sessions(Secret("t"), clock, names())
    opening = [opened(sessions) for _ in range(101)]
    assert [sessions.allowed(shows(name)) for name in opening[:2]] == [False, True]
    clock.at = LIFETIME
    late = [opened(sessions) for _ in range(100)]
    assert all(sessions.allowed(shows(name)) for name in late)


def test_no_token_opens_nothing() -> None:
    """An empty token is none, however it is shown."""
    sessions = Sessions(Secret(""), Hands(), names())
    for value in ("Bearer ", "Bearer", ""):
        assert not sessions.allowed(make_mocked_request("GET", "/", headers={"authorization": value}))
    assert not sessions.allowed(shows(""))


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a wrong token takes says nothing of how much of it is right."""
    compared = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return given == known

    monkeypatch.setattr(hmac, "compare_digest", compare)
    sessions = Sessions(Secret("token"), Hands(), names())
    for given in ("token", "t", "tokem", "x" * 1000):
        sessions.bearer(make_mocked_request("GET", "/", headers={"authorization": f"Bearer {given}"}))
    assert [given for given, _ in compared] == [b"token", b"t", b"tokem", b"x" * 1000]


async def test_the_cookie_is_of_no_use_to_scripts_and_other_sites(it: House) -> None:
    """HttpOnly, SameSite=Strict, for the admin API's path only, with an end; and it is not the token."""
    told = await it.ask("POST", "/admin/v1/session", headers=it.bearer)
    cookie = SimpleCookie(told.header("set-cookie"))[COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/admin")
    assert int(cookie["max-age"]) == LIFETIME
    assert it.token not in told.header("set-cookie")
    assert it.token.encode() not in told.body
    used = await it.ask("GET", "/admin/v1/info", headers={"cookie": f"{COOKIE}={cookie.value}"})
    assert used.status == 200


async def test_signing_out_ends_the_session_at_the_server(it: House) -> None:
    """A copy of the cookie is worth nothing afterwards, and the browser is told to drop its own."""
    told = await it.ask("POST", "/admin/v1/session", headers=it.bearer)
    cookie = {"cookie": told.header("set-cookie").partition(";")[0]}
    out = await it.ask("DELETE", "/admin/v1/session", headers=cookie)
    assert out.status == 200
    gone = SimpleCookie(out.header("set-cookie"))[COOKIE]
    assert (gone.value, gone["max-age"], gone["path"]) == ("", "0", "/admin")
    assert (await it.ask("GET", "/admin/v1/info", headers=cookie)).status == 401


async def test_a_session_opens_no_other_one(it: House) -> None:
    """Whoever stole a cookie cannot make it last; only the token itself opens a session."""
    told = await it.ask("POST", "/admin/v1/session", headers=it.bearer)
    cookie = {"cookie": told.header("set-cookie").partition(";")[0]}
    again = await it.ask("POST", "/admin/v1/session", headers=cookie)
    assert again.status == 401
    assert not again.header("set-cookie")


@pytest.mark.parametrize("value", ["", "x", "\udcff", "a" * 4000, '"', "session=;;"])
async def test_a_made_up_cookie_opens_nothing(it: House, value: str) -> None:
    """Whatever stands in it."""
    head = f"GET /admin/v1/info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: {COOKIE}={value}\r\n\r\n"
    assert (await it.raw(head.encode(errors="surrogateescape"))).startswith(b"HTTP/1.1 401 ")
