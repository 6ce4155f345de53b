"""Adding, switching and removing the further credentials of a provider."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core.ports import Secret
from tokenhub_core.types import Json

PASSWORD = "correct horse battery"
KEYS = "/providers/p/credentials"


async def added(it: House, name: str = "second", key: str = "sk-second", store: str = "memory") -> Json:
    return await it.done("POST", KEYS, {"name": name, "api_key": key, "cred_store": store})


async def names(it: House) -> list[str]:
    return [item["name"] for item in (await it.done("GET", KEYS))["items"]]


async def sent_key(it: House, fake: FakeProvider) -> str:
    assert (await it.chat()).status == 200
    return fake.requests[-1].header("authorization").removeprefix("Bearer ")


async def test_a_further_credential_is_added_switched_and_removed(it: House, fake: FakeProvider) -> None:
    """With its own one switched off the further one serves; without any the provider is no candidate."""
    await it.provider(fake, "p", "gpt-4o")
    assert (
        await it.admin("POST", KEYS, {"name": "second", "api_key": "sk-2", "cred_store": "memory"})
    ).status == 201
    assert await sent_key(it, fake) == "sk-p"
    assert (await it.done("PATCH", f"{KEYS}/default", {"enabled": False}))["state"] == "disabled"
    assert await sent_key(it, fake) == "sk-2"
    await it.done("PATCH", f"{KEYS}/second", {"enabled": False})
    assert (await it.chat()).status == 503
    await it.done("PATCH", f"{KEYS}/default", {"enabled": True})
    assert await sent_key(it, fake) == "sk-p"
    await it.done("DELETE", f"{KEYS}/second")
    assert await names(it) == ["default"]
    assert (await it.admin("DELETE", f"{KEYS}/second")).status == 404


async def test_further_ones_alone_are_enough(it: House, fake: FakeProvider) -> None:
    """A provider without a credential of its own is not called without one."""
    await it.provider(fake, "p", "gpt-4o")
    await added(it)
    await it.done("PATCH", "/providers/p", {"cred_store": "none"})
    assert await names(it) == ["second"]
    assert await sent_key(it, fake) == "sk-second"


async def test_it_lies_in_the_vault_under_a_name_of_its_own_and_goes_with_its_provider(
    it: House, fake: FakeProvider
) -> None:
    """Locked, it cannot be used; removed with the provider, nobody inherits it."""
    await it.app.vault.init(Secret(PASSWORD))
    await it.provider(fake, "p", "gpt-4o")
    assert (await added(it, store="vault"))["state"] == "ready"
    assert it.app.vault.names() == ["provider:p:api_key:second"]
    it.app.vault.lock()
    assert [one["state"] for one in (await it.done("GET", KEYS))["items"]] == ["ready", "missing"]
    assert await sent_key(it, fake) == "sk-p"
    await it.done("DELETE", "/providers/p")
    assert it.app.vault.names() == []
    await it.provider(fake, "p", "gpt-4o")
    assert await names(it) == ["default"]


@pytest.mark.parametrize("more", [{}, {"api_key": "sk-new", "cred_store": "memory"}, {"cred_store": "none"}])
async def test_further_ones_never_move_to_another_host(it: House, fake: FakeProvider, more: Json) -> None:
    """Not even where the provider's own key is shown again: they were not."""
    await it.provider(fake, "p", "gpt-4o")
    await added(it)
    told = await it.admin("PATCH", "/providers/p", {"base_url": "https://evil.example", **more})
    assert (told.status, told.fault["param"]) == (400, "base_url")
    await it.done("DELETE", f"{KEYS}/second")
    await it.done(
        "PATCH", "/providers/p", {"base_url": "https://new.example", "api_key": "sk", "cred_store": "memory"}
    )


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "default", "api_key": "x"}, "name"),
        ({"name": "a/b", "api_key": "x"}, "name"),
        ({"name": "a:b", "api_key": "x"}, "name"),
        ({"name": "", "api_key": "x"}, "name"),
        ({"name": "a"}, "api_key"),
        ({"name": "a", "api_key": "x", "cred_store": "env:X"}, "api_key"),
        ({"name": "a", "api_key": "x", "cred_store": "none"}, "cred_store"),
        ({"name": "a", "cred_store": "env:TOKENHUB_ADMIN_TOKEN"}, "cred_store"),
        ({"name": "a", "api_key": "x"}, "api_key"),
    ],
)
async def test_what_cannot_be_kept_is_refused_by_field(
    it: House, fake: FakeProvider, body: Json, param: str
) -> None:
    """A name that is none, a key without a place (the last: there is no vault), a variable of ours."""
    await it.provider(fake, "p", "gpt-4o")
    told = await it.admin("POST", KEYS, body)
    assert (told.status, told.fault["param"]) == (400, param)
    assert await names(it) == ["default"]


async def test_what_comes_from_the_environment_is_several_and_fixed(tmp_path: Path) -> None:
    """`OPENAI_API_KEY_2` is another one; it is listed, and cannot be changed here."""
    environ = {"OPENAI_API_KEY": "sk-1", "OPENAI_API_KEY_2": "sk-2", "OPENAI_API_KEY_X": "sk-3"}
    async with house(tmp_path, environ=environ) as it:
        items = (await it.done("GET", "/providers/openai/credentials"))["items"]
        assert [(one["name"], one["cred_store"], one["state"]) for one in items] == [
            ("default", "env:OPENAI_API_KEY", "ready"),
            ("2", "env:OPENAI_API_KEY_2", "ready"),
        ]
        assert (await it.admin("PATCH", "/providers/openai/credentials/2", {"enabled": False})).status == 400
        assert (await it.done("POST", "/providers/openai/credentials/2/unpark"))["unparked"] == 0
        assert (await it.admin("POST", "/providers/openai/credentials/3/unpark")).status == 404
        assert (await it.admin("GET", "/providers/nobody/credentials")).status == 404


async def test_the_credentials_file_gives_several(tmp_path: Path, fake: FakeProvider) -> None:
    """By name, beside the provider's own one or instead of it; what was switched off stays off."""
    file = tmp_path / "credentials"
    text = '{"providers": [{"id": "p", "type": "openai", "base_url": "%s", "api_keys": {"a": "sk-a", "b": "sk-b"}}]}'
    file.write_text(text % fake.url)
    file.chmod(0o600)
    for first in (True, False):
        async with house(tmp_path) as it:
            assert await names(it) == ["a", "b"]
            if first:
                await it.done("POST", "/models", {"id": "gpt-4o", "provider_id": "p"})
                await it.done("PATCH", f"{KEYS}/a", {"enabled": False})
            assert await sent_key(it, fake) == "sk-b"
