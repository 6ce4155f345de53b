"""Keys, tokens and rights that are not what they should be: B32, B33, B43 and B44.

The whole matrix of roles and routes is tests/http/test_roles.py; here are the answers that callers without a right get,
and that a refused call leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from tests.bad_inputs.scenes import DOORS, Bad, plain, said
from tokenhub_core.types import Dialect, Json

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANTHROPIC, CHAT = Dialect.ANTHROPIC_MESSAGES, Dialect.OPENAI_CHAT
UNKNOWN: Final = f"tokenhub_{'0badc0de' * 8}"


async def _made(bad: Bad, **fields: object) -> Json:
    made: Json = (await bad.it.admin("POST", "/apikeys", {"name": "another", **fields})).json
    return made


@pytest.mark.parametrize("door", DOORS)
async def test_b32_a_key_that_opens_nothing_is_a_401_in_the_callers_dialect(bad: Bad, door: Dialect) -> None:
    """None, no key at all, half of one, one too many characters, a stranger's, and one that was revoked."""
    gone = await _made(bad)
    await bad.it.done("DELETE", f"/apikeys/{gone['id']}")
    for shown in (
        None,
        "x",
        bad.key[:-1],
        bad.key + "0",
        bad.key.upper(),
        UNKNOWN,
        gone["key"],
        "",
        f"{bad.key} {bad.key}",
    ):
        async with bad.harmless():
            headers = {} if shown is None else {"authorization": f"Bearer {shown}"}
            told = await bad.it.ask("POST", DOORS[door], plain(door), headers)
            assert told.status == 401, shown
            assert said(door, told)
            assert bad.key not in told.body.decode()


async def test_b32_a_key_that_has_ended_is_a_401(bad: Bad) -> None:
    """By its end, and by being switched off; before that it let in."""
    short = await _made(bad, expires_in="1s")
    off = await _made(bad)
    await bad.it.done("PATCH", f"/apikeys/{off['id']}", {"enabled": False})
    async with asyncio.timeout(30):
        while True:
            told = await bad.it.ask("POST", DOORS[CHAT], b"", {"x-api-key": short["key"]})
            if told.status == 401:
                break
            assert told.status == 400
            await asyncio.sleep(0.05)
    async with bad.harmless():
        for key in (short, off):
            told = await bad.it.ask("POST", DOORS[CHAT], plain(CHAT), {"x-api-key": key["key"]})
            assert told.status == 401


@pytest.mark.parametrize(
    "fields",
    [{"scopes": ["plan"]}, {"models": ["other-*"]}, {"models": []}, {"providers": ["q"]}, {"scopes": []}],
    ids=str,
)
@pytest.mark.parametrize("door", DOORS)
async def test_b32_what_a_key_is_not_good_for_is_a_403(bad: Bad, door: Dialect, fields: Json) -> None:
    """Another scope, model or provider: told in the caller's dialect, and never asked of the provider."""
    key = await _made(bad, **fields)
    async with bad.harmless():
        told = await bad.send(
            door, plain(door), {"authorization": f"Bearer {key['key']}", "idempotency-key": "other"}
        )
        assert told.status == 403, told.body
        assert said(door, told)


@pytest.mark.parametrize("name", ["api_key", "api-key", "token", "access_token", "authorization", "key"])
async def test_b33_a_key_in_an_address_opens_nothing(bad: Bad, name: str) -> None:
    """Addresses are logged by everybody on the way; only Gemini's own `key` is taken, from Gemini's callers."""
    async with bad.harmless():
        for door in (CHAT, ANTHROPIC):
            told = await bad.it.ask("POST", f"{DOORS[door]}?{name}={bad.key}", plain(door))
            assert told.status in {400, 401}
            assert said(door, told)
            assert bad.key not in told.body.decode()
        told = await bad.it.ask("GET", f"/admin/v1/info?{name}={bad.it.token}")
        assert told.status in {400, 401}
        assert bad.it.token not in told.body.decode()


PRIVILEGED: Final[dict[str, tuple[Json, tuple[str, ...]]]] = {
    "/apikeys": (
        {"name": "k"},
        (
            "id",
            "digest",
            "prefix",
            "created_at",
            "updated_at",
            "last_used_at",
            "key",
            "expired",
            "role",
            "admin",
        ),
    ),
    "/users": (
        {"name": "eve", "role": "viewer", "password": "correct horse battery"},
        ("id", "created_at", "password_hash", "hash", "admin", "is_admin", "enabled"),
    ),
    "/tokens": ({"name": "t", "role": "viewer"}, ("id", "token", "owner", "created_at", "admin")),
    "/budgets": ({"owner": "all", "limit": 1}, ("id", "spent", "reserved", "left", "since", "created_at")),
    "/providers": (
        {"id": "q", "base_url": "https://a.example"},
        ("created_at", "healthy", "vault", "secret"),
    ),
    "/models": ({"id": "m2", "provider_id": "p"}, ("created_at", "cost_nanousd", "owner")),
}


@pytest.mark.parametrize("path", PRIVILEGED)
async def test_b43_nobody_sets_what_is_ours_to_set(bad: Bad, path: str) -> None:
    """A member that a body may not have is refused by its name, and nothing is made of the rest."""
    right, members = PRIVILEGED[path]
    async with bad.harmless():
        for member in members:
            told = await bad.it.admin("POST", path, {**right, member: True})
            assert told.status == 400, (member, told)
            assert member in told.fault["message"]


async def test_b43_a_call_names_no_provider_key_or_budget_of_its_own(bad: Bad) -> None:
    """Members that other gateways take from callers are the provider's affair here: they move nothing of ours."""
    extra = {
        "api_base": "http://127.0.0.1:1",
        "base_url": "http://127.0.0.1:1",
        "api_key": "sk-mine",
        "user_api_key_user_id": "admin",
        "metadata": {"user_api_key": "x"},
        "mock_response": "free",
    }
    async with bad.harmless(calls=1):
        told = await bad.send(CHAT, plain(CHAT, **extra), {"idempotency-key": "extra"})
        assert told.status in {200, 400}
        received = bad.fake.requests[-1]
        assert received.header("authorization") == "Bearer sk-p"
        assert b"free" not in told.body


ROUTES: Final = ["/apikeys", "/budgets", "/users", "/vault/lock", "/providers/p", "/info", "/audit"]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PROPFIND", "QUERY", "PURGE"])
async def test_b44_a_verb_that_there_is_not_does_nothing(bad: Bad, method: str) -> None:
    """405 with the admin's token (a HEAD is a GET without its body), 401 without, and the state is what it was."""
    before = await bad.it.done("GET", "/apikeys")
    async with bad.harmless():
        for path in ROUTES:
            for headers, fine in ((bad.it.bearer, {405, 400, 200}), ({}, {401, 405, 400, 403})):
                told = await bad.it.ask(method, f"/admin/v1{path}", headers=headers)
                assert told.status in fine, (path, told)
                assert told.status != 200 or method == "HEAD"
    after = await bad.it.done("GET", "/apikeys")
    assert [one["id"] for one in after["items"]] == [one["id"] for one in before["items"]]


@pytest.mark.parametrize("override", ["x-http-method-override", "x-http-method", "x-method-override"])
async def test_b44_no_header_makes_another_verb_of_one(bad: Bad, override: str) -> None:
    """A GET stays one."""
    path = f"/admin/v1/apikeys/{bad.key_id}"
    async with bad.harmless():
        told = await bad.it.ask(
            "GET", f"{path}?_method=DELETE", headers={**bad.it.bearer, override: "DELETE"}
        )
        assert told.status in {200, 400}
    assert (await bad.it.done("GET", f"/apikeys/{bad.key_id}"))["id"] == bad.key_id


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "file://"])
async def test_b44_a_page_of_another_site_does_nothing(bad: Bad, origin: str) -> None:
    """With a session's cookie, with the token, and with a client's key alike."""
    session = await bad.it.ask("POST", "/admin/v1/session", headers=bad.it.bearer)
    cookie = {"cookie": session.header("set-cookie").partition(";")[0]}
    async with bad.harmless():
        for shown in (cookie, bad.it.bearer):
            for method, path in (
                ("POST", "/apikeys"),
                ("DELETE", f"/apikeys/{bad.key_id}"),
                ("GET", "/apikeys"),
            ):
                told = await bad.it.ask(
                    method, f"/admin/v1{path}", {"name": "k"}, {**shown, "origin": origin}
                )
                assert told.status == 403
        told = await bad.it.ask("POST", DOORS[CHAT], plain(CHAT), {**bad.shown, "origin": origin})
        assert told.status == 403
        assert said(CHAT, told)


async def test_b44_a_session_without_its_mark_changes_nothing(bad: Bad) -> None:
    """A cookie alone reads; to write it takes what only a page of ours can send along."""
    session = await bad.it.ask("POST", "/admin/v1/session", headers=bad.it.bearer)
    cookie = {"cookie": session.header("set-cookie").partition(";")[0]}
    async with bad.harmless():
        for mark in ({}, {"x-csrf-token": "x"}, {"x-csrf-token": ""}):
            told = await bad.it.ask("DELETE", f"/admin/v1/apikeys/{bad.key_id}", headers={**cookie, **mark})
            assert told.status == 403
