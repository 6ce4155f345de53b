"""Users at the admin API: made, changed and removed by admins, and nobody makes more of themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.access import PASSWORD, add_token, add_user, cheap_passwords, log_in, opened, signed_in
from tests.fakes.house import House
from tokenhub_core.types import Json


@pytest.fixture(autouse=True)
def cheap() -> Iterator[None]:
    with cheap_passwords():
        yield


async def entries(it: House, action: str) -> list[Json]:
    return list((await it.done("GET", f"/audit?action={action}"))["entries"])


async def test_a_user_is_made_and_comes_in(it: House) -> None:
    """With a role; the password is shown nowhere."""
    made = await add_user(it, "ada", "operator")
    assert (made["name"], made["role"], made["enabled"], made["last_login_at"]) == (
        "ada",
        "operator",
        True,
        None,
    )
    assert len(bytes.fromhex(made["id"])) == 8
    browser = opened(it, await log_in(it, "ada"))
    told = (await browser.admin("GET", "/session")).json
    assert (told["actor"], told["role"], told["id"], told["csrf"]) == (
        "user:ada",
        "operator",
        browser.id,
        browser.csrf,
    )
    (listed,) = (await it.done("GET", "/users"))["items"]
    assert listed["last_login_at"] > listed["created_at"] - 1
    assert await it.done("GET", f"/users/{made['id']}") == listed
    assert PASSWORD.encode() not in b"".join(it.seen)
    assert b"argon2" not in b"".join(it.seen)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"name": "ada", "role": "admin", "password": PASSWORD}, 409, "exists"),
        ({"name": "bob", "role": "root", "password": PASSWORD}, 400, "invalid_request"),
        ({"name": "bob", "role": "admin", "password": "eleven char"}, 400, "password_too_short"),
        ({"name": "bob", "role": "admin", "password": "x" * 1025}, 400, "password_too_long"),
        ({"name": "Bob", "role": "admin", "password": PASSWORD}, 400, "invalid_request"),
        ({"name": "", "role": "admin", "password": PASSWORD}, 400, "invalid_request"),
        ({"name": "b" * 65, "role": "admin", "password": PASSWORD}, 400, "invalid_request"),
        ({"name": "bob\n", "role": "admin", "password": PASSWORD}, 400, "invalid_request"),
        ({"name": "bob", "role": "admin", "password": PASSWORD, "enabled": True}, 400, "invalid_request"),
        ({"name": "bob", "role": "admin", "password": PASSWORD, "id": "x"}, 400, "invalid_request"),
        ({"name": "bob", "password": PASSWORD}, 400, "invalid_request"),
        ([], 400, "invalid_request"),
    ],
)
async def test_a_user_that_cannot_be_is_not_made(it: House, body: object, status: int, code: str) -> None:
    """A name that is taken, no role of ours, too short a password, fields that are nobody's to set."""
    await add_user(it, "ada")
    told = await it.admin("POST", "/users", body)
    assert (told.status, told.fault["code"]) == (status, code)
    assert (await it.done("GET", "/users"))["total"] == 1


async def test_nobody_makes_more_of_themselves(it: House) -> None:
    """Not by their own record, not by extra fields where they may write, and not by a token that they show."""
    ada, eve = await add_user(it, "ada", "admin"), await add_user(it, "eve", "viewer")
    for body in ({"role": "admin"}, {"role": "viewer"}, {"enabled": True}):
        told = await opened(it, await log_in(it, "ada")).admin("PATCH", f"/users/{ada['id']}", body)
        assert (told.status, told.fault["code"]) == (403, "own_role")
    browser = opened(it, await log_in(it, "eve"))
    assert (await browser.admin("PATCH", f"/users/{eve['id']}", {"role": "admin"})).fault["code"] == "role"
    for body in (
        {"old_password": PASSWORD, "new_password": "x" * 12, "role": "admin"},
        {"old_password": PASSWORD, "new_password": "x" * 12, "user": ada["id"]},
    ):
        assert (await browser.admin("POST", f"/users/{eve['id']}/password", body)).status == 400
    login = {"user": "eve", "password": PASSWORD, "role": "admin"}
    assert (await it.ask("POST", "/admin/v1/login", login)).status == 400
    token = await add_token(it, "t", "admin")
    mine = {"authorization": f"Bearer {token['token']}"}
    raised = await it.ask("PATCH", f"/admin/v1/tokens/{token['id']}", {"expires_in_secs": 0}, mine)
    assert (raised.status, raised.fault["code"]) == (403, "own_role")
    assert (await it.done("GET", f"/users/{eve['id']}"))["role"] == "viewer"


@pytest.mark.parametrize("change", [{"role": "viewer"}, {"role": "operator"}, {"enabled": False}, None])
async def test_the_last_admin_stays(it: House, change: Json | None) -> None:
    """The only user who is an admin and enabled is not removed, demoted or disabled; beside another, they can be."""
    ada, bob = await add_user(it, "ada", "admin"), await add_user(it, "bob", "admin")
    await add_user(it, "eve", "operator")

    async def tried() -> tuple[int, str]:
        path = f"/users/{ada['id']}"
        told = await (it.admin("PATCH", path, change) if change else it.admin("DELETE", path))
        return told.status, told.fault["code"] if told.status >= 400 else ""

    await it.done("PATCH", f"/users/{bob['id']}", {"enabled": False})
    assert await tried() == (409, "last_admin")
    await it.done("PATCH", f"/users/{bob['id']}", {"enabled": True, "role": "operator"})
    assert await tried() == (409, "last_admin")
    await it.done("PATCH", f"/users/{bob['id']}", {"role": "admin"})
    assert await tried() == (200, "")


@pytest.mark.parametrize("change", [{"role": "operator"}, {"enabled": False}, {"password": "x" * 12}, None])
async def test_what_changes_a_user_ends_their_sessions(it: House, change: Json | None) -> None:
    """Another role, no right to come in, another password, or no user any more; those of others go on."""
    ada = await add_user(it, "ada")
    await add_user(it, "bob")
    mine = [opened(it, await log_in(it, "ada")) for _ in range(2)]
    other = opened(it, await log_in(it, "bob"))
    path = f"/users/{ada['id']}"
    await it.done("PATCH", path, {"role": "viewer", "enabled": True})
    assert [await one.in_() for one in mine] == [True, True]  # nothing was changed
    if change is None:
        await it.done("DELETE", path)
    elif "password" in change:
        await it.done("POST", f"{path}/password", {"new_password": change["password"]})
    else:
        await it.done("PATCH", path, change)
    assert [await one.in_() for one in mine] == [False, False]
    assert await other.in_()
    if change == {"enabled": False}:
        await it.done("PATCH", path, {"enabled": True})
        assert [await one.in_() for one in mine] == [False, False]  # what has ended does not begin again
    if change is None:
        gone = await it.admin("GET", path)
        assert (gone.status, gone.fault["message"], gone.fault["param"]) == (
            404,
            "there is no such user",
            "id",
        )
        assert (await it.admin("DELETE", path)).status == 404
        assert (await it.admin("PATCH", path, {"role": "admin"})).status == 404
        assert (await it.admin("POST", f"{path}/password", {"new_password": "x" * 12})).status == 404
        assert (await it.admin("POST", f"{path}/unlock")).status == 404


async def test_one_changes_ones_own_password_by_showing_the_old_one(it: House) -> None:
    """The session that does it goes on and the others end; a session that was left open does not do."""
    ada, bob = await add_user(it, "ada"), await add_user(it, "bob", "admin")
    here, there = [opened(it, await log_in(it, "ada")) for _ in range(2)]
    path = f"/users/{ada['id']}/password"
    for old in ("", "wrong" * 3):
        told = await here.admin("POST", path, {"old_password": old, "new_password": "another one"})
        assert (told.status, told.fault["code"]) == (401, "login_failed")
    short = await here.admin("POST", path, {"old_password": PASSWORD, "new_password": "short"})
    assert short.fault["code"] == "password_too_short"
    assert short.fault["message"] == "a password has at least 12 characters"
    changed = await here.admin("POST", path, {"old_password": PASSWORD, "new_password": "twelve chars"})
    assert changed.status == 200
    assert (await here.in_(), await there.in_()) == (True, False)
    assert (await log_in(it, "ada")).status == 401
    assert (await log_in(it, "ada", "twelve chars")).status == 200
    others = await here.admin("POST", f"/users/{bob['id']}/password", {"new_password": "x" * 12})
    assert (others.status, others.fault["code"]) == (403, "role")
    admin = opened(it, await log_in(it, "bob"))
    own = await admin.admin("POST", f"/users/{bob['id']}/password", {"new_password": "x" * 12})
    assert own.status == 401  # an admin too


async def test_users_are_in_the_audit_log_by_name(it: House) -> None:
    """What they do, what is done to them, and what they are kept from; never the password's hash."""
    ada = await add_user(it, "ada", "operator")
    logged_in = await log_in(it, "ada")
    browser = opened(it, logged_in)
    await browser.admin("PUT", "/routing-config", {"fallback": False})
    assert (await browser.admin("POST", "/users", {})).status == 403
    assert (await it.ask("PUT", "/admin/v1/routing-config", {}, browser.cookie)).status == 403
    await it.done("PATCH", f"/users/{ada['id']}", {"role": "viewer"})
    await it.done("POST", f"/users/{ada['id']}/password", {"new_password": "x" * 12})
    await it.done("DELETE", f"/users/{ada['id']}")
    found = (await it.done("GET", "/audit"))["entries"][::-1]
    assert [
        (one["action"], one["actor"], one["subject"], one["outcome"], one["reason"]) for one in found
    ] == [
        ("user.create", "admin-token", "ada", "done", ""),
        ("session.open", "user:ada", "", "done", ""),
        ("routing.create", "user:ada", "", "done", ""),
        ("access", "user:ada", "POST /admin/v1/users", "denied", "role"),
        ("access", "user:ada", "PUT /admin/v1/routing-config", "denied", "csrf"),
        ("user.change", "admin-token", "ada", "done", ""),
        ("user.change", "admin-token", "ada", "done", ""),
        ("user.delete", "admin-token", "ada", "done", ""),
    ]
    assert found[1]["request_id"] == logged_in.header("x-request-id")
    assert (found[1]["source"], found[1]["program"][:7]) == ("127.0.0.1", "Python/")
    assert (found[5]["before"], found[5]["after"]) == ({"role": "operator"}, {"role": "viewer"})
    assert found[6]["after"].keys() == {"password_at"}
    assert "argon2" not in str(found)


async def test_tokens_are_shown_once_and_named_in_the_audit_log(it: House) -> None:
    """Made by whom, good for what and until when; only the answer that made it has it."""
    made = await add_token(it, "ci", "operator", expires_in_secs=3600)
    assert (made["role"], made["created_by"]) == ("operator", "admin-token")
    assert made["token"].startswith(made["prefix"])
    assert (len(made["token"]), len(made["prefix"]), len(bytes.fromhex(made["id"]))) == (72, 16, 8)
    assert made["expires_at"] == pytest.approx(made["created_at"] + 3600, abs=1)
    mine = {"authorization": f"Bearer {made['token']}"}
    await it.ask("PUT", "/admin/v1/routing-config", {"fallback": True}, mine)
    listed = await it.done("GET", "/tokens")
    assert listed["items"] == [{name: value for name, value in made.items() if name != "token"}]
    assert await it.done("GET", f"/tokens/{made['id']}") == listed["items"][0]
    same = await it.admin("POST", "/tokens", {"name": "ci", "role": "viewer"})
    assert (same.status, same.fault["code"]) == (409, "exists")
    browser = await signed_in(it, made["token"])
    await it.done("PATCH", f"/tokens/{made['id']}", {"expires_in_secs": 0})
    assert (await it.done("GET", f"/tokens/{made['id']}"))["expires_at"] is None
    assert await browser.in_()
    await it.done("PATCH", f"/tokens/{made['id']}", {"role": "viewer"})
    assert not await browser.in_()
    assert (await it.ask("PUT", "/admin/v1/routing-config", {}, mine)).status == 403
    browser = await signed_in(it, made["token"])
    await it.done("DELETE", f"/tokens/{made['id']}")
    assert not await browser.in_()
    assert (await it.ask("GET", "/admin/v1/info", headers=mine)).status == 401
    for method in ("GET", "PATCH", "DELETE"):
        assert (await it.admin(method, f"/tokens/{made['id']}", {})).status == 404
    (changed,) = await entries(it, "routing")
    assert changed["actor"] == "token:ci"
    told = [one["action"] for one in await entries(it, "token")]
    assert told == ["token.delete", "token.change", "token.change", "token.create"]
    assert made["token"] not in str(await it.done("GET", "/audit"))
