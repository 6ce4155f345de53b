"""What is configured, as one document, and what a document would change.

    {"version": 1, "providers": […], "models": […], "aliases": […], "modes": […], "routing": {…}, "budgets": […],
     "webhooks": […]}

An item is what the admin API takes to make it, whole: a field that is left out has its default. A part that is left out
is not touched. Secrets are none of it; `cred_store` says where one is. What is not in a part is removed only where that
is asked for (`prune`).

A plan is the difference of two states in the form of the document. Its fingerprint is of both: the same plan made again
has the same one as long as nobody changed anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

import msgspec
import orjson
from msgspec import Meta, structs

from tokenhub_core.admission.budgets import Budget
from tokenhub_core.catalog import NANO_PER_1K, nano_per_token
from tokenhub_core.errors import TokenHubError, client_fault
from tokenhub_core.http import shapes
from tokenhub_core.http.admin import routing_json
from tokenhub_core.http.aliases import AliasBody, alias_json, alias_of
from tokenhub_core.http.budgets import BudgetBody, budget_json, budget_of
from tokenhub_core.http.shadow import ModeBody
from tokenhub_core.http.shapes import ModelBody, RoutingBody
from tokenhub_core.http.webhooks import LONGEST_URL
from tokenhub_core.modes import Match, Rule
from tokenhub_core.providers.adapters import dialect_of
from tokenhub_core.routing import aliases
from tokenhub_core.routing.eligibility import UNKNOWN_PRICE
from tokenhub_core.store.catalog import RoutingConfig, Stock
from tokenhub_core.types import Credential, Fleet, Json, Model, OnDisconnect, Prices, Provider, ProviderType
from tokenhub_core.webhooks.values import MOST_HOOKS, Webhook

VERSION: Final = 1

type Items = dict[str, dict[str, Json]]
"""Part → name → item."""


class CredentialItem(msgspec.Struct, forbid_unknown_fields=True):
    """A further credential of a provider: where it is, never what it is."""

    name: str
    cred_store: str
    enabled: bool = True


class ProviderItem(msgspec.Struct, forbid_unknown_fields=True):
    """A provider."""

    id: str
    type: ProviderType
    endpoints: list[str]
    enabled: bool = True
    cred_store: Annotated[str, Meta(description="vault, memory, env:NAME or none.")] = "none"
    credentials: list[CredentialItem] = []
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL


class ModelItem(ModelBody, forbid_unknown_fields=True):
    """A model. Without prices they come from the price list."""

    pricing_source: Annotated[str, Meta(description="Where the prices are from; empty: they are yours.")] = ""


class WebhookItem(msgspec.Struct, forbid_unknown_fields=True):
    """A webhook. Its secret is in the vault; one that is new has none, and its events wait until it is given one."""

    id: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    url: Annotated[str, Meta(max_length=LONGEST_URL)]
    kinds: list[str]
    enabled: bool = True


class Blueprint(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is to be configured. A part that is null is left as it is."""

    version: Literal[1]
    providers: list[ProviderItem] | None = None
    models: list[ModelItem] | None = None
    aliases: list[AliasBody] | None = None
    modes: list[ModeBody] | None = None
    routing: RoutingBody | None = None
    budgets: list[BudgetBody] | None = None
    webhooks: list[WebhookItem] | None = None


class Difference(msgspec.Struct, frozen=True):
    """One field, before and after."""

    field: str
    before: Any
    after: Any


class Change(msgspec.Struct, frozen=True):
    """What becomes of one item."""

    action: Literal["add", "change", "remove"]
    part: str
    name: str
    fields: tuple[Difference, ...] = ()
    """Of a change."""


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a document speaks of, in the engine's own words."""

    stock: Stock
    routing: RoutingConfig
    budgets: tuple[Budget, ...]
    webhooks: tuple[Webhook, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What a document is held to: the same as what comes item by item."""

    provider: Callable[[Provider], Provider]
    credential: Callable[[Credential], None]
    name: Callable[[str], None]
    prefilled: Callable[[Model, Prices | None, Provider | None], Model]
    fleet: Callable[[Stock], Fleet]
    mode: Callable[[Rule], Rule]
    budget: Callable[[Budget, Budget | None], Budget]
    webhook: Callable[[Webhook], Webhook]
    moved: Callable[[Provider, Provider], None]
    """Refuses a provider whose credential would go to another host."""


# --- out ---------------------------------------------------------------------------------------------------------


def document(state: State) -> Json:
    """Return the document of a state."""
    found = items(state)
    routing = found.pop("routing").get("", {})
    return {
        "version": VERSION,
        **{part: [*named.values()] for part, named in found.items()},
        "routing": routing,
    }


def items(state: State) -> Items:
    """Return a state in the form of the document, each item by its name; what follows from a default is written out."""
    stock = state.stock
    return {
        "providers": {one.id: provider_item(one) for one in stock.providers},
        "models": {f"{one.id} @ {one.provider_id}": model_item(one) for one in stock.models},
        "aliases": {one.name: alias_json(one) for one in stock.aliases},
        "modes": {_mode_name(one): _mode_item(one) for one in stock.modes},
        "routing": {"": routing_json(state.routing)},
        "budgets": {_budget_name(one): budget_json(one) for one in state.budgets},
        "webhooks": {one.id: _webhook_item(one) for one in state.webhooks},
    }


def provider_item(provider: Provider) -> Json:
    """Return a provider as the document has it."""
    return {
        "id": provider.id,
        "type": provider.type.value,
        "endpoints": list(provider.endpoints),
        "enabled": provider.enabled,
        "cred_store": provider.cred_store,
        "credentials": [
            {"name": one.name, "cred_store": one.store, "enabled": one.enabled}
            for one in sorted(provider.credentials, key=lambda one: one.name)
        ],
        "on_disconnect": provider.on_disconnect.value,
    }


def model_item(model: Model) -> Json:
    """Return a model as the document has it; one whose price nobody knows has none there."""
    told = {**shapes.model_json(model), "upstream": model.upstream}
    told = _rounded({name: told[name] for name in ModelItem.__struct_fields__})
    told["price_tiers"] = [*map(_rounded, told["price_tiers"])]
    if model.pricing_source == UNKNOWN_PRICE:
        told |= dict.fromkeys(("input_per_1k", "output_per_1k"))
    return told


def _rounded(prices: Json) -> Json:
    """Return prices as they are when they are read again: a binary fraction of a list's has more digits than count."""
    return {
        name: nano_per_token(value) / NANO_PER_1K if name.endswith("_per_1k") and value is not None else value
        for name, value in prices.items()
    }


def _mode_item(rule: Rule) -> Json:
    return {**msgspec.to_builtins(rule.match), "mode": rule.mode.value}


def _mode_name(rule: Rule) -> str:
    match = rule.match
    return " ".join(
        [
            match.host,
            *(f"{kind}:{value}" for kind, value in (("user", match.user), ("alias", match.alias)) if value),
        ]
    )


def _webhook_item(hook: Webhook) -> Json:
    return {"id": hook.id, "url": hook.url, "kinds": list(hook.kinds), "enabled": hook.enabled}


def _budget_name(budget: Budget) -> str:
    return f"{budget.owner} {budget.period.value} {budget.unit.value}"


# --- in ----------------------------------------------------------------------------------------------------------


def intended(wanted: Blueprint, state: State, rules: Rules, *, prune: bool) -> State:
    """Return what would stand after a document; raises `TokenHubError` that names the item where it cannot."""
    stock = state.stock
    providers = _providers(wanted.providers, stock, rules, prune=prune)
    models = _models(wanted.models, stock, rules, providers, prune=prune)
    named = {one.name: one for one in stock.aliases}
    if wanted.aliases is not None:
        mine = {item.name: item for item in _once("aliases", wanted.aliases, lambda one: one.name)}
        named = {} if prune else named
        for item in mine.values():
            with _at("aliases", item.name):
                named[item.name] = alias_of(item)
    view = rules.fleet(Stock(tuple(providers.values()), tuple(models.values()), tuple(named.values())))
    for item in wanted.aliases or ():
        with _at("aliases", item.name):
            rules.name(item.name)
            aliases.check(named[item.name], view)
    modes = _modes(wanted.modes, stock, rules, view, prune=prune)
    return State(
        Stock(tuple(providers.values()), tuple(models.values()), tuple(named.values()), modes),
        state.routing if wanted.routing is None else RoutingConfig(**shapes.given(wanted.routing)),
        _budgets(wanted.budgets, state.budgets, rules, prune=prune),
        _webhooks(wanted.webhooks, state.webhooks, rules, prune=prune),
    )


def _providers(
    wanted: list[ProviderItem] | None, stock: Stock, rules: Rules, *, prune: bool
) -> dict[str, Provider]:
    known = {one.id: one for one in stock.providers}
    if wanted is None:
        return known
    found = {} if prune else dict(known)
    for item in _once("providers", wanted, lambda one: one.id):
        with _at("providers", item.id):
            old = known.get(item.id)
            keys = {} if prune or old is None else {one.name: one for one in old.credentials}
            for one in _once("credentials", item.credentials, lambda one: one.name):
                keys[one.name] = Credential(one.name, one.cred_store, one.enabled)
                rules.credential(keys[one.name])
            provider = Provider(
                id=item.id,
                type=item.type,
                endpoints=tuple(item.endpoints),
                dialect=dialect_of(item.type),
                enabled=item.enabled,
                cred_store=item.cred_store,
                credentials=tuple(keys.values()),
                on_disconnect=item.on_disconnect,
            )
            found[item.id] = rules.provider(provider)
            if old is not None:
                rules.moved(old, found[item.id])
    return found


def _models(
    wanted: list[ModelItem] | None,
    stock: Stock,
    rules: Rules,
    providers: Mapping[str, Provider],
    *,
    prune: bool,
) -> dict[tuple[str, str], Model]:
    """Return the models; those of a provider that goes, go with it."""
    found = {
        (one.id, one.provider_id): one
        for one in stock.models
        if one.provider_id in providers and not (prune and wanted is not None)
    }
    for item in _once("models", wanted or (), lambda one: f"{one.id} @ {one.provider_id}"):
        with _at("models", f"{item.id} @ {item.provider_id}"):
            rules.name(item.id)
            if item.provider_id not in providers:
                raise client_fault(f"there is no provider {item.provider_id!r}", param="provider_id")
            made, prices = shapes.model_of(item), shapes.prices_of(item)
            if prices is not None:
                made = replace(made, prices=prices, pricing_source=item.pricing_source or "manual")
            elif item.pricing_source == UNKNOWN_PRICE:
                made = replace(made, pricing_source=UNKNOWN_PRICE)
            else:
                made = rules.prefilled(made, None, providers[item.provider_id])
            found[item.id, item.provider_id] = made
    return found


def _modes(
    wanted: list[ModeBody] | None, stock: Stock, rules: Rules, view: Fleet, *, prune: bool
) -> tuple[Rule, ...]:
    if wanted is None:
        return stock.modes
    found = {} if prune else {rule.match: rule for rule in stock.modes}
    for item in _once("modes", wanted, lambda one: f"{one.host} {one.user} {one.alias}"):
        with _at("modes", item.host):
            rule = rules.mode(Rule(Match(item.host, item.user, item.alias), item.mode))
            if rule.match.alias and rule.match.alias not in view.aliases:
                raise client_fault(f"there is no alias {rule.match.alias!r}", param="alias")
            found[rule.match] = rule
    return tuple(found.values())


def _budgets(
    wanted: list[BudgetBody] | None, known: Sequence[Budget], rules: Rules, *, prune: bool
) -> tuple[Budget, ...]:
    if wanted is None:
        return tuple(known)
    old = {_budget_name(one): one for one in known}
    found = {} if prune else dict(old)
    drafts = [budget_of(item) for item in wanted]
    for draft in _once("budgets", drafts, _budget_name):
        name = _budget_name(draft)
        with _at("budgets", name):
            found[name] = rules.budget(draft, old.get(name))
    return tuple(found.values())


def _webhooks(
    wanted: list[WebhookItem] | None, known: Sequence[Webhook], rules: Rules, *, prune: bool
) -> tuple[Webhook, ...]:
    """Return the webhooks; the moments of one that is new or changes are told when it is stored."""
    if wanted is None:
        return tuple(known)
    old = {one.id: one for one in known}
    found = {} if prune else dict(old)
    for item in _once("webhooks", wanted, lambda one: one.id):
        with _at("webhooks", item.id):
            was = old.get(item.id) or Webhook(item.id, "", (), True, 0.0, 0.0)
            values = {"url": item.url, "kinds": tuple(item.kinds), "enabled": item.enabled}
            found[item.id] = rules.webhook(structs.replace(was, **values))
    if len(found) > MOST_HOOKS:
        raise client_fault(f"webhooks: there can be {MOST_HOOKS} at most", param="webhooks")
    return tuple(found.values())


def _once[T](part: str, found: Iterable[T], named: Callable[[T], str]) -> Iterator[T]:
    """Yield each; raises `TokenHubError` where two have one name, for nobody knows which is meant."""
    seen = set[str]()
    for one in found:
        name = named(one)
        if name in seen:
            raise client_fault(f"{part}: {name} is there twice", param=part)
        seen.add(name)
        yield one


@contextmanager
def _at(part: str, name: str) -> Iterator[None]:
    """Say of what goes wrong inside which item it is about."""
    try:
        yield
    except TokenHubError as error:
        raise client_fault(f"{part}: {name}: {error.fault.message}", param=part) from None


# --- between -----------------------------------------------------------------------------------------------------


def changes(before: Items, after: Items) -> list[Change]:
    """Return what lies between two states, part by part."""
    found: list[Change] = []
    for part, old in before.items():
        new = after[part]
        for name in sorted({*old, *new}):
            if name not in old:
                found.append(Change("add", part, name))
            elif name not in new:
                found.append(Change("remove", part, name))
            elif old[name] != new[name]:
                both = [(field, old[name].get(field), value) for field, value in new[name].items()]
                fields = tuple(Difference(*one) for one in both if one[1] != one[2])
                found.append(Change("change", part, name, fields))
    return found


def fingerprint(before: Items, after: Items) -> str:
    """Return what only the same plan has: a hash of what was, and of what is to be."""
    told = orjson.dumps([VERSION, before, after], option=orjson.OPT_SORT_KEYS)
    return sha256(told).hexdigest()
