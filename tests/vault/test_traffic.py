"""What a locked vault means for traffic, and the vault's part of the admin API."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.fakes.engine import chat
from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core.providers.simulator import Profile

PASSWORD = {"admin_password": "correct horse battery"}


async def sealed(it: House, fake: FakeProvider) -> None:
    """Register a provider whose key is in the vault, and lock it."""
    await it.done("POST", "/vault/init", PASSWORD)
    await it.provider(fake, "sealed", "gpt-4o", cred_store="vault")
    await it.done("POST", "/vault/lock")


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/chat/completions", chat(model="gpt-4o"), ("error", "message")),
        (
            "/v1/messages",
            {"model": "gpt-4o", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]},
            ("error", "message"),
        ),
        (
            "/v1beta/models/gpt-4o:generateContent",
            {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
            ("error", "message"),
        ),
    ],
    ids=["openai", "anthropic", "gemini"],
)
async def test_a_call_that_needs_a_locked_vault_is_told_so_in_its_dialect(
    tmp_path: Path, path: str, body: object, where: tuple[str, str]
) -> None:
    """503 that names the vault, and no entry of it; unlocking brings the provider back without a restart."""
    async with FakeProvider() as fake, house(tmp_path) as it:
        await sealed(it, fake)
        told = await it.ask("POST", path, body)
        message = orjson.loads(told.body)[where[0]][where[1]]
        assert (told.status, "The vault is locked" in message) == (503, True)
        assert "sealed" not in message
        assert "api_key" not in message
        await it.done("POST", "/vault/unlock", PASSWORD)
        assert (await it.ask("POST", path, body)).status == 200


async def test_others_go_on_while_the_vault_is_locked(tmp_path: Path) -> None:
    """Another provider of the same model serves; `/readyz` says how many wait, and is no only where all do."""
    async with FakeProvider() as fake, house(tmp_path) as it:
        await sealed(it, fake)
        told = await it.ask("GET", "/readyz")
        assert (told.status, told.json["vault"], told.json["without_credential"]) == (503, "locked", 1)
        assert not told.json["checks"]["models"]
        await it.provider(fake, "other", "gpt-4o")
        told = await it.ask("GET", "/readyz")
        assert (told.status, told.json["vault"], told.json["without_credential"]) == (200, "locked", 1)
        answer = await it.chat("gpt-4o")
        assert answer.status == 200
        record = (await it.done("GET", "/logs?limit=1"))["logs"][0]
        assert record["provider_id"] == "other"
        refused = await it.ask("POST", "/v1/chat/completions", {"model": "none", "messages": []})
        assert "vault" not in refused.body.decode()
        await it.done("POST", "/vault/unlock", PASSWORD)
        told = await it.ask("GET", "/readyz")
        assert (told.json["vault"], told.json["without_credential"]) == ("unlocked", 0)


async def test_secrets_are_kept_under_names_with_slashes(it: House) -> None:
    """Stored, listed by name, read, replaced and removed; providers' credentials are not among them."""
    await it.done("POST", "/vault/init", PASSWORD)
    assert (await it.admin("PUT", "/vault/secrets/ci/deploy%2Fkey", {"value": "one"})).status == 201
    assert (await it.admin("PUT", "/vault/secrets/ci/deploy/key", {"value": "two"})).status == 200
    assert (await it.done("GET", "/vault/secrets/ci%2Fdeploy/key"))["value"] == "two"
    assert await it.done("GET", "/vault/secrets") == {"items": [{"name": "ci/deploy/key"}], "total": 1}
    for method in ("GET", "DELETE"):
        missing = await it.admin(method, "/vault/secrets/none")
        assert (missing.status, missing.fault["param"]) == (404, "name")
    for name, value in (("x" * 194, "v"), ("x", ""), ("a%07b", "v")):
        refused = await it.admin("PUT", f"/vault/secrets/{name}", {"value": value})
        assert refused.status == 400
    await it.done("POST", "/vault/lock")
    locked = await it.admin("GET", "/vault/secrets/ci/deploy/key")
    assert (locked.status, locked.fault["code"]) == (503, "vault_locked")
    assert (await it.done("DELETE", "/vault/secrets/ci/deploy/key")) == {"ok": True}
    assert (await it.done("GET", "/vault"))["entries"] == 0


async def test_a_providers_credential_is_replaced_and_never_read(tmp_path: Path) -> None:
    """There is no path to it, whatever the name."""
    async with FakeProvider() as fake, house(tmp_path) as it:
        await it.done("POST", "/vault/init", PASSWORD)
        await it.provider(fake, "p", "gpt-4o", cred_store="vault", api_key="sk-canary-key")
        for name in ("provider:p:api_key", "../provider:p:api_key", "%2e%2e/provider:p:api_key"):
            assert (await it.admin("GET", f"/vault/secrets/{name}")).status == 404
    assert all(b"sk-canary-key" not in body for body in it.seen)


async def test_the_password_and_the_key_are_replaced_at_the_api(it: House) -> None:
    """The vault stays open; only the new password opens it afterwards."""
    await it.done("POST", "/vault/init", PASSWORD)
    await it.done("PUT", "/vault/secrets/a", {"value": "one"})
    passwords = {"old_password": PASSWORD["admin_password"], "new_password": "another password"}
    assert (await it.done("POST", "/vault/password", passwords))["state"] == "unlocked"
    assert (await it.admin("POST", "/vault/rotate", PASSWORD)).status == 401
    rotated = await it.done("POST", "/vault/rotate", {"admin_password": "another password"})
    assert (rotated["state"], rotated["seals"]) == ("unlocked", 1)
    assert (await it.done("GET", "/vault/secrets/a"))["value"] == "one"


async def test_a_stream_that_runs_when_the_vault_locks_ends_as_it_would(tmp_path: Path) -> None:
    """It has its credential; only the next call is refused."""
    async with FakeProvider(profile=Profile(tokens_per_second=8)) as fake, house(tmp_path) as it:
        await sealed(it, fake)
        await it.done("POST", "/vault/unlock", PASSWORD)
        body = chat(model="gpt-4o", stream=True)
        async with it.session.post(f"{it.url}/v1/chat/completions", json=body) as response:
            assert response.status == 200
            first = await response.content.readany()
            await it.done("POST", "/vault/lock")
            assert not response.content.is_eof()
            rest = await response.read()
        assert b"[DONE]" not in first
        assert (first + rest).rstrip().endswith(b"data: [DONE]")
        assert (await it.chat("gpt-4o")).status == 503
