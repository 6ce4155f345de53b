"""Where providers come from besides the admin API: the simulator, environment keys, the credentials file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from tokenhub_core.catalog import Catalog, prices_per_1k
from tokenhub_core.config import Settings
from tokenhub_core.credentials import Credentials, vault_name
from tokenhub_core.errors import ConfigError, TokenHubError
from tokenhub_core.ports import Secret
from tokenhub_core.providers.adapters import dialect_of
from tokenhub_core.providers.catalogue import Catalogue, CatalogueEntry, priced
from tokenhub_core.providers.endpoints import check_endpoint, site
from tokenhub_core.providers.simulator import simulated_fleet
from tokenhub_core.providers.vendors import VENDORS, Vendor, starting
from tokenhub_core.routing.eligibility import UNKNOWN_PRICE
from tokenhub_core.store import catalog as rows
from tokenhub_core.store.catalog import Stock
from tokenhub_core.store.database import open_database
from tokenhub_core.types import DEFAULT_CREDENTIAL, Credential, Model, Provider, ProviderType
from tokenhub_core.vault.vault import Vault

_DEPLOYMENTS: Final = "AZURE_OPENAI_DEPLOYMENT"
"""Names of Azure deployments, separated by commas: what is deployed stands in no price list."""
_API_VERSION: Final = "OPENAI_API_VERSION"


@dataclass(frozen=True, slots=True)
class Seeds:
    """Providers and models that only this process knows, and what to tell the operator."""

    stock: Stock
    warnings: tuple[str, ...] = ()


def configured(settings: Settings, environ: Mapping[str, str]) -> bool:
    """Tell whether anything was ever configured here that could answer a call."""
    if any(_key(vendor, environ) for vendor in VENDORS):
        return True
    if settings.credentials_file and _expanded(settings.credentials_file).exists():
        return True
    where = settings.data_dir / "tokenhub.sqlite"
    if not settings.db_dsn and not where.exists():
        return False
    database = open_database(settings.db_dsn.reveal() or str(where), password_file=settings.db_password_file)
    try:
        with database.reading() as connection:
            return bool(rows.load(connection).providers)
    finally:
        database.close()


def transient(settings: Settings, environ: Mapping[str, str], prices: Catalogue) -> Seeds:
    """Return the simulator's fleet where answers are simulated, else a provider for each key in `environ`.

    A key's provider serves every model that its vendor's price list names, Azure's the deployments that the
    environment names. Where there are none the operator is told what to do. The two are never mixed: a simulation
    must not spend anybody's money.
    """
    if settings.simulate:
        return Seeds(Stock(*simulated_fleet(prices)))
    providers: list[Provider] = []
    models: list[Model] = []
    told: list[str] = []
    for vendor in VENDORS:
        if not (variable := _key(vendor, environ)):
            continue
        base = _base(vendor, environ)
        names = _deployments(environ) if vendor.base_key else ()
        sold = _listed(vendor.id, prices.sold_by(prices.vendor(base))) if base else []
        served = [_deployed(name, vendor.id, prices) for name in names] or sold
        if not (base and served):
            told.append(f"{variable} is set: {_missing(vendor, variable, base)}")
            continue
        store, more = f"env:{variable}", _further(variable, environ)
        provider = Provider(vendor.id, vendor.type, (base,), dialect_of(vendor.type), True, store)
        providers.append(replace(provider, credentials=more))
        models += served
        also = f" and {len(more)} more" if more else ""
        told.append(f"{variable} is set: provider {vendor.id} serves {len(served)} models with it{also}")
    return Seeds(Stock(tuple(providers), tuple(models)), tuple(told))


def _key(vendor: Vendor, environ: Mapping[str, str]) -> str:
    """Return the variable that holds a key of this vendor, empty where none does."""
    return next((variable for variable in vendor.keys if environ.get(variable)), "")


def _further(variable: str, environ: Mapping[str, str]) -> tuple[Credential, ...]:
    """Return the further credentials of a variable's vendor: `OPENAI_API_KEY_2` to `OPENAI_API_KEY_9`."""
    numbered = ((str(number), f"{variable}_{number}") for number in range(2, 10))
    return tuple(Credential(name, f"env:{other}") for name, other in numbered if environ.get(other))


def _base(vendor: Vendor, environ: Mapping[str, str]) -> str:
    """Return the vendor's base URL, or the one that the environment names; empty where that cannot be one."""
    if not vendor.base_key:
        return vendor.base
    base, version = environ.get(vendor.base_key, ""), environ.get(_API_VERSION, "")
    try:
        return check_endpoint(f"{base}?api-version={version}" if version else base, versioned=True)
    except ConfigError:
        return ""


def _deployments(environ: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for one in environ.get(_DEPLOYMENTS, "").split(",") if (name := one.strip()))


def _listed(provider_id: str, entries: Iterable[CatalogueEntry]) -> list[Model]:
    return [priced(Model(entry.id, provider_id), entry) for entry in entries]


def _deployed(name: str, provider_id: str, prices: Catalogue) -> Model:
    """Return a deployment as a model; most are named after what they run, and only then is their price known."""
    model = Model(name, provider_id, pricing_source=UNKNOWN_PRICE)
    entry = prices.lookup(name, provider_id)
    return priced(model, entry) if entry else model


def _missing(vendor: Vendor, variable: str, base: str) -> str:
    """Return what keeps a vendor whose key is known from serving."""
    if not base:
        return f"{vendor.base_key} must hold a base URL before provider {vendor.id} can serve"
    where = f" (or in {_DEPLOYMENTS})" if vendor.base_key else ""
    url = f" --base-url {base}" if vendor.base_key else ""
    return (
        f"no price list names the models of {vendor.id}, so name them{where}: tokenhub provider add {vendor.id}{url}"
        f" --api-key-env {variable} --model NAME"
    )


# --- the credentials file ----------------------------------------------------------------------------------


class _FileProvider(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    base_url: str = ""
    type: ProviderType | None = None
    api_key: str = ""
    api_keys: dict[str, str] = {}
    """Further ones, by name."""
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
        try:
            told += await _seed_provider(entry, catalog, credentials, vault)
        except TokenHubError as error:
            raise ConfigError(f"credentials file, provider {entry.id!r}: {error}") from None
    for model in file.models:
        try:
            told += await _seed_model(model, catalog)
        except TokenHubError as error:
            raise ConfigError(f"credentials file, model {model.id!r}: {error}") from None
    return tuple(told)


def examine(settings: Settings, catalog: Catalog) -> None:
    """Hold the credentials file to what can be registered, and register nothing; raises `ConfigError`."""
    if settings.simulate or not settings.credentials_file:
        return
    file = _read(settings.credentials_file)
    for entry in file.providers:
        try:
            _wanted(entry, catalog, "memory")
        except TokenHubError as error:
            raise ConfigError(f"credentials file, provider {entry.id!r}: {error}") from None
    for model in file.models:
        try:
            catalog.check_name(model.id)
            prices_per_1k(model.input_per_1k, model.output_per_1k)
        except TokenHubError as error:
            raise ConfigError(f"credentials file, model {model.id!r}: {error}") from None


def _wanted(entry: _FileProvider, catalog: Catalog, place: str) -> tuple[Provider, list[Credential]]:
    """Return an entry as it is to be registered, and its further credentials; raises `TokenHubError`."""
    store = place if entry.api_key else "none"
    further = [Credential(name, place) for name, key in entry.api_keys.items() if key]
    for one in further:
        catalog.check_credential(one)
    kind, usual = starting(entry.id, entry.type)
    base = entry.base_url or usual
    provider = Provider(entry.id, kind, (base,) if base else (), dialect_of(kind), entry.enabled, store)
    return catalog.checked(provider), further


def _read(name: str) -> _File:
    path = _expanded(name)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConfigError(f"{path} can be read by others; run: chmod 600 {path}")
            return msgspec.json.decode(file.read(), type=_File)
    except FileNotFoundError:
        return _File()
    except (OSError, UnicodeDecodeError, msgspec.MsgspecError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"credentials file {path}: {reason}") from None


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"credentials file {name}: {error}") from None


async def _seed_provider(
    entry: _FileProvider, catalog: Catalog, credentials: Credentials, vault: Vault
) -> list[str]:
    place = "vault" if vault.open else "memory"
    wanted, further = _wanted(entry, catalog, place)
    store = wanted.cred_store
    known = catalog.fleet.providers.get(entry.id)
    if known is not None and (entry.api_key or further) and (reason := _unwanted(known, wanted)):
        return [f"credentials file: the key of provider {entry.id} is left out: {reason}"]
    keys = {DEFAULT_CREDENTIAL: entry.api_key} if entry.api_key else {}
    for name, key in (keys | {one.name: entry.api_keys[one.name] for one in further}).items():
        if place == "vault":
            await _seal(vault, vault_name(entry.id, name), Secret(key))
        else:
            credentials.hold(entry.id, Secret(key), name)
    if known is None:
        await catalog.put_provider(wanted)
    elif store not in {"none", known.cred_store}:
        await catalog.patch_provider(entry.id, {"cred_store": store})
    registered = {one.name: one for one in catalog.stored(entry.id).credentials} if further else {}
    for one in further:
        if registered.get(one.name, one).store != place or one.name not in registered:
            enabled = registered.get(one.name, one).enabled
            await catalog.put_credential(entry.id, replace(one, enabled=enabled))
    if place == "memory" and (keys or further):
        return [f"the key of provider {entry.id} is kept in memory only: the vault is not unlocked"]
    return []


def _unwanted(known: Provider, wanted: Provider) -> str:
    """Return why a provider that is registered already must not have the file's key, empty where it may."""
    if known.cred_store.startswith("env:"):
        return f"it takes the one in {known.cred_store.removeprefix('env:')}"
    if {site(url) for url in known.endpoints} - {site(url) for url in wanted.endpoints}:
        return "its address was changed, and a key is bound to its host"
    return ""


async def _seal(vault: Vault, name: str, secret: Secret) -> None:
    held = vault.get(name)
    if held is None or held.reveal() != secret.reveal():
        await vault.put(name, secret)


async def _seed_model(entry: _FileModel, catalog: Catalog) -> list[str]:
    if any(model.provider_id == entry.provider_id for model in catalog.fleet.by_id.get(entry.id, ())):
        return []
    if entry.provider_id not in catalog.fleet.providers:
        return [f"credentials file: model {entry.id} names the unknown provider {entry.provider_id}"]
    model = Model(
        entry.id,
        entry.provider_id,
        weight=entry.weight,
        max_context_tokens=entry.max_context_tokens,
        enabled=entry.enabled,
    )
    prices = prices_per_1k(entry.input_per_1k, entry.output_per_1k)
    await catalog.put_model(catalog.prefilled(model, prices))
    return []
