"""Sessions of browsers: what opens one, what it is good for, and everything that ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from sqlalchemy import Connection

from tests.fakes.access import (
    Browser,
    Shifted,
    add_token,
    add_user,
    cheap_passwords,
    log_in,
    opened,
    register_of,
    signed_in,
)
from tests.fakes.house import House, house
from tests.fakes.register import bare_register
from tests.http.test_admin_events import stream
from tests.patience import PATIENCE
from tokenhub_core.access.register import IDLE, LIFETIME, TOKEN_PREFIX, Register
from tokenhub_core.access.roles import Role
from tokenhub_core.errors import TokenHubError
from tokenhub_core.http import sessions as door
from tokenhub_core.http.access import AccessPages
from tokenhub_core.http.sessions import COOKIE, Sessions, refuse_secrets_in


@pytest.fixture(autouse=True)
def cheap() -> Iterator[None]:
    with cheap_passwords():
        yield


# --- the cookie


async def test_the_cookie_is_of_no_use_to_scripts_and_other_sites(it: House) -> None:
    """HttpOnly, SameSite=Strict, with an end; it is random, and neither the token nor what is shown of the session."""
    told = await it.ask("POST", "/admin/v1/session", headers=it.bearer)
    cookie = SimpleCookie(told.header("set-cookie"))[COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")
    assert (int(cookie["max-age"]), cookie["secure"], cookie["domain"]) == (LIFETIME, "", "")
    assert (len(bytes.fromhex(cookie.value)), len(bytes.fromhex(told.json["id"]))) == (32, 8)
    assert it.token not in told.header("set-cookie")
    assert it.token.encode() not in told.body
    assert cookie.value not in told.body.decode()
    used = await it.ask("GET", "/admin/v1/info", headers={"cookie": f"{COOKIE}={cookie.value}"})
    assert used.status == 200


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_over_tls_the_cookie_stays_there(scheme: str) -> None:
    """It is marked Secure where the request came that way, and taken back in the same way."""
    sessions = Sessions(bare_register("t", Shifted()))
    request = make_mocked_request("POST", "/").clone(scheme=scheme)
    given, taken = web.Response(), web.Response()
    sessions.set_cookie(request, given, "n")
    sessions.drop_cookie(request, taken)
    for response in (given, taken):
        cookie = response.cookies[COOKIE]
        assert bool(cookie["secure"]) is (scheme == "https")
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Strict", "/")


async def test_a_session_is_nowhere_in_the_database(tmp_path: Path) -> None:
    """Nor is a token, a login link or a CSRF token: only marks of them are, with a key that is kept elsewhere."""
    async with house(tmp_path) as it:
        token = (await add_token(it, "t", "admin"))["token"]
        browser = await signed_in(it, token)
        ticket = (await it.done("POST", "/login-links"))["ticket"]
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("tokenhub.sqlite*"))
    for secret in (browser.name, token, ticket, browser.csrf):
        assert secret.encode() not in kept
    for secret in (browser.name, token, browser.csrf):
        assert bytes.fromhex(secret.removeprefix("thadmin_")) not in kept
    assert browser.id.encode() in kept


# --- what opens one


async def test_a_session_opens_no_other_one(it: House) -> None:
    """Whoever stole a cookie cannot make it last: neither by a new session nor by a login link."""
    browser = await signed_in(it, it.token)
    for path in ("/session", "/login-links"):
        told = await browser.admin("POST", path)
        assert (told.status, told.fault["code"]) == (403, "session")
        assert not told.header("set-cookie")


@pytest.mark.parametrize("value", ["", "x", "\udcff", "a" * 4000, '"', "session=;;"])
async def test_a_made_up_cookie_opens_nothing(it: House, value: str) -> None:
    """Whatever stands in it."""
    head = f"GET /admin/v1/info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: {COOKIE}={value}\r\n\r\n"
    assert (await it.raw(head.encode(errors="surrogateescape"))).startswith(b"HTTP/1.1 401 ")


def test_no_token_opens_nothing() -> None:
    """Where the installation has none, an empty one is none, however it is shown."""
    sessions = Sessions(bare_register("", Shifted()))
    for value in ("Bearer ", "Bearer", "", "bearer  "):
        request = make_mocked_request("GET", "/", headers={"authorization": value})
        assert sessions.actor(request) == "anonymous"
    register = bare_register("", Shifted())
    assert register.identity(register.bootstrap) is None


def test_before_anybody_was_read_only_the_bootstrap_token_is_known() -> None:
    """Whoever asks as early as that is nobody, and no failure."""
    register = bare_register("t", Shifted())
    shown = register.bearer("t")
    assert shown is not None
    assert (shown.actor, shown.role, shown.owner) == ("admin-token", Role.ADMIN, register.bootstrap)
    assert register.bearer(f"{TOKEN_PREFIX}x") is None
    assert register.session("x", use=True) is None
    assert (register.users(), register.tokens(), register.sessions()) == ([], [], [])


async def test_a_clients_key_is_no_admin_token_even_where_it_is_the_setting(tmp_path: Path) -> None:
    """Whoever made one key do two jobs gets neither for the price of one."""
    async with house(tmp_path, settings={"ADMIN_TOKEN": "tokenhub_" + "0" * 64}) as it:
        assert (await it.admin("GET", "/info")).status == 401


# --- what ends it


async def test_signing_out_ends_the_session_at_the_server(it: House) -> None:
    """A copy of the cookie is worth nothing afterwards, and the browser is told to drop its own."""
    browser = await signed_in(it, it.token)
    out = await browser.admin("DELETE", "/session")
    assert out.status == 200
    gone = SimpleCookie(out.header("set-cookie"))[COOKIE]
    assert (gone.value, gone["max-age"], gone["path"]) == ("", "0", "/")
    assert not await browser.in_()
    by_token = await it.ask("DELETE", "/admin/v1/session", headers=it.bearer)
    assert by_token.status == 200  # there is nothing to end


async def test_a_session_ends_by_itself(it: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour after it was used last, and twelve hours after it was opened however much it is used."""
    assert (IDLE, LIFETIME) == (3600, 12 * 3600)
    register, clock = register_of(it), Shifted()
    monkeypatch.setattr(register, "_clock", clock)
    idle = await signed_in(it, it.token)
    clock.at += IDLE - 1
    assert await idle.in_()
    clock.at += IDLE - 1
    assert await idle.in_()
    clock.at += IDLE
    assert not await idle.in_()
    busy, opened_at = await signed_in(it, it.token), clock.at
    while clock.at + IDLE - 1 < opened_at + LIFETIME:
        clock.at += IDLE - 1
        assert await busy.in_()
    clock.at = opened_at + LIFETIME - 1
    assert await busy.in_()
    clock.at = opened_at + LIFETIME
    assert not await busy.in_()
    assert (await it.done("GET", "/sessions"))["total"] == 0


async def test_a_new_session_ends_no_other(it: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of sessions that have ended go with the next login; one that has a second left is none of them."""
    register, clock = register_of(it), Shifted()
    monkeypatch.setattr(register, "_clock", clock)
    first = await signed_in(it, it.token)
    clock.at += IDLE - 1
    second = await signed_in(it, it.token)
    assert [await one.in_() for one in (first, second)] == [True, True]


async def test_looking_whether_one_is_in_is_no_use(it: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the audit log and a stream ask of a session does not keep it open."""
    register, clock = register_of(it), Shifted()
    monkeypatch.setattr(register, "_clock", clock)
    browser = await signed_in(it, it.token)
    clock.at += IDLE - 1
    assert register.session(browser.name, use=False)
    clock.at += 1
    assert register.session(browser.name, use=False) is None


async def test_a_session_survives_a_restart_and_so_does_its_end(tmp_path: Path) -> None:
    """With its CSRF token, and with the time of its last use; what was ended stays ended."""
    async with house(tmp_path) as it:
        token = (await add_token(it, "t", "operator"))["token"]
        kept, ended = await signed_in(it, token), await signed_in(it, token)
        await ended.admin("DELETE", "/session")
    async with house(tmp_path) as it:
        again = [Browser(it, one.name, one.csrf, one.id) for one in (kept, ended)]
        assert [await one.in_() for one in again] == [True, False]
        assert (await again[0].admin("PUT", "/routing-config", {})).status == 200


async def test_the_time_of_the_last_use_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a minute at most: over a restart a session is idle from there on."""
    clock = Shifted()
    async with house(tmp_path) as it:
        register = register_of(it)
        monkeypatch.setattr(register, "_clock", clock)
        posted = []
        post = register._writer.post

        def noted(work: Callable[[Connection], object]) -> bool:
            posted.append(clock.at)
            return post(work)

        monkeypatch.setattr(register._writer, "post", noted)
        browser = await signed_in(it, it.token)
        for _ in range(130):
            clock.at += 1
            assert await browser.in_()
        assert [at - 1_700_000_000 for at in posted] == [1, 61, 121]
    async with house(tmp_path) as it:
        monkeypatch.setattr(register_of(it), "_clock", clock)
        clock.at = 1_700_000_000 + 121 + IDLE - 1
        assert register_of(it).session(browser.name, use=False)
        clock.at += 1
        assert register_of(it).session(browser.name, use=False) is None


async def test_another_bootstrap_token_ends_what_the_old_one_opened(tmp_path: Path) -> None:
    """Whoever replaces it after it was seen wants nobody left who came in by it."""
    async with house(tmp_path) as it:
        token = (await add_token(it, "t", "viewer"))["token"]
        by_bootstrap, by_token = await signed_in(it, it.token), await signed_in(it, token)
    async with house(tmp_path, settings={"ADMIN_TOKEN": "another"}) as it:
        for one, still in ((by_bootstrap, False), (by_token, True)):
            assert await Browser(it, one.name, one.csrf, one.id).in_() is still


async def test_another_salt_ends_everything(tmp_path: Path) -> None:
    """Without the key of the marks nothing that is stored opens anything."""
    async with house(tmp_path) as it:
        token = (await add_token(it, "t", "viewer"))["token"]
        browser = await signed_in(it, token)
    (tmp_path / "data" / "salt").unlink()
    async with house(tmp_path) as it:
        assert not await Browser(it, browser.name, browser.csrf, browser.id).in_()
        told = await it.ask("GET", "/admin/v1/info", headers={"authorization": f"Bearer {token}"})
        assert told.status == 401


async def test_of_one_owner_only_so_many_sessions_are_open(
    it: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest makes room; nobody pushes out another's."""
    clock = Shifted()
    monkeypatch.setattr(register_of(it), "_clock", clock)
    token = (await add_token(it, "t", "viewer"))["token"]
    other = await signed_in(it, token)
    mine = []
    for _ in range(21):
        clock.at += 1
        mine.append(await signed_in(it, it.token))
    assert [await one.in_() for one in mine[:2]] == [False, True]
    assert await mine[-1].in_()
    assert await other.in_()


async def test_a_client_that_leaves_does_not_leave_a_change_half_known(
    it: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who revokes a token and hangs up has revoked it: in the store, and for whoever shows it next."""
    made = await add_token(it, "t", "admin")
    register = register_of(it)
    commit, begun, go = register._audit.commit, asyncio.Event(), asyncio.Event()

    async def slow(work: Callable[[Connection], object]) -> object:
        result = await commit(work)
        begun.set()
        await go.wait()
        return result

    monkeypatch.setattr(register._audit, "commit", slow)
    leaving = asyncio.create_task(register.delete_token(made["id"]))
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    go.set()
    monkeypatch.undo()
    await register.load()  # waits for its turn
    assert register.bearer(made["token"]) is None
    assert register.tokens() == []


# --- listing and ending others


async def test_one_sees_and_ends_ones_own_and_an_admin_everybodys(it: House) -> None:
    """Another's session is not there for who is no admin; no list tells what opens one."""
    await add_user(it, "ada")
    await add_user(it, "bob")
    ada, bob = opened(it, await log_in(it, "ada")), opened(it, await log_in(it, "bob"))
    second = opened(it, await log_in(it, "ada"))
    seen = (await ada.admin("GET", "/sessions")).json
    assert {one["id"] for one in seen["items"]} == {ada.id, second.id}
    everybody = await it.done("GET", "/sessions")
    assert {one["id"]: one["actor"] for one in everybody["items"]} == {
        ada.id: "user:ada",
        bob.id: "user:bob",
        second.id: "user:ada",
    }
    (first, *_) = seen["items"]
    assert (first["source"], first["role"]) == ("127.0.0.1", "viewer")
    assert first["program"].startswith("Python/")
    assert first["expires_at"] == pytest.approx(first["created_at"] + LIFETIME)
    assert first["used_at"] >= first["created_at"]
    assert (await ada.admin("DELETE", f"/sessions/{bob.id}")).status == 404
    assert await bob.in_()
    assert (await ada.admin("DELETE", f"/sessions/{second.id}")).status == 200
    assert not await second.in_()
    await it.done("DELETE", f"/sessions/{bob.id}")
    assert not await bob.in_()
    assert await ada.in_()
    closed = (await it.done("GET", "/audit?action=session.close"))["entries"]
    assert [(one["actor"], one["subject"]) for one in closed] == [
        ("admin-token", bob.id),
        ("user:ada", second.id),
    ]
    for one in (ada, bob, second):
        assert one.name.encode() not in b"".join(it.seen)


# --- streams


async def test_a_stream_of_events_ends_with_the_session(it: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed out, disabled, revoked: whoever listens is cut off, at the next look that is taken every two seconds."""
    assert door.RECHECK == 2.0
    monkeypatch.setattr(door, "RECHECK", 0.01)
    user = await add_user(it, "ada")
    token = await add_token(it, "t", "viewer")
    by_user, by_token = opened(it, await log_in(it, "ada")), await signed_in(it, token["token"])
    out = await signed_in(it, it.token)
    shown = {"authorization": f"Bearer {token['token']}"}
    ends = (
        (by_user.cookie, lambda: it.done("PATCH", f"/users/{user['id']}", {"enabled": False})),
        (out.cookie, lambda: out.admin("DELETE", "/session")),
        (by_token.cookie, lambda: it.done("PATCH", f"/tokens/{token['id']}", {"role": "operator"})),
        (shown, lambda: it.done("DELETE", f"/tokens/{token['id']}")),
    )
    for headers, end in ends:
        async with asyncio.timeout(PATIENCE), stream(it, bare=True, headers=headers) as events:
            await end()
            while await events.frame():
                pass


async def test_a_stream_goes_on_while_the_session_does(it: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that find everything in order change nothing."""
    monkeypatch.setattr(door, "RECHECK", 0.01)
    browser = await signed_in(it, it.token)
    looks, looked = 0, asyncio.Event()
    session = Register.session

    def counted(self: Register, name: str, *, use: bool) -> object:
        nonlocal looks
        looks += 1
        if looks > 20:
            looked.set()
        return session(self, name, use=use)

    async with asyncio.timeout(PATIENCE), stream(it, bare=True, headers=browser.cookie) as events:
        monkeypatch.setattr(Register, "session", counted)
        await looked.wait()
        await it.done("PUT", "/routing-config", {})
        assert (await events.next()).type == "audit"


# --- whatever goes wrong, nobody is let in by it


@pytest.mark.parametrize(
    "error", [RuntimeError("x"), KeyError("x"), ValueError("x"), AttributeError("x"), UnicodeError("x")]
)
@pytest.mark.parametrize("place", ["bearer", "session", "identity"])
async def test_a_failure_while_finding_out_who_asks_lets_nobody_in(
    it: House,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
    error: Exception,
) -> None:
    """It is a 503 for whoever it was, also for who would have been let in, and the audit log knows nobody."""
    browser = await signed_in(it, it.token)

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Register, place, fail)
    shown = it.bearer if place == "bearer" else browser.headers
    for method, path in (
        ("GET", "/info"),
        ("GET", "/vault/secrets"),
        ("POST", "/vault/lock"),
        ("GET", "/events"),
    ):
        told = await it.ask(method, f"/admin/v1{path}", headers=shown)
        assert (told.status, told.fault["code"]) == (503, "access_unavailable")
        assert "x" not in told.fault["message"].split()
        said = {line for line in caplog.messages if line.endswith("could not be found out")}
        assert said == {f"who asks for {method} /admin/v1{path} could not be found out"}
        caplog.clear()
    monkeypatch.undo()
    assert all(
        one["actor"] == "anonymous" for one in (await it.done("GET", "/audit?outcome=failed"))["entries"]
    )


async def test_a_failure_while_a_right_is_looked_up_lets_nobody_in(
    it: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where the table or the CSRF token is what fails."""
    browser = await signed_in(it, it.token)

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(door, "least", fail)
    assert (await it.admin("GET", "/info")).status == 503
    monkeypatch.undo()
    monkeypatch.setattr(Register, "csrf", fail)
    assert (await browser.admin("POST", "/vault/lock")).status == 503


async def test_a_session_that_ends_between_the_door_and_the_handler_is_over(
    it: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is asked again, further in, is nobody any more."""
    sessions = next(
        owner._sessions
        for route in it.app.side.router.routes()
        if isinstance(owner := getattr(route.handler, "__self__", None), AccessPages)
    )
    monkeypatch.setattr(sessions, "admit", lambda request: None)
    told = await it.ask("GET", "/admin/v1/session")
    assert (told.status, told.fault["code"]) == (401, "admin_token")
    with pytest.raises(TokenHubError):
        sessions.identity(make_mocked_request("GET", "/"))


async def test_a_store_that_fails_opens_no_session(it: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written does not happen: no cookie, no session."""
    register = register_of(it)
    await register._writer.close()
    told = await it.ask("POST", "/admin/v1/session", headers=it.bearer)
    assert told.status == 503
    assert not told.header("set-cookie")
    assert register.sessions() == []


@pytest.mark.parametrize(
    ("query", "name"),
    [
        *((f"{name}=x", name) for name in ("token", "access_token", "admin_token", "api_key", "password")),
        *((f"{name}=x", name) for name in ("auth", "authorization", "bearer", "ticket", "csrf", "session")),
        *((f"{name}=x", name) for name in ("tokenhub_session", "x-csrf-token")),
        ("ACCESS_TOKEN=", "ACCESS_TOKEN"),
        ("a=1&csrf=x", "csrf"),
        ("page=thlogin_0", "page"),
        (f"q={TOKEN_PREFIX}x", "q"),
        (f"{'q' * 99}={TOKEN_PREFIX}x", "q" * 40),
    ],
)
def test_no_address_holds_what_opens_something(query: str, name: str) -> None:
    """By its name, whatever it holds, or by how it begins: addresses end up in logs and histories."""
    with pytest.raises(TokenHubError) as caught:
        refuse_secrets_in(make_mocked_request("GET", f"/admin/v1/info?{query}"))
    fault = caught.value.fault
    assert (fault.http_status, fault.label) == (400, "token_in_query")
    assert fault.message == f"no token belongs in an address (the query's {name!r}): show it in Authorization"


def test_an_address_may_hold_anything_else() -> None:
    """Also words that only look like it."""
    refuse_secrets_in(make_mocked_request("GET", "/admin/v1/logs?tokens=9&page=a-thlogin_&before=2"))
