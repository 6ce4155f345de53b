"""What is configured, and the fleet made of it. A change is durable first, then the fleet is swapped whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from tokenhub_core.config import PREFIX, Settings
from tokenhub_core.errors import ConfigError, Kind, TokenHubError, client_fault
from tokenhub_core.modes import Match, Modes, Rule, parsed
from tokenhub_core.policy import Layer
from tokenhub_core.ports import Clock
from tokenhub_core.providers import endpoints, pricelist
from tokenhub_core.providers.adapters import also_of
from tokenhub_core.providers.catalogue import Catalogue, priced
from tokenhub_core.providers.pricelist import Difference
from tokenhub_core.routing import aliases, fleet
from tokenhub_core.routing.eligibility import UNKNOWN_PRICE
from tokenhub_core.store import catalog as rows
from tokenhub_core.store import generations
from tokenhub_core.store.catalog import RoutingConfig, Stock
from tokenhub_core.store.database import Database
from tokenhub_core.store.writer import Commits, Work
from tokenhub_core.types import Alias, Credential, Fleet, Model, Prices, Provider, ProviderType

NANO_PER_1K: Final = 1e6
"""Nano-dollars per token for one dollar per thousand tokens."""
_MAX_PROVIDER_ID: Final = 64
_MAX_MODEL_ID: Final = 200


class Catalog:
    """Providers, models, aliases, modes and routing defaults: what is stored, and what only this process knows.

    The second kind (simulated ones, those from the environment) cannot be changed here and gives way to a
    stored one of the same id. While answers are simulated, stored providers stay out of service: a simulation
    must not spend anybody's money.
    """

    def __init__(
        self,
        database: Database,
        writer: Commits,
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
        self._reading = asyncio.Lock()
        self._routing = RoutingConfig()
        self._defaults = Layer("default")
        self._stored = Stock((), ())
        self._set_modes = parsed(settings.host_modes)
        self.modes = Modes(self._set_modes)
        """What is done with calls, by host, caller and alias; replaced as a whole."""
        self.fleet = Fleet()
        """The current view; replaced as a whole."""

    async def load(self) -> None:
        """Read everything; called at start and after each change."""
        # One at a time: of two reads that overlap the older one could be the last to be put in place.
        async with self._reading:
            self._stored, self._routing = await asyncio.to_thread(self._read)
            self._defaults = _defaults(self._settings, self._routing)
            self._version += 1
            self.modes = Modes((*self._set_modes, *self._stored.modes))
            self.fleet = self.together(self._stored)

    def renew(self, settings: Settings, transient: Stock, modes: Sequence[Rule]) -> None:
        """Go on with other settings, what only this process knows, and the modes that the settings name."""
        self._settings, self._transient, self._set_modes = settings, transient, tuple(modes)
        self._defaults = _defaults(settings, self._routing)
        self._version += 1
        self.modes = Modes((*self._set_modes, *self._stored.modes))
        self.fleet = self.together(self._stored)

    def together(self, stored: Stock) -> Fleet:
        """Return the fleet that calls meet where this is stored."""
        first, second = stored, self._transient
        if self._settings.simulate:
            resting = tuple(replace(provider, enabled=False) for provider in stored.providers)
            first, second = self._transient, Stock(resting, stored.models)
        ids = {provider.id for provider in first.providers}
        extra = [provider for provider in second.providers if provider.id not in ids]
        kept = {provider.id for provider in extra}
        return fleet.build(
            [_spoken(provider) for provider in (*first.providers, *extra)],
            [*first.models, *(model for model in second.models if model.provider_id in kept)],
            version=self._version,
            aliases=stored.aliases,
        )

    def _read(self) -> tuple[Stock, RoutingConfig]:
        with self._database.reading() as connection:
            return rows.load(connection), rows.routing_config(connection)

    # --- providers

    async def put_provider(self, provider: Provider) -> Provider:
        """Store a provider, new or replacing one, as `checked` returns it."""
        checked = self.checked(provider)
        await self._commit(partial(rows.put_provider, provider=checked, now=self._clock.now()))
        return checked

    async def patch_provider(self, provider_id: str, changes: Mapping[str, Any]) -> Provider:
        """Merge changes, by the field names of `Provider`, into a stored one and return what stands then."""
        checked = self.checked(replace(self.stored(provider_id), **changes))
        plain = {name: msgspec.to_builtins(getattr(checked, name)) for name in changes}
        now = self._clock.now()
        return await self._commit(
            partial(rows.patch_provider, provider_id=provider_id, changes=plain, now=now)
        )

    async def delete_provider(self, provider_id: str) -> None:
        """Remove a stored provider and its models; raises `TokenHubError` (`NOT_FOUND`)."""
        self.stored(provider_id)
        await self._commit(partial(rows.delete_provider, provider_id=provider_id))

    async def put_credential(self, provider_id: str, credential: Credential) -> Credential:
        """Store what is known of a credential of a stored provider; raises `TokenHubError` where it cannot be."""
        self.stored(provider_id)
        self.check_credential(credential)
        now = self._clock.now()
        await self._commit(
            partial(rows.put_credential, provider_id=provider_id, credential=credential, now=now)
        )
        return credential

    def check_credential(self, credential: Credential) -> None:
        """Refuse (`INVALID`) what cannot be stored: a name that is none, a place where no key is kept."""
        _check_name(credential.name, _MAX_PROVIDER_ID, "/:", param="name")
        if credential.store:
            _check_store(credential.store)

    async def delete_credential(self, provider_id: str, name: str) -> None:
        """Forget a further credential of a stored provider; raises `TokenHubError` (`NOT_FOUND`)."""
        self.credential(self.stored(provider_id), name)
        await self._commit(partial(rows.delete_credential, provider_id=provider_id, name=name))

    def credential(self, provider: Provider, name: str) -> Credential:
        """Return the credential of this name; raises `TokenHubError` (`NOT_FOUND`)."""
        for one in provider.keys:
            if one.name == name:
                return one
        message = f"{provider.id!r} has no credential {name!r}"
        raise client_fault(message, kind=Kind.NOT_FOUND, param="name")

    def checked(self, provider: Provider) -> Provider:
        """Return the provider with clean endpoints; raises `TokenHubError` (`INVALID`) where it cannot be stored."""
        _check_name(provider.id, _MAX_PROVIDER_ID, "/:")
        _check_store(provider.cred_store, "none")
        if self._settings.simulate and any(one.id == provider.id for one in self._transient.providers):
            raise _fixed(provider.id, "id")
        if not provider.endpoints:
            raise client_fault("base_url is required", param="base_url")
        if provider.type in {ProviderType.ORIGIN, ProviderType.SIMULATOR}:
            raise client_fault(f"type {provider.type} cannot be registered", param="type")
        try:
            checked = [
                endpoints.check_endpoint(
                    url,
                    allow_http=self._settings.allow_http,
                    versioned=provider.type is ProviderType.AZURE,
                )
                for url in provider.endpoints
            ]
        except ConfigError as error:
            raise client_fault(str(error), param="base_url") from None
        if any(endpoints.site(url).startswith(f"{endpoints.SIMULATED_SCHEME}:") for url in checked):
            raise client_fault("only the simulator has sim: endpoints", param="base_url")
        return replace(provider, endpoints=tuple(checked))

    def stored(self, provider_id: str, *, param: str = "id") -> Provider:
        """Return a provider that can be changed, as it is stored; raises `TokenHubError` that names `param`."""
        for provider in self._stored.providers:
            if provider.id == provider_id:
                return provider
        if provider_id not in self.fleet.providers:
            raise client_fault(f"there is no provider {provider_id!r}", kind=Kind.NOT_FOUND, param=param)
        raise _fixed(provider_id, param)

    # --- models

    def models(self, model_id: str, provider_id: str = "") -> Sequence[Model]:
        """Return the models of this id, at one provider where it is named; raises where there are none."""
        found = [
            model for model in self.fleet.by_id.get(model_id, ()) if provider_id in ("", model.provider_id)
        ]
        if not found:
            raise client_fault(f"there is no model {model_id!r}", kind=Kind.NOT_FOUND, param="id")
        return found

    def prefilled(self, model: Model, prices: Prices | None, provider: Provider | None = None) -> Model:
        """Return the model with these prices; what is left open, sizes too, comes from the price catalogue.

        `provider` is its own where that is not registered yet, or is another one soon.
        """
        provider = provider or self.fleet.providers.get(model.provider_id)
        vendor = self._prices.vendor(provider.endpoints[0]) if provider and provider.endpoints else ""
        entry = self._prices.lookup(model.name, vendor)
        filled = priced(model, entry) if entry else model
        if prices is None and provider is not None and provider.type is ProviderType.VLLM:
            # Whoever runs the model pays for the machine, not by the token.
            prices = Prices()
        if prices is not None:
            return replace(filled, prices=prices, pricing_source="manual")
        if entry is None or entry.prices is None:
            return replace(filled, pricing_source=UNKNOWN_PRICE)
        return filled

    def check_name(self, name: str, *, param: str = "id") -> None:
        """Refuse (`INVALID`) what can be no model's or alias's name."""
        _check_name(name, _MAX_MODEL_ID, param=param)

    async def put_model(self, model: Model) -> Model:
        """Store a model, new or replacing one."""
        self.check_name(model.id)
        self.stored(model.provider_id, param="provider_id")
        await self._commit(partial(rows.put_model, model=model, now=self._clock.now()))
        return model

    async def add_listed(self, provider_id: str) -> int:
        """Register what the provider's price list names beyond what is registered; return how many that are."""
        provider = self.stored(provider_id)
        known = {model.id for model in self.fleet.models if model.provider_id == provider_id}
        listed = self._prices.sold_by(self._prices.vendor(provider.endpoints[0]))
        models = [priced(Model(e.id, provider_id), e) for e in listed if e.id not in known]
        now = self._clock.now()

        def put(connection: Connection) -> None:
            for model in models:
                rows.put_model(connection, model, now=now)

        await self._commit(put)
        return len(models)

    async def patch_model(self, model_id: str, provider_id: str, changes: Mapping[str, Any]) -> Model:
        """Merge changes into a stored model and return what stands then."""
        self.stored(provider_id)
        if "prices" in changes:
            unknown = any(m.pricing_source == UNKNOWN_PRICE for m in self.models(model_id, provider_id))
            if unknown and not {"input", "output"} <= changes["prices"].keys():
                raise _half_a_price()
            prices = dict(changes["prices"])
            if "tiers" not in prices and prices.keys() & {"input", "output"}:
                # What a list said of long calls does not go with a price of one's own.
                prices["tiers"] = ()
            changes = {"pricing_source": "manual", **changes, "prices": prices}
        return await self._commit(
            partial(
                rows.patch_model,
                model_id=model_id,
                provider_id=provider_id,
                changes=msgspec.to_builtins(changes),
                now=self._clock.now(),
            )
        )

    async def reprice(
        self, listed: Catalogue | None, *, source: str, apply: bool
    ) -> tuple[Difference, frozenset[tuple[str, str]]]:
        """Compare the stored models with a price list (None: the installed one), and take its prices where `apply`.

        Returns the difference and the (model, provider) that have new prices now: not those that somebody changed
        in the meantime. The list itself is not kept: what is registered later is priced from the installed one.
        """
        stock = self._stored
        providers = {provider.id: provider for provider in stock.providers}
        difference = pricelist.compare(stock.models, providers, (listed or self._prices).price)
        if not apply or not difference.changes:
            return difference, frozenset()
        now = self._clock.now()

        def put(connection: Connection) -> frozenset[tuple[str, str]]:
            return frozenset(
                (change.model.id, change.model.provider_id)
                for change in difference.changes
                if rows.reprice(connection, change.model, change.prices, source=source, now=now)
            )

        return difference, await self._commit(put)

    async def delete_model(self, model_id: str, provider_id: str) -> None:
        """Remove a stored model; raises `TokenHubError` (`NOT_FOUND`)."""
        self.stored(provider_id)
        work = partial(rows.delete_model, model_id=model_id, provider_id=provider_id)
        if not await self._commit(work):
            raise client_fault(f"there is no model {model_id!r}", kind=Kind.NOT_FOUND, param="id")

    # --- aliases

    def alias(self, name: str) -> Alias:
        """Return the alias of this name; raises `TokenHubError` (`NOT_FOUND`)."""
        found = self.fleet.aliases.get(name)
        if found is None:
            raise client_fault(f"there is no alias {name!r}", kind=Kind.NOT_FOUND, param="name")
        return found

    async def put_alias(self, alias: Alias) -> Alias:
        """Store an alias, new or replacing one; raises `TokenHubError` (`INVALID`) where it cannot lead to a model."""
        self.check_name(alias.name, param="name")
        aliases.check(alias, self.fleet)
        await self._commit(partial(rows.put_alias, alias=alias, now=self._clock.now()))
        return alias

    async def delete_alias(self, name: str) -> None:
        """Remove an alias; raises `TokenHubError` (`NOT_FOUND`)."""
        if not await self._commit(partial(rows.delete_alias, name=name)):
            raise client_fault(f"there is no alias {name!r}", kind=Kind.NOT_FOUND, param="name")

    # --- modes of hosts

    def is_stored(self, rule: Rule) -> bool:
        """Tell whether a rule was set at run time, and is not one of the settings."""
        return rule in self._stored.modes

    async def put_mode(self, rule: Rule) -> None:
        """Store a rule, new or replacing the one for the same calls; raises `TokenHubError` (`INVALID`)."""
        if rule.match.alias and rule.match.alias not in self.fleet.aliases:
            raise client_fault(f"there is no alias {rule.match.alias!r}", param="alias")
        await self._commit(partial(rows.put_mode, rule=rule, now=self._clock.now()))

    async def delete_mode(self, match: Match) -> None:
        """Remove a stored rule, so that the next one decides; raises `TokenHubError` (`NOT_FOUND`)."""
        if not await self._commit(partial(rows.delete_mode, match=match)):
            raise client_fault("no mode is stored for these calls", kind=Kind.NOT_FOUND, param="host")

    # --- routing defaults

    @property
    def routing(self) -> RoutingConfig:
        """Return what was set at run time."""
        return self._routing

    @property
    def explore(self) -> str:
        """Return how the order of candidates is explored where no model is named: `off` or `thompson`."""
        return self._routing.explore or self._settings.explore

    @property
    def affinity(self) -> str:
        """Return whether conversations are known again: `on` or `off`."""
        return self._routing.affinity or self._settings.affinity

    @property
    def on_malformed_directive(self) -> str:
        """Return what a malformed directive does: `reject` or `ignore`; `off`: none is read."""
        return self._routing.on_malformed_directive or self._settings.directives

    def defaults(self) -> Layer:
        """Return the lowest layer of every policy: the settings, and over them what was set at run time."""
        return self._defaults

    async def put_routing(self, config: RoutingConfig) -> None:
        """Store routing defaults; they hold from the next call on."""
        await self._commit(partial(rows.put_routing_config, config=config, now=self._clock.now()))

    async def change[T](self, work: Work[T]) -> T:
        """Do what changes more than one of these at once, in one transaction."""
        return await self._commit(work)

    async def _commit[T](self, work: Work[T]) -> T:
        """Do `work` and read again, also when whoever asked for it leaves: the fleet must follow the rows."""

        def counting(connection: Connection) -> T:
            result = work(connection)
            generations.counted(connection, generations.CATALOG)
            return result

        async def both() -> T:
            result = await self._writer.commit(counting)
            await self.load()
            return result

        return await asyncio.shield(asyncio.create_task(both(), name="catalog commit"))


def _spoken(provider: Provider) -> Provider:
    """Return the provider with all that it is known to speak; that follows from where it is and is not stored."""
    return replace(provider, also=provider.also or also_of(provider.type, *provider.endpoints))


def prices_per_1k(input_usd: float | None, output_usd: float | None) -> Prices | None:
    """Return the prices of these dollars per thousand tokens, None where neither is given.

    One without the other is refused (`INVALID`): the missing one would be taken for free.
    """
    if input_usd is None and output_usd is None:
        return None
    if input_usd is None or output_usd is None:
        raise _half_a_price()
    return Prices(nano_per_token(input_usd), nano_per_token(output_usd))


def nano_per_token(usd_per_1k: float) -> float:
    """Return nano-dollars per token, without the noise that a decimal fraction has in binary."""
    return round(usd_per_1k * NANO_PER_1K, 6)


def _fixed(provider_id: str, param: str) -> TokenHubError:
    message = f"{provider_id!r} comes from the environment or the simulator and cannot be changed here"
    return client_fault(message, param=param)


def _half_a_price() -> TokenHubError:
    return client_fault("give input_per_1k and output_per_1k, or neither", param="input_per_1k")


def _check_name(name: str, most: int, without: str = "", *, param: str = "id") -> None:
    """Refuse an id that could not be told apart, stand in a header, or be the last part of a URL."""
    plain = name.isprintable() and name == name.strip() and name not in {"", ".", ".."}
    if not plain or len(name) > most or any(char in name for char in without):
        besides = f", without {' and '.join(without)}" if without else ""
        raise client_fault(f"{param} must be 1 to {most} visible characters{besides}", param=param)


def _check_store(store: str, *besides: str) -> None:
    kind, _, variable = store.partition(":")
    if kind == "env" and variable.isidentifier() and variable.isascii():
        if variable.startswith(PREFIX):
            raise client_fault(f"{variable} is no provider's credential", param="cred_store")
    elif store not in {"vault", "memory", *besides}:
        choice = "vault, memory, env:NAME or none" if besides else "vault, memory or env:NAME"
        raise client_fault(f"cred_store must be {choice}", param="cred_store")


def _defaults(settings: Settings, routing: RoutingConfig) -> Layer:
    values: dict[str, Any] = {
        "mode": settings.default_mode,
        "max_budget_usd": settings.default_max_budget_usd,
        "max_latency_ms": settings.default_max_latency_ms,
        "fallback": settings.fallback,
        "lossy": settings.lossy,
    }
    if settings.hedge is not None:
        values["hedge"] = settings.hedge
    if settings.temporal_enabled and settings.temporal_calls == "all":
        values["durable"] = True
    output = {
        "output_format": settings.output_format,
        "strip_think": settings.strip_think,
        "validate": settings.validate_output,
        "buffered": settings.buffer_checked,
        "guarded": settings.guarded,
        "resume": settings.resume,
    }
    values |= {name: value for name, value in output.items() if value}
    set_later = {
        "mode": routing.default_mode,
        "max_budget_usd": routing.default_max_budget_usd,
        "max_latency_ms": routing.default_max_latency_ms,
        "fallback": routing.fallback,
    }
    return Layer("default", {**values, **{k: v for k, v in set_later.items() if v is not None}})
