"""Where providers come from besides the admin API: the simulator, environment keys, the credentials file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from tokenhub_core.catalog import Catalog
from tokenhub_core.config import Settings
from tokenhub_core.credentials import Credentials, vault_name
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.ports import Secret
from tokenhub_core.providers.adapters import dialect_of
from tokenhub_core.providers.catalogue import Catalogue, priced
from tokenhub_core.providers.simulator import simulated_fleet
from tokenhub_core.store import catalog as rows
from tokenhub_core.store.catalog import Stock
from tokenhub_core.store.database import open_database
from tokenhub_core.types import Model, Prices, Provider, ProviderType
from tokenhub_core.vault.vault import Vault

NANO_PER_1K: Final = 1e9 / 1000
"""Nano-dollars per token for one dollar per thousand tokens."""


@dataclass(frozen=True, slots=True)
class _Environment:
    variable: str
    provider: str
    type: ProviderType
    base_url: str
    vendor: str


_ENVIRONMENT: Final = (
    _Environment("OPENAI_API_KEY", "openai", ProviderType.OPENAI, "https://api.openai.com", "openai"),
    _Environment(
        "ANTHROPIC_API_KEY", "anthropic", ProviderType.ANTHROPIC, "https://api.anthropic.com", "anthropic"
    ),
)


@dataclass(frozen=True, slots=True)
class Seeds:
    """Providers and models that only this process knows, and what to tell the operator."""

    stock: Stock
    warnings: tuple[str, ...] = ()


def configured(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Tell whether anything was ever configured here that could answer a call."""
    if any(environ.get(one.variable) for one in _ENVIRONMENT):
        return True
    if settings.credentials_file and Path(settings.credentials_file).expanduser().exists():
        return True
    where = settings.data_dir / "tokenhub.sqlite"
    if not settings.db_dsn and not where.exists():
        return False
    database = open_database(settings.db_dsn or str(where))
    try:
        with database.reading() as connection:
            return bool(rows.load(connection).providers)
    finally:
        database.close()


def transient(settings: Settings, environ: Mapping[str, str], prices: Catalogue) -> Seeds:
    """Return the simulator's fleet where answers are simulated, else a provider for each key in `environ`.

    A key's provider serves every model that its vendor's price list names. The two are never mixed: a
    simulation must not spend anybody's money.
    """
    if settings.simulate:
        return Seeds(Stock(*simulated_fleet(prices)))
    providers, models, told = [], [], []
    for one in _ENVIRONMENT:
        if not environ.get(one.variable):
            continue
        store = f"env:{one.variable}"
        providers.append(Provider(one.provider, one.type, (one.base_url,), dialect_of(one.type), True, store))
        listed = prices.sold_by(one.vendor)
        models += [priced(Model(entry.id, one.provider), entry) for entry in listed]
        told.append(f"{one.variable} is set: provider {one.provider} serves {len(listed)} models with it")
    return Seeds(Stock(tuple(providers), tuple(models)), tuple(told))


# --- the credentials file ----------------------------------------------------------------------------------


class _FileProvider(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    base_url: str
    type: ProviderType = ProviderType.OPENAI
    api_key: str = ""
    enabled: bool = True


class _FileModel(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    provider_id: str
    weight: int = 5
    max_context_tokens: int = 0
    input_per_1k: float | None = None
    output_per_1k: float | None = None
    enabled: bool = True


class _File(msgspec.Struct, forbid_unknown_fields=True):
    providers: list[_FileProvider] = []
    models: list[_FileModel] = []


async def seed(
    settings: Settings, catalog: Catalog, credentials: Credentials, vault: Vault
) -> tuple[str, ...]:
    """Register what the credentials file names and the database does not know yet; return what to tell.

    What an operator changed later stays as it is: the file fills gaps, keys excepted, which are taken from it
    at every start. Raises `ConfigError` for a file that others can read or that does not parse.
    """
    if settings.simulate or not settings.credentials_file:
        return ()
    file = _read(settings.credentials_file)
    told = []
    for entry in file.providers:
        told += await _seed_provider(entry, catalog, credentials, vault)
    for model in file.models:
        told += await _seed_model(model, catalog)
    return tuple(told)


def _read(name: str) -> _File:
    path = Path(name).expanduser()
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others; run: chmod 600 {path}")
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return _File()
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path}: {error}") from None


async def _seed_provider(
    entry: _FileProvider, catalog: Catalog, credentials: Credentials, vault: Vault
) -> list[str]:
    known = catalog.fleet.providers.get(entry.id)
    store = known.cred_store if known else "none"
    told = []
    if entry.api_key:
        secret = Secret(entry.api_key)
        if vault.open:
            store = "vault"
            await vault.put(vault_name(entry.id), secret)
        else:
            store = "memory"
            credentials.hold(entry.id, secret)
            told.append(f"the key of provider {entry.id} is kept in memory only: the vault is not unlocked")
    if known is None:
        provider = Provider(
            entry.id, entry.type, (entry.base_url,), dialect_of(entry.type), entry.enabled, store
        )
        try:
            await catalog.put_provider(provider)
        except TokenHubError as error:
            raise ConfigError(f"credentials file, provider {entry.id}: {error}") from None
    elif store != known.cred_store and entry.base_url in known.endpoints:
        await catalog.put_provider(replace(known, cred_store=store))
    return told


async def _seed_model(entry: _FileModel, catalog: Catalog) -> list[str]:
    if any(model.provider_id == entry.provider_id for model in catalog.fleet.by_id.get(entry.id, ())):
        return []
    if entry.provider_id not in catalog.fleet.providers:
        return [f"credentials file: model {entry.id} names the unknown provider {entry.provider_id}"]
    prices = Prices((entry.input_per_1k or 0.0) * NANO_PER_1K, (entry.output_per_1k or 0.0) * NANO_PER_1K)
    model = Model(
        entry.id,
        entry.provider_id,
        weight=entry.weight,
        max_context_tokens=entry.max_context_tokens,
        prices=prices,
        enabled=entry.enabled,
    )
    priced_by_hand = entry.input_per_1k is not None or entry.output_per_1k is not None
    await catalog.put_model(model if priced_by_hand else catalog.prefilled(model))
    return []
