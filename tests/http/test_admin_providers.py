"""Registering, changing and removing providers, and where their credentials are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core.ports import Secret
from tokenhub_core.types import Json

PASSWORD = "correct horse battery"
KEY = "sk-the-first"


async def shown(it: House, name: str = "p") -> Json:
    items = (await it.done("GET", "/providers"))["items"]
    found: Json = next(item for item in items if item["id"] == name)
    return found


async def sent_key(it: House, fake: FakeProvider, model: str = "gpt-4o") -> str:
    """Make a call and return the credential that arrived at the provider."""
    told = await it.chat(model)
    assert told.status == 200, told.body
    return fake.requests[-1].header("authorization").removeprefix("Bearer ")


async def test_a_provider_is_registered_and_shown_without_its_key(it: House, fake: FakeProvider) -> None:
    """201 the first time; every later look says that there is a credential, never which."""
    body = {"id": "p", "base_url": fake.url + "/", "cred_store": "memory", "api_key": KEY}
    told = await it.admin("POST", "/providers", body)
    assert told.status == 201
    assert told.json == {
        "id": "p",
        "type": "openai",
        "base_url": fake.url,
        "endpoints": [fake.url],
        "dialect": "openai_chat",
        "enabled": True,
        "cred_store": "memory",
        "on_disconnect": "cancel",
        "credential": True,
        "credentials": [
            {
                "name": "default",
                "cred_store": "memory",
                "enabled": True,
                "credential": True,
                "state": "ready",
                "parked_until": None,
                "cool_off_until": None,
                "parkings": [],
                "limits": [],
            }
        ],
        "models": 0,
    }
    assert told.json == await shown(it)
    assert (await it.admin("POST", "/providers", {"id": "p", "base_url": fake.url})).status == 200


async def test_what_is_not_said_of_the_key_leaves_it(it: House, fake: FakeProvider) -> None:
    """POST and PATCH without a key, or with an empty one, keep the credential that serves."""
    await it.provider(fake, "p", "gpt-4o")
    await it.done("POST", "/providers", {"id": "p", "base_url": fake.url})
    assert await sent_key(it, fake) == "sk-p"
    await it.done("PATCH", "/providers/p", {"enabled": True})
    await it.done("PATCH", "/providers/p", {"api_key": ""})
    assert await sent_key(it, fake) == "sk-p"
    await it.done("PATCH", "/providers/p", {"api_key": "sk-second"})
    assert await sent_key(it, fake) == "sk-second"
    assert (await shown(it))["models"] == 1


@pytest.mark.parametrize("more", [{}, {"cred_store": "memory"}, {"cred_store": "vault"}, {"api_key": ""}])
@pytest.mark.parametrize("verb", ["PATCH", "POST"])
async def test_a_key_never_moves_to_another_host(
    it: House, fake: FakeProvider, verb: str, more: Json
) -> None:
    """Whoever moves a provider shows its key again; naming the store where it lies is not showing it."""
    await it.provider(fake, "p", "gpt-4o")
    moved = {"base_url": "https://evil.example", **more}
    path = "/providers/p" if verb == "PATCH" else "/providers"
    told = await it.admin(verb, path, moved if verb == "PATCH" else {"id": "p", **moved})
    assert (told.status, told.fault["param"]) == (400, "api_key")
    assert (await shown(it))["base_url"] == fake.url
    added = await it.admin("PATCH", "/providers/p", {"endpoints": [fake.url, "https://evil.example"], **more})
    assert added.status == 400
    assert await sent_key(it, fake) == "sk-p"


async def test_an_address_in_another_spelling_is_the_same_host(it: House, fake: FakeProvider) -> None:
    """Another path or a trailing slash moves nothing; another port or scheme does."""
    await it.provider(fake, "p", "gpt-4o")
    await it.done("PATCH", "/providers/p", {"base_url": fake.url.upper().replace("HTTP", "Http") + "/v1/"})
    assert await sent_key(it, fake) == "sk-p"
    for moved in (f"http://127.0.0.1:{fake.port + 1}", f"https://127.0.0.1:{fake.port}"):
        assert (await it.admin("PATCH", "/providers/p", {"base_url": moved})).status == 400


async def test_a_key_is_not_found_again_by_a_detour(it: House, fake: FakeProvider) -> None:
    """Let go of the store, move, take the store up again: the old key is gone by then."""
    await it.app.vault.init(Secret(PASSWORD))
    await it.done("POST", "/providers", {"id": "p", "base_url": fake.url, "api_key": KEY})
    assert (await shown(it))["cred_store"] == "vault"
    await it.done("PATCH", "/providers/p", {"cred_store": "none"})
    await it.done("PATCH", "/providers/p", {"base_url": "https://evil.example"})
    await it.admin("PATCH", "/providers/p", {"cred_store": "vault"})
    assert it.app.vault.names() == []
    assert not (await shown(it))["credential"]


@pytest.mark.parametrize("locked", [False, True])
async def test_who_takes_a_name_over_inherits_no_key(it: House, fake: FakeProvider, locked: bool) -> None:
    """Removing a provider removes its models and its credential, out of a locked vault too."""
    await it.app.vault.init(Secret(PASSWORD))
    await it.done("POST", "/providers", {"id": "p", "base_url": fake.url, "api_key": KEY})
    await it.done("POST", "/models", {"id": "gpt-4o", "provider_id": "p"})
    if locked:
        it.app.vault.lock()
    assert (await it.done("DELETE", "/providers/p")) == {"ok": True}
    assert it.app.vault.names() == []
    assert (await it.done("GET", "/models"))["items"] == []
    taken = {"id": "p", "base_url": "https://evil.example", "cred_store": "vault"}
    await it.done("POST", "/providers", taken)
    assert not (await shown(it))["credential"]


async def test_a_key_goes_to_the_vault_where_it_is_open(it: House, fake: FakeProvider) -> None:
    """Sealed under its provider's name, used from there, and gone with a lock until the next unlock."""
    await it.app.vault.init(Secret(PASSWORD))
    await it.done("POST", "/providers", {"id": "p", "base_url": fake.url, "api_key": KEY})
    await it.done("POST", "/models", {"id": "gpt-4o", "provider_id": "p"})
    assert await sent_key(it, fake) == KEY
    await it.done("POST", "/vault/lock")
    assert not (await shown(it))["credential"]
    assert (await it.chat()).status == 503
    await it.done("POST", "/vault/unlock", {"admin_password": PASSWORD})
    assert await sent_key(it, fake) == KEY


async def test_memory_that_was_asked_for_is_memory(it: House, fake: FakeProvider) -> None:
    """Also while the vault is open; and a key that moves on to the vault is not left behind."""
    await it.app.vault.init(Secret(PASSWORD))
    await it.provider(fake, "p", "gpt-4o")
    assert ((await shown(it))["cred_store"], it.app.vault.names()) == ("memory", [])
    assert await sent_key(it, fake) == "sk-p"
    await it.done("PATCH", "/providers/p", {"api_key": KEY})
    assert ((await shown(it))["cred_store"], len(it.app.vault.names())) == ("vault", 1)
    assert await sent_key(it, fake) == KEY
    await it.done("PATCH", "/providers/p", {"cred_store": "memory"})
    assert (it.app.vault.names(), (await shown(it))["credential"]) == ([], False)


async def test_a_key_without_a_place_is_refused(it: House, fake: FakeProvider) -> None:
    """No open vault and no word of memory: nothing is kept, and the answer says what to do."""
    told = await it.admin("POST", "/providers", {"id": "p", "base_url": fake.url, "api_key": KEY})
    assert (told.status, told.fault["code"]) == (400, "vault_locked")
    assert "memory" in told.fault["message"]
    assert (await it.done("GET", "/providers"))["total"] == 0
    for store in ("none", "env:SOME_KEY"):
        body = {"id": "p", "base_url": fake.url, "api_key": KEY, "cred_store": store}
        assert (await it.admin("POST", "/providers", body)).fault["param"] == "cred_store"


async def test_a_refused_change_changes_nothing(it: House, fake: FakeProvider) -> None:
    """The key in a request that is refused for another reason is not put away."""
    await it.app.vault.init(Secret(PASSWORD))
    await it.done("POST", "/providers", {"id": "p", "base_url": fake.url, "api_key": KEY})
    before = await shown(it)
    for change in ({"base_url": "ftp://x"}, {"type": "origin"}, {"cred_store": "nowhere"}):
        assert (await it.admin("PATCH", "/providers/p", {"api_key": "sk-other", **change})).status == 400
        assert (await it.admin("POST", "/providers", {"id": "q", "api_key": "x", **change})).status == 400
    assert await shown(it) == before
    assert it.app.vault.names() == ["provider:p:api_key"]
    held = it.app.vault.get("provider:p:api_key")
    assert held is not None
    assert held.reveal() == KEY


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "id"),
        ({"id": "p"}, "base_url"),
        ({"id": "p", "base_url": "nowhere"}, "nowhere"),
        ({"id": "p", "base_url": "ftp://x.example"}, "https"),
        ({"id": "p", "base_url": "http://x.example"}, "http"),
        ({"id": "p", "base_url": "https://u:p@x.example"}, "user name"),
        ({"id": "p", "base_url": "http://169.254.169.254"}, "never a provider"),
        ({"id": "p", "base_url": "https://x.example?key=1"}, "query"),
        ({"id": "p", "base_url": "sim://openai"}, "sim:"),
        ({"id": "p", "base_url": "https://x.example", "type": "origin"}, "type"),
        ({"id": "p", "base_url": "https://x.example", "type": "simulator"}, "type"),
        ({"id": "p", "base_url": "https://x.example", "type": "gopher"}, "$.type"),
        ({"id": "p", "base_url": "https://x.example", "enabled": "yes"}, "$.enabled"),
        ({"id": "p", "base_url": "https://x.example", "enabled": None}, "$.enabled"),
        ({"id": 7, "base_url": "https://x.example"}, "$.id"),
        ({"id": "p", "endpoints": "https://x.example"}, "$.endpoints"),
        ({"id": "p", "base_url": "https://x.example", "dialect": "openai_chat"}, "dialect"),
        ({"id": "p", "base_url": "https://x.example", "is_admin": True}, "is_admin"),
        ({"id": "p", "base_url": "https://x.example", "cred_store": "caller"}, "cred_store"),
        ({"id": "p", "base_url": "https://x.example", "cred_store": "env:"}, "cred_store"),
        ({"id": "p", "base_url": "https://x.example", "cred_store": "env:A B"}, "cred_store"),
        ({"id": "p", "base_url": "https://x.example", "cred_store": "env:TOKENHUB_ADMIN_TOKEN"}, "TOKENHUB_"),
    ],
)
async def test_a_provider_that_cannot_be_is_refused_by_field(it: House, body: Json, named: str) -> None:
    """400, and the words name what is wrong; nothing is registered."""
    told = await it.admin("POST", "/providers", body)
    assert told.status == 400
    assert named in told.fault["message"]
    assert (await it.done("GET", "/providers"))["total"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"type": "origin"},
        {"type": "simulator"},
        {"cred_store": "caller"},
        {"cred_store": "bogus"},
        {"base_url": ""},
        {"endpoints": []},
        {"id": "q"},
        {"api_key": None},
    ],
)
async def test_a_change_is_held_to_the_same_rules(it: House, fake: FakeProvider, change: Json) -> None:
    """What cannot be registered cannot be reached by a change either."""
    await it.provider(fake, "p")
    before = await shown(it)
    assert (await it.admin("PATCH", "/providers/p", change)).status == 400
    assert await shown(it) == before


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b'{"id":"\xff"}', b'{"id":"\\ud800"}', b"[" * 50_000, b"\xef\xbb\xbf{}"],
)
async def test_a_body_that_is_no_object_is_refused(it: House, data: bytes) -> None:
    """400 in JSON, whatever the bytes are."""
    for method, path in (("POST", "/providers"), ("POST", "/models"), ("PUT", "/routing-config")):
        assert (await it.admin(method, path, data)).status == 400


async def test_a_body_in_pieces_is_one_body(it: House, fake: FakeProvider) -> None:
    """However the network cuts it."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b'{"id":', b'"p","base', b'_url":"%b"}' % fake.url.encode()):
            yield piece
            await asyncio.sleep(0.01)

    async with it.session.post(f"{it.url}/admin/v1/providers", data=pieces(), headers=it.bearer) as response:
        assert response.status == 201


async def test_a_large_body_is_refused(it: House) -> None:
    """One megabyte is more than anything here needs."""
    told = await it.admin("POST", "/providers", b'{"id":"' + b"x" * (1 << 20) + b'"}')
    assert (told.status, told.fault["type"]) == (413, "too_large")


@pytest.mark.parametrize(
    "name", ["a", "A.b-c_d", "with space", "ümläut", "50%", "a?b", "a#b", "a&b=c", "'; DROP TABLE providers;--",
             "<img src=x onerror=alert(1)>", "日本", "x" * 64, "%2e%2e", "a+b", "..."],
)  # fmt: skip
async def test_an_odd_name_is_a_name(it: House, name: str) -> None:
    """Whatever can be seen can be registered, changed and removed under its own name."""
    await it.done("POST", "/providers", {"id": name, "base_url": "https://x.example"})
    path = f"/providers/{quoted(name)}"
    assert (await it.done("PATCH", path, {"enabled": False}))["id"] == name
    assert (await shown(it, name))["enabled"] is False
    await it.done("DELETE", path)
    assert (await it.done("GET", "/providers"))["total"] == 0


@pytest.mark.parametrize(
    "name", ["", " ", "a/b", "a:b", "x" * 65, "a\nb", "a\x00b", ".", "..", " a", "a ", "\u202ea"]
)
async def test_a_name_that_cannot_be_told_or_asked_for_is_refused(it: House, name: str) -> None:
    """Nothing invisible, nothing that a URL or a vault entry would take apart."""
    told = await it.admin("POST", "/providers", {"id": name, "base_url": "https://x.example"})
    assert (told.status, told.fault["param"]) == (400, "id")


@pytest.mark.parametrize(
    ("method", "path"),
    [("PATCH", "/providers/none"), ("DELETE", "/providers/none"), ("POST", "/providers/none/catalogue")],
)
async def test_an_unknown_provider_is_not_found(it: House, method: str, path: str) -> None:
    """404 instead of an `ok`, and nothing comes into being."""
    told = await it.admin(method, path, {})
    assert (told.status, told.fault["type"]) == (404, "not_found")
    assert (await it.done("GET", "/providers"))["total"] == 0


async def test_a_provider_of_the_environment_is_not_changed_here(tmp_path: Path) -> None:
    """It says where it comes from, and registering one of that name takes its place, key included."""
    environ = {"OPENAI_API_KEY": "sk-env"}
    async with house(tmp_path, environ=environ) as it:
        for method, path in (("PATCH", "/providers/openai"), ("DELETE", "/providers/openai")):
            told = await it.admin(method, path, {})
            assert told.status == 400
            assert "environment" in told.fault["message"]
        assert (await shown(it, "openai"))["cred_store"] == "env:OPENAI_API_KEY"
        moved = {"id": "openai", "base_url": "https://evil.example"}
        assert (await it.admin("POST", "/providers", moved)).status == 400
        again = {**moved, "cred_store": "env:OPENAI_API_KEY"}
        assert (await it.admin("POST", "/providers", again)).status == 400
        await it.done("POST", "/providers", {"id": "openai", "base_url": "https://api.openai.com"})
        assert (await shown(it, "openai"))["credential"]
        await it.done("PATCH", "/providers/openai", {"enabled": False})


async def test_a_simulation_spends_nobodys_money(simulated: House, fake: FakeProvider) -> None:
    """While answers are simulated a real provider can be registered, but it does not serve."""
    await simulated.provider(fake, "p", "gpt-4o", "only-here")
    assert (await shown(simulated))["enabled"] is False
    assert (await simulated.chat("*")).header("x-tokenhub-simulated") == "true"
    assert (await simulated.chat("only-here")).header("x-tokenhub-provider") != "p"
    assert fake.requests == []
    told = await simulated.admin("POST", "/providers", {"id": "sim-openai", "base_url": fake.url})
    assert (told.status, "simulator" in told.fault["message"]) == (400, True)
    await simulated.done("PATCH", "/providers/p", {"api_key": "sk-x", "cred_store": "memory"})
    await simulated.done("DELETE", "/providers/p")


async def eject(it: House, fake: FakeProvider) -> None:
    """Register a provider that fails until it is ejected."""
    await it.provider(fake, "p", "gpt-4o")
    fake.script("gpt-4o", ["500"])
    for _ in range(3):
        await it.chat()
    assert (await health(it))["state"] == "down"


async def health(it: House) -> Json:
    found: Json = next(i for i in (await it.done("GET", "/health"))["providers"] if i["provider_id"] == "p")
    return found


@pytest.mark.parametrize(
    "change", [{"api_key": "sk-new"}, {"base_url": "{}/v1"}, {"type": "vllm"}, {"cred_store": "none"}]
)
async def test_health_is_forgotten_with_the_address_or_the_key(
    it: House, fake: FakeProvider, change: dict[str, str]
) -> None:
    """What was learnt of the old ones says nothing of the new ones."""
    await eject(it, fake)
    fake.script("gpt-4o", ["ok"])
    changed = {name: value.format(fake.url) for name, value in change.items()}
    await it.done("PATCH", "/providers/p", changed)
    assert (await health(it))["state"] == "healthy"
    assert (await it.chat()).status == 200


async def test_health_stays_where_nothing_moves(it: House, fake: FakeProvider) -> None:
    """Switching a provider off and on, or saying again what it is, is no way around an ejection."""
    await eject(it, fake)
    await it.done("PATCH", "/providers/p", {"enabled": True})
    await it.done("POST", "/providers", {"id": "p", "base_url": fake.url})
    assert (await health(it))["state"] == "down"
    await it.done("DELETE", "/providers/p")
    await it.provider(fake, "p", "gpt-4o")
    assert (await health(it))["state"] == "healthy"


async def test_changes_at_the_same_time_all_count(it: House, fake: FakeProvider) -> None:
    """Twenty at once: none is lost, neither in the database nor in the view that calls see."""
    names = [f"p{number}" for number in range(20)]
    await asyncio.gather(
        *(it.done("POST", "/providers", {"id": name, "base_url": fake.url}) for name in names)
    )
    assert sorted(it.app.catalog.fleet.providers) == sorted(names)
    version = it.app.catalog.fleet.version
    await asyncio.gather(*(it.done("PATCH", f"/providers/{name}", {"enabled": False}) for name in names))
    assert not any(provider.enabled for provider in it.app.catalog.fleet.providers.values())
    assert it.app.catalog.fleet.version > version


async def test_a_change_ends_when_the_client_leaves(it: House, fake: FakeProvider) -> None:
    """Whoever hangs up in the middle leaves the view and the database saying the same."""
    for number in range(10):
        name = f"p{number}"
        asking = asyncio.create_task(it.admin("POST", "/providers", {"id": name, "base_url": fake.url}))
        await asyncio.sleep(number / 1000)
        asking.cancel()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "provider change"))
    stored = {provider.id for provider in it.app.catalog._stored.providers}
    assert stored == set(it.app.catalog.fleet.providers)
    await it.app.catalog.load()
    assert stored == {provider.id for provider in it.app.catalog._stored.providers}


async def test_the_price_list_registers_what_it_names_once(it: House) -> None:
    """Every model that the vendor sells, priced; asked again, nothing more."""
    await it.done("POST", "/providers", {"id": "openai", "base_url": "https://api.openai.com"})
    first = await it.admin("POST", "/providers/openai/catalogue", {})
    assert first.status == 201
    assert first.json["added"] > 10
    assert (await it.done("POST", "/providers/openai/catalogue"))["added"] == 0
    models = (await it.done("GET", "/models?provider=openai"))["items"]
    assert len(models) == first.json["added"]
    assert all(model["pricing_source"] == "models-dev" for model in models)


async def test_a_credential_is_shown_nowhere(
    tmp_path: Path, fake: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """Canaries in every place that holds a secret: no answer, log line, file or metric has one of them."""
    canaries = [
        "sk-CANARY-vault",
        "sk-CANARY-memory",
        "CANARY-password-1",
        "sk-CANARY-caller",
        "sk-CANARY-env",
    ]
    caplog.set_level(logging.DEBUG)
    environ = {"ANTHROPIC_API_KEY": canaries[4]}
    async with house(tmp_path, environ=environ) as it:
        await it.done("POST", "/vault/init", {"admin_password": canaries[2]})
        await it.done("POST", "/providers", {"id": "v", "base_url": fake.url, "api_key": canaries[0]})
        await it.provider(fake, "m", "gpt-4o", api_key=canaries[1])
        await it.done("POST", "/models", {"id": "gpt-4o", "provider_id": "v"})
        fake.script("gpt-4o", ["ok", "500", "401", "ok", "disconnect"])
        for _ in range(6):
            own = {"authorization": f"Bearer {canaries[3]}", "x-api-key": canaries[3]}
            await it.chat(headers=own)
        await it.admin("POST", "/providers", {"id": "v", "base_url": "ftp://x", "api_key": canaries[0]})
        await it.admin("POST", "/providers", {"id": 7, "api_key": canaries[0]})
        await it.admin("POST", "/vault/unlock", {"admin_password": canaries[2], "x": canaries[2]})
        await it.admin("POST", "/vault/unlock", {"admin_password": canaries[2] + "x"})
        for path in ("/info", "/providers", "/models", "/routing-config", "/health", "/logs", "/vault"):
            await it.done("GET", path)
        for row in (await it.done("GET", "/logs"))["logs"]:
            await it.done("GET", f"/logs/{row['id']}")
        await it.ask("GET", "/metrics")
        it.seen.append(await events(it))
        used = {request.header("authorization") for request in fake.requests}
        assert used == {f"Bearer {canaries[0]}", f"Bearer {canaries[1]}"}
        files = [path.read_bytes() for path in it.data.rglob("*") if path.is_file()]
    assert len(files) > 2
    everything: list[Any] = [*it.seen, *files, caplog.text.encode(), repr(it.app).encode()]
    for canary in canaries:
        assert not [text for text in everything if canary.encode() in text], canary


async def events(it: House) -> bytes:
    """Return what the event stream replays."""
    async with it.session.get(f"{it.url}/admin/v1/events?replay=true", headers=it.bearer) as stream:
        return await stream.content.read(1 << 16) + await stream.content.readany()


def quoted(name: str) -> str:
    return "".join(f"%{byte:02X}" for byte in name.encode())
