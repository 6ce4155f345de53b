"""Providers from the environment, the simulator and the credentials file."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core import config, sources
from tokenhub_core.config import Settings
from tokenhub_core.errors import ConfigError
from tokenhub_core.providers import catalogue
from tokenhub_core.types import ProviderType

LIST = catalogue.load()
PASSWORD = "correct horse battery"


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as provider:
        yield provider


def settings(folder: Path, **overrides: Any) -> Settings:
    environ = {"TOKENHUB_CREDENTIALS_FILE": str(folder / "credentials")}
    return config.parse(environ, data_dir=folder / "data", overrides=overrides)


def write(folder: Path, content: object, mode: int = 0o600) -> Path:
    """Write the credentials file."""
    path = folder / "credentials"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def filed(url: str, **more: Any) -> dict[str, Any]:
    return {
        "providers": [{"id": "p", "base_url": url, "api_key": "sk-file", **more}],
        "models": [
            {"id": "gpt-4o", "provider_id": "p", "weight": 7, "input_per_1k": 0.1, "output_per_1k": 0.2}
        ],
    }


async def key(it: House, fake: FakeProvider) -> str:
    """Make a call and return the credential that arrived."""
    told = await it.chat()
    assert told.status == 200, told.body
    return fake.requests[-1].header("authorization").removeprefix("Bearer ")


async def shown(it: House) -> dict[str, Any]:
    found: dict[str, Any] = next(i for i in (await it.done("GET", "/providers"))["items"] if i["id"] == "p")
    return found


# --- the environment and the simulator ----------------------------------------------------------------------


def test_a_key_in_the_environment_is_a_provider_with_a_price_list(tmp_path: Path) -> None:
    """Named, priced, and read from the environment at use; an empty variable is none."""
    environ = {"ANTHROPIC_API_KEY": "sk-ant-secret", "OPENAI_API_KEY": ""}
    seeds = sources.transient(settings(tmp_path), environ, LIST)
    (provider,) = seeds.stock.providers
    assert (provider.id, provider.type, provider.cred_store) == (
        "anthropic",
        ProviderType.ANTHROPIC,
        "env:ANTHROPIC_API_KEY",
    )
    assert len(seeds.stock.models) > 5
    assert all(model.pricing_source == "models-dev" for model in seeds.stock.models)
    assert any("ANTHROPIC_API_KEY" in line for line in seeds.warnings)
    assert "sk-ant-secret" not in repr(seeds)


@pytest.mark.parametrize(
    ("variable", "name", "kind"),
    [
        ("OPENAI_API_KEY", "openai", ProviderType.OPENAI),
        ("GEMINI_API_KEY", "gemini", ProviderType.GEMINI),
        ("GOOGLE_API_KEY", "gemini", ProviderType.GEMINI),
        ("GROQ_API_KEY", "groq", ProviderType.OPENAI_COMPATIBLE),
        ("MISTRAL_API_KEY", "mistral", ProviderType.OPENAI_COMPATIBLE),
        ("DEEPSEEK_API_KEY", "deepseek", ProviderType.OPENAI_COMPATIBLE),
        ("XAI_API_KEY", "xai", ProviderType.OPENAI_COMPATIBLE),
        ("OPENROUTER_API_KEY", "openrouter", ProviderType.OPENAI_COMPATIBLE),
        ("TOGETHER_API_KEY", "together", ProviderType.OPENAI_COMPATIBLE),
        ("FIREWORKS_API_KEY", "fireworks", ProviderType.OPENAI_COMPATIBLE),
        ("CEREBRAS_API_KEY", "cerebras", ProviderType.OPENAI_COMPATIBLE),
        ("MOONSHOT_API_KEY", "moonshot", ProviderType.OPENAI_COMPATIBLE),
    ],
)
def test_a_vendors_own_variable_registers_it(
    tmp_path: Path, variable: str, name: str, kind: ProviderType
) -> None:
    """With every model that its price list names, read from that variable at use."""
    seeds = sources.transient(settings(tmp_path), {variable: "sk"}, LIST)
    (provider,) = seeds.stock.providers
    assert (provider.id, provider.type, provider.cred_store) == (name, kind, f"env:{variable}")
    assert len(seeds.stock.models) >= 4
    assert {model.provider_id for model in seeds.stock.models} == {name}


def test_the_first_of_a_vendors_variables_counts(tmp_path: Path) -> None:
    """Two of them are one provider."""
    environ = {"GOOGLE_API_KEY": "a", "GEMINI_API_KEY": "b"}
    (provider,) = sources.transient(settings(tmp_path), environ, LIST).stock.providers
    assert provider.cred_store == "env:GEMINI_API_KEY"


def test_a_vendor_without_a_price_list_is_no_provider_yet(tmp_path: Path) -> None:
    """Nothing could be asked of it: the operator is told what to do."""
    seeds = sources.transient(settings(tmp_path), {"PERPLEXITY_API_KEY": "sk-CANARY"}, LIST)
    assert seeds.stock.providers == ()
    (told,) = seeds.warnings
    assert "tokenhub provider add perplexity --api-key-env PERPLEXITY_API_KEY --model" in told
    assert "CANARY" not in told


def test_azure_is_where_its_environment_says_with_what_is_deployed_there(tmp_path: Path) -> None:
    """Deployments are models; one that is named after what it runs has its price, another's is unknown."""
    environ = {
        "AZURE_OPENAI_API_KEY": "sk",
        "AZURE_OPENAI_ENDPOINT": "https://Me.openai.azure.com/",
        "AZURE_OPENAI_DEPLOYMENT": "gpt-4o, mine",
    }
    seeds = sources.transient(settings(tmp_path), environ, LIST)
    (provider,) = seeds.stock.providers
    assert (provider.type, provider.endpoints) == (ProviderType.AZURE, ("https://me.openai.azure.com",))
    assert [(m.id, m.pricing_source) for m in seeds.stock.models] == [
        ("gpt-4o", "models-dev"),
        ("mine", "unknown"),
    ]
    dated = sources.transient(settings(tmp_path), {**environ, "OPENAI_API_VERSION": "2024-10-21"}, LIST)
    (provider,) = dated.stock.providers
    assert provider.endpoints == ("https://me.openai.azure.com?api-version=2024-10-21",)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "AZURE_OPENAI_ENDPOINT"),
        ({"AZURE_OPENAI_ENDPOINT": "http://me.openai.azure.com"}, "AZURE_OPENAI_ENDPOINT"),
        ({"AZURE_OPENAI_ENDPOINT": "https://me.openai.azure.com"}, "AZURE_OPENAI_DEPLOYMENT"),
        (
            {"AZURE_OPENAI_ENDPOINT": "https://me.openai.azure.com", "OPENAI_API_VERSION": "1&key=x"},
            "AZURE_OPENAI_ENDPOINT",
        ),
    ],
)
def test_azure_without_a_place_or_a_deployment_is_told(
    tmp_path: Path, more: dict[str, str], words: str
) -> None:
    """A key alone says neither where to go nor what is there; nobody's start fails by it."""
    seeds = sources.transient(settings(tmp_path), {"AZURE_OPENAI_API_KEY": "sk", **more}, LIST)
    assert seeds.stock.providers == ()
    (told,) = seeds.warnings
    assert words in told


def test_a_simulation_takes_no_key(tmp_path: Path) -> None:
    """The simulator's own fleet, and nothing that could cost money."""
    seeds = sources.transient(settings(tmp_path, simulate=True), {"OPENAI_API_KEY": "sk"}, LIST)
    assert {provider.type for provider in seeds.stock.providers} == {ProviderType.SIMULATOR}
    assert seeds.warnings == ()


async def test_something_is_configured_by_a_key_a_file_or_a_stored_provider(tmp_path: Path) -> None:
    """And a database without providers is nothing."""
    given = settings(tmp_path)
    assert not sources.configured(given, {"OPENAI_API_KEY": ""})
    assert sources.configured(given, {"OPENAI_API_KEY": "sk"})
    async with house(tmp_path) as it:
        assert not sources.configured(given, {})
        await it.done("POST", "/providers", {"id": "p", "base_url": "https://p.example"})
    assert sources.configured(given, {})
    other = settings(tmp_path / "other")
    assert not sources.configured(other, {})
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", {})
    assert sources.configured(other, {})


# --- the credentials file -----------------------------------------------------------------------------------


async def test_the_file_registers_what_is_not_there(tmp_path: Path, fake: FakeProvider) -> None:
    """Provider, key and model; without a vault the key is kept in memory, which is told."""
    write(tmp_path, filed(fake.url))
    async with house(tmp_path) as it:
        assert await key(it, fake) == "sk-file"
        assert (await shown(it))["cred_store"] == "memory"
        assert any("memory only" in line for line in it.app.warnings)
        (model,) = (await it.done("GET", "/models"))["items"]
        assert (model["weight"], model["input_per_1k"], model["pricing_source"]) == (7, 0.1, "manual")
        assert not any("sk-file" in line for line in it.app.warnings)


async def test_a_key_goes_to_the_vault_once_it_is_open(tmp_path: Path, fake: FakeProvider) -> None:
    """Sealed at the first start that can; found there at the next one, which writes nothing anew."""
    write(tmp_path, filed(fake.url + "/"))
    vault = {"VAULT_PASSWORD": PASSWORD}
    async with house(tmp_path) as it:
        assert (await shown(it))["cred_store"] == "memory"
    sealed = []
    for _ in range(2):
        async with house(tmp_path, settings=vault) as it:
            assert ((await shown(it))["cred_store"], it.app.warnings) == ("vault", ())
            assert await key(it, fake) == "sk-file"
            sealed.append(it.app.vault._rows.entries["provider:p:api_key"])
    assert sealed[0] == sealed[1]
    async with house(tmp_path) as it:
        assert (await shown(it))["cred_store"] == "memory"
        assert await key(it, fake) == "sk-file"


async def test_a_new_key_in_the_file_is_taken_at_the_next_start(tmp_path: Path, fake: FakeProvider) -> None:
    """That is how a key in a file is rotated."""
    for wanted in ("sk-file", "sk-rotated"):
        write(tmp_path, filed(fake.url, api_key=wanted))
        async with house(tmp_path, settings={"VAULT_PASSWORD": PASSWORD}) as it:
            assert await key(it, fake) == wanted


async def test_what_an_operator_changed_stays(tmp_path: Path, fake: FakeProvider) -> None:
    """Switched off, reweighted, repriced, removed models of the file's: the file only fills gaps."""
    write(tmp_path, filed(fake.url))
    async with house(tmp_path) as it:
        await it.done("PATCH", "/providers/p", {"enabled": False})
        await it.done("PATCH", "/models/gpt-4o", {"weight": 2, "input_per_1k": 0.5})
    async with house(tmp_path) as it:
        assert (await shown(it))["enabled"] is False
        (model,) = (await it.done("GET", "/models"))["items"]
        assert (model["weight"], model["input_per_1k"]) == (2, 0.5)


async def test_the_files_key_does_not_follow_a_provider_to_another_host(
    tmp_path: Path, fake: FakeProvider
) -> None:
    """An operator moved it and gave another key: that one stays, the file's is left out, and both are told apart."""
    write(tmp_path, filed("https://old.example"))
    vault = {"VAULT_PASSWORD": PASSWORD}
    async with house(tmp_path, settings=vault) as it:
        await it.done("PATCH", "/providers/p", {"base_url": fake.url, "api_key": "sk-moved"})
    async with house(tmp_path, settings=vault) as it:
        assert await key(it, fake) == "sk-moved"
        assert any("address" in line and "left out" in line for line in it.app.warnings)


async def test_a_key_from_the_environment_is_not_pushed_aside(tmp_path: Path) -> None:
    """Neither where an operator chose a variable, nor for a provider that the environment registers."""
    write(
        tmp_path,
        {"providers": [{"id": "openai", "base_url": "https://api.openai.com", "api_key": "sk-file"}]},
    )
    async with house(tmp_path, environ={"OPENAI_API_KEY": "sk-env"}) as it:
        (provider,) = (await it.done("GET", "/providers"))["items"]
        assert provider["cred_store"] == "env:OPENAI_API_KEY"
        assert provider["models"] > 10
        assert any("OPENAI_API_KEY" in line and "left out" in line for line in it.app.warnings)


async def test_a_provider_may_be_off_and_without_a_key(tmp_path: Path, fake: FakeProvider) -> None:
    """`enabled: false` means it, and a local server needs no key."""
    write(tmp_path, filed(fake.url, api_key="", enabled=False))
    async with house(tmp_path) as it:
        assert ((await shown(it))["enabled"], (await shown(it))["cred_store"]) == (False, "none")
        assert (await it.chat()).status == 503


async def test_a_known_vendor_needs_no_address_in_the_file(tmp_path: Path) -> None:
    """Its name says type and base, as everywhere."""
    write(tmp_path, {"providers": [{"id": "groq", "api_key": "sk-file"}]})
    async with house(tmp_path) as it:
        (provider,) = (await it.done("GET", "/providers"))["items"]
        assert (provider["type"], provider["base_url"]) == (
            "openai_compatible",
            "https://api.groq.com/openai/v1",
        )


async def test_a_model_of_nobody_is_told(tmp_path: Path) -> None:
    """The rest of the file counts."""
    write(tmp_path, {"models": [{"id": "m", "provider_id": "nobody"}]})
    async with house(tmp_path) as it:
        assert any("nobody" in line for line in it.app.warnings)


async def test_open_prices_come_from_the_price_list(tmp_path: Path) -> None:
    """As everywhere."""
    write(
        tmp_path,
        {
            "providers": [{"id": "p", "base_url": "https://api.openai.com"}],
            "models": [{"id": "gpt-4o", "provider_id": "p"}, {"id": "mine", "provider_id": "p"}],
        },
    )
    async with house(tmp_path) as it:
        items = (await it.done("GET", "/models"))["items"]
        assert [model["pricing_source"] for model in items] == ["models-dev", "unknown"]


async def test_without_a_file_or_with_a_simulation_nothing_is_read(tmp_path: Path) -> None:
    """A missing file is no fault, and a simulation does not even look."""
    async with house(tmp_path) as it:
        assert it.app.warnings == ()
    write(tmp_path, "not json", mode=0o644)
    async with house(tmp_path, simulate=True) as it:
        assert "p" not in it.app.catalog.fleet.providers


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
async def test_a_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """Whatever they could do with it; the message says what to do."""
    path = write(tmp_path, {}, mode)
    with pytest.raises(ConfigError, match=rf"run: chmod 600 {path}"):
        async with house(tmp_path):
            pass


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "truncated"),
        ("{", "truncated"),
        ("[]", "object"),
        ({"provider": []}, "provider"),
        ({"providers": [{"id": "p"}]}, "base_url"),
        ({"providers": [{"id": "p", "base_url": "https://x.example", "key": "sk-CANARY"}]}, "key"),
        ({"providers": [{"id": "p", "base_url": "https://x.example", "type": "origin"}]}, "origin"),
        ({"providers": [{"id": "p", "base_url": "https://x.example", "type": "gopher"}]}, "type"),
        ({"providers": [{"id": "p", "base_url": "http://x.example", "api_key": "sk-CANARY"}]}, "plain http"),
        ({"providers": [{"id": "p/q", "base_url": "https://x.example", "api_key": "sk-CANARY"}]}, "p/q"),
        ({"providers": [{"id": 7, "base_url": "https://x.example"}]}, "id"),
    ],
)
async def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path, content: Any, named: str) -> None:
    """One line that names the place and shows no key; a typo must not mean a silent nothing."""
    write(tmp_path, content)
    with pytest.raises(ConfigError) as refused:
        async with house(tmp_path):
            pass
    message = str(refused.value)
    assert named in message
    assert "credentials" in message
    assert "\n" not in message
    assert "CANARY" not in message


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ({"weight": 11}, "weight"),
        ({"max_context_tokens": -1}, "max_context_tokens"),
        ({"input_per_1k": 1}, "output_per_1k"),
        ({"input_per_1k": -1, "output_per_1k": 1}, "prices"),
        ({"id": "a\nb"}, "id"),
        ({"enabled": "no"}, "enabled"),
    ],
)
async def test_a_model_that_cannot_be_stops_the_start(
    tmp_path: Path, model: dict[str, Any], named: str
) -> None:
    """As one line, like everything in this file."""
    one = {"id": "m", "provider_id": "p", **model}
    write(tmp_path, {"providers": [{"id": "p", "base_url": "https://x.example"}], "models": [one]})
    with pytest.raises(ConfigError, match=named) as refused:
        async with house(tmp_path):
            pass
    assert "\n" not in str(refused.value)


async def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    """A folder, or the home of somebody who does not exist."""
    (tmp_path / "credentials").mkdir()
    for name in (str(tmp_path / "credentials"), "~nobody-of-that-name/x"):
        with pytest.raises(ConfigError, match="credentials file"):
            async with house(tmp_path, settings={"CREDENTIALS_FILE": name}):
                pass


async def test_a_refused_provider_leaves_no_key_behind(tmp_path: Path) -> None:
    """The check comes before the vault."""
    write(tmp_path, filed("ftp://x.example"))
    vault = {"VAULT_PASSWORD": PASSWORD}
    with pytest.raises(ConfigError):
        async with house(tmp_path, settings=vault):
            pass
    (tmp_path / "credentials").unlink()
    async with house(tmp_path, settings=vault) as it:
        assert it.app.vault.names() == []
