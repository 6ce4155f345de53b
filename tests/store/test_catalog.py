"""What is configured: stored whole, merged strictly, removed with what depends on it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from tokenhub_core.errors import Kind, TokenHubError
from tokenhub_core.store import catalog
from tokenhub_core.store.catalog import RoutingConfig, Stock
from tokenhub_core.store.database import Database
from tokenhub_core.store.schema import MODELS
from tokenhub_core.store.writer import Work, Writer
from tokenhub_core.types import Dialect, Mode, Model, Need, Prices, Provider, ProviderType, Tier

_OPENAI = Provider("openai", ProviderType.OPENAI, ("https://api.openai.com",), cred_store="vault")
_LOCAL = Provider(
    "local", ProviderType.VLLM, ("http://10.0.0.1:8000", "http://10.0.0.2:8000"), Dialect.OPENAI_CHAT, False
)
_GPT = Model(
    "gpt",
    "openai",
    "gpt-2026-01-01",
    7,
    128_000,
    16_000,
    Prices(150.0, 600.0, 75.5, None, 700.0, 0.5, (Tier(200_000, 300.0, 900.0, None, 1.5),)),
    "catalogue",
    True,
    frozenset({Need.AUDIO, Need.VISION}),
    frozenset({"tool_names", "merge_turns"}),
)


def _stock(database: Database) -> Stock:
    with database.reading() as connection:
        return catalog.load(connection)


@pytest.fixture
def filled(database: Database) -> Database:
    with database.writing() as connection:
        catalog.put_provider(connection, _OPENAI, now=1.0)
        catalog.put_provider(connection, _LOCAL, now=1.0)
        catalog.put_model(connection, _GPT, now=1.0)
        catalog.put_model(connection, Model("gpt", "local"), now=1.0)
    return database


def test_everything_is_loaded_as_it_was_stored(filled: Database) -> None:
    """One model id may stand at several providers; the order is by id."""
    assert _stock(filled) == Stock((_LOCAL, _OPENAI), (Model("gpt", "local"), _GPT))


def test_storing_again_replaces_and_keeps_what_hangs_on_it(filled: Database) -> None:
    """A provider that is stored again keeps its models and its first date."""
    with filled.writing() as connection:
        catalog.put_provider(connection, Provider("openai", ProviderType.OPENAI, ("https://x",)), now=2.5)
        row = connection.exec_driver_sql(
            "SELECT created_at, updated_at FROM providers WHERE id = 'openai'"
        ).one()
    assert tuple(row) == (1_000_000, 2_500_000)
    stock = _stock(filled)
    assert stock.providers[1].endpoints == ("https://x",)
    assert _GPT in stock.models


def test_a_provider_takes_its_models_along(filled: Database) -> None:
    """And nobody else's; removing what is not there is told."""
    with filled.writing() as connection:
        assert catalog.delete_provider(connection, "openai")
        assert not catalog.delete_provider(connection, "openai")
    assert _stock(filled) == Stock((_LOCAL,), (Model("gpt", "local"),))


def test_a_model_is_removed_at_one_provider(filled: Database) -> None:
    """The same id elsewhere stays."""
    with filled.writing() as connection:
        assert catalog.delete_model(connection, "gpt", "local")
        assert not catalog.delete_model(connection, "gpt", "local")
    assert _stock(filled).models == (_GPT,)


def test_a_model_needs_its_provider(filled: Database) -> None:
    """Told as a 404 that names the field; behind it the database itself would refuse."""
    with pytest.raises(TokenHubError) as caught, filled.writing() as connection:
        catalog.put_model(connection, Model("gpt", "nobody"), now=1.0)
    assert (caught.value.fault.kind, caught.value.fault.param) == (Kind.NOT_FOUND, "provider_id")
    row = {"id": "m", "provider_id": "nobody", "upstream": "", "weight": 5, "max_context_tokens": 0}
    row |= {"max_output_tokens": 0, "input_nanousd": 0.0, "output_nanousd": 0.0, "pricing_source": "manual"}
    row |= {"enabled": True, "lacks": "[]", "created_at": 0, "updated_at": 0}
    with pytest.raises(IntegrityError), filled.writing() as connection:
        connection.execute(insert(MODELS).values(row))


# --- prices ------------------------------------------------------------------------------------------------


def test_new_prices_change_nothing_else(filled: Database) -> None:
    """Not the weight, not the sizes: only what the model costs, and who says so."""
    with filled.writing() as connection:
        assert catalog.reprice(connection, _GPT, Prices(1.0, 2.0), source="list", now=9.0)
    assert _stock(filled).models[1] == replace(_GPT, prices=Prices(1.0, 2.0), pricing_source="list")


@pytest.mark.parametrize("change", [{"pricing_source": "manual"}, {"prices": {"cache_read": None}}])
def test_prices_that_were_changed_meanwhile_stay(filled: Database, change: dict[str, Any]) -> None:
    """By hand or by anyone: what was compared is not there any more."""
    with filled.writing() as connection:
        there = catalog.patch_model(connection, "gpt", "openai", change, now=2.0)
        assert not catalog.reprice(connection, _GPT, Prices(1.0, 2.0), source="list", now=9.0)
    assert _stock(filled).models[1] == there


@pytest.mark.parametrize(
    "prices",
    [
        {"reasoning": -1},
        {"batch": 0},
        {"batch": 1.5},
        {"tiers": [{"above": 0, "input": 1, "output": 1}]},
        {"tiers": [{"above": 9, "input": 1, "output": -1}]},
        {"tiers": [{"above": 9, "input": 1, "output": 1}, {"above": 9, "input": 2, "output": 2}]},
    ],
)
def test_prices_that_cannot_be_are_refused(filled: Database, prices: dict[str, Any]) -> None:
    """Named, and nothing is stored."""
    with pytest.raises(TokenHubError) as refused, filled.writing() as connection:
        catalog.patch_model(connection, "gpt", "openai", {"prices": prices}, now=2.0)
    assert refused.value.fault.param == "prices"
    assert _stock(filled).models[1] == _GPT


# --- patches -----------------------------------------------------------------------------------------------


def test_a_patch_changes_what_it_names(filled: Database) -> None:
    """Everything else stays, nested prices included; null brings back a default."""
    with filled.writing() as connection:
        patched = catalog.patch_model(
            connection, "gpt", "openai", {"weight": 3, "prices": {"output": 700}, "upstream": None}, now=2.0
        )
        provider = catalog.patch_provider(connection, "local", {"enabled": True}, now=2.0)
    assert patched.prices == replace(_GPT.prices, output=700.0)
    assert (patched.weight, patched.upstream, patched.lacks) == (3, "", _GPT.lacks)
    assert provider.endpoints == _LOCAL.endpoints
    stock = _stock(filled)
    assert patched in stock.models
    assert provider in stock.providers


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"weight": "7"}, "weight"),
        ({"weight": 11}, "weight"),
        ({"weight": True}, "weight"),
        ({"weight": 7, "colour": "red"}, "colour"),
        ({"prices": {"input": "cheap"}}, "prices"),
        ({"prices": {"inptu": 1}}, "prices"),
        ({"prices": {"input": -1}}, "prices"),
        ({"max_context_tokens": -1}, "max_context_tokens"),
        ({"lacks": ["smell"]}, "lacks"),
        ({"quirks": ["haste"]}, "quirks"),
        ({"id": "other"}, "id"),
        ({"provider_id": "local"}, "provider_id"),
    ],
)
def test_a_patch_that_makes_no_sense_changes_nothing(
    filled: Database, changes: dict[str, Any], param: str
) -> None:
    """A wrong type, an unknown field, a value out of range, a change of id: refused, and the field is named."""
    with pytest.raises(TokenHubError) as caught, filled.writing() as connection:
        catalog.patch_model(connection, "gpt", "openai", changes, now=2.0)
    assert (caught.value.fault.http_status, caught.value.fault.param) == (400, param)
    assert _GPT in _stock(filled).models


@pytest.mark.parametrize("changes", [{"type": "carrier-pigeon"}, {"endpoints": "https://x"}, {"type": None}])
def test_a_providers_patch_is_as_strict(filled: Database, changes: dict[str, Any]) -> None:
    """Closed sets stay closed, and what has no default cannot be cleared."""
    with pytest.raises(TokenHubError) as caught, filled.writing() as connection:
        catalog.patch_provider(connection, "openai", changes, now=2.0)
    assert caught.value.fault.kind is Kind.INVALID
    assert _OPENAI in _stock(filled).providers


async def test_a_patch_of_nothing_is_told(filled: Database) -> None:
    """An unknown id is 404 and makes no row; it comes through the writer as it was raised."""
    writer = Writer(filled)
    writer.start()
    works: list[Work[Any]] = [
        partial(catalog.patch_provider, provider_id="nobody", changes={"enabled": False}, now=2.0),
        partial(catalog.patch_model, model_id="gpt", provider_id="nobody", changes={"weight": 1}, now=2.0),
    ]
    for work in works:
        with pytest.raises(TokenHubError) as caught:
            await writer.commit(work)
        assert caught.value.fault.http_status == 404
    await writer.close()
    assert len(_stock(filled).providers) == 2


# --- routing config, settings ------------------------------------------------------------------------------


def test_a_routing_config_keeps_what_was_not_set(database: Database) -> None:
    """None is not zero and not false: it leaves the built-in default in force."""
    with database.writing() as connection:
        assert catalog.routing_config(connection) == RoutingConfig()
        config = RoutingConfig(Mode.CHEAP, 0.0, None, "ignore", False)
        catalog.put_routing_config(connection, config, now=5.25)
        assert catalog.routing_config(connection) == RoutingConfig(
            Mode.CHEAP, 0.0, None, "ignore", False, 5.25
        )
        catalog.put_routing_config(connection, RoutingConfig(), now=6.0)
        assert catalog.routing_config(connection) == RoutingConfig(updated_at=6.0)


def test_settings_are_pairs(database: Database) -> None:
    """Stored, replaced, removed."""
    with database.writing() as connection:
        assert catalog.setting(connection, "a") is None
        catalog.put_setting(connection, "a", "1")
        catalog.put_setting(connection, "a", "2")
        catalog.put_setting(connection, "b", "")
        assert catalog.setting(connection, "a") == "2"
        assert catalog.settings(connection) == {"a": "2", "b": ""}
        assert catalog.delete_setting(connection, "a")
        assert not catalog.delete_setting(connection, "a")
        assert catalog.settings(connection) == {"b": ""}
