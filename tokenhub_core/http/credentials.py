"""The admin API's part about credentials: `/admin/v1/providers/{id}/credentials`, never the credentials themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from aiohttp import web

from tokenhub_core.admission.keyring import Keyring, State
from tokenhub_core.catalog import Catalog
from tokenhub_core.credentials import Credentials, vault_name
from tokenhub_core.errors import client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.side import answer
from tokenhub_core.parkings import Parkings
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.types import DEFAULT_CREDENTIAL, Credential, Json, Provider
from tokenhub_core.vault.vault import Vault

PATH: Final = "/admin/v1/providers/{id}/credentials"
_KEYLESS: Final = frozenset({"none", "caller"})


class CredentialBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST`: a key, or the variable of the server's environment that holds one (`cred_store` `env:NAME`)."""

    name: str
    api_key: str = ""
    cred_store: str = ""
    enabled: bool = True


class CredentialPatch(msgspec.Struct, forbid_unknown_fields=True):
    """`PATCH`: whether it may be used."""

    enabled: bool


@dataclass(frozen=True, slots=True)
class Safe:
    """Where credentials are put and looked after."""

    vault: Vault
    credentials: Credentials
    keyring: Keyring
    clock: Clock

    async def stow(self, provider_id: str, name: str, key: Secret, store: str) -> None:
        """Keep a key in `vault` or `memory`; raises `TokenHubError` (`vault_locked`) where that cannot be."""
        vault = self.vault
        if store == "memory":
            self.credentials.hold(provider_id, key, name)
        elif vault.open:
            await vault.put(vault_name(provider_id, name), key)
        else:
            first = "unlock it" if vault.initialised else "give it a password"
            message = (
                f'the vault is {vault.state.value}: {first} first, or send cred_store "memory" to keep'
                " the key until the next restart only"
            )
            raise client_fault(message, cause="vault_locked", param="api_key")

    async def unseal(self, provider_id: str, name: str = DEFAULT_CREDENTIAL) -> None:
        """Take a credential out of the vault, which works while it is locked too."""
        if (entry := vault_name(provider_id, name)) in self.vault.names():
            await self.vault.delete(entry)

    async def forget(self, provider_id: str) -> None:
        """Take everything of a provider out of the vault, out of memory and off the keyring."""
        self.credentials.drop_all(provider_id)
        self.keyring.forget(provider_id, at=self.clock.now(), why="the provider was removed")
        own = vault_name(provider_id)
        for entry in self.vault.names():
            if entry == own or entry.startswith(f"{own}:"):
                await self.vault.delete(entry)

    def shown(self, provider: Provider) -> list[Json]:
        """Return what is known of each credential of a provider."""
        return [self.one(provider, key) for key in provider.keys if key.store not in _KEYLESS]

    def one(self, provider: Provider, key: Credential) -> Json:
        """Return what is known of one credential."""
        held = self.credentials.available(provider.id, key.store, key.name)
        state = self.keyring.state(provider.id, key.name, now=self.clock.monotonic())
        return credential_json(key, state, held=held, at=self.clock.now())

    def rests(self, provider: Provider) -> Json:
        """Return when the first credential is free of a 429's wait, and of its parking; null where one is."""
        shown = self.shown(provider)
        return {name: _first([one[name] for one in shown]) for name in ("cool_off_until", "parked_until")}


def _first(moments: list[float | None]) -> float | None:
    known = [moment for moment in moments if moment is not None]
    return min(known) if known and len(known) == len(moments) else None


def credential_json(key: Credential, state: State, *, held: bool, at: float) -> Json:
    """Return what the API shows of a credential; moments in seconds since the epoch."""
    everywhere = [one for one in state.parked if not one.place.model]
    return {
        "name": key.name,
        "cred_store": key.store,
        "enabled": key.enabled,
        "credential": held,
        "state": _state(key, state, held=held),
        "parked_until": round(everywhere[0].until, 3) if everywhere else None,
        "cool_off_until": round(at + state.cooling, 3) if state.cooling else None,
        "parkings": [
            {
                "model": one.place.model,
                "reason": one.reason.value,
                "cause": one.cause,
                "since": round(one.since, 3),
                "until": round(one.until, 3),
                "failures": one.failures,
            }
            for one in state.parked
        ],
        "limits": [
            {
                "metric": one.metric.value,
                "window": one.window,
                "model": one.model,
                "limit": one.limit,
                "remaining": round(one.remaining, 6),
                "resets_at": round(at + one.resets, 3),
            }
            for one in state.windows
        ],
    }


def _state(key: Credential, state: State, *, held: bool) -> str:
    if not key.enabled:
        return "disabled"
    if not held:
        return "missing"
    if any(not one.place.model for one in state.parked):
        return "parked"
    if state.cooling or any(one.remaining <= 0 for one in state.windows):
        return "limited"
    return "ready"


class Keys:
    """The handlers. `access.roles` says who may use each; the side server sees to that.

    `in_turn` does one change of providers and credentials at a time.
    """

    def __init__(
        self,
        catalog: Catalog,
        safe: Safe,
        parkings: Parkings,
        in_turn: Callable[[Callable[[], Awaitable[web.Response]]], Awaitable[web.Response]],
    ) -> None:
        self._catalog = catalog
        self._safe = safe
        self._parkings = parkings
        self._in_turn = in_turn

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(PATH, self._list),
            web.post(PATH, self._put),
            web.patch(PATH + "/{name}", self._patch),
            web.delete(PATH + "/{name}", self._delete),
            web.post(PATH + "/{name}/unpark", self._unpark),
            web.get("/admin/v1/providers/{id}/parkings", self._history),
        ]

    def _known(self, request: web.Request) -> Provider:
        """Return the provider of the path, also one that cannot be changed; raises `TokenHubError`."""
        name = request.match_info["id"]
        return self._catalog.fleet.providers.get(name) or self._catalog.stored(name)

    def _asked(self, request: web.Request) -> tuple[Provider, Credential]:
        provider = self._known(request)
        return provider, self._catalog.credential(provider, request.match_info["name"])

    def _shown(self, provider_id: str, name: str) -> Json:
        provider = self._catalog.fleet.providers[provider_id]
        return self._safe.one(provider, self._catalog.credential(provider, name))

    async def _list(self, request: web.Request) -> web.Response:
        items = self._safe.shown(self._known(request))
        return answer({"items": items, "total": len(items)})

    async def _put(self, request: web.Request) -> web.Response:
        """Add a credential, or give one a new key."""
        body = await shapes.read(request, CredentialBody)
        if body.name == DEFAULT_CREDENTIAL:
            raise client_fault(
                "the default credential is the provider's own: PATCH the provider's api_key", param="name"
            )
        key, named = Secret(body.api_key), body.cred_store.startswith("env:")
        if bool(key) is named:
            raise client_fault("give an api_key, or a cred_store env:NAME", param="api_key")

        async def put() -> web.Response:
            provider, safe = self._catalog.stored(request.match_info["id"]), self._safe
            known = any(one.name == body.name for one in provider.keys)
            store = body.cred_store or "vault"
            wanted = Credential(body.name, store, body.enabled)
            self._catalog.check_credential(wanted)
            if key:
                await safe.stow(provider.id, body.name, key, store)
            await self._catalog.put_credential(provider.id, wanted)
            if store != "memory":
                safe.credentials.drop(provider.id, body.name)
            if store != "vault":
                await safe.unseal(provider.id, body.name)
            safe.keyring.forget(provider.id, body.name, at=safe.clock.now(), why="the key was changed")
            return answer(self._shown(provider.id, body.name), 200 if known else 201)

        return await self._in_turn(put)

    async def _patch(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, CredentialPatch)

        async def change() -> web.Response:
            provider, key = self._asked(request)
            own = key.name == DEFAULT_CREDENTIAL
            changed = replace(key, enabled=body.enabled, store="" if own else key.store)
            if own and body.enabled:
                if any(one.name == key.name for one in self._catalog.stored(provider.id).credentials):
                    await self._catalog.delete_credential(provider.id, key.name)
            else:
                await self._catalog.put_credential(provider.id, changed)
            return answer(self._shown(provider.id, key.name))

        return await self._in_turn(change)

    async def _delete(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name == DEFAULT_CREDENTIAL:
            raise client_fault(
                'the default credential is the provider\'s own: PATCH its cred_store to "none"', param="name"
            )

        async def delete() -> web.Response:
            provider, safe = self._catalog.stored(request.match_info["id"]), self._safe
            self._catalog.credential(provider, name)
            # The credential goes first: whoever uses the name again must not find it.
            safe.credentials.drop(provider.id, name)
            await safe.unseal(provider.id, name)
            await self._catalog.delete_credential(provider.id, name)
            safe.keyring.forget(provider.id, name, at=safe.clock.now(), why="the credential was removed")
            return answer({"ok": True})

        return await self._in_turn(delete)

    async def _unpark(self, request: web.Request) -> web.Response:
        provider, key = self._asked(request)
        safe = self._safe
        count = safe.keyring.unpark(provider.id, key.name, at=safe.clock.now(), why="unparked by hand")
        return answer({**self._shown(provider.id, key.name), "unparked": count})

    async def _history(self, request: web.Request) -> web.Response:
        items = await self._parkings.history(self._known(request).id)
        return answer({"items": items, "total": len(items)})
