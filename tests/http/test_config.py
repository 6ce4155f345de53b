"""What is configured as one document: out and in again, planned, applied whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.house import House, house
from tests.fakes.provider import FakeProvider
from tokenhub_core.admission.budgets import Budget, Period, Unit
from tokenhub_core.errors import TokenHubError
from tokenhub_core.http import blueprint
from tokenhub_core.http.blueprint import Blueprint, State
from tokenhub_core.http.budgets import BudgetBody
from tokenhub_core.modes import HostMode, Match, Rule
from tokenhub_core.ports import Secret
from tokenhub_core.providers.adapters import dialect_of
from tokenhub_core.routing import fleet
from tokenhub_core.routing.eligibility import UNKNOWN_PRICE
from tokenhub_core.store import catalog as rows
from tokenhub_core.store.catalog import RoutingConfig, Stock
from tokenhub_core.types import (
    Alias,
    Credential,
    Form,
    Json,
    Mode,
    Model,
    Need,
    OnDisconnect,
    Prices,
    Provider,
    ProviderType,
    Target,
    Tier,
)
from tokenhub_core.webhooks.values import MOST_HOOKS, Webhook, vault_name

EMPTY = State(Stock((), ()), RoutingConfig(), ())
HOOK: Json = {"id": "ops", "url": "https://ops.example/hook", "kinds": ["health_change"], "enabled": True}


async def furnished(it: House, fake: FakeProvider) -> None:
    """One of everything that a document speaks of."""
    await it.provider(fake, "p", "gpt-4o", "odd")
    await it.done("POST", "/providers/p/credentials", {"name": "b", "cred_store": "env:B"})
    await it.done("PATCH", "/models/odd", {"weight": 2, "cache_read_per_1k": 0.001})
    variants = [{"model_id": "gpt-4o", "weight": 3}]
    await it.done("POST", "/aliases", {"name": "fast", "variants": variants, "output_format": "json"})
    await it.done("PUT", "/modes", {"host": "api.openai.com", "mode": "shadow"})
    await it.done("PUT", "/routing-config", {"default_mode": "cheap", "fallback": False})
    await it.done(
        "POST", "/budgets", {"owner": "project:apollo", "limit": 7_000_000, "zone": "Europe/Berlin"}
    )
    await applied(it, {"version": 1, "webhooks": [HOOK]})


async def planned(it: House, config: Json, *, prune: bool = False) -> Json:
    return await it.done("POST", "/config/plan", {"config": config, "prune": prune})


async def applied(it: House, config: Json, *, prune: bool = False) -> Json:
    plan = await planned(it, config, prune=prune)
    body = {"config": config, "prune": prune, "fingerprint": plan["fingerprint"]}
    assert await it.done("POST", "/config/apply", body) == plan
    return plan


def named(plan: Json) -> list[tuple[str, str, str]]:
    return [(one["action"], one["part"], one["name"]) for one in plan["changes"]]


# --- there and back ---------------------------------------------------------------------------------------------

_names = st.text("abc-7é", min_size=1, max_size=4)
_prices = st.floats(0, 1e9, allow_nan=False, allow_infinity=False)
_maybe = st.none() | _prices

_tiers = st.sets(st.integers(1, 9), max_size=2).map(sorted)
_modes = st.sampled_from(list(HostMode))
_owners = st.sets(
    st.tuples(st.sampled_from(["all", "key:k"]), st.sampled_from(list(Period)), st.sampled_from(list(Unit))),
    max_size=3,
)
_kinds = st.sampled_from([("health_change",), ("budget_threshold", "health_change")])
_names_of_hooks = st.sets(st.sampled_from(["hook_1", "hook_2", "ops"]), max_size=2)


@st.composite
def _states(draw: st.DrawFn) -> State:
    providers = [
        Provider(
            id=name,
            type=(kind := draw(st.sampled_from([ProviderType.OPENAI, ProviderType.ANTHROPIC]))),
            endpoints=("https://example.org",),
            dialect=dialect_of(kind),
            enabled=draw(st.booleans()),
            cred_store=draw(st.sampled_from(["vault", "none", "env:A"])),
            on_disconnect=draw(st.sampled_from(OnDisconnect)),
            credentials=tuple(Credential(one, "vault") for one in draw(st.sets(_names, max_size=2))),
        )
        for name in sorted(draw(st.sets(_names, min_size=1, max_size=3)))
    ]
    models = []
    for provider in providers:
        for name in sorted(draw(st.sets(_names, max_size=2))):
            prices = Prices(
                draw(_prices),
                draw(_prices),
                draw(_maybe),
                draw(_maybe),
                draw(_maybe),
                draw(st.none() | st.just(0.5)),
                tuple(
                    Tier(above, draw(_prices), draw(_prices))
                    for above in sorted(draw(st.sets(st.integers(1, 9), max_size=2)))
                ),
            )
            known = draw(st.booleans())
            models.append(
                Model(
                    name,
                    provider.id,
                    draw(st.sampled_from(["", "other"])),
                    draw(st.integers(0, 10)),
                    draw(st.integers(0, 10**9)),
                    prices=prices if known else Prices(),
                    pricing_source=draw(st.sampled_from(["manual", "list"])) if known else UNKNOWN_PRICE,
                    enabled=draw(st.booleans()),
                    lacks=draw(st.frozensets(st.sampled_from(list(Need)), max_size=2)),
                )
            )
    aliases: tuple[Alias, ...] = ()
    if models:
        target = Target(models[0].id, draw(st.integers(1, 9)))
        aliases = (Alias("an alias", (target,), output_format=draw(st.none() | st.sampled_from(list(Form)))),)
    budgets = tuple(
        Budget(f"bud_{n}", owner, period, unit, draw(st.integers(0, 10**6)) * 1000, "UTC")
        for n, (owner, period, unit) in enumerate(sorted(draw(_owners)))
    )
    hooks = tuple(
        Webhook(name, "https://x.example", draw(_kinds), draw(st.booleans()), 1.0, 2.0)
        for name in sorted(draw(_names_of_hooks))
    )
    modes = tuple(Rule(Match(host), draw(_modes)) for host in sorted(draw(st.sets(_names, max_size=2))))
    routing = RoutingConfig(
        draw(st.none() | st.sampled_from(list(Mode))), draw(st.none() | st.floats(0, 100))
    )
    return State(Stock(tuple(providers), tuple(models), aliases, modes), routing, budgets, hooks)


def _nothing(*_: Any) -> None:
    return None


RULES = blueprint.Rules(
    provider=lambda one: one,
    credential=_nothing,
    name=_nothing,
    prefilled=lambda one, *_: one,
    fleet=lambda stock: fleet.build(stock.providers, stock.models, version=0, aliases=stock.aliases),
    mode=lambda one: one,
    budget=lambda one, known: one,
    webhook=lambda one: one,
    moved=_nothing,
)


@given(_states(), _states())
def test_what_is_exported_is_what_comes_back(state: State, other: State) -> None:
    """Into an empty house, into a full one with `prune`, and into its own, where it changes nothing."""
    text = orjson.dumps(blueprint.document(state))
    document = msgspec.json.decode(text, type=Blueprint)
    for before, prune in ((EMPTY, False), (EMPTY, True), (other, True), (state, False), (state, True)):
        after = blueprint.intended(document, before, RULES, prune=prune)
        assert blueprint.items(after) == blueprint.items(state)
        assert (
            orjson.loads(orjson.dumps(blueprint.document(after)))["providers"]
            == orjson.loads(text)["providers"]
        )
    own = blueprint.items(state)
    assert (
        blueprint.changes(own, blueprint.items(blueprint.intended(document, state, RULES, prune=True))) == []
    )


@given(_states(), _states(), st.booleans())
def test_a_plan_says_all_that_changes_and_nothing_else(state: State, other: State, prune: bool) -> None:
    """What it does not name is as it was; without `prune` nothing is removed."""
    document = msgspec.convert(blueprint.document(other), Blueprint)
    was = blueprint.items(state)
    becomes = blueprint.items(blueprint.intended(document, state, RULES, prune=prune))
    told = {(one.part, one.name): one for one in blueprint.changes(was, becomes)}
    for part in was:
        for name in {*was[part], *becomes[part]}:
            same = was[part].get(name) == becomes[part].get(name)
            assert same == ((part, name) not in told)
    assert prune or all(one.action != "remove" for one in told.values())
    assert (blueprint.fingerprint(was, becomes) == blueprint.fingerprint(was, was)) == (was == becomes)


def provider(name: str, url: str = "https://x.example", **more: Any) -> Json:
    """Return a document of one provider."""
    return {"version": 1, "providers": [{"id": name, "type": "openai", "endpoints": [url], **more}]}


# --- over the admin API -----------------------------------------------------------------------------------------


async def test_a_house_is_made_of_another_ones_document(
    it: House, fake: FakeProvider, tmp_path: Path
) -> None:
    """The same export comes out of it, and no secret was in it."""
    await furnished(it, fake)
    told = await it.done("GET", "/config")
    assert b"sk-p" not in orjson.dumps(told)
    assert named(await planned(it, told, prune=True)) == []
    async with house(tmp_path / "other") as other:
        plan = await applied(other, told)
        assert {one["action"] for one in plan["changes"]} == {"add", "change"}
        assert await other.done("GET", "/config") == told
        (budget,) = (await other.done("GET", "/budgets"))["items"]
        assert (budget["owner"], budget["limit"], budget["spent"]) == ("project:apollo", 7_000_000, 0)
        assert {one["id"] for one in (await other.done("GET", "/models"))["items"]} == {"gpt-4o", "odd"}


async def test_a_plan_shows_fields_and_changes_nothing(it: House, fake: FakeProvider) -> None:
    """Before and after of each field that differs; what is not named stays, until it is pruned."""
    await furnished(it, fake)
    told = await it.done("GET", "/config")
    (odd,) = [one for one in told["models"] if one["id"] == "odd"]
    document = {"version": 1, "models": [{**odd, "weight": 9}], "aliases": []}
    plan = await planned(it, document)
    assert named(plan) == [("change", "models", "odd @ p")]
    assert plan["changes"][0]["fields"] == [{"field": "weight", "before": 2, "after": 9}]
    pruned = await planned(it, document, prune=True)
    assert named(pruned) == [
        ("remove", "models", "gpt-4o @ p"),
        ("change", "models", "odd @ p"),
        ("remove", "aliases", "fast"),
    ]
    assert await it.done("GET", "/config") == told


async def test_a_provider_that_is_pruned_takes_all_of_its_own_along(it: House, fake: FakeProvider) -> None:
    """Its models, said in the plan; its credential too: whoever makes the id again does not find it."""
    await furnished(it, fake)
    plan = await applied(it, {"version": 1, "providers": [], "aliases": []}, prune=True)
    assert ("remove", "models", "odd @ p") in named(plan)
    assert (await it.done("GET", "/models"))["items"] == []
    again = {"id": "p", "type": "openai", "endpoints": [fake.url], "cred_store": "memory"}
    await applied(it, {"version": 1, "providers": [again]})
    (shown,) = (await it.done("GET", "/providers"))["items"]
    assert shown["credential"] is False


async def test_a_webhook_of_a_document_is_told_once_it_has_a_secret(tmp_path: Path) -> None:
    """None is in the document or comes of it: what a webhook of that name had before is not this one's."""
    name = vault_name("ops")
    async with house(tmp_path, settings={"VAULT_PASSWORD": "correct horse battery"}) as it:
        await it.app.vault.put(name, Secret("whsec_left"))
        plan = await applied(it, {"version": 1, "webhooks": [HOOK]})
        assert named(plan) == [("add", "webhooks", "ops")]
        assert name not in it.app.vault.names()
        assert (await it.done("POST", "/webhooks/ops/secret"))["secret"]
        assert name in it.app.vault.names()
        plan = await applied(it, {"version": 1, "webhooks": [HOOK | {"enabled": False}]})
        assert [one["field"] for one in plan["changes"][0]["fields"]] == ["enabled"]
        assert name in it.app.vault.names()
        (shown,) = (await it.done("GET", "/webhooks"))["items"]
        assert 0 < shown["created_at"] < shown["updated_at"]
        assert b"whsec" not in orjson.dumps(await it.done("GET", "/config"))


async def test_a_webhook_that_is_pruned_takes_its_secret_and_what_waits_along(tmp_path: Path) -> None:
    """Without `prune` it stays, and where the part is left out it stays with it, too."""
    async with house(tmp_path, settings={"VAULT_PASSWORD": "correct horse battery"}) as it:
        made = await it.done("POST", "/webhooks", {"url": HOOK["url"], "kinds": ["config_change"]})
        for document, prune in (({"version": 1, "webhooks": []}, False), ({"version": 1}, True)):
            assert named(await applied(it, document, prune=prune)) == []
        assert vault_name(made["id"]) in it.app.vault.names()
        plan = await applied(it, {"version": 1, "webhooks": []}, prune=True)
        assert named(plan) == [("remove", "webhooks", made["id"])]
        assert vault_name(made["id"]) not in it.app.vault.names()
        found = (await it.done("GET", "/audit"))["entries"]
        assert "webhook.delete" in {one["action"] for one in found}


async def test_what_was_looked_at_is_what_is_applied(it: House, fake: FakeProvider) -> None:
    """409 where the catalogue or the document is another one since; nothing is stored then."""
    await furnished(it, fake)
    document = {"version": 1, "routing": {"default_mode": "normal"}}
    plan = await planned(it, document)
    await it.done("PATCH", "/models/odd", {"weight": 3})
    before = await it.done("GET", "/config")
    for config, prune in ((document, False), ({**document, "modes": []}, False), (document, True)):
        body = {"config": config, "prune": prune, "fingerprint": plan["fingerprint"]}
        told = await it.admin("POST", "/config/apply", body)
        assert (told.status, told.fault["code"]) == (409, "plan_outdated")
    assert await it.done("GET", "/config") == before


async def test_somebody_who_is_quicker_than_the_transaction_is_seen(
    it: House, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is made again where nobody else can write."""
    await furnished(it, fake)
    document = {"version": 1, "routing": {"default_mode": "normal"}}
    plan = await planned(it, document)
    real = it.app.catalog.change

    async def change(work: Any) -> Any:
        await it.app.catalog.delete_alias("fast")
        return await real(work)

    monkeypatch.setattr(it.app.catalog, "change", change)
    told = await it.admin("POST", "/config/apply", {"config": document, "fingerprint": plan["fingerprint"]})
    assert told.status == 409
    assert (await it.done("GET", "/routing-config"))["default_mode"] == "cheap"


async def test_all_of_it_is_stored_or_nothing(
    it: House, fake: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the last of the changes fails the first ones are undone, in the audit log too."""
    await furnished(it, fake)
    before = await it.done("GET", "/config")
    entries = (await it.done("GET", "/audit"))["entries"]
    document = {"version": 1, "models": [{"id": "new", "provider_id": "p"}], "routing": {}}

    def failing(*_: Any, **__: Any) -> None:
        raise RuntimeError("a disk")

    plan = await planned(it, document)
    monkeypatch.setattr(rows, "put_routing_config", failing)
    body = {"config": document, "fingerprint": plan["fingerprint"]}
    assert (await it.admin("POST", "/config/apply", body)).status == 500
    monkeypatch.undo()
    assert await it.done("GET", "/config") == before
    after = (await it.done("GET", "/audit"))["entries"]
    assert {one["action"] for one in after[: len(after) - len(entries)]} <= {"admin.request"}
    assert (await it.done("POST", "/config/apply", body)) == plan
    found = (await it.done("GET", "/audit"))["entries"]
    assert {"model.create", "routing.change"} <= {one["action"] for one in found[:3]}


@pytest.mark.parametrize(
    ("document", "wrong"),
    [
        ({"version": 2}, "version"),
        ({}, "version"),
        ({"version": 1, "secrets": []}, "secrets"),
        (
            {"version": 1, "models": [{"id": "m", "provider_id": "none"}]},
            "models: m @ none: there is no provider",
        ),
        ({"version": 1, "models": [{"id": "m", "provider_id": "p", "weight": 11}]}, "weight"),
        ({"version": 1, "models": [{"id": " ", "provider_id": "p"}]}, "visible characters"),
        (
            {"version": 1, "aliases": [{"name": "a", "variants": [{"model_id": "none"}]}]},
            "aliases: a: there is no",
        ),
        ({"version": 1, "modes": [{"host": "nowhere.example", "mode": "off"}]}, "modes: nowhere.example"),
        ({"version": 1, "modes": [{"mode": "shadow", "alias": "none"}]}, "there is no alias"),
        ({"version": 1, "budgets": [{"owner": "x", "limit": 1}]}, "budgets: x"),
        ({"version": 1, "budgets": [{"owner": "all", "limit": 1, "zone": "Mars"}]}, "time zone"),
        ({"version": 1, "budgets": [{"owner": "all", "limit": 1}] * 2}, "twice"),
        ({"version": 1, "webhooks": [HOOK | {"id": "a/b"}]}, "webhooks[0].id"),
        ({"version": 1, "webhooks": [HOOK | {"url": "http://ops.example"}]}, "webhooks: ops: url"),
        ({"version": 1, "webhooks": [HOOK | {"kinds": ["route_sucess"]}]}, "there is no kind 'route_sucess'"),
        ({"version": 1, "webhooks": [HOOK | {"secret": "whsec_x"}]}, "secret"),
        ({"version": 1, "webhooks": [HOOK | {"id": f"h{n}"} for n in range(MOST_HOOKS + 1)]}, "50 at most"),
        (provider("p", "https://else.example", cred_store="memory"), "bound to"),
        (provider("q", "ftp://x"), "providers: q"),
        (provider("q", cred_store="env:TOKENHUB_ADMIN_TOKEN"), "no provider's credential"),
    ],
)
async def test_a_document_is_held_to_what_single_changes_are(
    it: House, fake: FakeProvider, document: Json, wrong: str
) -> None:
    """400 that names the item; nothing is planned by halves."""
    await it.provider(fake, "p", "gpt-4o")
    told = await it.admin("POST", "/config/plan", {"config": document})
    assert told.status == 400
    assert wrong in told.fault["message"]


def test_a_further_credential_goes_only_with_prune() -> None:
    """A file that does not know it does not cost it."""
    old = Provider("p", ProviderType.OPENAI, ("https://x.example",), credentials=(Credential("b", "vault"),))
    state = State(Stock((old,), ()), RoutingConfig(), ())
    wanted = Blueprint(1, providers=[blueprint.ProviderItem("p", ProviderType.OPENAI, ["https://x.example"])])
    kept = blueprint.intended(wanted, state, RULES, prune=False).stock.providers
    assert kept[0].credentials == old.credentials
    assert blueprint.intended(wanted, state, RULES, prune=True).stock.providers[0].credentials == ()


def test_a_wrong_item_is_named() -> None:
    """Whatever is wrong with it."""
    wanted = Blueprint(1, budgets=[BudgetBody("all", 1), BudgetBody("all", 2)])
    with pytest.raises(TokenHubError, match="budgets: all month usd is there twice"):
        blueprint.intended(wanted, EMPTY, RULES, prune=False)
