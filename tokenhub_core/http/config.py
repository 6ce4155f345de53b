"""The admin API's part about what is configured as a whole.

GET  /admin/v1/config         the document; see `blueprint`
POST /admin/v1/config/plan    {config, prune}: what a document would change, and the fingerprint of that
POST /admin/v1/config/apply   {config, prune, fingerprint}: exactly that, or nothing

What is applied is what was shown: it is planned once more in the transaction that stores it, and where that plan has
another fingerprint, because somebody changed something, nothing is stored and the answer is 409.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec
from aiohttp import web
from msgspec import structs
from sqlalchemy import Connection

from tokenhub_core.budgets import Budgets
from tokenhub_core.catalog import Catalog
from tokenhub_core.errors import Blame, Fault, Kind, TokenHubError
from tokenhub_core.http import blueprint, shapes
from tokenhub_core.http.admin import Admin, Placing
from tokenhub_core.http.blueprint import Blueprint, Change, Items, State
from tokenhub_core.http.side import answer
from tokenhub_core.http.webhooks import checked_url
from tokenhub_core.modes import Rule
from tokenhub_core.ports import Clock, Secret
from tokenhub_core.store import budgets as budget_rows
from tokenhub_core.store import catalog as rows
from tokenhub_core.store import webhooks as webhook_rows
from tokenhub_core.store.database import Database
from tokenhub_core.types import Provider
from tokenhub_core.webhooks import values
from tokenhub_core.webhooks.values import Webhook

PATH: Final = "/admin/v1/config"


class PlanBody(msgspec.Struct, forbid_unknown_fields=True):
    """`POST /config/plan`. With `prune` what is not in a part of the document is removed."""

    config: Blueprint
    prune: bool = False


class ApplyBody(PlanBody, forbid_unknown_fields=True, kw_only=True):
    """`POST /config/apply`: what was planned, and the fingerprint of the plan."""

    fingerprint: str


class Plan(msgspec.Struct, frozen=True):
    """What a document changes."""

    fingerprint: str
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class _Planned:
    before: State
    after: State
    was: Items
    becomes: Items

    @property
    def plan(self) -> Plan:
        return Plan(blueprint.fingerprint(self.was, self.becomes), blueprint.changes(self.was, self.becomes))


class ConfigPages:
    """The handlers. `access.roles` says who may use each; the side server sees to that."""

    def __init__(
        self,
        admin: Admin,
        catalog: Catalog,
        budgets: Budgets,
        database: Database,
        *,
        clock: Clock,
        mode: Callable[[Rule], Rule],
    ) -> None:
        self._admin = admin
        self._catalog = catalog
        self._budgets = budgets
        self._database = database
        self._clock = clock
        self._rules = blueprint.Rules(
            provider=catalog.checked,
            credential=catalog.check_credential,
            name=catalog.check_name,
            prefilled=catalog.prefilled,
            fleet=catalog.together,
            mode=mode,
            budget=budgets.drafted,
            webhook=partial(_checked, allow_http=admin.desk.settings.allow_http),
            moved=lambda old, new: _placing(old, new).check(),
        )

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get(PATH, self._export),
            web.post(f"{PATH}/plan", self._plan),
            web.post(f"{PATH}/apply", self._apply),
        ]

    async def _export(self, request: web.Request) -> web.Response:
        del request
        return answer(blueprint.document(await asyncio.to_thread(self._read)))

    async def _plan(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, PlanBody)
        state = await asyncio.to_thread(self._read)
        return answer(msgspec.to_builtins(self._planned(body, state).plan))

    async def _apply(self, request: web.Request) -> web.Response:
        body = await shapes.read(request, ApplyBody)

        async def apply() -> web.Response:
            planned = self._planned(body, await asyncio.to_thread(self._read))
            _same(planned.plan.fingerprint, body.fingerprint)
            old = {one.id: one for one in planned.before.stock.providers}
            new = {one.id: one for one in planned.after.stock.providers}
            for name in new.keys() - old.keys():
                # The name may have been used before; nobody inherits a credential with it.
                await self._admin.gone(name)
            was, becomes = ({one.id for one in state.webhooks} for state in (planned.before, planned.after))
            await self._unseal(becomes - was)
            await self._catalog.change(self._storing(body, planned))
            await self._unseal(was - becomes)
            with suppress(TokenHubError):
                # It is stored: where this fails, the next look is half a second away.
                await self._budgets.look(0)
            for name, provider in old.items():
                if name not in new:
                    await self._admin.gone(name)
                elif provider != new[name]:
                    await self._admin.settled(_placing(provider, new[name]), new[name])
                    for one in {one.name for one in provider.credentials} - {
                        one.name for one in new[name].credentials
                    }:
                        await self._admin.unseal(name, one)
            return answer(msgspec.to_builtins(planned.plan))

        return await self._admin.in_turn(apply)

    async def _unseal(self, hooks: set[str]) -> None:
        """Forget the secrets of webhooks that are gone, or not there yet."""
        vault = self._admin.desk.vault
        for name in {values.vault_name(one) for one in hooks} & {*vault.names()}:
            await vault.delete(name)

    def _planned(self, body: PlanBody, state: State) -> _Planned:
        after = blueprint.intended(body.config, state, self._rules, prune=body.prune)
        return _Planned(state, after, blueprint.items(state), blueprint.items(after))

    def _storing(self, body: ApplyBody, planned: _Planned) -> Callable[[Connection], None]:
        now = self._clock.now()

        def store(connection: Connection) -> None:
            was = blueprint.items(_state(connection))
            _same(blueprint.fingerprint(was, planned.becomes), body.fingerprint)
            _store(connection, planned, now)

        return store

    def _read(self) -> State:
        with self._database.reading() as connection:
            return _state(connection)


def _state(connection: Connection) -> State:
    return State(
        rows.load(connection),
        rows.routing_config(connection),
        tuple(one for one, _ in budget_rows.load(connection)),
        tuple(webhook_rows.load(connection)),
    )


def _store(connection: Connection, planned: _Planned, now: float) -> None:
    """Store what is not as it was, each kind behind those that it stands on."""
    _remove(connection, planned.before, planned.after)
    stock = planned.after.stock
    known = {one.id: one for one in planned.before.stock.providers}
    for provider in _differing(planned, "providers", stock.providers, lambda one: one.id):
        _store_provider(connection, provider, known.get(provider.id), now)
    for model in _differing(planned, "models", stock.models, lambda one: f"{one.id} @ {one.provider_id}"):
        rows.put_model(connection, model, now=now)
    for alias in _differing(planned, "aliases", stock.aliases, lambda one: one.name):
        rows.put_alias(connection, alias, now=now)
    for rule in stock.modes:
        if rule not in planned.before.stock.modes:
            rows.put_mode(connection, rule, now=now)
    if planned.was["routing"] != planned.becomes["routing"]:
        rows.put_routing_config(connection, planned.after.routing, now=now)
    for budget in planned.after.budgets:
        if budget not in planned.before.budgets:
            budget_rows.save(connection, budget)
    for hook in _differing(planned, "webhooks", planned.after.webhooks, lambda one: one.id):
        moments = {"created_at": hook.created_at or now, "updated_at": now}
        webhook_rows.save(connection, structs.replace(hook, **moments))


def _remove(connection: Connection, before: State, after: State) -> None:
    """Remove what is not to be there any more."""
    old, new = before.stock, after.stock
    for match in {one.match for one in old.modes} - {one.match for one in new.modes}:
        rows.delete_mode(connection, match)
    for name in {one.name for one in old.aliases} - {one.name for one in new.aliases}:
        rows.delete_alias(connection, name)
    for place in {(one.id, one.provider_id) for one in old.models} - {
        (one.id, one.provider_id) for one in new.models
    }:
        rows.delete_model(connection, *place)
    for name in {one.id for one in old.providers} - {one.id for one in new.providers}:
        rows.delete_provider(connection, name)
    kept = {one.id for one in after.budgets}
    for budget in before.budgets:
        if budget.id not in kept:
            budget_rows.remove(connection, budget)
    for name in {one.id for one in before.webhooks} - {one.id for one in after.webhooks}:
        webhook_rows.remove(connection, name)


def _store_provider(connection: Connection, provider: Provider, known: Provider | None, now: float) -> None:
    rows.put_provider(connection, provider, now=now)
    for one in known.credentials if known else ():
        if one.name not in {new.name for new in provider.credentials}:
            rows.delete_credential(connection, provider.id, one.name)
    for one in provider.credentials:
        if known is None or one not in known.credentials:
            rows.put_credential(connection, provider.id, one, now=now)


def _differing[T](planned: _Planned, part: str, found: tuple[T, ...], named: Callable[[T], str]) -> list[T]:
    was, becomes = planned.was[part], planned.becomes[part]
    return [one for one in found if was.get(named(one)) != becomes[named(one)]]


def _checked(hook: Webhook, *, allow_http: bool) -> Webhook:
    url = checked_url(hook.url, allow_http=allow_http)
    return structs.replace(hook, url=url, kinds=values.chosen(hook.kinds))


def _placing(old: Provider, new: Provider) -> Placing:
    return Placing(old, new, Secret(""), old.cred_store != new.cred_store)


def _same(found: str, wanted: str) -> None:
    if found != wanted:
        message = "what is configured, or the document, is not what was planned: plan it again"
        fault = Fault(
            Kind.INVALID, Blame.CLIENT, message, cause="plan_outdated", param="fingerprint", status=409
        )
        raise TokenHubError(fault)
