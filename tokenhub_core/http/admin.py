"""The admin API, `/admin/v1`: what is registered, what happened, what would happen."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import msgspec
import orjson
from aiohttp import web

from tokenhub_core import __version__, policy
from tokenhub_core.catalog import Catalog
from tokenhub_core.config import Settings
from tokenhub_core.credentials import Credentials, vault_name
from tokenhub_core.errors import Fault, Kind, TokenHubError, client_fault
from tokenhub_core.health.tracker import HealthTracker
from tokenhub_core.http import shapes
from tokenhub_core.http.sessions import Sessions
from tokenhub_core.http.side import answer
from tokenhub_core.policy import Layer
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.providers.adapters import dialect_of
from tokenhub_core.providers.endpoints import site
from tokenhub_core.routing.eligibility import Circumstances
from tokenhub_core.routing.estimate import BYTES_PER_TOKEN
from tokenhub_core.routing.plan import plan
from tokenhub_core.store.catalog import RoutingConfig
from tokenhub_core.store.log import Filters, RequestLog
from tokenhub_core.telemetry.events import Bus
from tokenhub_core.types import Features, Json, Outcome, Provider
from tokenhub_core.vault.vault import Vault

BASE: Final = "/admin/v1"
HEARTBEAT: Final = 15.0
"""Seconds between two comments on a silent event stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the admin API works on."""

    catalog: Catalog
    vault: Vault
    credentials: Credentials
    requests: RequestLog
    health: HealthTracker
    bus: Bus
    sessions: Sessions
    clock: Clock
    settings: Settings


class Admin:
    """The handlers. Every route needs the admin token; the side server sees to that."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._catalog = desk.catalog

    def routes(self) -> list[web.RouteDef]:
        """Return all routes of the admin API."""
        table = (
            ("GET", "/info", self._info),
            ("POST", "/session", self._sign_in),
            ("DELETE", "/session", self._sign_out),
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
            ("POST", "/routing/simulate", self._simulate),
            ("GET", "/health", self._health),
            ("GET", "/logs", self._logs),
            ("GET", "/logs/{id}", self._log),
            ("GET", "/events", self._events),
            ("GET", "/vault", self._vault_state),
            ("POST", "/vault/init", self._vault_init),
            ("POST", "/vault/unlock", self._vault_unlock),
            ("POST", "/vault/lock", self._vault_lock),
        )
        return [web.route(method, BASE + path, handler) for method, path, handler in table]

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

    async def _sign_in(self, request: web.Request) -> web.Response:
        """Open a browser session; only the token itself opens one, not another session."""
        if not self._desk.sessions.bearer(request):
            raise client_fault("the admin token is required", kind=Kind.AUTH, cause="admin_token")
        response = answer({"ok": True})
        self._desk.sessions.open(response)
        return response

    async def _sign_out(self, request: web.Request) -> web.Response:
        response = answer({"ok": True})
        self._desk.sessions.close(request, response)
        return response

    # --- providers

    def _shown(self, provider: Provider) -> Json:
        models = sum(model.provider_id == provider.id for model in self._catalog.fleet.models)
        held = provider.cred_store not in {"none", "caller"} and self._desk.credentials.available(
            provider.id, provider.cred_store
        )
        return shapes.provider_json(provider, models=models, credential=held)

    async def _providers(self, request: web.Request) -> web.Response:
        del request
        items = [self._shown(provider) for provider in self._catalog.fleet.providers.values()]
        return answer({"items": items, "total": len(items)})

    async def _put_provider(self, request: web.Request) -> web.Response:
        """Register a provider. One that is known keeps its credential unless a new one is given."""
        body = await shapes.read(request, shapes.ProviderBody)
        known = self._catalog.fleet.providers.get(body.id)
        if not body.id or not body.id.isprintable() or "/" in body.id or ":" in body.id or len(body.id) > 64:
            raise client_fault("id must be 1 to 64 visible characters without / and :", param="id")
        provider = Provider(
            body.id,
            body.type,
            tuple(body.endpoints or [body.base_url]) if body.endpoints or body.base_url else (),
            dialect_of(body.type),
            body.enabled,
            body.cred_store or (known.cred_store if known else "none"),
        )
        if known is not None:
            _same_site(known, provider, key_given=bool(body.api_key))
        else:
            # A name may have been used before; nobody inherits a credential with it.
            await self._forget(body.id)
        provider = await self._keep(provider, body.api_key)
        await self._catalog.put_provider(provider)
        return answer(self._shown(self._catalog.provider(provider.id)), 200 if known else 201)

    async def _patch_provider(self, request: web.Request) -> web.Response:
        patch = await shapes.read(request, shapes.ProviderPatch)
        changes = shapes.given(patch)
        known = self._catalog.provider(request.match_info["id"])
        key = changes.pop("api_key", "")
        if "base_url" in changes:
            changes["endpoints"] = [changes.pop("base_url")]
        if "type" in changes:
            changes["dialect"] = dialect_of(changes["type"])
        changed = replace(
            known,
            endpoints=tuple(changes.get("endpoints", known.endpoints)),
            cred_store=changes.get("cred_store", known.cred_store),
        )
        _same_site(known, changed, key_given=bool(key))
        if key:
            changes["cred_store"] = (await self._keep(changed, key)).cred_store
        await self._catalog.patch_provider(known.id, _plain(changes))
        return answer(self._shown(self._catalog.provider(known.id)))

    async def _keep(self, provider: Provider, key: str) -> Provider:
        """Put a credential away and return the provider that knows where it is."""
        _known_store(provider.cred_store)
        if not key:
            return provider
        if self._desk.vault.open:
            await self._desk.vault.put(vault_name(provider.id), Secret(key))
            return replace(provider, cred_store="vault")
        if provider.cred_store == "memory":
            self._desk.credentials.hold(provider.id, Secret(key))
            return provider
        message = (
            f'the vault is {self._desk.vault.state.value}: unlock it first, or send cred_store "memory" to keep'
            " the key until the next restart only"
        )
        raise client_fault(message, cause="vault_locked", param="api_key")

    async def _delete_provider(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        await self._catalog.delete_provider(name)
        self._desk.health.forget(name)
        await self._forget(name)
        return answer({"ok": True})

    async def _forget(self, provider_id: str) -> None:
        self._desk.credentials.drop(provider_id)
        await self._desk.vault.delete(vault_name(provider_id))

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
        if not body.id or not body.id.isprintable() or len(body.id) > 200:
            raise client_fault("id must be 1 to 200 visible characters", param="id")
        model = shapes.model_of(body)
        if body.input_per_1k is None and body.output_per_1k is None:
            model = self._catalog.prefilled(model)
        await self._catalog.put_model(model)
        return answer(shapes.model_json(model), 201)

    async def _patch_model(self, request: web.Request) -> web.Response:
        changes = shapes.model_changes(await shapes.read(request, shapes.ModelPatch))
        model_id, provider_id = self._one_model(request)
        patched = await self._catalog.patch_model(model_id, provider_id, _plain(changes))
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
                **_routing_json(self._catalog.routing),
                "effective": {
                    "default_mode": effective.mode.value,
                    "default_max_budget_usd": effective.max_budget_usd,
                    "default_max_latency_ms": effective.max_latency_ms,
                    "on_malformed_directive": self._catalog.routing.on_malformed_directive
                    or self._desk.settings.directives,
                    "fallback": effective.fallback,
                },
            }
        )

    async def _put_routing(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, shapes.RoutingBody)
        if body.on_malformed_directive not in {None, "reject", "ignore", "off"}:
            raise client_fault("must be reject, ignore or off", param="on_malformed_directive")
        if body.default_max_budget_usd is not None and not 0 <= body.default_max_budget_usd <= 100:
            raise client_fault("must be from 0 to 100", param="default_max_budget_usd")
        if body.default_max_latency_ms is not None and not 1 <= body.default_max_latency_ms <= 3_600_000:
            raise client_fault("must be from 1 to 3600000", param="default_max_latency_ms")
        await self._catalog.put_routing(RoutingConfig(**shapes.given(body)))
        return await self._routing(request)

    async def _simulate(self, request: web.Request) -> web.Response:
        """Say what a call would come to. Changes nothing."""
        body = await shapes.read(request, shapes.SimulateBody)
        desk, view = self._desk, self._catalog.fleet
        now = desk.clock.monotonic()
        model = body.model_hint if body.model_hint not in policy.ANY_MODEL else None
        wishes = policy.merge(
            [self._catalog.defaults(), Layer("request", {"model": model}), shapes.layer_of(body)]
        )
        planned = plan(
            view,
            Features(
                model=body.model_hint,
                max_output_tokens=body.max_output_tokens,
                needs=frozenset(body.needs),
                text_bytes=body.token_count * BYTES_PER_TOKEN,
            ),
            wishes,
            now=Circumstances(
                {name: desk.health.standing(name, now) for name in view.providers},
                lambda provider: desk.credentials.available(provider.id, provider.cred_store),
            ),
            seed="simulate",
        )
        if isinstance(planned, Fault):
            raise TokenHubError(planned)
        return answer(shapes.plan_json(planned))

    async def _health(self, request: web.Request) -> web.Response:
        del request
        views = self._desk.health.snapshot(self._desk.clock.monotonic())
        known = dict.fromkeys([*self._catalog.fleet.providers, *views])
        items = [
            {"provider_id": name, **(asdict(views[name]) if name in views else {"state": "healthy"})}
            for name in known
        ]
        return answer({"providers": items})

    # --- what happened

    async def _logs(self, request: web.Request) -> web.Response:
        limit = shapes.whole(request, "limit", 100, 1, 1000)
        before = shapes.whole(request, "before", 0, 0, 1 << 62)
        page = await asyncio.to_thread(
            self._desk.requests.page, limit=limit, before_seq=before or None, filters=_filters(request)
        )
        return answer({"logs": list(page.items), "next": page.next})

    async def _log(self, request: web.Request) -> web.Response:
        found = await asyncio.to_thread(self._desk.requests.get, request.match_info["id"])
        if found is None:
            raise client_fault("there is no such request", kind=Kind.NOT_FOUND, param="id")
        return answer(found)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Stream events. `Last-Event-ID` resumes; `?replay=true` begins with the recent ones."""
        response = web.StreamResponse(
            headers={"content-type": "text/event-stream", "cache-control": "no-store", "server": "tokenhub"}
        )
        await response.prepare(request)
        await response.write(b'event: connected\ndata: {"status":"ok"}\n\n')
        last = request.headers.get("last-event-id", "")
        after = int(last) if last.isascii() and last.isdigit() else None
        if after is None and request.query.get("replay") == "true":
            after = 0
        events = self._desk.bus.listen(after)
        waiting = asyncio.ensure_future(anext(events))
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=HEARTBEAT)
                if not done:
                    await response.write(b": still here\n\n")
                    continue
                event = waiting.result()
                waiting = asyncio.ensure_future(anext(events))
                head = f"id: {event.id}\nevent: {event.type}\ndata: ".encode()
                await response.write(head + orjson.dumps(event.data) + b"\n\n")
        except ConnectionError:
            return response
        finally:
            waiting.cancel()

    # --- the vault

    async def _vault_state(self, request: web.Request) -> web.Response:
        del request
        return answer({"state": self._desk.vault.state.value, "entries": len(self._desk.vault.names())})

    async def _vault_init(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, shapes.PasswordBody)
        await self._desk.vault.init(Secret(body.admin_password))
        return await self._vault_state(request)

    async def _vault_unlock(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, shapes.PasswordBody)
        await self._desk.vault.unlock(Secret(body.admin_password))
        return await self._vault_state(request)

    async def _vault_lock(self, request: web.Request) -> web.Response:
        self._desk.vault.lock()
        return await self._vault_state(request)


def _same_site(known: Provider, changed: Provider, *, key_given: bool) -> None:
    """Refuse to carry a credential to another host: whoever moves a provider must show the key again.

    Naming another variable of the server's environment counts as showing it; naming the vault does not.
    """
    elsewhere = changed.cred_store.startswith("env:") and changed.cred_store != known.cred_store
    if key_given or elsewhere or changed.cred_store == "none" or not changed.endpoints:
        return
    if {site(url) for url in changed.endpoints} - {site(url) for url in known.endpoints}:
        raise client_fault(
            "the credential is bound to its host: give api_key again to change the host", param="api_key"
        )


def _known_store(store: str) -> None:
    if store not in {"none", "vault", "memory"} and not store.startswith("env:"):
        raise client_fault("cred_store must be vault, memory, env:NAME or none", param="cred_store")


def _plain(changes: dict[str, Any]) -> Any:
    return msgspec.to_builtins(changes)


def _routing_json(config: RoutingConfig) -> Json:
    return {name: value for name, value in asdict(config).items() if name != "updated_at"}


def _filters(request: web.Request) -> Filters:
    query = request.query
    outcome = query.get("outcome")
    if outcome is not None and outcome not in list(Outcome):
        raise client_fault(f"outcome must be one of {', '.join(Outcome)}", param="outcome")
    return Filters(
        model=query.get("model", ""),
        provider=query.get("provider", ""),
        outcome=outcome or "",
        q=query.get("q", ""),
    )
