"""Every route with every credential: who is let in is what the table says, and nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from yarl import URL

from tests.fakes.access import Browser, Shifted, add_token, register_of, signed_in
from tests.fakes.house import House, house
from tokenhub_core.access.register import IDLE, LIFETIME
from tokenhub_core.access.roles import ROUTES, Role, least
from tokenhub_core.http.sessions import COOKIE, CSRF
from tokenhub_core.http.side import OPEN
from tokenhub_core.types.identity import KEY_PREFIX

SAFE: Final = {"GET", "HEAD"}
DENIED: Final = {"admin_token", "role", "csrf"}
"""What a request is refused with before it reaches its handler."""


@dataclass(frozen=True)
class Shown:
    """What a request shows, the role that it is worth, and whether a write needs more."""

    headers: Mapping[str, str]
    role: Role | None
    written: bool = True
    later: float = 0.0
    """Seconds after it was given out."""


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def by_token(role: Role) -> Callable[[House], Awaitable[Shown]]:
    async def show(it: House) -> Shown:
        made = await add_token(it, f"t-{role}-{time.monotonic_ns()}", role)
        return Shown(bearer(made["token"]), role)

    return show


def by_session(role: Role, csrf: str = "right", later: float = 0.0) -> Callable[[House], Awaitable[Shown]]:
    async def show(it: House) -> Shown:
        browser = await session(it, role)
        other = await session(it, role)
        headers = {
            "right": browser.headers,
            "none": browser.cookie,
            "wrong": {**browser.cookie, CSRF: "0" * 64},
            "another's": {**browser.cookie, CSRF: other.csrf},
            "not text": {**browser.cookie, CSRF: "\udcff"},
        }[csrf]
        return Shown(headers, None if later else role, csrf == "right", later)

    return show


async def session(it: House, role: Role) -> Browser:
    made = await add_token(it, f"s-{role}-{time.monotonic_ns()}", role)
    return await signed_in(it, made["token"])


async def ended(it: House) -> Shown:
    browser = await session(it, Role.ADMIN)
    assert (await browser.admin("DELETE", "/session")).status == 200
    return Shown(browser.headers, None)


async def revoked(it: House) -> Shown:
    made = await add_token(it, "revoked", "admin")
    await it.done("DELETE", f"/tokens/{made['id']}")
    return Shown(bearer(made["token"]), None)


async def expired(it: House) -> Shown:
    made = await add_token(it, "expired", "admin", expires_in_secs=60)
    return Shown(bearer(made["token"]), None, later=60)


async def wrong_beside_a_session(it: House) -> Shown:
    browser = await session(it, Role.ADMIN)
    return Shown({**browser.headers, **bearer("wrong")}, None)


async def out_of_place(it: House) -> list[Shown]:
    """What is good in one place, shown in another."""
    made = await add_token(it, "admin", "admin")
    browser = await signed_in(it, made["token"])
    ticket = (await it.done("POST", "/login-links"))["ticket"]
    return [
        Shown({"cookie": f"{COOKIE}={made['token']}", CSRF: browser.csrf}, None),
        Shown({"cookie": f"{COOKIE}={it.token}", CSRF: browser.csrf}, None),
        Shown({"cookie": f"{COOKIE}={browser.id}", CSRF: browser.csrf}, None),
        Shown(bearer(browser.name), None),
        Shown(bearer(browser.csrf), None),
        Shown(bearer(browser.id), None),
        Shown(bearer(ticket), None),
        Shown({"cookie": f"{COOKIE}={ticket}", CSRF: browser.csrf}, None),
        Shown(bearer(KEY_PREFIX + made["token"].removeprefix("thadmin_")), None),
        Shown(bearer(made["prefix"]), None),
        Shown({"x-api-key": made["token"], CSRF: browser.csrf}, None),
        Shown({"proxy-authorization": f"Bearer {made['token']}"}, None),
    ]


CREDENTIALS: Final[Mapping[str, Callable[[House], Awaitable[Shown]]]] = {
    **{f"a token of a {role}": by_token(role) for role in Role},
    **{f"a session of a {role}": by_session(role) for role in Role},
    **{f"a session of a {role} without a CSRF token": by_session(role, "none") for role in Role},
    "a session with a wrong CSRF token": by_session(Role.ADMIN, "wrong"),
    "a session with another's CSRF token": by_session(Role.ADMIN, "another's"),
    "a session with a CSRF token that is no text": by_session(Role.ADMIN, "not text"),
    "a session after its life": by_session(Role.ADMIN, later=LIFETIME),
    "a session that was idle": by_session(Role.ADMIN, later=IDLE),
    "a session that was ended": ended,
    "a token that was revoked": revoked,
    "a token after its end": expired,
    "a wrong token beside a session": wrong_beside_a_session,
}


def routes(it: House) -> list[tuple[str, str]]:
    """Return every route that is not open, each once."""
    found = set()
    for route in it.app.side.router.routes():
        assert route.resource is not None
        if route.resource.canonical not in OPEN:
            found.add((route.method, route.resource.canonical))
    return sorted(found)


@pytest_asyncio.fixture
async def it(tmp_path: Path) -> AsyncIterator[House]:
    """An application that takes as many questions as are asked here."""
    async with house(tmp_path, settings={"ADMIN_REQUESTS_PER_MINUTE": "none"}) as opened:
        yield opened


async def refused(it: House, method: str, path: str, shown: Shown) -> str:
    """Ask, and return what it was refused with before it reached a handler; empty where it reached one."""
    url = URL(it.url + re.sub(r"{\w+}", "x", path))
    register = register_of(it)
    clock = register._clock
    register._clock = Shifted(clock.now() + shown.later)
    try:
        headers = {
            name: value.encode(errors="surrogateescape").decode("latin1")
            for name, value in shown.headers.items()
        }
        async with it.session.request(method, url, headers=headers) as response:
            if response.status not in {401, 403}:
                return ""
            if method == "HEAD":
                return {401: "admin_token", 403: "role"}[response.status]
            code = str((await response.json())["error"]["code"])
            return code if code in DENIED else ""
    finally:
        register._clock = clock


def due(method: str, path: str, shown: Shown) -> str:
    """Return what the table says."""
    if shown.role is None:
        return "admin_token"
    if not shown.role.reaches(least(method, path)):
        return "role"
    return "" if shown.written or method in SAFE else "csrf"


async def test_every_route_has_its_row_and_every_row_its_route(it: House) -> None:
    """A new route fails here until somebody has decided who may use it, and so does a row that nothing serves."""
    assert {(method, path) for method, path in routes(it) if method != "HEAD"} == set(ROUTES)


@pytest.mark.parametrize("name", CREDENTIALS)
async def test_who_is_let_in_is_what_the_table_says(it: House, name: str) -> None:
    """Each route with one kind of credential; nobody is let in who should not be, or kept out who should be let in."""
    wrong = []
    shown = await CREDENTIALS[name](it)
    for method, path in routes(it):
        if (method, path) == ("DELETE", "/admin/v1/session"):
            continue  # it would end what the others are asked with, and has a scene of its own
        if (found := await refused(it, method, path, shown)) != due(method, path, shown):
            wrong.append((method, path, found, due(method, path, shown)))
    assert not wrong, wrong
    last = await refused(it, "DELETE", "/admin/v1/session", shown)
    assert last == due("DELETE", "/admin/v1/session", shown)


async def test_nothing_opens_what_it_was_not_made_for(it: House) -> None:
    """A token as a session, a session, a login link, a CSRF token or a client's key as a token: at no route."""
    wrong = []
    for number, shown in enumerate([Shown({}, None), *await out_of_place(it)]):
        for method, path in routes(it):
            if await refused(it, method, path, shown) != "admin_token":
                wrong.append((number, method, path))
    assert not wrong, wrong


def test_what_holds_secrets_or_hands_out_rights_is_an_admins() -> None:
    """Said again in another way than by the table: by what is at stake."""
    for (method, path), role in ROUTES.items():
        stakes = "/secrets" in path or path.endswith(("/audit/export", "/vault/unlock", "/vault/rotate"))
        writes = method != "GET" and path.startswith(
            ("/admin/v1/users", "/admin/v1/tokens", "/admin/v1/providers")
        )
        if stakes or (writes and not path.endswith(("/unpark", "/{id}/password"))):
            assert role is Role.ADMIN, (method, path)
        elif method != "GET" and role is Role.VIEWER:
            own = {"session", "sessions/{id}", "login-links", "users/{id}/password"}
            own |= {"routing/simulate", "config/plan"}  # questions
            assert path.removeprefix("/admin/v1/") in own, (method, path)


def test_a_route_that_nobody_thought_of_is_an_admins() -> None:
    """Denied by default; reading a head is reading."""
    assert least("GET", "/admin/v1/new") is Role.ADMIN
    assert least("POST", "/admin/v1/info") is Role.ADMIN
    assert least("HEAD", "/admin/v1/info") is Role.VIEWER
    assert least("HEAD", "/admin/v1/vault/secrets/{name}") is Role.ADMIN


async def test_a_verb_that_is_not_served_is_no_way_in(it: House) -> None:
    """Whatever is not registered is 401 to strangers and 405 to viewers, an override in a header is not read."""
    viewer = bearer((await add_token(it, "v", "viewer"))["token"])
    served = set(routes(it))
    for path in sorted({path for _, path in served if path.startswith("/admin")}):
        url = path.replace("{id}", "x").replace("{name}", "x")
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
            if (method, path) not in served:
                assert (await it.ask(method, url)).status == 401, (method, path)
                assert (await it.ask(method, url, headers=viewer)).status in {403, 404, 405}, (method, path)
    disguised = {**viewer, "x-http-method-override": "DELETE", "x-original-url": "/admin/v1/users"}
    assert (await it.ask("GET", "/admin/v1/models", headers=disguised)).json["items"] == []
    assert (await it.ask("POST", "/admin/v1/models", {}, disguised)).status == 403


async def test_the_route_decides_and_not_how_its_address_is_spelt(it: House) -> None:
    """Percent-encoded, doubled slashes, a made-up Host: a viewer gets no further by any of them."""
    viewer = bearer((await add_token(it, "v", "viewer"))["token"])
    await it.done("POST", "/vault/init", {"admin_password": "correct horse battery"})
    await it.done("PUT", "/vault/secrets/a", {"value": "sk-canary"})
    for path in (
        "/admin/v1/vault/secrets/a",
        "/%61dmin/v1/vault/secrets/a",
        "/admin/v1/vault/%73ecrets/a",
        "/admin/v1/vault/secrets%2Fa",
        "//admin/v1/vault/secrets/a",
        "/admin/v1/./vault/secrets/a",
        "/admin/v1/info/../vault/secrets/a",
        "/healthz/../admin/v1/vault/secrets/a",
    ):
        told = await it.ask("GET", path, headers=viewer)
        assert told.status in {403, 404}, path
        assert b"sk-canary" not in told.body
    hidden = await it.ask(
        "GET", "/admin/v1/vault/secrets/a", headers={**viewer, "host": "127.0.0.1/healthz?x#@evil"}
    )
    assert hidden.status in {400, 403}
