"""The audit log at the admin API: every door writes, everything can be read, and nobody outside can fill it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core.http.sessions import COOKIE, CSRF

PASSWORD = {"admin_password": "correct horse battery"}
KEY = "sk-canary-0123456789"


async def told(it: House, query: str = "limit=1000") -> list[dict[str, Any]]:
    """Return the entries, oldest first."""
    found: list[dict[str, Any]] = (await it.done("GET", f"/audit?{query}"))["entries"]
    return found[::-1]


async def test_whatever_is_changed_is_written_with_who_did_it(tmp_path: Path) -> None:
    """Every kind of change by the admin API leaves an entry with the actor, the address and the request's id."""
    async with FakeProvider() as fake, house(tmp_path) as it:
        await it.done("POST", "/vault/init", PASSWORD)
        await it.done("POST", "/providers", {"id": "p", "base_url": fake.url, "api_key": KEY})
        await it.done("PATCH", "/providers/p", {"enabled": False})
        model = {"id": "a/b", "provider_id": "p", "input_per_1k": 0.1, "output_per_1k": 0.2}
        await it.done("POST", "/models", model)
        await it.done("PATCH", "/models/a/b", {"weight": 3})
        await it.done("POST", "/aliases", {"name": "fast", "variants": [{"model_id": "a/b"}]})
        await it.done("DELETE", "/aliases/fast")
        await it.done("PUT", "/routing-config", {"fallback": False})
        await it.done("PUT", "/vault/secrets/ci/token", {"value": KEY})
        await it.done("GET", "/vault/secrets/ci/token")
        await it.done("DELETE", "/vault/secrets/ci/token")
        await it.done("POST", "/vault/rotate", PASSWORD)
        last = await it.admin("DELETE", "/providers/p")
        entries = await told(it)
        verified = await it.done("GET", "/audit/verify")

    assert [(entry["action"], entry["subject"]) for entry in entries] == [
        ("vault.create", ""),
        ("secret.create", "provider:p:api_key"),
        ("provider.create", "p"),
        ("provider.change", "p"),
        ("model.create", "a/b @ p"),
        ("model.change", "a/b @ p"),
        ("alias.create", "fast"),
        ("alias.delete", "fast"),
        ("routing.create", ""),
        ("secret.create", "secret:ci/token"),
        ("secret.read", "secret:ci/token"),
        ("secret.delete", "secret:ci/token"),
        ("vault.change", ""),
        ("secret.delete", "provider:p:api_key"),
        ("provider.delete", "p"),
        ("model.delete", "a/b @ p"),
    ]
    assert {(entry["actor"], entry["source"], entry["outcome"]) for entry in entries} == {
        ("admin-token", "127.0.0.1", "done")
    }
    assert entries[-1]["request_id"] == entries[-2]["request_id"] == last.header("x-request-id")
    assert entries[-1]["program"].startswith("Python/")
    assert (entries[5]["before"], entries[5]["after"]) == ({"weight": 5}, {"weight": 3})
    assert KEY not in str(entries)
    assert (verified["ok"], verified["entries"], verified["signed"]) == (True, 16, 15)


async def test_a_change_that_is_refused_is_written_too(it: House) -> None:
    """With what was asked for and why not; a read that is refused is none."""
    assert (await it.admin("PATCH", "/providers/none", {"enabled": False})).status == 404
    assert (await it.admin("POST", "/providers", {"id": "p"})).status == 400
    assert (await it.admin("GET", "/logs/none")).status == 404
    entries = [(e["action"], e["subject"], e["outcome"], e["reason"], e["after"]) for e in await told(it)]

    assert entries == [
        ("admin.request", "PATCH /admin/v1/providers/{id}", "refused", "not_found", {"id": "none"}),
        ("admin.request", "POST /admin/v1/providers", "refused", "invalid_request", None),
    ]


async def test_sessions_are_written_and_told_apart(it: House) -> None:
    """Each has a mark of its own, which opens nothing."""
    opened = await it.ask("POST", "/admin/v1/session", headers=it.bearer)
    shown = {"cookie": opened.header("set-cookie").partition(";")[0], CSRF: opened.json["csrf"]}
    await it.ask("PUT", "/admin/v1/routing-config", {"fallback": False}, shown)
    await it.ask("DELETE", "/admin/v1/session", headers=shown)
    entries = [(entry["action"], entry["actor"]) for entry in await told(it)]
    mark = entries[1][1]

    assert [action for action, _ in entries] == ["session.open", "routing.create", "session.close"]
    assert entries[0][1] == "admin-token"
    assert mark == entries[2][1] == f"session:{opened.json['id']}"
    assert mark.startswith("session:")
    stolen = {"cookie": f"{COOKIE}={mark.removeprefix('session:')}"}
    assert (await it.ask("GET", "/admin/v1/info", headers=stolen)).status == 401


async def test_who_is_not_let_in_is_written_and_cannot_fill_the_log(it: House) -> None:
    """No token, another Host, another site: one entry for each reason, however often."""
    for _ in range(5):
        assert (await it.ask("GET", "/admin/v1/info")).status == 401
        assert (await it.ask("GET", "/admin/v1/no/such/thing")).status == 401
        assert (await it.ask("GET", "/admin/v1/info", headers={"host": "evil.example"})).status == 403
        other = {**it.bearer, "origin": "https://evil.example"}
        assert (await it.ask("POST", "/admin/v1/vault/lock", headers=other)).status == 403
        assert (await it.ask("GET", "/v1/models", headers={"host": "evil.example"})).status == 403
    entries = [(e["action"], e["actor"], e["subject"], e["outcome"], e["reason"]) for e in await told(it)]

    assert entries == [
        ("access", "anonymous", "GET /admin/v1/info", "denied", "admin_token"),
        ("access", "anonymous", "GET /admin/v1/info", "denied", "bad_host"),
        ("access", "admin-token", "POST /admin/v1/vault/lock", "denied", "bad_origin"),
    ]


async def test_a_wrong_password_is_written_once(it: House) -> None:
    """By the vault, that knows what it was; and the right one after it."""
    await it.done("POST", "/vault/init", PASSWORD)
    await it.done("POST", "/vault/lock")
    assert (await it.admin("POST", "/vault/unlock", {"admin_password": "x" * 12})).status == 401
    await it.done("POST", "/vault/unlock", PASSWORD)
    entries = [(e["action"], e["outcome"], e["reason"]) for e in await told(it)]

    assert entries == [
        ("vault.create", "done", ""),
        ("vault.lock", "done", ""),
        ("vault.unlock", "denied", "wrong_password"),
        ("vault.unlock", "done", ""),
    ]


async def test_entries_are_listed_filtered_and_exported(it: House) -> None:
    """Newest first, page by page; the export has every line, and all that the hash is made of."""
    for fallback in (True, False, True):
        await it.done("PUT", "/routing-config", {"fallback": fallback})
    page = await it.done("GET", "/audit?limit=2&action=routing&actor=admin-token&outcome=done&since=0")
    rest = await it.done("GET", f"/audit?before={page['next']}")
    exported = await it.admin("GET", "/audit/export")
    lines = [orjson.loads(line) for line in exported.body.splitlines()]

    assert [entry["seq"] for entry in page["entries"]] == [3, 2]
    assert [entry["seq"] for entry in rest["entries"]] == [1]
    assert page["head"] == f"3:{page['entries'][0]['hash']}"
    assert [line["action"] for line in lines] == [
        "routing.create",
        "routing.change",
        "routing.change",
        "audit.export",
    ]
    assert lines[:3] == [rest["entries"][0], page["entries"][1], page["entries"][0]]
    for query in ("action=nonsense", "outcome=nonsense", "since=x", "limit=0"):
        refused = await it.admin("GET", f"/audit?{query}")
        assert (refused.status, refused.fault["param"]) == (400, query.partition("=")[0])


async def test_a_head_from_elsewhere_is_held_against_the_chain(it: House) -> None:
    """What was cut off is missed."""
    await it.done("PUT", "/routing-config", {"fallback": True})
    head = (await it.done("GET", "/audit"))["head"]
    assert (await it.done("GET", f"/audit/verify?head={head}"))["ok"]
    later = "9" + head[1:]
    verified = await it.done("GET", f"/audit/verify?head={later}")
    assert [finding["what"] for finding in verified["findings"]] == ["head"]
    assert (await it.admin("GET", "/audit/verify?head=x")).status == 400
    (it.data / "data" / "tokenhub.sqlite.audit").write_text("no head")
    assert (await it.admin("GET", "/audit/verify")).status == 400


async def test_every_entry_is_an_event(it: House) -> None:
    """For whoever watches from elsewhere, with its hash."""
    await it.done("PUT", "/routing-config", {"fallback": True})
    events = [event for event in it.bus._recent if event.type == "audit"]
    assert [event.data["action"] for event in events] == ["routing.create"]
    assert events[0].data == (await told(it))[0]


@pytest.mark.parametrize("path", ["/", "/healthz", "/v1/models"])
async def test_what_is_no_admin_request_is_none_of_its_business(it: House, path: str) -> None:
    """Calls are recorded elsewhere."""
    assert (await it.ask("GET", path)).header("x-request-id") == ""
    assert await told(it) == []


async def test_a_chain_that_was_cut_is_a_warning_at_the_next_start(tmp_path: Path) -> None:
    """The operator sees it before anything else."""
    async with house(tmp_path) as it:
        await it.done("PUT", "/routing-config", {"fallback": True})
    (tmp_path / "data" / "tokenhub.sqlite.audit").write_text("7:" + "00" * 32)
    async with house(tmp_path) as it:
        assert it.app.warnings == ("the audit log is not what it was: run tokenhub audit verify",)
        assert [entry["action"] for entry in await told(it)] == ["routing.create", "audit.broken"]


async def test_a_provider_that_is_taken_out_of_service_is_written(tmp_path: Path) -> None:
    """The service did it by itself, and says why."""
    async with FakeProvider() as fake, house(tmp_path) as it:
        fake.script("gpt-4o", ["status:500"])
        await it.provider(fake, "p", "gpt-4o")
        with it.bus.listen() as listener:
            for _ in range(6):
                await it.chat("gpt-4o")
            written = False
            while not written:
                await listener.ready()
                written = any(event.data.get("action") == "provider.health" for event in listener.take())
        (entry,) = await told(it, "action=provider.health")

    assert (entry["actor"], entry["subject"], entry["after"]) == ("system", "p", {"state": "down"})
    assert entry["before"] in ({"state": "degraded"}, {"state": "healthy"})
    assert entry["reason"]
