"""What is configured, and the fleet made of it. A change is durable first, then the fleet is swapped whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tokenhub_core.config import Settings
from tokenhub_core.errors import ConfigError, Kind, client_fault
from tokenhub_core.policy import Layer
from tokenhub_core.ports import Clock
from tokenhub_core.providers import endpoints
from tokenhub_core.providers.catalogue import Catalogue, priced
from tokenhub_core.routing import fleet
from tokenhub_core.routing.scoring import UNKNOWN_PRICE
from tokenhub_core.store import catalog as rows
from tokenhub_core.store.catalog import RoutingConfig, Stock
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Writer
from tokenhub_core.types import Fleet, Model, Prices, Provider, ProviderType


class Catalog:
    """Providers, models and routing defaults: what the database holds, and what only this process knows.

    The second kind (simulated ones, those from the environment) cannot be changed here and gives way to a
    stored one of the same id.
    """

    def __init__(
        self,
        database: Database,
        writer: Writer,
        *,
        prices: Catalogue,
        settings: Settings,
        clock: Clock,
        transient: Stock,
    ) -> None:
        self._database = database
        self._writer = writer
        self._prices = prices
        self._settings = settings
        self._clock = clock
        self._transient = transient
        self._version = 0
        self._routing = RoutingConfig()
        self._defaults = Layer("default")
        self._stored = Stock((), ())
        self.fleet = Fleet()
        """The current view; replaced as a whole."""

    async def load(self) -> None:
        """Read everything; called at start and after each change."""
        stock, self._routing = await asyncio.to_thread(self._read)
        self._defaults = _defaults(self._settings, self._routing)
        ids = {provider.id for provider in stock.providers}
        extra = [provider for provider in self._transient.providers if provider.id not in ids]
        kept = {provider.id for provider in extra}
        self._version += 1
        self._stored = stock
        self.fleet = fleet.build(
            [*stock.providers, *extra],
            [*stock.models, *(model for model in self._transient.models if model.provider_id in kept)],
            version=self._version,
        )

    def _read(self) -> tuple[Stock, RoutingConfig]:
        with self._database.reading() as connection:
            return rows.load(connection), rows.routing_config(connection)

    # --- providers

    def provider(self, provider_id: str) -> Provider:
        """Return a provider of the fleet; raises `TokenHubError` (`NOT_FOUND`)."""
        found = self.fleet.providers.get(provider_id)
        if found is None:
            raise client_fault(f"there is no provider {provider_id!r}", kind=Kind.NOT_FOUND, param="id")
        return found

    async def put_provider(self, provider: Provider) -> Provider:
        """Store a provider, new or replacing one; its endpoints are checked first."""
        checked = self._checked(provider)
        await self._commit(partial(rows.put_provider, provider=checked))
        return checked

    async def patch_provider(self, provider_id: str, changes: Mapping[str, Any]) -> Provider:
        """Merge changes into a stored provider and return what stands then."""
        self._is_stored(provider_id)
        if "endpoints" in changes:
            known = self.provider(provider_id)
            checked = self._checked(replace(known, endpoints=tuple(changes["endpoints"] or ())))
            changes = {**changes, "endpoints": list(checked.endpoints)}
        patched: Provider = await self._commit(
            partial(rows.patch_provider, provider_id=provider_id, changes=changes)
        )
        return patched

    async def delete_provider(self, provider_id: str) -> None:
        """Remove a stored provider and its models; raises `TokenHubError` (`NOT_FOUND`)."""
        self._is_stored(provider_id)
        await self._writer.commit(lambda connection: rows.delete_provider(connection, provider_id))
        await self.load()

    def _checked(self, provider: Provider) -> Provider:
        if not provider.endpoints:
            raise client_fault("base_url is required", param="base_url")
        if provider.type in {ProviderType.ORIGIN, ProviderType.SIMULATOR}:
            raise client_fault(f"type {provider.type} cannot be registered", param="type")
        try:
            checked = [
                endpoints.check_endpoint(url, allow_http=self._settings.allow_http)
                for url in provider.endpoints
            ]
        except ConfigError as error:
            raise client_fault(str(error), param="base_url") from None
        return replace(provider, endpoints=tuple(checked))

    def _is_stored(self, provider_id: str) -> None:
        self.provider(provider_id)
        if all(provider.id != provider_id for provider in self._stored.providers):
            message = (
                f"{provider_id!r} comes from the environment or the simulator and cannot be changed here"
            )
            raise client_fault(message, param="id")

    # --- models

    def models(self, model_id: str, provider_id: str = "") -> Sequence[Model]:
        """Return the models of this id, at one provider where it is named; raises where there are none."""
        found = [
            model for model in self.fleet.by_id.get(model_id, ()) if provider_id in ("", model.provider_id)
        ]
        if not found:
            raise client_fault(f"there is no model {model_id!r}", kind=Kind.NOT_FOUND, param="id")
        return found

    def prefilled(self, model: Model) -> Model:
        """Return the model with prices, sizes and gaps from the price catalogue where it leaves them open."""
        provider = self.fleet.providers.get(model.provider_id)
        vendor = self._prices.vendor(provider.endpoints[0]) if provider and provider.endpoints else ""
        entry = self._prices.lookup(model.name, vendor)
        filled = priced(model, entry) if entry else model
        if filled.prices == Prices() and provider is not None and provider.type is not ProviderType.VLLM:
            return replace(filled, pricing_source=UNKNOWN_PRICE)
        return filled

    async def put_model(self, model: Model) -> Model:
        """Store a model, new or replacing one."""
        self._is_stored(model.provider_id)
        await self._commit(partial(rows.put_model, model=model))
        return model

    async def add_listed(self, provider_id: str) -> int:
        """Register what the provider's price list names beyond what is registered; return how many that are."""
        provider = self.provider(provider_id)
        self._is_stored(provider_id)
        known = {model.id for model in self.fleet.models if model.provider_id == provider_id}
        listed = self._prices.sold_by(self._prices.vendor(provider.endpoints[0]))
        models = [priced(Model(e.id, provider_id), e) for e in listed if e.id not in known]
        now = self._clock.now()

        def put(connection: Any) -> None:
            for model in models:
                rows.put_model(connection, model, now=now)

        await self._writer.commit(put)
        await self.load()
        return len(models)

    async def patch_model(self, model_id: str, provider_id: str, changes: Mapping[str, Any]) -> Model:
        """Merge changes into a stored model and return what stands then."""
        self._is_stored(provider_id)
        if "prices" in changes:
            changes = {"pricing_source": "manual", **changes}
        patched: Model = await self._commit(
            partial(rows.patch_model, model_id=model_id, provider_id=provider_id, changes=changes)
        )
        return patched

    async def delete_model(self, model_id: str, provider_id: str) -> None:
        """Remove a stored model; raises `TokenHubError` (`NOT_FOUND`)."""
        self._is_stored(provider_id)
        removed = await self._writer.commit(
            lambda connection: rows.delete_model(connection, model_id, provider_id)
        )
        if not removed:
            raise client_fault(f"there is no model {model_id!r}", kind=Kind.NOT_FOUND, param="id")
        await self.load()

    # --- routing defaults

    @property
    def routing(self) -> RoutingConfig:
        """Return what was set at run time."""
        return self._routing

    def defaults(self) -> Layer:
        """Return the lowest layer of every policy: the settings, and over them what was set at run time."""
        return self._defaults

    async def put_routing(self, config: RoutingConfig) -> None:
        """Store routing defaults; they hold from the next call on."""
        await self._commit(partial(rows.put_routing_config, config=config))

    async def _commit(self, work: Callable[..., Any]) -> Any:
        result = await self._writer.commit(partial(work, now=self._clock.now()))
        await self.load()
        return result


def _defaults(settings: Settings, routing: RoutingConfig) -> Layer:
    values: dict[str, Any] = {
        "mode": settings.default_mode,
        "max_budget_usd": settings.default_max_budget_usd,
        "max_latency_ms": settings.default_max_latency_ms,
        "fallback": settings.fallback,
    }
    set_later = {
        "mode": routing.default_mode,
        "max_budget_usd": routing.default_max_budget_usd,
        "max_latency_ms": routing.default_max_latency_ms,
        "fallback": routing.fallback,
    }
    return Layer("default", {**values, **{k: v for k, v in set_later.items() if v is not None}})
