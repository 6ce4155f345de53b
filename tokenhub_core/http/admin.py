"""The admin API, `/admin/v1`: what is registered, what happened, what would happen."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from aiohttp import web

from tokenhub_core import __version__, policy
from tokenhub_core.catalog import Catalog
from tokenhub_core.config import Settings
from tokenhub_core.errors import client_fault
from tokenhub_core.health.tracker import HealthTracker
from tokenhub_core.http import shapes
from tokenhub_core.http.credentials import Safe
from tokenhub_core.http.sessions import Sessions
from tokenhub_core.http.side import LEAVING, answer
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.providers.endpoints import site
from tokenhub_core.store.catalog import RoutingConfig
from tokenhub_core.store.rows import dumps
from tokenhub_core.telemetry.events import Bus, Listener
from tokenhub_core.types import DEFAULT_CREDENTIAL, Json, Provider
from tokenhub_core.vault.vault import Vault

BASE: Final = "/admin/v1"
HEARTBEAT: Final = 15.0
"""Seconds between two comments on a silent event stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the admin API works on."""

    catalog: Catalog
    vault: Vault
    safe: Safe
    health: HealthTracker
    bus: Bus
    sessions: Sessions
    clock: Clock
    settings: Settings


class Admin:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._catalog = desk.catalog
        self._turn = asyncio.Lock()

    @property
    def desk(self) -> Desk:
        """Return what this works on."""
        return self._desk

    def routes(self) -> list[web.RouteDef]:
        """Return all routes of the admin API."""
        table = (
            ("GET", "/info", self._info),
            ("GET", "/providers", self._providers),
            ("POST", "/providers", self._put_provider),
            ("PATCH", "/providers/{id}", self._patch_provider),
            ("DELETE", "/providers/{id}", self._delete_provider),
            ("POST", "/providers/{id}/catalogue", self._add_listed),
            ("GET", "/models", self._models),
            ("POST", "/models", self._put_model),
            ("PATCH", r"/models/{id:.+}", self._patch_model),
            ("DELETE", r"/models/{id:.+}", self._delete_model),
            ("GET", "/routing-config", self._routing),
            ("PUT", "/routing-config", self._put_routing),
            ("GET", "/health", self._health),
        )
        routes = [web.route(method, BASE + path, handler) for method, path, handler in table]
        # A stream has no head without a body: aiohttp would write the events all the same.
        return [*routes, web.get(BASE + "/events", self._events, allow_head=False)]

    # --- who and what

    async def _info(self, request: web.Request) -> web.Response:
        del request
        desk = self._desk
        return answer(
            {
                "tokenhub": "admin",
                "version": __version__,
                "simulated": desk.settings.simulate,
                "vault": desk.vault.state.value,
                "providers": len(self._catalog.fleet.providers),
                "models": len(self._catalog.fleet.models),
                "listeners": desk.bus.listeners,
            }
        )

    # --- providers

    def _shown(self, provider: Provider) -> Json:
        models = sum(model.provider_id == provider.id for model in self._catalog.fleet.models)
        return shapes.provider_json(provider, models=models, credentials=self._desk.safe.shown(provider))

    def _answered(self, stored: Provider, status: int) -> web.Response:
        return answer(self._shown(self._catalog.fleet.providers[stored.id]), status)

    async def _providers(self, request: web.Request) -> web.Response:
        del request
        items = [self._shown(provider) for provider in self._catalog.fleet.providers.values()]
        return answer({"items": items, "total": len(items)})

    async def _put_provider(self, request: web.Request) -> web.Response:
        """Register a provider. One that is known keeps its credential unless a new one is given."""
        body = await shapes.read(request, shapes.ProviderBody)

        async def put() -> web.Response:
            known = self._catalog.fleet.providers.get(body.id)
            wanted = shapes.provider_of(body, known.cred_store if known else "none")
            place = Placing(known, self._catalog.checked(wanted), Secret(body.api_key), bool(body.cred_store))
            stored = await self._placed(place)
            await self._catalog.put_provider(stored)
            await self.settled(place, stored)
            return self._answered(stored, 200 if known else 201)

        return await self.in_turn(put)

    async def _patch_provider(self, request: web.Request) -> web.Response:
        patch = await shapes.read(request, shapes.ProviderPatch)
        changes = shapes.provider_changes(patch)
        key = Secret(patch.api_key if isinstance(patch.api_key, str) else "")

        async def change() -> web.Response:
            known = self._catalog.stored(request.match_info["id"])
            changed = self._catalog.checked(replace(known, **changes))
            place = Placing(known, changed, key, "cred_store" in changes)
            stored = await self._placed(place)
            await self._catalog.patch_provider(known.id, {**changes, "cred_store": stored.cred_store})
            await self.settled(place, stored)
            return self._answered(stored, 200)

        return await self.in_turn(change)

    async def _delete_provider(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]

        async def delete() -> web.Response:
            self._catalog.stored(name)
            # The credential goes first: whoever registers the id again must not find it.
            await self._desk.safe.forget(name)
            await self._catalog.delete_provider(name)
            self._desk.health.forget(name)
            return answer({"ok": True})

        return await self.in_turn(delete)

    async def in_turn(self, work: Callable[[], Awaitable[web.Response]]) -> web.Response:
        """Change a provider and its credential together: one change at a time, to its end if the client leaves."""

        async def alone() -> web.Response:
            async with self._turn:
                return await work()

        return await asyncio.shield(asyncio.create_task(alone(), name="provider change"))

    async def _placed(self, place: Placing) -> Provider:
        """Put the credential away and return the provider that knows where it is."""
        place.check()
        changed, vault = place.changed, self._desk.vault
        if place.known is None:
            # The name may have been used before; nobody inherits a credential with it.
            await self._desk.safe.forget(changed.id)
        if not place.key:
            return changed
        keeps = place.named or (changed.cred_store == "memory" and not vault.open)
        store = changed.cred_store if keeps else "vault"
        await self._desk.safe.stow(changed.id, DEFAULT_CREDENTIAL, place.key, store)
        return replace(changed, cred_store=store)

    async def settled(self, place: Placing, stored: Provider) -> None:
        """Forget what does not hold any more: a credential kept elsewhere, the health of another address."""
        desk = self._desk
        if stored.cred_store != "memory":
            desk.safe.credentials.drop(stored.id)
        if stored.cred_store != "vault":
            await desk.safe.unseal(stored.id)
        if place.moves(stored):
            desk.health.forget(stored.id)
            name = None if place.relocates(stored) else DEFAULT_CREDENTIAL
            desk.safe.keyring.forget(stored.id, name, at=desk.clock.now(), why="the provider was changed")

    async def unseal(self, name: str, credential: str) -> None:
        """Forget a further credential of a provider."""
        self._desk.safe.credentials.drop(name, credential)
        await self._desk.safe.unseal(name, credential)

    async def gone(self, name: str) -> None:
        """Forget what belonged to a provider."""
        await self._desk.safe.forget(name)
        self._desk.health.forget(name)

    async def _add_listed(self, request: web.Request) -> web.Response:
        """Register every model that the provider's price list names and that is not registered yet."""
        added = await self._catalog.add_listed(request.match_info["id"])
        return answer({"added": added}, 201)

    # --- models

    async def _models(self, request: web.Request) -> web.Response:
        only = request.query.get("provider", "")
        items = [
            shapes.model_json(model)
            for model in self._catalog.fleet.models
            if only in ("", model.provider_id)
        ]
        return answer({"items": items, "total": len(items)})

    async def _put_model(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, shapes.ModelBody)
        model = self._catalog.prefilled(shapes.model_of(body), shapes.prices_of(body))
        known = any(one.provider_id == body.provider_id for one in self._catalog.fleet.by_id.get(body.id, ()))
        await self._catalog.put_model(model)
        return answer(shapes.model_json(model), 200 if known else 201)

    async def _patch_model(self, request: web.Request) -> web.Response:
        changes = shapes.model_changes(await shapes.read(request, shapes.ModelPatch))
        model_id, provider_id = self._one_model(request)
        patched = await self._catalog.patch_model(model_id, provider_id, changes)
        return answer(shapes.model_json(patched))

    async def _delete_model(self, request: web.Request) -> web.Response:
        await self._catalog.delete_model(*self._one_model(request))
        return answer({"ok": True})

    def _one_model(self, request: web.Request) -> tuple[str, str]:
        """Return the model that the path names; where several providers serve it, the query must name one."""
        found = self._catalog.models(request.match_info["id"], request.query.get("provider", ""))
        if len(found) > 1:
            raise client_fault("several providers serve this model; add ?provider=", param="provider")
        return found[0].id, found[0].provider_id

    # --- routing

    async def _routing(self, request: web.Request) -> web.Response:
        del request
        effective = policy.merge([self._catalog.defaults()])
        return answer(
            {
                **routing_json(self._catalog.routing),
                "effective": {
                    "default_mode": effective.mode.value,
                    "default_max_budget_usd": effective.max_budget_usd,
                    "default_max_latency_ms": effective.max_latency_ms,
                    "on_malformed_directive": self._catalog.on_malformed_directive,
                    "fallback": effective.fallback,
                    "explore": self._catalog.explore,
                    "affinity": self._catalog.affinity,
                },
            }
        )

    async def _put_routing(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, shapes.RoutingBody)
        await self._catalog.put_routing(RoutingConfig(**shapes.given(body)))
        return await self._routing(request)

    async def _health(self, request: web.Request) -> web.Response:
        del request
        now = self._desk.clock.monotonic()
        age = self._desk.clock.now() - now
        views = self._desk.health.snapshot(now)
        known = dict.fromkeys([*self._catalog.fleet.providers, *views])
        providers = self._catalog.fleet.providers
        rests = {name: self._desk.safe.rests(providers[name]) for name in known if name in providers}
        return answer(
            {
                "providers": [
                    {**shapes.health_json(n, views.get(n), age=age), **rests.get(n, {})} for n in known
                ]
            }
        )

    # --- what happened

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Stream events. `Last-Event-ID` resumes; `?replay=true` begins with the recent ones."""
        bus = self._desk.bus
        first = bus.place(
            request.headers.get("last-event-id", ""), replay=request.query.get("replay") == "true"
        )
        response = web.StreamResponse(
            headers={"content-type": "text/event-stream", "cache-control": "no-store", "server": "tokenhub"}
        )
        await response.prepare(request)
        await response.write(b'event: connected\ndata: {"status":"ok"}\n\n')
        over = self._desk.sessions.over(request, request.app[LEAVING])
        leaving = asyncio.create_task(over, name="events until leaving")
        with bus.listen(first) as listener:
            try:
                while not leaving.done():
                    await self._tell(response, listener, leaving)
            except ConnectionError:
                return response
            finally:
                leaving.cancel()
        await response.write_eof()
        return response

    async def _tell(
        self, response: web.StreamResponse, listener: Listener, leaving: asyncio.Task[Any]
    ) -> None:
        """Write what has come, or a comment where nothing did for a while."""
        ready = asyncio.create_task(listener.ready(), name="next event")
        try:
            await asyncio.wait({ready, leaving}, timeout=HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        told = [
            f"id: {listener.place(event)}\nevent: {event.type}\ndata: {dumps(event.data)}\n\n"
            for event in listener.take()
        ]
        await response.write("".join(told).encode() or b": still here\n\n")


@dataclass(frozen=True, slots=True)
class Placing:
    """A provider as it was and as it is to be, and what was said of its credential."""

    known: Provider | None
    changed: Provider
    """Clean."""
    key: Secret
    named: bool
    """Whether the request names the store."""

    def check(self) -> None:
        """Refuse a key that has no place, and a credential that would go to another host without being shown.

        Naming another variable of the server's environment counts as showing it; naming the vault does not.
        """
        store = self.changed.cred_store
        if self.key and self.named and store not in {"vault", "memory"}:
            raise client_fault(f"an api_key cannot be kept in cred_store {store}", param="cred_store")
        moved = _sites(self.changed) - _sites(self.known) if self.known is not None else frozenset()
        if self.known is not None and moved and any(one.store for one in self.known.credentials):
            raise client_fault(
                "the further credentials are bound to their host: remove them to change the host",
                param="base_url",
            )
        if self.known is None or self.key or store == "none":
            return
        if store.startswith("env:") and store != self.known.cred_store:
            return
        if moved:
            raise client_fault(
                "the credential is bound to its host: give api_key again to change the host", param="api_key"
            )

    def relocates(self, stored: Provider) -> bool:
        """Tell whether calls go to another address now."""
        return self.known is None or self.known.endpoints != stored.endpoints

    def moves(self, stored: Provider) -> bool:
        """Tell whether calls go to another address now, or with another credential or adapter."""
        known = self.known
        if known is None or self.key:
            return True
        facts = (known.endpoints, known.type, known.cred_store)
        return facts != (stored.endpoints, stored.type, stored.cred_store)


def _sites(provider: Provider) -> set[str]:
    return {site(url) for url in provider.endpoints}


def routing_json(config: RoutingConfig) -> Json:
    """Return routing defaults as the API shows them."""
    return {name: value for name, value in asdict(config).items() if name != "updated_at"}
