"""Clients' keys over the admin API."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import House, house
from tests.patience import PATIENCE
from tokenhub_core.errors import TokenHubError
from tokenhub_core.ports import KeyBook
from tokenhub_core.types import Json

KEYS = "/apikeys"


async def made(it: House, **fields: Any) -> Json:
    return await it.done("POST", KEYS, {"name": "nightly", **fields})


def cause(book: KeyBook, secret: str, now: float = 0.0) -> str:
    """Return why a secret is refused, empty where it is not."""
    try:
        book.look_up(secret, now)
    except TokenHubError as error:
        return error.fault.cause
    return ""


async def test_a_key_is_made_and_shown_without_its_secret(it: House) -> None:
    """The secret is in the first answer and in no other; the application's book knows it at once."""
    told = await it.admin("POST", KEYS, {"name": "nightly", "limits": {"concurrency": 2}})
    assert told.status == 201
    assert told.header("cache-control") == "no-store"
    shown = told.json
    secret, warning = shown.pop("key"), shown.pop("warning")
    assert "not shown again" in warning
    assert it.app.keys.look_up(secret, 2.5).id == shown["id"]
    assert {name: shown[name] for name in ("name", "prefix", "scopes", "models", "providers", "hosts")} == {
        "name": "nightly",
        "prefix": secret[:17],
        "scopes": ["chat", "plan"],
        "models": ["*"],
        "providers": ["*"],
        "hosts": ["*"],
    }
    assert shown["created_at"] == shown["updated_at"] > 1.7e9
    assert (shown["expires_at"], shown["rotate_at"], shown["rotation_due"], shown["expired"]) == (
        *(None, None),
        *(False, False),
    )
    listed = await it.done("GET", KEYS)
    (item,) = listed["items"]
    assert item.pop("last_used_at") == 2.5
    assert shown.pop("last_used_at") is None
    assert (item, listed["total"], listed["next"]) == (shown, 1, None)


async def test_no_answer_but_the_first_has_the_secret_or_a_digest(it: House) -> None:
    """Not the list, not a change, not an error, not the audit log, not the stream of events."""
    first = await made(it)
    second = await it.done("POST", f"{KEYS}/{first['id']}/rotate")
    it.seen.clear()
    for method, path, body in (
        ("GET", KEYS, None),
        ("GET", f"{KEYS}/{first['id']}", None),
        ("PATCH", f"{KEYS}/{first['id']}", {"tags": ["x"]}),
        ("PATCH", f"{KEYS}/{first['id']}", {"scopes": ["no"]}),
        ("DELETE", f"{KEYS}/{first['id']}", None),
        ("GET", "/audit", None),
    ):
        await it.admin(method, path, body)
    seen = b"".join(it.seen).decode() + repr([event.told for event in it.bus._recent])
    for secret in (first["key"], second["key"]):
        assert secret[:17] in seen
        assert secret[17:] not in seen
    assert "digest" not in seen


async def test_a_patch_changes_what_it_names_at_once(it: House) -> None:
    """Scopes as a list, or as the text of one."""
    key = await made(it, tags=["a"], limits={"concurrency": 2, "tokens_per_minute": 9})
    path = f"{KEYS}/{key['id']}"
    told = await it.done("PATCH", path, {"scopes": '["embeddings"]', "limits": {"concurrency": None}})
    assert (told["scopes"], told["tags"]) == (["embeddings"], ["a"])
    assert (told["limits"]["concurrency"], told["limits"]["tokens_per_minute"]) == (None, 9)
    assert it.app.keys.look_up(key["key"], 0.0).scopes == {"embeddings"}
    await it.done("PATCH", path, {"enabled": False})
    assert cause(it.app.keys, key["key"]) == "key_disabled"
    await it.done("PATCH", path, {"enabled": True, "models": []})
    assert it.app.keys.look_up(key["key"], 0.0).models == ()
    shown = await it.done("GET", path)
    assert shown["models"] == []


async def test_a_rotation_overlaps_as_long_as_was_said(it: House) -> None:
    """A day without a body; not at all with 0."""
    key = await made(it, rotation_days=30)
    path = f"{KEYS}/{key['id']}/rotate"
    told = await it.done("POST", path)
    (old,) = told["previous"]
    assert (old["prefix"], old["expires_at"] - told["updated_at"]) == (key["prefix"], pytest.approx(86_400))
    assert told["rotate_at"] - told["updated_at"] == pytest.approx(30 * 86_400)
    assert told["rotate_at"] > key["rotate_at"]
    assert "not shown again" in told["warning"]
    book, now = it.app.keys, told["updated_at"]
    assert (cause(book, key["key"], now), cause(book, told["key"], now)) == ("", "")
    last = await it.done("POST", path, {"overlap_secs": 0})
    assert cause(book, told["key"], last["updated_at"]) == "key_expired"
    assert cause(book, last["key"], last["updated_at"]) == ""
    for wrong in (
        {"overlap_secs": -1},
        {"overlap_secs": 90 * 86_400 + 1},
        {"overlap": 1},
        {"overlap_secs": "1h"},
    ):
        assert (await it.admin("POST", path, wrong)).status == 400
    assert cause(book, last["key"], last["updated_at"]) == ""


async def test_a_revoked_key_is_gone(it: House) -> None:
    """Nobody is let in with it, and nothing can be done with it."""
    key = await made(it)
    path = f"{KEYS}/{key['id']}"
    assert await it.done("DELETE", path) == {"ok": True}
    assert cause(it.app.keys, key["key"]) == "key_unknown"
    for method, where, body in (
        ("GET", path, None),
        ("PATCH", path, {"name": "x"}),
        ("DELETE", path, None),
        ("POST", f"{path}/rotate", None),
    ):
        told = await it.admin(method, where, body)
        assert (told.status, told.fault["param"]) == (404, "id")
    assert (await it.done("GET", KEYS))["total"] == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "name is required"),
        ({"name": "x", "scopes": ["admin"]}, "'admin' is none of chat"),
        ({"name": "x", "scopes": "chat"}, "scopes must be a list"),
        ({"name": "x", "id": "key_mine"}, "id"),
        ({"name": "x", "key": "tokenhub_mine"}, "key"),
        ({"name": "x", "monthly_budget": 5}, "monthly_budget"),
        ({"name": "x", "expires_in": "soon"}, "90m, 12h, 30d"),
        ({"name": "x", "expires_at": 1}, "moment to come"),
        ({"name": "x", "limits": {"concurrency": 0}}, "$.limits.concurrency"),
        ({"name": "x\x00"}, "visible"),
        ({"name": 3}, "$.name"),
        (b"{", "truncated"),
        (b"[]", "object"),
        (b'{"name": "\xff"}', "UTF-8"),
    ],
)
async def test_what_cannot_be_is_refused_with_what_is_wrong(it: House, fields: Any, words: str) -> None:
    """And nothing is stored."""
    told = await it.admin("POST", KEYS, fields)
    assert told.status == 400
    assert words in told.fault["message"]
    assert (await it.done("GET", KEYS))["total"] == 0


async def test_lists_are_cut_in_pages(it: House) -> None:
    """The newest first; `next` of one is `before` of the next."""
    ids = [(await made(it))["id"] for _ in range(5)]
    found: list[str] = []
    before = ""
    while True:
        page = await it.done("GET", f"{KEYS}?limit=2{before}")
        assert page["total"] == 5
        found += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert found == ids[::-1]
    for wrong in ("limit=0", "limit=1001", "limit=x"):
        assert (await it.admin("GET", f"{KEYS}?{wrong}")).status == 400
    for wrong in ("x", "1", ".key", "-1.key", "1e3.key", "%D9%A3.key", f"{'9' * 19}.key", ""):
        told = await it.admin("GET", f"{KEYS}?before={wrong}")
        assert (told.status, told.fault["param"]) == (400, "before")
    assert (await it.done("GET", f"{KEYS}?before=1.'%3B%20DROP%20TABLE%20api_keys%3B--"))["items"] == []


async def test_nobody_makes_keys_without_the_admin_token(it: House) -> None:
    """A client's key opens nothing here, and the token is no client's key."""
    key = await made(it)
    assert cause(it.app.keys, it.token) == "key_unknown"
    for headers in (None, {"authorization": f"Bearer {key['key']}"}):
        for method, path in (("POST", KEYS), ("GET", KEYS), ("DELETE", f"{KEYS}/{key['id']}")):
            told = await it.ask(method, f"/admin/v1{path}", {"name": "x"}, headers)
            assert told.status == 401
    assert (await it.done("GET", KEYS))["total"] == 1


async def test_who_made_a_key_stands_in_the_audit_log(it: House) -> None:
    """With the request's id; a refused change is there too."""
    told = await it.admin("POST", KEYS, {"name": "nightly"})
    key = told.json["id"]
    await it.done("POST", f"{KEYS}/{key}/rotate")
    await it.admin("PATCH", f"{KEYS}/{key}", {"scopes": ["no"]})
    refused, rotated, created = (await it.done("GET", "/audit"))["entries"][:3]
    assert [one["action"] for one in (created, rotated, refused)] == [
        *("apikey.create", "apikey.rotate", "admin.request")
    ]
    assert (created["actor"], created["subject"], created["request_id"]) == (
        "admin-token",
        key,
        told.header("x-request-id"),
    )
    assert {one["action"] for one in (await it.done("GET", "/audit?action=apikey"))["entries"]} == {
        *("apikey.create", "apikey.rotate")
    }
    assert (await it.done("GET", "/audit/verify"))["ok"]


async def test_keys_outlive_a_restart_and_their_last_use_too(tmp_path: Path) -> None:
    """Known by the salt in the data directory; without it the operator is told."""
    async with house(tmp_path) as it:
        key = await made(it)
        assert it.app.warnings == ()
        it.app.keys.look_up(key["key"], 1234.5)
    async with house(tmp_path) as it:
        assert it.app.keys.look_up(key["key"], 1.0).id == key["id"]
        assert (await it.done("GET", f"{KEYS}/{key['id']}"))["last_used_at"] == 1234.5
    (tmp_path / "data" / "salt").unlink()
    async with house(tmp_path) as it:
        assert cause(it.app.keys, key["key"]) == "key_unknown"
        assert it.app.warnings == (
            "1 API key was made with another salt file: put that back, or rotate them",
        )


async def test_two_servers_on_one_database_agree(tmp_path: Path) -> None:
    """What one revokes the other stops letting in, by itself."""
    database = {"DB_DSN": str(tmp_path / "shared.sqlite")}
    async with house(tmp_path / "a", settings=database) as one:
        salt = (tmp_path / "a" / "data" / "salt").read_bytes()
        (tmp_path / "b" / "data").mkdir(mode=0o700, parents=True)
        (tmp_path / "b" / "data" / "salt").write_bytes(salt)
        async with house(tmp_path / "b", settings=database) as two:
            key = await made(one)
            await two.done("DELETE", f"{KEYS}/{key['id']}")
            async with asyncio.timeout(PATIENCE):
                while not cause(one.app.keys, key["key"]):  # noqa: ASYNC110 - who takes over tells nobody
                    await asyncio.sleep(0.01)
            assert cause(one.app.keys, key["key"]) == "key_unknown"
