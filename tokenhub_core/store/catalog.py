"""What is configured: providers, models, aliases, routing defaults, settings.

Every function works on a connection that its caller holds, so that several of them share one transaction:

    stock = catalog.load(connection)                                     # under `database.reading()`
    await writer.commit(partial(catalog.put_provider, provider=provider, now=now))

`now` is in seconds since the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import msgspec
import orjson
from sqlalchemy import Connection, Row, Table, delete, insert, select, update

from tokenhub_core.errors import Kind, TokenHubError, client_fault
from tokenhub_core.modes import HostMode, Match, Rule
from tokenhub_core.quirks.table import QUIRKS, unknown
from tokenhub_core.store.rows import dumps, micros
from tokenhub_core.store.schema import (
    ALIASES,
    CREDENTIALS,
    HOST_MODES,
    MODELS,
    PROVIDERS,
    ROUTING_CONFIG,
    SETTINGS,
)
from tokenhub_core.types import (
    Alias,
    Credential,
    Dialect,
    Form,
    Mode,
    Model,
    Need,
    OnDisconnect,
    Prices,
    Provider,
    ProviderType,
    Sticky,
    Strategy,
    Target,
    Tier,
)

_SINGLE: Final = {"id": 1}


@dataclass(frozen=True, slots=True)
class Stock:
    """Everything that could be routed to, as stored, ordered by id."""

    providers: tuple[Provider, ...]
    models: tuple[Model, ...]
    aliases: tuple[Alias, ...] = ()
    modes: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    """Routing defaults that an operator set at run time. None: not set, the built-in default holds."""

    default_mode: Mode | None = None
    default_max_budget_usd: float | None = None
    default_max_latency_ms: int | None = None
    on_malformed_directive: str | None = None
    fallback: bool | None = None
    updated_at: float | None = None
    """Seconds since the epoch; None where nothing was ever set."""
    explore: str | None = None
    """`off` or `thompson`."""
    affinity: str | None = None
    """`on` or `off`."""


# --- providers and models ----------------------------------------------------------------------------------


def load(connection: Connection) -> Stock:
    """Return all providers, models, aliases and modes of hosts."""
    providers = connection.execute(select(PROVIDERS).order_by(PROVIDERS.c.id))
    keys: dict[str, list[Credential]] = {}
    for row in connection.execute(
        select(CREDENTIALS).order_by(CREDENTIALS.c.provider_id, CREDENTIALS.c.name)
    ):
        keys.setdefault(row.provider_id, []).append(Credential(row.name, row.store, row.enabled))
    models = connection.execute(select(MODELS).order_by(MODELS.c.id, MODELS.c.provider_id))
    aliases = connection.execute(select(ALIASES).order_by(ALIASES.c.name))
    modes = connection.execute(select(HOST_MODES))
    return Stock(
        tuple(_provider(row, tuple(keys.get(row.id, ()))) for row in providers),
        tuple(_model(row) for row in models),
        tuple(_alias(row) for row in aliases),
        tuple(Rule(Match(row.host, row.proxy_user, row.alias), HostMode(row.mode)) for row in modes),
    )


def put_provider(connection: Connection, provider: Provider, *, now: float) -> None:
    """Store `provider`; one of the same id is replaced and keeps its models."""
    values = {
        "type": provider.type.value,
        "endpoints": dumps(list(provider.endpoints)),
        "dialect": provider.dialect.value,
        "enabled": provider.enabled,
        "cred_store": provider.cred_store,
        "on_disconnect": provider.on_disconnect.value,
        "updated_at": micros(now),
    }
    _put(connection, PROVIDERS, {"id": provider.id}, values, {"created_at": micros(now)})


def patch_provider(
    connection: Connection, provider_id: str, changes: Mapping[str, Any], *, now: float
) -> Provider:
    """Merge `changes` (JSON Merge Patch, RFC 7396: null restores a default) and return what stands then.

    An unknown id is `NOT_FOUND`; an unknown field, a wrong type or a change of id is `INVALID` and names the field.
    """
    row = connection.execute(select(PROVIDERS).where(PROVIDERS.c.id == provider_id)).first()
    if row is None:
        raise _unknown("provider", provider_id)
    patched = _merged(_provider(row), changes, Provider, frozenset({"id"}))
    put_provider(connection, patched, now=now)
    return patched


def delete_provider(connection: Connection, provider_id: str) -> bool:
    """Remove a provider and, with it, its models; False where there was none."""
    return _remove(connection, PROVIDERS, {"id": provider_id})


def put_credential(connection: Connection, provider_id: str, credential: Credential, *, now: float) -> None:
    """Store what is known of a credential, not the credential; an unknown provider is `NOT_FOUND`."""
    if connection.execute(select(PROVIDERS.c.id).where(PROVIDERS.c.id == provider_id)).first() is None:
        raise _unknown("provider", provider_id)
    values = {"store": credential.store, "enabled": credential.enabled, "updated_at": micros(now)}
    key = {"provider_id": provider_id, "name": credential.name}
    _put(connection, CREDENTIALS, key, values, {"created_at": micros(now)})


def delete_credential(connection: Connection, provider_id: str, name: str) -> bool:
    """Forget one credential; False where there was none."""
    return _remove(connection, CREDENTIALS, {"provider_id": provider_id, "name": name})


def put_model(connection: Connection, model: Model, *, now: float) -> None:
    """Store `model`, replacing the one of the same id and provider; an unknown provider is `NOT_FOUND`."""
    _check(model)
    if connection.execute(select(PROVIDERS.c.id).where(PROVIDERS.c.id == model.provider_id)).first() is None:
        raise _unknown("provider", model.provider_id, param="provider_id")
    values = {
        "upstream": model.upstream,
        "weight": model.weight,
        "max_context_tokens": model.max_context_tokens,
        "max_output_tokens": model.max_output_tokens,
        **_price_columns(model.prices),
        "pricing_source": model.pricing_source,
        "enabled": model.enabled,
        "lacks": dumps(sorted(model.lacks)),
        "quirks": dumps(sorted(model.quirks)),
        "updated_at": micros(now),
    }
    key = {"id": model.id, "provider_id": model.provider_id}
    _put(connection, MODELS, key, values, {"created_at": micros(now)})


def patch_model(
    connection: Connection, model_id: str, provider_id: str, changes: Mapping[str, Any], *, now: float
) -> Model:
    """Merge `changes` into one model and return what stands then; fails as `patch_provider` does."""
    where = (MODELS.c.id == model_id) & (MODELS.c.provider_id == provider_id)
    row = connection.execute(select(MODELS).where(where)).first()
    if row is None:
        raise _unknown("model", f"{model_id} at {provider_id}")
    patched = _merged(_model(row), changes, Model, frozenset({"id", "provider_id"}))
    put_model(connection, patched, now=now)
    return patched


def reprice(connection: Connection, model: Model, prices: Prices, *, source: str, now: float) -> bool:
    """Give a stored model other prices and touch nothing else of it; False where it does not stand as `model` any more.

    What was set by hand meanwhile, or by anyone, is left as it is.
    """
    _check_prices(prices)
    was = {**_price_columns(model.prices), "pricing_source": model.pricing_source}
    where = [MODELS.c.id == model.id, MODELS.c.provider_id == model.provider_id]
    # `is_not_distinct_from`: a price that is not known is NULL, which equals nothing.
    where += [MODELS.c[name].is_not_distinct_from(value) for name, value in was.items()]
    values = {**_price_columns(prices), "pricing_source": source, "updated_at": micros(now)}
    return connection.execute(update(MODELS).where(*where).values(**values)).rowcount > 0


def delete_model(connection: Connection, model_id: str, provider_id: str) -> bool:
    """Remove one model; False where there was none."""
    return _remove(connection, MODELS, {"id": model_id, "provider_id": provider_id})


# --- aliases -----------------------------------------------------------------------------------------------


def put_alias(connection: Connection, alias: Alias, *, now: float) -> None:
    """Store `alias`, replacing the one of the same name."""
    values = {
        "strategy": alias.strategy.value,
        "targets": dumps([{"model": one.model, "weight": one.weight} for one in alias.targets]),
        "sticky": alias.sticky.value,
        "enabled": alias.enabled,
        "output_format": alias.output_format,
        "strip_think": alias.strip_think or None,
        "updated_at": micros(now),
    }
    _put(connection, ALIASES, {"name": alias.name}, values, {"created_at": micros(now)})


def delete_alias(connection: Connection, name: str) -> bool:
    """Remove one alias; False where there was none."""
    return _remove(connection, ALIASES, {"name": name})


# --- modes of hosts -----------------------------------------------------------------------------------------


def put_mode(connection: Connection, rule: Rule, *, now: float) -> None:
    """Store `rule`, replacing the one for the same calls."""
    _put(connection, HOST_MODES, _match(rule.match), {"mode": rule.mode.value, "updated_at": micros(now)})


def delete_mode(connection: Connection, match: Match) -> bool:
    """Remove the rule for these calls; False where there was none."""
    return _remove(connection, HOST_MODES, _match(match))


def _match(match: Match) -> dict[str, str]:
    return {"host": match.host, "proxy_user": match.user, "alias": match.alias}


# --- routing config ----------------------------------------------------------------------------------------


def routing_config(connection: Connection) -> RoutingConfig:
    """Return what was set; a config without any value where nothing was."""
    row = connection.execute(select(ROUTING_CONFIG)).first()
    if row is None:
        return RoutingConfig()
    return RoutingConfig(
        Mode(row.default_mode) if row.default_mode is not None else None,
        row.default_max_budget_usd,
        row.default_max_latency_ms,
        row.on_malformed_directive,
        row.fallback,
        row.updated_at / 1e6,
        row.explore,
        row.affinity,
    )


def put_routing_config(connection: Connection, config: RoutingConfig, *, now: float) -> None:
    """Store the whole config; its own `updated_at` is replaced by `now`."""
    values = {
        "default_mode": config.default_mode.value if config.default_mode is not None else None,
        "default_max_budget_usd": config.default_max_budget_usd,
        "default_max_latency_ms": config.default_max_latency_ms,
        "on_malformed_directive": config.on_malformed_directive,
        "fallback": config.fallback,
        "explore": config.explore,
        "affinity": config.affinity,
        "updated_at": micros(now),
    }
    _put(connection, ROUTING_CONFIG, _SINGLE, values)


# --- settings ----------------------------------------------------------------------------------------------


def settings(connection: Connection) -> dict[str, str]:
    """Return every stored setting."""
    return {row.key: row.value for row in connection.execute(select(SETTINGS))}


def setting(connection: Connection, key: str) -> str | None:
    """Return one setting, None where it was never stored."""
    return connection.execute(select(SETTINGS.c.value).where(SETTINGS.c.key == key)).scalar()


def put_setting(connection: Connection, key: str, value: str) -> None:
    """Store one setting."""
    _put(connection, SETTINGS, {"key": key}, {"value": value})


def delete_setting(connection: Connection, key: str) -> bool:
    """Remove one setting; False where there was none."""
    return _remove(connection, SETTINGS, {"key": key})


# --- rows and values ---------------------------------------------------------------------------------------


def _provider(row: Row[Any], credentials: tuple[Credential, ...] = ()) -> Provider:
    return Provider(
        row.id,
        ProviderType(row.type),
        tuple(orjson.loads(row.endpoints)),
        Dialect(row.dialect),
        row.enabled,
        row.cred_store,
        credentials=credentials,
        on_disconnect=OnDisconnect(row.on_disconnect),
    )


def _price_columns(prices: Prices) -> dict[str, Any]:
    return {
        "input_nanousd": prices.input,
        "output_nanousd": prices.output,
        "cache_read_nanousd": prices.cache_read,
        "cache_write_nanousd": prices.cache_write,
        "reasoning_nanousd": prices.reasoning,
        "batch_share": prices.batch,
        "price_tiers": dumps([asdict(tier) for tier in prices.tiers]),
    }


def _prices(row: Row[Any]) -> Prices:
    return Prices(
        row.input_nanousd,
        row.output_nanousd,
        row.cache_read_nanousd,
        row.cache_write_nanousd,
        row.reasoning_nanousd,
        row.batch_share,
        tuple(Tier(**tier) for tier in orjson.loads(row.price_tiers)),
    )


def _model(row: Row[Any]) -> Model:
    return Model(
        row.id,
        row.provider_id,
        row.upstream,
        row.weight,
        row.max_context_tokens,
        row.max_output_tokens,
        _prices(row),
        row.pricing_source,
        row.enabled,
        frozenset(Need(need) for need in orjson.loads(row.lacks)),
        frozenset(orjson.loads(row.quirks)),
    )


def _alias(row: Row[Any]) -> Alias:
    return Alias(
        row.name,
        tuple(Target(one["model"], one["weight"]) for one in orjson.loads(row.targets)),
        Strategy(row.strategy),
        Sticky(row.sticky),
        row.enabled,
        Form(row.output_format) if row.output_format else None,
        bool(row.strip_think),
    )


def _merged[T](old: T, changes: Mapping[str, Any], kind: type[T], fixed: frozenset[str]) -> T:
    merged: dict[str, Any] = msgspec.to_builtins(old)
    for name, value in changes.items():
        if name not in merged:
            raise client_fault(f"there is no field {name!r}", param=name)
        if name in fixed and value != merged[name]:
            raise client_fault(f"{name} cannot be changed", param=name)
        try:
            _merge(merged, name, value)
            msgspec.convert(merged, kind)
        except msgspec.ValidationError as error:
            raise client_fault(f"{name}: {error}", param=name) from error
    return msgspec.convert(merged, kind)


def _merge(target: dict[str, Any], name: str, value: Any) -> None:
    if value is None:
        target.pop(name, None)
    elif isinstance(value, Mapping) and isinstance(target.get(name), dict):
        for inner, change in value.items():
            if inner not in target[name]:
                raise client_fault(f"there is no field {name}.{inner}", param=name)
            _merge(target[name], inner, change)
    else:
        target[name] = value


def _check(model: Model) -> None:
    if strange := unknown(model.quirks):
        known = ", ".join(QUIRKS)
        raise client_fault(f"there is no quirk {strange[0]!r}; known are {known}", param="quirks")
    if not 0 <= model.weight <= 10:
        raise client_fault("weight must be between 0 and 10", param="weight")
    for name in ("max_context_tokens", "max_output_tokens"):
        if not 0 <= getattr(model, name) < 2**53:
            raise client_fault(f"{name} must be 0 or more", param=name)
    _check_prices(model.prices)


def _check_prices(prices: Prices) -> None:
    rates: tuple[Prices | Tier, ...] = (prices, *prices.tiers)
    each = [price for one in rates for price in (one.input, one.output, one.cache_read, one.cache_write)]
    if any(price < 0 or not math.isfinite(price) for price in (*each, prices.reasoning) if price is not None):
        raise client_fault("prices must be 0 or more", param="prices")
    if prices.batch is not None and not 0 < prices.batch <= 1:
        raise client_fault("batch must be a share above 0 and at most 1", param="prices")
    lines = [tier.above for tier in prices.tiers]
    if any(line <= 0 for line in lines) or lines != sorted(set(lines)):
        raise client_fault("tiers must begin above 0 and each above the one before", param="prices")


def _unknown(noun: str, name: str, *, param: str = "id") -> TokenHubError:
    return client_fault(f"there is no {noun} {name!r}", kind=Kind.NOT_FOUND, param=param)


def _put(
    connection: Connection,
    table: Table,
    key: Mapping[str, Any],
    values: Mapping[str, Any],
    first: Mapping[str, Any] | None = None,
) -> None:
    """Update the row of `key`, or insert it, with the `first` values too; the write lock keeps others out."""
    where = [table.c[name] == value for name, value in key.items()]
    if not connection.execute(update(table).where(*where).values(**values)).rowcount:
        connection.execute(insert(table).values(**key, **values, **(first or {})))


def _remove(connection: Connection, table: Table, key: Mapping[str, Any]) -> bool:
    where = [table.c[name] == value for name, value in key.items()]
    return connection.execute(delete(table).where(*where)).rowcount > 0
